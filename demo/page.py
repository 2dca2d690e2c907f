"""What does a browser without JavaScript see? Forms and texts of a page, read from its HTML."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_BLOCKS = frozenset({"p", "div", "li", "ul", "ol", "br", "h1", "h2", "h3", "h4", "pre", "blockquote"})

_NOT_SENT = frozenset({"submit", "button", "image", "reset", "file"})


@dataclass
class Form:
    """A form: where it goes, and the fields it would send as it stands."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """A parsed page.

    `forms` are its forms in order; `texts` maps each value of the attribute `marker` to the text of its element.
    """

    def __init__(self, html: str, marker: str = "data-response") -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.texts: dict[str, str] = {}
        self._marker = marker
        self._open: list[tuple[str, str | None]] = []  # tag, and the marked text that it began
        self._form: Form | None = None
        self._select: str | None = None
        self._textarea: str | None = None
        self.feed(html)
        self.close()

    def find_form(self, ending: str) -> Form | None:
        """The form whose action ends so, if there is one."""
        return next((form for form in self.forms if form.action.endswith(ending)), None)

    def form_to(self, ending: str) -> Form:
        """The form whose action ends so.

        Raises:
            LookupError: the page has no such form.
        """
        found = self.find_form(ending)
        if found is None:
            actions = [form.action for form in self.forms]
            raise LookupError(f"the page has no form to …{ending}; its forms go to {actions}")
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._form)
        if self._form is not None:
            self._take_field(tag, given)
        marked = given.get(self._marker)
        if marked is not None:
            self.texts.setdefault(marked, "")
        if tag in _BLOCKS:
            self._write("\n")
        if tag not in _VOID:
            self._open.append((tag, marked))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if tag == "select":
            self._select = None
        if tag == "textarea":
            self._textarea = None
        if tag in _BLOCKS:
            self._write("\n")
        while self._open and any(name == tag for name, _ in self._open):
            if self._open.pop()[0] == tag:
                return

    def handle_data(self, data: str) -> None:
        self._write(data)
        if self._textarea is not None and self._form is not None:
            self._form.fields[self._textarea] += data

    def _write(self, text: str) -> None:
        for _, marked in self._open:
            if marked is not None:
                self.texts[marked] += text

    def _take_field(self, tag: str, given: dict[str, str]) -> None:
        assert self._form is not None
        name = given.get("name", "")
        if tag == "select":
            self._select = name
        elif tag == "option" and self._select and ("selected" in given or self._select not in self._form.fields):
            self._form.fields[self._select] = given.get("value", "")
        elif tag == "textarea" and name:
            self._textarea = name
            self._form.fields[name] = ""
        elif tag == "input" and name and "disabled" not in given:
            kind = given.get("type", "text").lower()
            is_sent = "checked" in given if kind in {"checkbox", "radio"} else kind not in _NOT_SENT
            if is_sent:
                self._form.fields[name] = given.get("value", "")

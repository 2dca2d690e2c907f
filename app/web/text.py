"""How does text that people and models wrote become HTML? As markdown, and never as anything that acts or loads."""

from collections.abc import Sequence
from functools import cache, lru_cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from app.web.highlighting import CLASSES, Highlighter
from app.web.mathematics import find_math

_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li"),
    *("strong", "em", "s", "code", "pre", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span"),
}
_ATTRIBUTES = {
    "*": {"dir"},
    "a": {"href", "title", "target"},
    "ol": {"start"},
    "div": {"tabindex"},
    "pre": {"tabindex"},
}
_ATTRIBUTE_VALUES = {
    "th": {"data-align": {"left", "center", "right"}},
    "td": {"data-align": {"left", "center", "right"}},
    "div": {"data-tex-mode": {"display"}},
    "span": {"data-tex-mode": {"inline", "display"}},
}
_CLASSES = {"div": {"table-scroll", "code", "math"}, "span": {"image-text", "code-language", "math", *CLASSES}}
# Each block finds its own direction, so that Arabic and English paragraphs may follow each other.
_BLOCKS = {"paragraph_open", "heading_open", "list_item_open", "th_open", "td_open", "blockquote_open"}
_LONGEST_LABEL = 30  # characters of a language's name
_LONGEST_MARKDOWN = 200_000  # characters; what is longer is no answer to be formatted, and would hold the server up
_KEPT = 500  # texts whose HTML is kept
_LONGEST_KEPT = 20_000  # characters of such a text; so all that is kept is some 50 MB at the very most


@cache
def _parser() -> MarkdownIt:
    """CommonMark with tables, strikethrough and math. Raw HTML is off: it is shown as the text that it is.

    A line break stays one, since models write verse and options line by line, and annotators judge what was written.
    """
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    find_math(parser)
    rules = {
        "image": _image,
        "link_open": _link,
        "table_open": lambda *_: '<div class="table-scroll" tabindex="0"><table>\n',
        "table_close": lambda *_: "</table></div>\n",
        "th_open": _cell,
        "td_open": _cell,
        "fence": _code,
        "code_block": _code,
        "math_inline": _math,
        "math_display": _math,
        "math_block": _math,
    }
    for kind, rule in rules.items():
        parser.add_render_rule(kind, rule)
    return parser


def render_markdown(text: str) -> Markup:
    """Safe HTML of a markdown text: no raw HTML, no images, no scripts, no styles; links open elsewhere.

    Its headings follow the page's own: the first is an h2, and none is more than one level below the one before.
    Math stands in it as TeX, in elements of class `math` that static/content.js typesets; code is highlighted by
    classes alone. A response is shown to several annotators, so the HTML of the latest texts is kept. A text of more
    than 200,000 characters is shown as it is, without formatting.
    """
    if len(text) > _LONGEST_MARKDOWN:
        return Markup('<div class="code"><pre tabindex="0" dir="auto">{}</pre></div>').format(text)
    return _kept(text) if len(text) <= _LONGEST_KEPT else _render(text)


def _render(text: str) -> Markup:
    parser = _parser()
    environment: dict[str, Any] = {"highlighter": Highlighter()}
    tokens = parser.parse(text, environment)
    for token in tokens:
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")
    _order_headings(tokens)
    html = parser.renderer.render(tokens, parser.options, environment)
    clean = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        tag_attribute_values=_ATTRIBUTE_VALUES,
        allowed_classes=_CLASSES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(clean)  # noqa: S704 - cleaned by nh3 just now


def _order_headings(tokens: list[Token]) -> None:
    """Put the headings below the page's own, h2 and on, without a gap, whichever level the text begins with."""
    above: list[str] = []
    for token in tokens:
        if token.type == "heading_open":
            above = [tag for tag in above if tag < token.tag] + [token.tag]
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(len(above) + 1, 6)}"


_kept = lru_cache(_KEPT)(_render)


def _image(_: RendererHTML, tokens: Sequence[Token], index: int, __: OptionsDict, ___: EnvType) -> str:
    """An image loads nothing: its description and its address are shown instead."""
    token = tokens[index]
    shown = " ".join(part for part in (token.content, f"({token.attrGet('src') or ''})") if part)
    return f'<span class="image-text">{escape(shown)}</span>'


def _link(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _: EnvType) -> str:
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, {})


def _code(_: RendererHTML, tokens: Sequence[Token], index: int, __: OptionsDict, environment: EnvType) -> str:
    token = tokens[index]
    language = token.info.strip().partition(" ")[0][:_LONGEST_LABEL]
    label = f'<span class="code-language">{escape(language)}</span>' if language else ""
    code = environment["highlighter"].html(token.content, language)
    # Scrolls inside, so it must be reachable by keyboard.
    return f'<div class="code" dir="ltr">{label}<pre tabindex="0"><code>{code}</code></pre></div>\n'


def _math(_: RendererHTML, tokens: Sequence[Token], index: int, __: OptionsDict, ___: EnvType) -> str:
    """The TeX itself, to be read where nothing typesets it. It is read from left to right in any language."""
    token = tokens[index]
    mode = "inline" if token.type == "math_inline" else "display"
    tag, end = ("div", "\n") if token.block else ("span", "")
    return f'<{tag} class="math" data-tex-mode="{mode}" dir="ltr">{escape(token.content)}</{tag}>{end}'


def _cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _: EnvType) -> str:
    """A column's alignment comes as a style, which the content security policy forbids."""
    token = tokens[index]
    style = token.attrGet("style")
    if isinstance(style, str):
        token.attrs.pop("style")
        token.attrSet("data-align", style.removeprefix("text-align:"))
    return renderer.renderToken(tokens, index, options, {})


def plain_text(content: object) -> str:
    """A message's content as text: the text parts as they are, others by their kind, such as [image]."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n\n".join(
        str(part["text"]) if isinstance(part, dict) and "text" in part else f"[{_kind(part)}]" for part in parts
    )


def _kind(part: object) -> str:
    return str(part.get("type", "part")) if isinstance(part, dict) else "part"

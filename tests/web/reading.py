"""What does a reader meet on a page? Its texts, and which of their words are English."""

import re
from html.parser import HTMLParser

# The same in every language: names, and keys as they are printed on them.
NAMES = {
    *(
        "prefloop",
        "sha256",
        "API",
        "JSON",
        "JSONL",
        "TRL",
        "PPO",
        "SFT",
        "LoRA",
        "GRPO",
        "KL",
        "GAE",
        "NLL",
        "ECE",
        "Adam",
        "Llama",
    ),
    "HelpSteer",
    *("Shift", "Alt", "Ctrl", "Enter", "Esc", "Tab"),
}
READ_ALOUD = {"title", "aria-label", "placeholder", "alt", "data-confirm", "data-copy", "data-words"}
SILENT = {"script", "style", "code", "pre", "kbd", "template"}


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if name in READ_ALOUD and value]
        if tag in SILENT:
            self._silent.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.found.append(data)


def texts_of(html: str) -> list[str]:
    """The text between tags, and the attributes that are shown or read aloud. Code is left out."""
    reader = _Reader()
    reader.feed(html)
    return reader.found


def words_of(text: str) -> list[str]:
    """The words to translate. Attributes that a macro writes, and JSON that shows what a file may hold, are none."""
    said = re.sub(r'[a-z-]+="[^"]*"|^\s*\{".*', "", text)
    return [word for word in re.findall(r"[^\W\d_]\w+", said) if word not in NAMES]


def english_of(html: str) -> list[str]:
    """Runs of three English words and more."""
    runs = [run for text in texts_of(html) for run in re.findall(r"[A-Za-z']+(?:[ ,]+[A-Za-z']+){2,}", text)]
    return [run for run in runs if words_of(run)]

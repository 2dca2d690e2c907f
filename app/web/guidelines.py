"""How do guidelines become HTML? As markdown, in which a fenced block `example` is a card that shows good and bad."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from textwrap import dedent
from typing import Literal

from markupsafe import Markup

from app.language import gettext as _
from app.web.text import render_markdown

Key = Literal["prompt", "better", "worse", "why"]
_FENCE = re.compile(r" {0,3}(?:(`{3,})([^`]*)|(~{3,})(.*))")
_KEY = re.compile(r"([a-z][a-z_ ]{0,30}):(?:\s+(.*)|)")
_KEYS = ("prompt", "better", "worse", "why")


@dataclass(frozen=True)
class Part:
    """A stretch of the guidelines: markdown, or the inside of an example."""

    text: str
    is_example: bool


@dataclass(frozen=True)
class Fence:
    """A line that begins or ends a block: its marks, and the word behind them."""

    mark: str
    info: str


def render_guidelines(text: str) -> Markup:
    """Safe HTML of guidelines. Examples stand in them as

        ```example
        prompt: What is the capital of Australia?
        better: Canberra.
        worse: Sydney, the largest city.
        why: What is asked for decides, not what is famous.
        ```

    A value may go on over several lines; `better` and `worse` may stand several times. A block with another key, or
    without anything better or worse, is shown as the code that it is, so that a slip is seen.
    """
    return Markup("\n").join(_rendered(part) for part in split(text))


def _rendered(part: Part) -> Markup:
    entries = read_example(part.text) if part.is_example else None
    if entries:
        return _card(entries)
    return render_markdown(_as_code(part.text) if part.is_example else part.text)


def split(text: str) -> Iterator[Part]:
    """The parts of a text in their order. A fence inside another one opens nothing; one left open goes to the end."""
    lines: list[str] = []
    opened: Fence | None = None
    for line in text.split("\n"):
        before, fence = opened, _fence(line)
        if opened is None:
            opened = fence
        elif fence is not None and fence.mark.startswith(opened.mark) and not fence.info:
            opened = None
        if _is_example(before) == _is_example(opened):
            lines.append(line)
        else:
            yield from _part(lines, is_example=_is_example(before))
            lines = []
    yield from _part(lines, is_example=_is_example(opened))


def _fence(line: str) -> Fence | None:
    found = _FENCE.fullmatch(line)
    return Fence(found[1] or found[3], (found[2] or found[4] or "").strip()) if found else None


def _is_example(fence: Fence | None) -> bool:
    return fence is not None and fence.info == "example"


def _part(lines: list[str], *, is_example: bool) -> Iterator[Part]:
    if any(line.strip() for line in lines):
        yield Part("\n".join(lines), is_example=is_example)


def read_example(text: str) -> list[tuple[Key, str]] | None:
    """The entries of an example in their order; None for a block that is none."""
    entries: list[tuple[Key, list[str]]] = []
    for line in text.splitlines():
        found = _KEY.fullmatch(line)
        if found is None and entries:
            entries[-1][1].append(line)
        elif found is not None and found[1] in _KEYS:
            entries.append((found[1], [found[2] or ""]))  # type: ignore[arg-type]  # one of _KEYS
        elif line.strip():
            return None
    compares = any(key in {"better", "worse"} for key, _lines in entries)
    return [(key, _value(lines)) for key, lines in entries] if compares else None


def _value(lines: list[str]) -> str:
    """What stands behind a key and below it; the lines below may be set in."""
    first, *rest = lines
    return "\n".join([first, dedent("\n".join(rest))]).strip()


def _as_code(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _card(entries: list[tuple[Key, str]]) -> Markup:
    titles = {"prompt": _("Prompt"), "better": _("Better"), "worse": _("Worse"), "why": _("Why")}
    rows = Markup()
    for compares, group in groupby(entries, key=lambda entry: entry[0] in {"better", "worse"}):
        inside = Markup().join(
            Markup('<div class="example-part example-{}"><p class="example-title">{}</p>{}</div>').format(
                key, titles[key], render_markdown(value)
            )
            for key, value in group
        )
        rows += Markup('<div class="example-answers">{}</div>').format(inside) if compares else inside
    return Markup('<section class="example" aria-label="{}">{}</section>').format(_("Example"), rows)

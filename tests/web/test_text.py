"""Is what people and models wrote shown whole, and never as anything that acts or loads?"""

import gc
import json
import re
import time
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.web.text import _render, plain_text, render_markdown

CONTENT = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "loadtest_content" / "content.jsonl"


WORD = re.compile(r"[A-Za-z0-9]{2,}|[^\W\da-zA-Z_]")  # Chinese has no spaces: there each character is one
# What of a text is not meant to be seen: addresses of links, numbers of a list (the browser counts), what follows
# the language of a fence.
UNSEEN = re.compile(r"(?<=\])\([^)\s]*\)|^[ >*-]*\d+[.)](?=\s)|(?<=```)(\w*) .*$", re.MULTILINE)
TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "ul", "ol", "li", "strong", "em", "s", "code"),
    *("pre", "a", "table", "thead", "tbody", "tr", "th", "td", "div", "span"),
}
ATTRIBUTES = {"dir", "href", "title", "target", "rel", "start", "tabindex", "class", "data-align", "data-tex-mode"}


class Reader(HTMLParser):
    """Reads HTML as a browser does: its tags, its attributes, and the text that a person sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(str(html))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.text += "" if tag == "span" else "\n"
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self.text += "" if tag == "span" else "\n"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**a** *b* ~~c~~ `d`", "<strong>a</strong> <em>b</em> <s>c</s> <code>d</code>"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("&lt;b&gt;", "&lt;b&gt;"),
        ("```\n<b>\n```", '<div class="code" dir="ltr"><pre tabindex="0"><code>&lt;b&gt;\n</code></pre></div>'),
        (
            "```py\npass\n```",
            '<span class="code-language">py</span><pre tabindex="0"><code><span class="k">pass\n</span>',
        ),
        ("```Ruby {a}\nnil\n```", '<span class="code-language">Ruby</span>'),
        ("```brainfog\nif x\n```", '<span class="code-language">brainfog</span><pre tabindex="0"><code>if x\n</code>'),
        ("$x<y$", '<span class="math" data-tex-mode="inline" dir="ltr">x&lt;y</span>'),
        ("\\[\nx\n\\]", '<div class="math" data-tex-mode="display" dir="ltr">x</div>'),
        ("so \\[ x+1 \\] and", '<p dir="auto">so <span class="math" data-tex-mode="display" dir="ltr">x+1</span> and'),
        ("[a](/projects)", '<a target="_blank" rel="noopener noreferrer nofollow">a</a>'),
        ("![cat](https://e.org/c.png)", '<span class="image-text">cat (https://e.org/c.png)</span>'),
        ("[a](https://e.org)", '<a href="https://e.org" target="_blank" rel="noopener noreferrer nofollow">a</a>'),
        ("|a|\n|-:|\n|1|", '<td dir="auto" data-align="right">1</td>'),
        ("one\ntwo", "one<br>\ntwo"),
        ("3. c", '<ol start="3">'),
        ("שלום", '<p dir="auto">שלום</p>'),
    ],
)
def test_markdown(text: str, html: str) -> None:
    assert html in render_markdown(text)


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "[x](jav\tascript:alert(1))",
        "[x](&#106;avascript:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "<javascript:alert(1)>",
        "<img src=x onerror=alert(1)>",
        '![x](x"onerror="alert(1))',
        '![<img src=x onerror="alert(1)">](https://e.org)',
        "<svg/onload=alert(1)>",
        "<p style='position:fixed'>x</p>",
        '[x](https://e.org ""onmouseover="alert(1)")',
        "```js onload=alert(1)\nx\n```",
        '```"><script>alert(1)</script>\nx\n```',
        "$<img src=x onerror=alert(1)>$",
        "\\[</div><script>alert(1)</script>\\]",
        "```html\n<img src=x onerror=alert(1)>\n```",
    ],
)
def test_nothing_acts(text: str) -> None:
    read = Reader(render_markdown(text))
    assert read.tags <= TAGS
    assert {name for name, _ in read.attributes} <= ATTRIBUTES
    assert all(value and value.startswith(("http", "mailto")) for name, value in read.attributes if name == "href")


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("# a\n## b\n### c\n## d\n# e", "23432"),
        ("#### a\n#### b\n##### c\n## d\n#### e\n### f", "223233"),
        ("# a\n###### b\n###### c", "233"),
        ("a\n===\n> ### b\n\nc\n---", "233"),
        ("# 1\n## 2\n### 3\n#### 4\n##### 5\n###### 6", "234566"),
    ],
)
def test_headings_follow_the_page_s_own_without_a_gap(text: str, levels: str) -> None:
    html = render_markdown(text)
    assert "".join(re.findall(r"<h(\d)", html)) == "".join(re.findall(r"</h(\d)", html)) == levels


def test_no_class_but_ours_gets_through() -> None:
    classes = {
        value
        for name, value in Reader(render_markdown("```\na\n```\n$x$\n![a](b)\n\n|a|\n|-|")).attributes
        if name == "class"
    }
    assert classes == {"code", "math", "image-text", "table-scroll"}


def test_long_text_is_whole() -> None:
    text = "\n\n".join(f"Paragraph {number} of many words." for number in range(600))
    assert len(text) > 16_000
    html = render_markdown(text)
    assert all(f"Paragraph {number} of" in html for number in range(600))


def test_message_of_parts_shows_its_text_and_names_the_rest() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "https://e.org/x.png"}, "odd"]
    assert plain_text(parts) == "Look:\n\n[image]\n\n[part]"


def test_text_beyond_all_measure_is_shown_as_it_is() -> None:
    html = render_markdown("**a** <b>\n" * 25_000)
    assert html.startswith('<div class="code"><pre tabindex="0" dir="auto">**a** &lt;b&gt;\n')
    assert "<strong>" not in html


LONG = 16_000
HOSTILE = [
    "[",
    "![",
    "![](",
    "*",
    "**a ",
    "a*b_",
    "`",
    "``a`",
    "```\n",
    "> ",
    "- ",
    "* a\n",
    "|a",
    "|a|\n|-|\n",
    "[a]: b\n",
]
HOSTILE += [
    "<",
    "<a ",
    "&#",
    "\\",
    "$",
    "$$",
    "$ x $ ",
    "$$\n",
    "\\(",
    "\\[",
    "\\[\n",
    "- \\[\n",
    "\\begin{align}\n",
    "~~",
    "](",
    "\n",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_is_rendered_in_bounded_time(unit: str) -> None:
    text = (unit * LONG)[:LONG]
    gc.disable()  # what other tests have left behind takes no part
    try:
        begun = time.thread_time()
        render_markdown(text)
        assert time.thread_time() - begun < 1.5
    finally:
        gc.enable()


def test_same_text_is_rendered_once() -> None:
    assert render_markdown("kept *once*") is render_markdown("kept " + "*once*")


def rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in CONTENT.read_text().splitlines()] if CONTENT.exists() else []


@pytest.mark.skipif(not CONTENT.exists(), reason="the shared folder with real answers is not here")
def test_real_answers_are_there() -> None:
    assert len(rows()) == 178


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['source']}-{row['row']}")
def test_real_answers_lose_no_word_and_load_nothing(row: dict[str, Any]) -> None:
    for text in (row["prompt"], row["response"]):
        read = Reader(render_markdown(text))
        assert read.tags <= TAGS
        assert {name for name, _ in read.attributes} <= ATTRIBUTES
        written = Counter(WORD.findall(unescape(UNSEEN.sub(r"\1", text))))
        missing = written - Counter(WORD.findall(read.text))
        assert not missing


@pytest.mark.skipif(not CONTENT.exists(), reason="the shared folder with real answers is not here")
def test_real_answers_are_rendered_fast() -> None:
    texts = [row["response"] for row in rows()]
    begun = time.thread_time()
    for text in texts:
        _render(text)
    seconds_of_16_000 = (time.thread_time() - begun) / sum(map(len, texts)) * LONG
    assert seconds_of_16_000 < 0.05

"""Is what people and models wrote shown whole, and never as anything that acts or loads?"""

import json
from pathlib import Path

import pytest

from app.web.text import plain_text, render_markdown

CONTENT = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "loadtest_content" / "content.jsonl"


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**a** *b* ~~c~~ `d`", "<strong>a</strong> <em>b</em> <s>c</s> <code>d</code>"),
        ("<script>x</script>", "&lt;script&gt;x&lt;/script&gt;"),
        ("&lt;b&gt;", "&lt;b&gt;"),
        ("```\n<b>\n```", "<code>&lt;b&gt;\n</code>"),
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
    ],
)
def test_nothing_acts(text: str) -> None:
    html = render_markdown(text)
    tags = [part.split(">")[0] for part in html.split("<")[1:]]
    for tag in tags:
        assert not tag.startswith(("script", "img", "svg", "iframe", "style"))
        assert " on" not in tag.replace(' title="', "")
        assert "style=" not in tag
        assert "javascript:" not in tag
        assert "data:" not in tag


def test_long_text_is_whole() -> None:
    text = "\n\n".join(f"Paragraph {number} of many words." for number in range(600))
    assert len(text) > 16_000
    html = render_markdown(text)
    assert all(f"Paragraph {number} of" in html for number in range(600))


def test_message_of_parts_shows_its_text_and_names_the_rest() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "https://e.org/x.png"}, "odd"]
    assert plain_text(parts) == "Look:\n\n[image]\n\n[part]"


@pytest.mark.skipif(not CONTENT.exists(), reason="the shared folder with real answers is not here")
def test_real_answers_lose_no_word() -> None:
    for line in CONTENT.read_text().splitlines():
        answer = json.loads(line)["response"]
        html = render_markdown(answer)
        words = [word for word in answer.split() if word.isalnum() and word.isascii() and len(word) > 3]
        assert [word for word in words if word not in html] == []

"""Is every formula that models write found, and does no price, path or list become one?"""

import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.web.mathematics import find_math


def math_in(text: str) -> list[tuple[str, str]]:
    """All math of a text: whether it is inline, display in a line or a block, and its TeX."""
    parser = MarkdownIt("commonmark").enable("table")
    find_math(parser)

    def found(tokens: list[Token]) -> list[tuple[str, str]]:
        own = [(token.type.removeprefix("math_"), token.content) for token in tokens if token.type.startswith("math_")]
        return own + [math for token in tokens if token.children for math in found(token.children)]

    return found(parser.parse(text))


def text_of(text: str) -> str:
    parser = MarkdownIt("commonmark").enable("table")
    find_math(parser)
    for kind in ("math_inline", "math_display", "math_block"):
        parser.add_render_rule(kind, lambda _, tokens, index, *__: f"[[{tokens[index].content}]]")
    return str(parser.render(text))


@pytest.mark.parametrize(
    ("text", "math"),
    [
        ("$x$", [("inline", "x")]),
        ("the $n$th of $4$ and $-1$", [("inline", "n"), ("inline", "4"), ("inline", "-1")]),
        (
            "$ a,b \\in\\mathbb{N} $  ,  $a^2=2018  $   ,   $    7|a+b $",
            [("inline", "a,b \\in\\mathbb{N}"), ("inline", "a^2=2018"), ("inline", "7|a+b")],
        ),
        ("$a_1$ and $b_1$", [("inline", "a_1"), ("inline", "b_1")]),
        ("$\\{a_n\\}$", [("inline", "\\{a_n\\}")]),
        ("costs \\$5, $\\$5$", [("inline", "\\$5")]),
        ("数列$a_n$的", [("inline", "a_n")]),
        ("\\( D \\) and \\((0,0) \\)", [("inline", "D"), ("inline", "(0,0)")]),
        ("so $$E=mc^2$$ holds", [("display", "E=mc^2")]),
        ("so \\[ E = mc^2 \\] holds", [("display", "E = mc^2")]),
        ("so $$a\nb$$ holds", [("display", "a\nb")]),
        ("given by:\n\\[\nx = 1\n\\]\nThen", [("block", "x = 1")]),
        ("given by:\n    \\[\n    x = 1\n    \\]\nThen", [("display", "x = 1")]),
        ("- a\n  \\[\n  - b\n  + c\n  \\]", [("block", "- b\n  + c")]),
        ("1. a\n\n   $$\n   b\n   $$", [("block", "b")]),
        ("> \\[\n> x\n> \\]", [("block", "x")]),
        ("\\[ x \\].", [("block", "x.")]),
        ("$$x$$", [("block", "x")]),
        ("\\[\nx\n\\] Let us see", [("block", "x")]),
        (
            "\\begin{align*}\na &= b \\\\\n&= c\n\\end{align*}",
            [("block", "\\begin{align*}\na &= b \\\\\n&= c\n\\end{align*}")],
        ),
        ("where \\[\n\\begin{array}{l} a \\end{array}\n\\]", [("display", "\\begin{array}{l} a \\end{array}")]),
        ("so\n\\begin{matrix} a \\end{matrix}", [("display", "\\begin{matrix} a \\end{matrix}")]),
        ("|a|\n|-|\n|$x$|", [("inline", "x")]),
        ("[a $x$](https://e.org)", [("inline", "x")]),
    ],
)
def test_math_is_found(text: str, math: list[tuple[str, str]]) -> None:
    assert [(kind, "\n".join(line.strip() for line in tex.splitlines())) for kind, tex in math_in(text)] == [
        (kind, "\n".join(line.strip() for line in tex.splitlines())) for kind, tex in math
    ]


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $6.",
        "Between $5-$6, or $5/$6, or $5\u2013$6, ($5)\u2013($6).",
        "Store A has a $100 rebate, store B saves $25 or US$30 and A$40.",
        "$5 + $6 = $11 and $ 5 + $ 6",
        "It was $100 off the price, or 10$.",
        "Set $HOME and $PATH, or $HOME/$USER:$PATH",
        "`$x$` and `a$b` costs $1",
        "```\n$x$ \\[ y \\]\n```",
        "    $x$",
        "\\$x\\$",
        "$_GET['a'] and $_POST['b']",
        "See \\[1\\] and \\[citation needed\\].",
        "\\(never closed",
        "\\[\nnever closed\n\nx",
        "$$ $$ and \\[ \\] and \\( \\)",
        "\\begin{document}\nx\n\\end{document}",
        "\\begin{align}\nx",
        "jQuery: $('#a').click(function(){ $(this) })",
    ],
)
def test_what_is_no_math_stays_text(text: str) -> None:
    assert math_in(text) == []


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("\\[\nx\n\\] Let **us** see\nmore", "[[x]]<p>Let <strong>us</strong> see\nmore</p>\n"),
        ("a\n\\[\nx\n\\]\nb", "<p>a</p>\n[[x]]<p>b</p>\n"),
        ("> \\[\n> x\n> \\] then\n\nb", "<blockquote>\n[[x]]<p>then</p>\n</blockquote>\n<p>b</p>\n"),
        ("\\[ x \\] where y\nis z", "<p>[[x]] where y\nis z</p>\n"),
        ("\\[ x\n\n\\[ y \\]", "<p>[ x</p>\n[[y]]"),
        (
            "Store $A$ has a $100 rebate and store $B$ none",
            "<p>Store [[A]] has a $100 rebate and store [[B]] none</p>\n",
        ),
        ("[Buy $x](https://e.org) or $y$", '<p><a href="https://e.org">Buy $x</a> or [[y]]</p>\n'),
    ],
)
def test_text_around_math_is_kept(text: str, html: str) -> None:
    assert text_of(text) == html


CONTENT = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "loadtest_content" / "content.jsonl"


@pytest.mark.skipif(not CONTENT.exists(), reason="the shared folder with real answers is not here")
def test_real_answers_have_no_torn_formula_and_no_price_in_one() -> None:
    rows = [json.loads(line) for line in CONTENT.read_text().splitlines()]
    texts = [text for row in rows for text in (row["prompt"], row["response"])]
    assert sum(len(math_in(text)) for text in texts) > 1_700
    for text in texts:
        outside = re.sub(r"<pre>.*?</pre>|<code>.*?</code>|\[\[.*?\]\]", "", text_of(text), flags=re.DOTALL)
        assert re.findall(r"^\s*[\[\]]$|\\(?:frac|sqrt|left|right|begin|end|sum|cdot)\b", outside, re.MULTILINE) == []
        assert [tex for _, tex in math_in(text) if re.search(r"rebate|price|saves", tex) and "\\text" not in tex] == []

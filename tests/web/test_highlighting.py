"""Is code coloured by classes alone, is none of it lost, and does no code hold the server up?"""

import re
import time
from html import unescape

import pytest

from app.web.highlighting import _LANGUAGES, CLASSES, Highlighter

SAMPLES = {
    "python": "class A(B):\n    @c\n    def f(self, x=1.5):  # why\n        return f\"{x!r}\\n\" if None else 'a'\n",
    "javascript": "export const f = async (a) => `x${a}` ?? /re+/g; // c\n",
    "html": '<!doctype html>\n<p class="a">a &amp; b<!-- c --></p>\n<script>let x = "</p>"</script>\n',
    "css": "a:hover > .b { color: #fff; margin: 0 1px }\n",
    "sql": "SELECT a, count(*) FROM b WHERE c = 'd' -- e\n",
    "bash": 'for f in *.txt; do echo "$f" | wc -l; done # c\n',
    "console": '$ echo "a"\na\n',
    "pycon": ">>> 1 + 1\n2\n",
    "json": '{"a": [1, null, "é中😀"]}\n',
    "diff": "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n z\n",
    "yaml": "a:\n  - b: 1 # c\n",
    "c++": "#include <x>\nint main() { return 'a'; } /* c */\n",
    "markdown": "# a\n\n```python\nx = 1\n```\n",
    "php": "<?php echo $a['b']; ?>\n",
    "powershell": "Get-Item -Path C:\\ | % { $_ }\n",
}


def text_of(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


@pytest.mark.parametrize(("language", "code"), SAMPLES.items())
def test_code_is_coloured_and_whole(language: str, code: str) -> None:
    html = Highlighter().html(code, language)
    assert text_of(html) == code
    assert set(re.findall(r"<([^>]*)>", html)) <= {"/span", *(f'span class="{name}"' for name in CLASSES)}
    assert "<span" in html


def test_classes_say_what_the_words_are() -> None:
    html = Highlighter().html("def f():\n    return 1  # x\n", "python")
    assert re.findall(r'class="(\w+)">([^<\s]+)', html) == [
        ("k", "def"),
        ("nf", "f"),
        ("k", "return"),
        ("m", "1"),
        ("c", "#"),
    ]


@pytest.mark.parametrize("language", ["", "brainfog", "PYTHON'><script>", "text"])
def test_unknown_language_is_plain(language: str) -> None:
    assert Highlighter().html("if a < b: pass", language) == "if a &lt; b: pass"


def test_name_of_a_language_may_be_written_in_capitals() -> None:
    assert Highlighter().html("if", "Python") == '<span class="k">if</span>'


def test_long_code_and_long_lines_are_plain() -> None:
    assert "<span" not in Highlighter().html("if x\n" * 4_001, "python")
    assert "<span" not in Highlighter().html("x=1;" * 251, "javascript")


def test_all_code_of_a_text_shares_one_measure() -> None:
    highlighter = Highlighter(characters=10)
    assert "<span" in highlighter.html("if a: b", "python")
    assert "<span" not in highlighter.html("if a: b", "python")


def test_when_time_is_up_the_rest_is_plain_and_whole() -> None:
    code = "if x: pass\n" * 1_500
    highlighter = Highlighter(seconds=0.002)
    html = highlighter.html(code, "python")
    assert text_of(html) == code
    assert 0 < html.count("<span") < 1_500
    assert "<span" not in highlighter.html("if x: pass", "python")


@pytest.mark.parametrize("language", ["java", "make", "terraform", "c", "nix", "groovy", "scala", "typescript", "ini"])
@pytest.mark.parametrize("unit", ["\n", " \n", "a", "a.", "/", "=", "é", '"\\', "__"])
def test_hostile_code_takes_bounded_time(language: str, unit: str) -> None:
    """Each of these takes Pygments seconds at this length."""
    line = (unit * 900)[:900]
    code = unit * 9_000 if "\n" in unit else "\n".join([line] * 20)
    Highlighter().html("x", language)
    begun = time.thread_time()
    Highlighter().html(code, language)
    assert time.thread_time() - begun < 0.3


@pytest.mark.parametrize("language", sorted(_LANGUAGES))
def test_every_language_that_we_promise_is_there(language: str) -> None:
    assert text_of(Highlighter().html("a = 1\n", language)) == "a = 1\n"

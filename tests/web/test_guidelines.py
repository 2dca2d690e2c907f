"""Do worked examples in guidelines become cards, and does everything else stay the markdown that it is?"""

import pytest

from app.web.guidelines import read_example, render_guidelines, split
from app.web.text import render_markdown

EXAMPLE = """prompt: What is the capital of Australia?
better: Canberra.
worse: Sydney, the largest city.
worse: I **cannot** say.
why: What is asked for decides.
  Note: fame does not."""


def fenced(text: str) -> str:
    return f"```example\n{text}\n```"


def test_an_example_is_a_card_between_the_markdown_around_it() -> None:
    html = render_guidelines(f"# Before\n\n{fenced(EXAMPLE)}\n\n*After*")
    assert html.index("Before</h2>") < html.index('<section class="example"') < html.index("<em>After</em>")
    assert html.count("example-better") == 1
    assert html.count("example-worse") == 2
    assert html.count("example-answers") == 1
    assert "<strong>cannot</strong>" in html
    assert "```" not in html


def test_values_go_on_over_several_lines() -> None:
    assert read_example(EXAMPLE) == [
        ("prompt", "What is the capital of Australia?"),
        ("better", "Canberra."),
        ("worse", "Sydney, the largest city."),
        ("worse", "I **cannot** say."),
        ("why", "What is asked for decides.\nNote: fame does not."),
    ]
    assert read_example("better:\n  one\n\n    two\nworse: x") == [("better", "one\n\n  two"), ("worse", "x")]


@pytest.mark.parametrize(
    "text", ["beter: a typing slip", "prompt: only this", "why: only this", "no key at all\nbetter: x", "", "Better: x"]
)
def test_what_is_no_example_is_shown_as_code(text: str) -> None:
    assert read_example(text) is None
    html = render_guidelines(fenced(text))
    assert 'class="example"' not in html
    for line in text.splitlines():
        assert line in html


def test_fences_inside_other_fences_open_nothing() -> None:
    for outer in ("````", "~~~", "```python"):
        text = f"{outer}\n```example\nbetter: x\n{outer[:4].rstrip('p')}"
        assert render_guidelines(text) == render_markdown(text)
    assert render_guidelines("```example ```") == render_markdown("```example ```")


def test_code_inside_an_example_needs_a_longer_or_another_fence() -> None:
    html = render_guidelines("~~~example\nbetter:\n  ```python\n  print(1)\n  ```\n~~~")
    assert "example-better" in html
    assert "code-language" in html


def test_an_example_left_open_goes_to_the_end() -> None:
    assert [part.is_example for part in split("a\n```example\nbetter: x")] == [False, True]


@pytest.mark.parametrize("text", ["", "# Only *markdown*\n\n- one\n- two", "```\ncode\n```\n\ntext"])
def test_guidelines_without_examples_are_plain_markdown(text: str) -> None:
    assert render_guidelines(text) == render_markdown(text)


def test_nothing_in_an_example_acts_or_loads() -> None:
    html = render_guidelines(
        fenced("prompt: <script>alert(1)</script>\nbetter: ![x](https://e.org/x.png)\nworse: [y](javascript:alert(1))")
    )
    assert "<script" not in html
    assert "<img" not in html
    assert 'href="javascript' not in html


def test_code_with_fences_of_its_own_is_kept_whole() -> None:
    html = render_guidelines("`````example\nslip: x\n```` four\n`````")
    assert "slip: x\n```` four" in html

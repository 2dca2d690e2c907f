"""Is what people and models wrote typeset, coloured, copied, compared and scrolled, on every screen, in both themes?"""

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.content_page import show

Browse = Callable[..., Page]
Check = Callable[[Page], None]

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
STICKS_OUT = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TRAPS = r"""# Heading
Inline $x^2$ and \(\vec{a}\), prices $5 and $6, a [link](https://example.org), `code` and ![cat](https://e.org/c.png).
\[
\widehat{ABC} = \sum_{k=1}^n \frac{1}{k!}
\]
```python
def f(x):  # a comment
    return "a" + 1.5
```

| Name | Right |
|------|------:|
| a    | $x$   |

> quote
> > nested
> 1. list

שלום $x+y$ עולם

中文段落。😀 `x`
"""


@pytest.fixture
def server(_running: str) -> str:
    """The server alone: these pages ask it for files, and no database is needed."""
    return _running


def becomes_true(page: Page, condition: str) -> None:
    """Wait for a condition in the page. (Playwright's own way to wait needs eval, which the policy forbids.)"""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def wait_for_paint(page: Page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [NARROW, WIDE], ids=["phone", "desktop"])
def test_every_kind_of_text_is_readable(browse: Browse, no_violations: Check, theme: str, size: dict[str, int]) -> None:
    page = browse(viewport=size, color_scheme=theme)
    show(
        page,
        TRAPS
        + "\n\n"
        + "VeryLongWord" * 60
        + "\n\n```\n"
        + "very long line " * 60
        + "\n```\n$"
        + "{x+" * 90
        + "}" * 90
        + "$",
    )
    assert page.locator(".math .katex").count() == 6
    assert page.evaluate(STICKS_OUT) == 0
    no_violations(page)


def test_katex_is_loaded_only_where_there_is_math(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show(page, "It costs $5 and $6.\n```python\nx = '$y$'\n```")
    assert not [url for url in asked if "katex" in url]
    show(page, "$x$")
    assert {url.split("/")[-1].split("?")[0] for url in asked if "katex" in url} >= {
        "katex.min.js",
        "katex.min.css",
        "KaTeX_Math-Italic.woff2",
    }
    assert all("?v=" in url for url in asked if "katex.min" in url)


UNREADABLE = [
    r"\frac{a",
    r"\nonsense{x}",
    r"\def\a{\a\a}\a",
    "{" * 4_000 + "}" * 4_000,
    "x" * 10_001,
    r"\begin{align} a \end{array}",
]


def test_math_that_cannot_be_read_shows_its_source(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    show(page, "\n\n".join(f"${tex}$" for tex in UNREADABLE) + "\n\n$x$")
    assert page.locator(".math").all_text_contents()[:-1] == UNREADABLE
    assert page.locator(".katex").count() == 1, "the next formula is typeset all the same"


def test_where_katex_does_not_come_the_source_stays_and_it_is_asked_for_again(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    page.route("**/katex.min.js*", lambda route: route.abort())
    show(page, "$x^2$")
    expect(page.locator(".math")).to_have_text("x^2")
    page.unroute("**/katex.min.js*")
    page.evaluate("ours.enliven(document, {})")
    expect(page.locator(".math .katex")).to_have_count(1)


def test_math_cannot_act(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show(
        page,
        r"$\href{javascript:document.title='owned'}{x}$ $\url{https://evil.example}$ "
        r"$\includegraphics{https://evil.example/x.png}$ $\htmlStyle{position:fixed}{x}$ $\htmlId{main}{x}$ "
        r"$\rule{9999em}{9999em}$ $\kern{-9999em}x$",
        "Second",
    )
    assert page.locator(".prose :is(a, img, [id])").count() == 0
    assert not [url for url in asked if "evil" in url]
    assert page.evaluate(STICKS_OUT) == 0
    box = page.locator(".prose").first.bounding_box()
    assert box is not None
    assert box["height"] < 1_000, "no formula takes the page for itself"
    page.evaluate("document.querySelectorAll('.prose')[1].scrollIntoView()")
    on_top = "(() => { const box = document.querySelectorAll('.prose')[1].getBoundingClientRect();"
    on_top += " return document.elementFromPoint(box.left + 5, box.top + 5).closest('.prose').textContent; })()"
    assert page.evaluate(on_top).strip() == "Second"


def test_wide_formula_scrolls_by_itself_and_by_keyboard(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    show(page, "so $" + "{" + "+".join(["xyz"] * 15) + "}" + "$ holds")
    formula = page.locator(".math")
    expect(formula).not_to_have_class("math is-wide")
    page.set_viewport_size(NARROW)
    expect(formula).to_have_class("math is-wide")
    assert page.evaluate(STICKS_OUT) == 0
    formula.focus()
    page.keyboard.press("ArrowRight")
    becomes_true(page, "document.querySelector('.math').scrollLeft > 0")
    page.set_viewport_size(WIDE)
    expect(formula).not_to_have_attribute("tabindex", "0")


def test_code_is_coloured_and_copied_by_keyboard(browse: Browse) -> None:
    page = browse(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
    show(page, TRAPS)
    colour = "selector => getComputedStyle(document.querySelector(selector)).color"
    assert len({page.evaluate(colour, f"code {name}") for name in (".k", ".nf", ".s", ".m", ".c")}) == 5
    button = page.get_by_role("button", name="Copy")
    page.get_by_role("link", name="link").focus()
    page.keyboard.press("Tab")
    expect(page.locator("pre")).to_be_focused()
    page.keyboard.press("Tab")
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == 'def f(x):  # a comment\n    return "a" + 1.5\n'
    expect(page.get_by_role("button", name="Copy", exact=True)).to_be_visible()


def test_copies_without_a_clipboard_too(browse: Browse) -> None:
    page = browse(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    show(page, "```\nover plain HTTP\n```")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("status")).to_have_text("Copied")
    page.evaluate("delete navigator.clipboard")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "over plain HTTP"


def test_enlivening_twice_changes_nothing(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    show(page, TRAPS)
    before = page.locator("main").inner_html()
    page.evaluate("ours.enliven(document, { copy: 'Copy', copied: 'Copied' })")
    assert page.locator("main").inner_html() == before


# --- Differences ---

HIGHLIGHTED = "[...(CSS.highlights.get('only-here') ?? [])].map(range => range.toString())"


def differences(page: Page, first: str, second: str) -> tuple[str, list[str]]:
    show(page, first, second)
    before = page.locator("main").inner_html()
    how = page.evaluate("ours.differences.showDifferences(...document.querySelectorAll('.prose'))")
    assert page.locator("main").inner_html() == before, "nothing in the page changes"
    return how, page.evaluate(HIGHLIGHTED)


DIFFERENT = [
    ("The cat sat.", "The dog sat.", ["cat", "dog"]),
    ("The big red cat sat.", "The cat sat **down** here.", ["big red", "down", "here"]),
    ("same", "same", []),
    ("我喜欢猫", "我喜欢狗", ["猫", "狗"]),
    ("```python\nx = a + b\n```", "```python\nx = a - b\n```", ["+", "-"]),
    ("```python\nx\n```", "```ruby\nx\n```", []),
    ("", "all new", ["all new"]),
]


def test_words_that_only_one_has_are_highlighted(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    for first, second, only in DIFFERENT:
        assert differences(page, first, second) == ("in order", only)


def test_a_formula_counts_as_one_word(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    _, highlighted = differences(page, "so $x^2$ and $y$", "so $x^3$ and $y$")
    assert len(highlighted) == 2
    held = "[...CSS.highlights.get('only-here')].map(range => range.startContainer.dataset.typeset)"
    assert page.evaluate(held) == ["x^2", "x^3"]


def test_differences_go_away_again(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    assert differences(page, "a", "b")[1] == ["a", "b"]
    page.evaluate("ours.differences.hideDifferences()")
    assert page.evaluate(HIGHLIGHTED) == []


def test_a_browser_that_cannot_highlight_says_so(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    page.add_init_script("delete CSS.highlights; Object.defineProperty(CSS, 'highlights', { value: undefined })")
    show(page, "a")
    assert page.evaluate("ours.differences.canShowDifferences") is False
    page.evaluate("ours.differences.hideDifferences()")


@pytest.mark.parametrize("kind", ["alike", "different", "chinese"])
def test_long_answers_are_compared_without_a_freeze(browse: Browse, kind: str) -> None:
    words = [f"{'' if kind == 'alike' else index % 7}word{index % 977}" for index in range(2_000)]
    first, second = " ".join(words), " ".join(words[7:1_000] + words[1_100:] + ["end"])
    if kind == "different":
        second = " ".join(f"other{index % 911}" if index % 5 else "word" for index in range(2_200))
    if kind == "chinese":
        first, second = ("".join(chr(0x4E00 + (index * step) % 3_000) for index in range(16_000)) for step in (7, 11))
    page = browse(viewport=WIDE)
    how, highlighted = differences(page, first[:16_000], second[:16_000])
    assert how == ("in order" if kind == "alike" else "by occurrence") or kind == "chinese"
    assert highlighted
    once = (
        "async () => { const begun = performance.now();"
        " await ours.differences.showDifferences(...document.querySelectorAll('.prose'));"
        " return performance.now() - begun; }"
    )
    # The best of some, since other work on the machine only adds to it.
    assert min(page.evaluate(once) for _ in range(4)) < 300


# --- Scrolling together ---


BEGIN = """
globalThis.boxes = [...document.querySelectorAll(".card")];
for (const box of boxes) Object.assign(box.style, { height: "200px", overflow: "auto" });
for (const box of boxes) box.tabIndex = 0;
globalThis.ending = new AbortController();
globalThis.ours.end = ours.syncScrolling(boxes, ending.signal);
undefined
"""
SHARES = "boxes.map((box) => box.scrollTop / Math.max(box.scrollHeight - box.clientHeight, 1))"


def panes(page: Page) -> None:
    show(page, "long\n\n" * 200, "short\n\n" * 100, "tiny")
    page.evaluate(BEGIN)


def scroll(page: Page, index: int, share: float) -> list[float]:
    page.evaluate(
        "([index, share]) => {"
        " boxes[index].scrollTop = share * (boxes[index].scrollHeight - boxes[index].clientHeight); }",
        [index, share],
    )
    wait_for_paint(page)
    wait_for_paint(page)
    return [round(float(value), 2) for value in page.evaluate(SHARES)]


def test_scrolling_one_scrolls_the_others_by_the_same_share(browse: Browse) -> None:
    page = browse(viewport=WIDE)
    panes(page)
    assert scroll(page, 0, 0.5) == [0.5, 0.5, 0]
    assert scroll(page, 1, 1) == [1, 1, 0]
    assert scroll(page, 1, 0.25) == [0.25, 0.25, 0]
    page.locator(".card").nth(1).focus()
    page.keyboard.press("End")
    becomes_true(page, f"{SHARES}[0] > 0.99")
    page.locator(".card").first.hover()
    page.mouse.wheel(0, -100_000)
    becomes_true(page, f"{SHARES}[1] < 0.01")


@pytest.mark.parametrize("end", ["ours.end()", "ending.abort()"])
def test_scrolling_together_ends(browse: Browse, end: str) -> None:
    page = browse(viewport=WIDE)
    panes(page)
    page.evaluate(end)
    assert scroll(page, 0, 0.5) == [0.5, 0, 0]

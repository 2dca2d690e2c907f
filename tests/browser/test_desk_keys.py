"""Do the desk's keys do what each person wants of them, and leave alone what is not theirs?"""

import time
from collections.abc import Callable

from playwright.sync_api import expect

from tests.browser.desk_page import DeskPage
from tests.browser.desk_work import Asked

Sit = Callable[..., tuple[DeskPage, Asked]]

LONG = "A sentence that stands in both. " * 120


def status(desk: DeskPage) -> str:
    """What the sheet of keys said last."""
    return desk.page.locator("[data-keys-say]").inner_text()


def give(desk: DeskPage, action: str, key: str) -> None:
    """Press the button beside an action, then the key that it is to have."""
    desk.page.locator(f"[data-remap={action}]").click()
    desk.press(key)


def test_keys_are_given_to_other_actions_and_remembered(sit: Sit) -> None:
    desk, _asked = sit({"all_bad": True})
    toggle = desk.page.get_by_role("checkbox", name="All are bad")
    desk.press("?")
    give(desk, "all_bad", "n")
    assert status(desk) == "all are bad: n"
    give(desk, "skip", "n")
    assert status(desk) == "n is taken: all are bad"
    give(desk, "skip", "5")
    assert status(desk) == "5 cannot be used here."
    give(desk, "submit", "m")
    desk.press("Escape", "x")
    expect(toggle).not_to_be_checked()
    desk.page.reload()
    desk.ready()
    desk.press("n")
    expect(toggle).to_be_checked()
    expect(desk.page.locator(".toggle kbd")).to_have_text("n")
    expect(desk.page.locator("[data-submit]")).to_have_attribute("aria-keyshortcuts", "m")
    desk.press("?")
    desk.page.get_by_role("button", name="Back to the usual keys").click()
    desk.press("Escape", "x")
    expect(toggle).not_to_be_checked()
    first = desk.assignment
    desk.press("1", "2", "3", "Enter")
    desk.next_assignment(first)


def test_asking_for_a_key_is_ended_by_escape(sit: Sit) -> None:
    desk, _asked = sit({})
    desk.press("?")
    give(desk, "skip", "Escape")
    expect(desk.page.locator("#keys")).to_be_visible()
    expect(desk.page.locator("[data-key-row=skip] kbd")).to_have_text("s")
    desk.press("Escape")
    expect(desk.page.locator("#keys")).to_be_hidden()


def test_keys_that_are_off_are_not_promised(sit: Sit) -> None:
    desk, _asked = sit({"all_bad": True})
    expect(desk.page.locator(".skip > summary")).to_have_attribute("aria-keyshortcuts", "s")
    desk.press("?")
    desk.page.get_by_label("Let single keys do this").uncheck()
    desk.press("Escape", "x", "1", "s")
    assert desk.groups() == []
    expect(desk.page.locator(".skip-form")).to_be_hidden()
    expect(desk.page.locator(".skip kbd")).to_be_hidden()
    expect(desk.page.locator("[aria-keyshortcuts]")).to_have_count(0)


def test_composing_and_typing_are_left_alone(sit: Sit) -> None:
    desk, _asked = sit({"rationale": "optional", "all_bad": True})
    for init in ("isComposing: true", "keyCode: 229"):
        for key, code in (("x", "KeyX"), ("1", "Digit1"), ("Enter", "Enter")):
            desk.page.evaluate(
                f"document.body.dispatchEvent(new KeyboardEvent('keydown', "
                f"{{key: '{key}', code: '{code}', bubbles: true, {init}}}))"
            )
    assert desk.groups() == []
    expect(desk.said()).to_be_empty()
    desk.press("r")
    field = desk.page.get_by_label("Reasons for your answer")
    session = desk.page.context.new_cdp_session(desk.page)
    session.send("Input.imeSetComposition", {"text": "pai1", "selectionStart": 4, "selectionEnd": 4})
    session.send("Input.insertText", {"text": "排1名"})
    desk.press("x", "Enter", "2", "[")
    expect(field).to_have_value("排1名x\n2[")
    assert desk.groups() == []
    expect(desk.page.get_by_role("checkbox", name="All are bad")).not_to_be_checked()


def test_keyboards_without_latin_letters_go_by_the_place_of_the_key(sit: Sit) -> None:
    desk, _asked = sit({"all_bad": True})
    desk.page.evaluate(
        "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ч', code: 'KeyX', bubbles: true}))"
    )
    expect(desk.page.get_by_role("checkbox", name="All are bad")).to_be_checked()


def test_long_answers_scroll_together_and_show_their_differences(sit: Sit) -> None:
    desk, _asked = sit({"overall": "pair"}, [f"{LONG} Only here.", f"{LONG} Elsewhere, and longer. {LONG}"])
    page = desk.page
    desk.press("y")
    texts = page.locator("[data-response]")
    texts.nth(0).evaluate("text => text.scrollTo(0, text.scrollHeight)")
    left = "text => text.scrollHeight - text.clientHeight - text.scrollTop"
    until = time.monotonic() + 10
    while texts.nth(1).evaluate(left) > 2 and time.monotonic() < until:
        page.wait_for_timeout(20)
    assert texts.nth(1).evaluate(left) <= 2
    desk.press("d")
    expect(page.locator(".legend")).to_contain_text("only one of responses 1 and 2")
    assert page.evaluate("CSS.highlights.get('only-here').size") > 0
    desk.press("d", "y")
    expect(page.locator(".legend")).to_be_hidden()
    assert not page.evaluate("CSS.highlights.has('only-here')")
    assert texts.nth(0).evaluate("text => text.scrollHeight <= text.clientHeight + 1")


def test_motion_can_be_reduced(sit: Sit) -> None:
    desk, _asked = sit({}, reduced_motion="reduce")
    desk.press("1", "Enter")
    expect(desk.page.locator(".tray.is-nudged")).to_be_visible()
    assert desk.page.locator(".tray").evaluate("tray => getComputedStyle(tray).animationName") == "none"


def test_brackets_behind_altgr_are_no_digits(sit: Sit) -> None:
    desk, _ = sit({"criteria": [{"key": "helpful", "name": "Helpful"}]}, 9)
    press = """([key, code]) => document.body.dispatchEvent(
        new KeyboardEvent("keydown", {key, code, modifierAltGraph: true, bubbles: true, cancelable: true}))"""
    desk.page.evaluate(press, ["]", "Digit9"])
    assert desk.groups() == []
    assert desk.question() == "Helpful"


def test_a_point_without_its_decimal_is_forgotten(sit: Sit) -> None:
    desk, _ = sit({"overall": "none", "score": {"step": 0.1}}, 3)
    scores = desk.page.get_by_role("spinbutton")
    desk.press("4", ".", "Backspace", "3")
    expect(scores.nth(0)).to_have_value("3")
    desk.press(".", "ArrowRight", "5")
    expect(scores.nth(0)).to_have_value("3")
    expect(scores.nth(2)).to_have_value("5")
    desk.press(".", "2")
    expect(scores.nth(2)).to_have_value("5")
    desk.press("4", ".", "2")
    expect(scores.nth(1)).to_have_value("4.2")


def test_all_are_bad_does_not_promise_that_nothing_else_is_asked(sit: Sit) -> None:
    desk, _ = sit({"all_bad": True, "criteria": [{"key": "helpful", "name": "Helpful"}]}, 2)
    desk.press("x")
    expect(desk.said()).to_have_text("All are bad: set. Helpful: Not yet: score 1, 2.")
    # So the digits are for what is left, also after the page was loaded anew.
    desk.press("3")
    expect(desk.said()).to_have_text("Response 1: 3. 1 left to score.")
    desk.page.reload()
    desk.ready()
    assert desk.question() == "Helpful"
    desk.press("4")
    expect(desk.said()).to_have_text("Response 2: 4. Everything is answered. Enter submits.")
    desk.press("x", "x")
    expect(desk.said()).to_have_text("All are bad: nothing else is needed.")


def test_what_is_chosen_can_be_told_in_the_colours_of_the_system(sit: Sit) -> None:
    form = {"overall": "pair", "all_bad": True, "criteria": [{"key": "helpful", "name": "Helpful"}]}
    desk, _ = sit(form, 2, forced_colors="active")
    page = desk.page
    ground = "element => getComputedStyle(element).backgroundColor"
    grades = page.locator(".grade")
    desk.press("2")
    page.get_by_role("button", name="Overall").click()
    assert grades.nth(1).evaluate(ground) != grades.nth(2).evaluate(ground)
    tabs = page.locator("[data-ask]")
    assert tabs.nth(0).evaluate(ground) != tabs.nth(1).evaluate(ground)
    before = page.locator(".toggle").evaluate(ground)
    page.get_by_role("button", name="Helpful").click()
    desk.press("3", "x")
    assert page.locator(".toggle").evaluate(ground) != before
    scores = desk.card(1).locator(".score-key")
    assert scores.nth(2).evaluate(ground) != scores.nth(1).evaluate(ground)


def test_legend_says_how_very_long_answers_were_compared(sit: Sit) -> None:
    apart = [" ".join(f"{name}{number}" for number in range(1500)) for name in ("one", "two")]
    desk, _ = sit({"overall": "pair"}, apart)
    desk.press("d")
    expect(desk.page.locator(".legend")).to_contain_text("that the other has nowhere")


def test_scrolling_changes_no_score(sit: Sit) -> None:
    desk, _ = sit({"overall": "none", "score": {"step": 0.1}}, [f"{LONG} One.", f"{LONG} Two."])
    field = desk.page.get_by_role("spinbutton").first
    field.fill("4")
    field.hover()
    desk.page.mouse.wheel(0, 300)
    desk.page.wait_for_timeout(200)
    desk.page.mouse.wheel(0, 300)
    desk.page.wait_for_timeout(200)
    expect(field).to_have_value("4")
    assert desk.page.evaluate("scrollY") > 0


def test_double_click_answers_one_comparison(sit: Sit) -> None:
    flags = [{"key": "harmful", "name": "Harmful"}]
    desk, asked = sit({"overall": "none", "flags": flags}, 2, 4)
    # The next one is there already, so that it is shown at once.
    desk.page.wait_for_load_state("networkidle")
    first = desk.assignment
    desk.page.get_by_role("button", name="Submit").dblclick()
    second = desk.next_assignment(first)
    desk.page.wait_for_timeout(600)
    assert desk.assignment == second
    assert asked.said(first) is not None
    assert asked.said(second) is None
    desk.submit()
    desk.next_assignment(second)
    assert asked.said(second) is not None


def test_enter_submits_after_any_button_was_clicked(sit: Sit) -> None:
    desk, asked = sit({"criteria": [{"key": "safe", "name": "Safe", "kind": "ranking"}]}, 3)
    page, shown = desk.page, desk.assignment
    desk.press("1", "2")
    page.get_by_role("button", name="Take back").click()
    page.get_by_role("button", name="Show differences").click()
    desk.press("3", "2")
    page.get_by_role("button", name="Safe").click()
    desk.press("2", "1", "3", "Enter")
    desk.next_assignment(shown)
    said = asked.said(shown)
    assert said is not None
    assert len(said.groups) == 3

"""Is there room to read on the desk, whatever the window and however many responses there are?"""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.desk_page import DeskPage
from tests.browser.desk_work import Asked

Sit = Callable[..., tuple[DeskPage, Asked]]

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
SCORE = {"overall": "none", "score": {"lowest": 1, "highest": 5, "step": 0.1}}
RICH = {
    "all_bad": True,
    "criteria": [{"key": "helpful", "name": "Helpful", "description": "Does it do what was asked?"}],
    "flags": [{"key": "cannot_judge", "name": "I cannot judge this", "of": "comparison", "excuses": True}],
    "rationale": "optional",
}


def height_of_bar(desk: DeskPage) -> float:
    box = desk.page.locator(".rank-bar").bounding_box()
    assert box is not None
    return box["height"]


def test_one_response_has_a_whole_column_in_the_middle(sit: Sit) -> None:
    desk, _ = sit(SCORE, 1)
    box = desk.card(1).bounding_box()
    assert box is not None
    assert box["width"] > 800
    assert abs(box["x"] + box["width"] / 2 - 1440 / 2) < 20
    field = desk.page.get_by_role("spinbutton", name="Score of response 1")
    expect(field).to_have_attribute("placeholder", "1\u20135")
    expect(desk.card(1).get_by_text("or exactly")).to_be_visible()
    expect(desk.page.locator(".rank-bar").get_by_text("How good is it by itself, from 1 to 5?")).to_be_visible()


def test_zoomed_in_four_times_texts_can_be_read(sit: Sit) -> None:
    desk, _ = sit(RICH, ["one " * 400, "two " * 400, "three " * 400], viewport={"width": 320, "height": 256})
    assert desk.page.evaluate("document.documentElement.scrollWidth") <= 320
    desk.press("j")
    # Nothing but the text is in the window, whose height a bar that stays in place would fill.
    inside = "y => document.elementFromPoint(100, y)?.closest('.response') !== null"
    assert all(desk.page.evaluate(inside, y) for y in (60, 130, 250))
    desk.press("r")
    expect(desk.page.get_by_role("textbox", name="Reasons for your answer")).to_be_focused()


def test_on_a_phone_what_is_not_required_folds_away(sit: Sit) -> None:
    desk, asked = sit(RICH, 3, **PHONE)
    folded = height_of_bar(desk)
    assert folded < 844 * 0.25
    all_bad = desk.page.locator(".toggle")
    more = desk.page.get_by_role("button", name="More")
    more.tap()
    expect(more).to_have_attribute("aria-pressed", "true")
    all_bad.tap()
    desk.page.get_by_role("textbox", name="Reasons for your answer").fill("All miss the point")
    assert height_of_bar(desk) > folded
    # It stays as one left it, also for the next comparison.
    desk.page.reload()
    desk.ready()
    expect(more).to_have_attribute("aria-pressed", "true")
    opened = height_of_bar(desk)
    more.tap()
    assert height_of_bar(desk) < opened
    for _ in range(3):
        desk.page.locator(".scores .score-key").nth(2).tap()
    shown = desk.assignment
    desk.page.get_by_role("button", name="Submit").tap()
    desk.next_assignment(shown)
    said = asked.said(shown)
    assert said is not None
    assert (said.answers["all_bad"], said.answers["rationale"]) == (True, "All miss the point")


def test_on_a_phone_reasons_that_are_required_stay_in_sight(sit: Sit) -> None:
    desk, _ = sit({**RICH, "rationale": "required"}, 3, **PHONE)
    reasons = desk.page.get_by_role("textbox", name="Reasons for your answer").bounding_box()
    assert reasons is not None
    assert reasons["width"] > 340
    assert height_of_bar(desk) < 844 * 0.3


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_flags_of_a_response_open_inside_the_window(sit: Sit, width: int) -> None:
    flags = [{"key": "long", "name": "Not in the language that was asked for"}]
    form = {"overall": "pair", "flags": flags, "criteria": RICH["criteria"]}
    desk, _ = sit(form, 2, viewport={"width": width, "height": 844})
    for _ in range(2):  # for the pair, then for the scores
        desk.press("f")
        box = desk.card(1).locator(".menu-list").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        desk.press("Escape", "]")


def test_eight_grades_fit_when_zoomed_in(sit: Sit) -> None:
    desk, _ = sit({"overall": "pair", "pair": {"scale": "anthropic"}}, 2, viewport={"width": 320, "height": 640})
    grades = desk.page.locator(".grade")
    assert [grades.nth(index).evaluate("grade => grade.scrollWidth <= grade.clientWidth") for index in range(8)] == [
        True
    ] * 8

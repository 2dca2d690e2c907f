"""Can every kind of judgement be made by key, by mouse, by touch and without JavaScript, and changed again?"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.desk_page import DeskPage
from tests.browser.desk_work import Asked, Said

Browse = Callable[..., Page]
SignIn = Callable[[Page, Any], None]
Check = Callable[[Page], None]
Sit = Callable[..., tuple[DeskPage, Asked]]

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PAIR = {"overall": "pair"}
SCORE = {"overall": "none", "score": {"lowest": 1, "highest": 5, "step": 0.1}}
CANNOT = {"key": "cannot_judge", "name": "I cannot judge this", "of": "comparison", "excuses": True}
FLAGS = [{"key": "harmful", "name": "Harmful"}, {"key": "private_data", "name": "Private data"}, CANNOT]
MIX = {
    "all_bad": True,
    "criteria": [
        {"key": "helpful", "name": "Helpful", "description": "Does it do what was asked?"},
        {"key": "honest", "name": "Honest", "required": False},
        {"key": "safe", "name": "Safe", "kind": "ranking"},
    ],
    "correction": "optional",
    "flags": FLAGS,
    "rationale": "optional",
}
FORMS: dict[str, tuple[Mapping[str, Any], int]] = {
    "ranking": ({"ranking": {"partial": True}}, 3),
    "pair": (PAIR, 2),
    "pair of eight": ({"overall": "pair", "pair": {"scale": "anthropic"}, "rationale": "required"}, 2),
    "score": (SCORE, 3),
    "mix": (MIX, 3),
}


def submitted(desk: DeskPage, asked: Asked) -> Said:
    """Submit by key, and read what the database then holds."""
    shown = desk.assignment
    desk.press("Enter")
    expect(desk.page.locator(f"#ranking[action$='/assignments/{shown}/label']")).to_have_count(0)
    desk.sent()
    said = asked.said(shown)
    assert said is not None
    return said


# --- A pair ---


def test_pair_by_key_along_the_scale(sit: Sit) -> None:
    desk, asked = sit(PAIR, 2, 3)
    one, two = desk.response_ids()
    desk.press("Enter")
    expect(desk.said()).to_have_text("Not yet: say which response is better.")
    desk.press("2")
    expect(desk.said()).to_have_text("Response 1 is better. Everything is answered. Enter submits.")
    assert submitted(desk, asked) == Said([[one], [two]], {"strength": 2}, 1)
    one, two = desk.response_ids()
    desk.press("ArrowRight")
    expect(desk.said()).to_contain_text("Response 2 is slightly better.")
    desk.press("ArrowRight", "ArrowRight", "ArrowRight")
    assert submitted(desk, asked) == Said([[two], [one]], {"strength": 3}, 1)
    one, two = desk.response_ids()
    desk.press("7", "Backspace")
    expect(desk.said()).to_contain_text("Taken back.")
    desk.press("Numpad4")
    expect(desk.said()).to_contain_text("They are about equal.")
    assert submitted(desk, asked) == Said([sorted([one, two])], {}, 1)


def test_pair_by_mouse_and_changed_again(sit: Sit) -> None:
    desk, asked = sit({"overall": "pair", "pair": {"scale": "anthropic"}}, 2)
    first, (one, two) = desk.assignment, desk.response_ids()
    desk.page.locator(".grade", has_text="far better").last.click()
    expect(desk.card(2)).to_contain_text("far better")
    desk.submit()
    desk.next_assignment(first)
    assert asked.said(first) == Said([[two], [one]], {"strength": 4}, 1)
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    expect(desk.page.get_by_role("radio", checked=True)).to_have_accessible_name("2 far better")
    desk.press("1", "Enter")
    expect(desk.page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    assert asked.said(first) == Said([[one], [two]], {"strength": 4}, 2)


def test_scale_by_its_own_radio_buttons(sit: Sit) -> None:
    desk, asked = sit({"overall": "pair", "pair": {"scale": "better"}}, 2)
    one, two = desk.response_ids()
    desk.page.get_by_role("radio").first.focus()
    desk.press("Space", "ArrowRight", "ArrowRight")
    expect(desk.page.get_by_role("radio").last).to_be_focused()
    assert submitted(desk, asked) == Said([[two], [one]], {"strength": 1}, 1)


def test_more_than_a_pair_is_ranked(sit: Sit) -> None:
    desk, asked = sit(PAIR, 3)
    ids = desk.response_ids()
    desk.press("3", "Shift+Digit1", "2")
    assert submitted(desk, asked) == Said([sorted([ids[2], ids[0]]), [ids[1]]], {}, 1)


# --- Scores ---


def test_scores_by_key_with_decimals(sit: Sit) -> None:
    desk, asked = sit(SCORE)
    ids = desk.response_ids()
    desk.press("4", ".", "2")
    expect(desk.said()).to_have_text("Response 1: 4.2. 2 left to score.")
    expect(desk.card(2)).to_be_focused()
    desk.press("3", "Enter")
    expect(desk.said()).to_have_text("Not yet: score 3.")
    desk.press("9")  # beyond the scale: nothing
    desk.press("5", "Backspace", "1")
    said = submitted(desk, asked)
    assert said == Said([], {"scores": {str(ids[0]): 4.2, str(ids[1]): 3, str(ids[2]): 1}}, 1)


def test_scores_by_mouse_and_in_their_fields(sit: Sit) -> None:
    desk, asked = sit(SCORE)
    first, ids = desk.assignment, desk.response_ids()
    desk.card(3).get_by_role("button", name="Score 2 for response 3").click()
    desk.card(1).get_by_role("spinbutton").fill("6")
    desk.card(2).get_by_role("spinbutton").fill("3.7")
    desk.submit()
    expect(desk.said()).to_have_text("A score for response 1 is a number from 1 to 5 in steps of 0.1.")
    assert asked.said(first) is None
    desk.card(1).get_by_role("spinbutton").fill("4.9")
    desk.submit()
    desk.next_assignment(first)
    said = {"scores": {str(ids[0]): 4.9, str(ids[1]): 3.7, str(ids[2]): 2}}
    assert asked.said(first) == Said([], said, 1)
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    expect(desk.card(2).get_by_role("spinbutton")).to_have_value("3.7")
    desk.press("1", "Enter")
    expect(desk.page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    assert asked.said(first) == Said([], {"scores": {**said["scores"], str(ids[0]): 1}}, 2)


def test_one_response_alone_is_scored(sit: Sit) -> None:
    desk, asked = sit({"overall": "none", "score": {"lowest": 0, "highest": 10, "step": 1}}, 1)
    (only,) = desk.response_ids()
    desk.press("0")
    assert submitted(desk, asked) == Said([], {"scores": {str(only): 0}}, 1)


# --- Several questions ---


def test_questions_one_after_the_other_by_key(sit: Sit) -> None:
    desk, asked = sit(MIX)
    a, b, c = desk.response_ids()
    assert desk.question() == "Overall"
    desk.press("2", "1", "3")
    expect(desk.said()).to_have_text("Response 3: 3rd. Now: Helpful. 3 left to score.")
    desk.press("4", "3", "Enter")
    expect(desk.said()).to_have_text("Helpful: Not yet: score 3.")
    desk.press("5")
    assert desk.question() == "Honest"
    desk.press("Enter")
    expect(desk.said()).to_have_text("Safe: Not yet: give a place to 1, 2, 3.")
    assert desk.question() == "Safe"
    desk.press("3", "Backspace", "Backspace")
    assert desk.question() == "Helpful", "taking back goes on where there is something to take back"
    expect(desk.page.get_by_role("button", name="Helpful")).to_have_accessible_name("Helpful not finished")
    desk.press("2", "]")
    assert desk.question() == "Safe"
    desk.press("[", "[", "]", "]", "1", "Shift+Digit2", "3")
    helpful, safe = {"scores": {str(a): 4, str(b): 3, str(c): 2}}, {"groups": [sorted([a, b]), [c]]}
    assert submitted(desk, asked) == Said([[b], [a], [c]], {"criteria": {"helpful": helpful, "safe": safe}}, 1)


def test_questions_by_mouse(sit: Sit) -> None:
    criteria = [{"key": "safe", "name": "Safe", "kind": "pair"}, {"key": "kind", "name": "Kind"}]
    desk, asked = sit({"overall": "none", "criteria": criteria}, 2)
    one, two = desk.response_ids()
    desk.page.get_by_role("button", name="Kind").click()
    desk.card(1).get_by_role("button", name="Score 5 for response 1").click()
    desk.card(2).get_by_role("button", name="Score 1 for response 2").click()
    assert desk.question() == "Safe"
    desk.page.locator(".grade:visible").nth(5).click()
    judged = {"safe": {"groups": [[two], [one]], "strength": 2}, "kind": {"scores": {str(one): 5, str(two): 1}}}
    assert submitted(desk, asked) == Said([], {"criteria": judged}, 1)


def test_partial_ranking_says_what_is_left_out(sit: Sit) -> None:
    desk, asked = sit({"ranking": {"partial": True}}, 4)
    ids = desk.response_ids()
    desk.press("3", "Enter")
    expect(desk.said()).to_have_text("Not yet: give at least two responses a place.")
    desk.press("1")
    expect(desk.said()).to_have_text("Response 1: 2nd. Enough to submit: 2 are left out.")
    expect(desk.card(2).locator("[data-place]")).to_have_text("left out")
    assert submitted(desk, asked).groups == [[ids[2]], [ids[0]]]


# --- What stands instead of an answer, or beside it ---


def test_all_are_bad(sit: Sit) -> None:
    desk, asked = sit({"all_bad": True})
    desk.press("1", "x")
    expect(desk.said()).to_have_text("All are bad: nothing else is needed.")
    assert submitted(desk, asked) == Said([], {"all_bad": True}, 1)
    desk.page.locator(".toggle").click()
    desk.page.locator(".toggle").click()
    desk.press("Enter")
    expect(desk.said()).to_contain_text("Not yet")


def test_flags_of_a_response_and_of_the_comparison(sit: Sit) -> None:
    desk, asked = sit({"flags": FLAGS})
    ids = desk.response_ids()
    desk.press("ArrowRight", "ArrowRight", "f", "2")
    expect(desk.said()).to_have_text("Private data: set.")
    desk.press("Escape")
    expect(desk.card(2)).to_be_focused()
    desk.card(3).locator(".menu > summary").click()
    desk.card(3).get_by_label("Harmful").check()
    desk.press("Escape", "Shift+F", "Space")
    expect(desk.said()).to_have_text("I cannot judge this: nothing else is needed.")
    desk.press("Escape")
    flags = {"harmful": [ids[2]], "private_data": [ids[1]], "cannot_judge": True}
    assert submitted(desk, asked) == Said([], {"flags": flags}, 1)


def test_reasons_are_required_and_typed_in_peace(sit: Sit) -> None:
    desk, asked = sit({"rationale": "required"})
    desk.press("1", "2", "3", "Enter")
    expect(desk.said()).to_have_text("Not yet: say why, in your own words.")
    field = desk.page.get_by_label("Reasons for your answer")
    expect(field).to_be_focused()
    desk.page.keyboard.type("2 is short; x, s and g are keys.")
    desk.press("Escape", "r", "Control+End")
    desk.page.keyboard.type(" Really?")
    shown = desk.assignment
    desk.press("Control+Enter")
    desk.next_assignment(shown)
    said = asked.said(shown)
    assert said is not None
    assert said.answers == {"rationale": "2 is short; x, s and g are keys. Really?"}


def test_correction_and_written_answer(sit: Sit) -> None:
    desk, asked = sit({"correction": "required"}, ["Paris is in Spain.", "Paris?", "Rome."])
    ids = desk.response_ids()
    desk.press("1", "2", "3", "Enter")
    expect(desk.said()).to_have_text("Not yet: correct a response, or write a better one.")
    desk.press("Escape", "j", "e")
    field = desk.page.get_by_label("Correction of response 2")
    expect(field).to_be_focused()
    original = field.input_value()
    field.fill("Paris is in France.")
    expect(desk.said()).to_have_text("Response 2 is corrected.")
    desk.card(2).get_by_role("button", name="Back to what was written").click()
    expect(field).to_have_value(original)
    field.fill("Paris is in France.")
    desk.press("Escape", "w")
    desk.page.keyboard.type("It lies in France.")
    first = desk.assignment
    desk.press("Control+Enter")
    desk.next_assignment(first)
    said = asked.said(first)
    assert said is not None
    assert said.answers["corrections"][str(ids[1])]["text"] == "Paris is in France."
    assert said.answers["written"]["text"] == "It lies in France."
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    expect(field).to_have_value("Paris is in France.")
    desk.card(2).get_by_role("button", name="Back to what was written").click()
    desk.press("Escape", "Enter")
    expect(desk.page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    changed = asked.said(first)
    assert changed is not None
    assert "corrections" not in changed.answers


# --- Everywhere ---


@pytest.mark.parametrize("name", FORMS)
def test_by_touch_on_a_phone(sit: Sit, no_violations: Check, name: str) -> None:
    form, count = FORMS[name]
    desk, asked = sit(form, count, **PHONE)
    page, shown = desk.page, desk.assignment
    bar = page.locator(".rank-bar")
    while (missing := bar.locator(".question:visible")).count() and "is-waiting" in (
        bar.locator("[data-submit]").get_attribute("class") or ""
    ):
        kind = missing.get_attribute("data-kind")
        if kind == "ranking":
            missing.locator("[data-next]").first.tap()
        elif kind == "pair" and not missing.locator(":checked").count():
            missing.locator(".grade").nth(1).tap()
        elif kind == "score":
            missing.locator("[data-score='4']").tap()
        else:
            page.get_by_label("Reasons for your answer").tap()
            page.keyboard.type("Because.")
            page.keyboard.press("Escape")
    no_violations(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out sideways"
    page.get_by_role("button", name="Submit").tap()
    expect(page.locator(f"#ranking[action$='/assignments/{shown}/label']")).to_have_count(0)
    desk.sent()
    assert asked.said(shown) is not None


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", FORMS)
def test_no_accessibility_violation(sit: Sit, no_violations: Check, name: str, theme: str) -> None:
    form, count = FORMS[name]
    desk, _asked = sit(form, count, color_scheme=theme)
    no_violations(desk.page)
    desk.press("2", "1", "Enter")
    no_violations(desk.page)
    if name == "mix":
        desk.press("Escape", "3", "f")
        no_violations(desk.page)
        desk.press("Space", "Escape", "e", "Escape", "w", "Escape", "x")
        no_violations(desk.page)


def test_everything_without_javascript(sit: Sit, browse: Browse, sign_in: SignIn) -> None:
    _desk, asked = sit(MIX, 2)
    page = browse(java_script_enabled=False)
    sign_in(page, asked.person)
    desk = DeskPage(page, asked.project)
    page.goto(f"{desk.root}/desk")
    shown, (one, two) = desk.assignment, desk.response_ids()
    for id_, place in ((one, "2"), (two, "1")):
        page.locator(f"[name=rank_{id_}]").select_option(place)
        page.locator(f"[name=criterion_safe_rank_{id_}]").select_option("1")
        page.locator(f"[name=criterion_helpful_score_{id_}]").fill("5")
    desk.card(1).locator(".menu > summary").click()
    page.locator(f"[name=flag_harmful_{one}]").check()
    page.get_by_label("Reasons for your answer").fill("Short.")
    desk.card(2).locator(".correction > summary").click()
    page.get_by_label("Correction of response 2").fill("Better,\nand longer.")
    desk.submit()
    said = asked.said(shown)
    assert said is not None
    assert said.groups == [[two], [one]]
    assert said.answers["criteria"] == {
        "helpful": {"scores": {str(one): 5, str(two): 5}},
        "safe": {"groups": [sorted([one, two])]},
    }
    assert said.answers["flags"] == {"harmful": [one]}
    assert said.answers["rationale"] == "Short."
    assert said.answers["corrections"][str(two)]["text"] == "Better,\nand longer."


def test_change_that_is_cancelled_leaves_nothing_behind(sit: Sit) -> None:
    desk, _ = sit({}, 3)
    shown = desk.assignment
    desk.press("1", "2", "3", "Enter")
    desk.next_assignment(shown)
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    with desk.page.expect_response("**/draft"):
        desk.press("Backspace", "Backspace")
    with desk.page.expect_response(lambda answer: answer.request.method == "DELETE") as dropped:
        desk.page.get_by_role("link", name="Cancel").click()
    assert dropped.value.status == 204
    desk.page.get_by_role("link", name="Change label").click()
    desk.ready()
    assert desk.groups() == [[1], [2], [3]]

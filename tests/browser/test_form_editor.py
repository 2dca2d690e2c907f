"""Can an admin put a judgement form together by keyboard, see the desk follow, try it, and do annotators get it?"""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects
from app.domain.judgement import JudgementForm, parse_form
from app.tables import Person
from tests.admin_project import AdminProject, make_admin_project, make_comparisons

Committed = sessionmaker[Session]
SignIn = Callable[[Page, Person], None]
Browse = Callable[..., Page]
Check = Callable[[Page], None]


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        make_comparisons(session, place.project, 2)
        return place


@pytest.fixture
def page(browser_page: Page, place: AdminProject, sign_in: SignIn) -> Page:
    sign_in(browser_page, place.admin)
    return browser_page


def opened(page: Page, place: AdminProject) -> FrameLocator:
    """The editor's page; returns the preview, once the desk in it listens."""
    page.goto(f"{place.root}/form")
    frame = page.frame_locator("iframe[name=preview]")
    expect(frame.locator("#desk .response")).to_have_count(4)
    return frame


def click(page: Page, inside: Locator) -> None:
    """A click with the mouse on something in the preview, which is shown at three quarters of its size."""
    at = inside.evaluate(
        """element => {
            element.scrollIntoView({ block: "center" });
            const { x, y, width, height } = element.getBoundingClientRect();
            return [x + width / 2, y + height / 2];
        }"""
    )
    box = page.locator("iframe[name=preview]").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + at[0] * 0.75, box["y"] + at[1] * 0.75)


def form_of(committed: Committed, place: AdminProject) -> JudgementForm:
    with committed() as session:
        version = projects.get_project(session, place.project.id).current_version
        return parse_form(version.judgement_form)


def test_a_mix_is_built_by_keyboard_tried_saved_and_asked(
    page: Page, place: AdminProject, committed: Committed, sign_in: SignIn
) -> None:
    frame = opened(page, place)
    page.get_by_role("radio", name="Ranking").focus()
    page.keyboard.press("ArrowDown")
    expect(page.get_by_label("Scale of a pair")).to_be_visible()
    page.get_by_label("With", exact=True).select_option("2")
    expect(frame.locator("#desk .response")).to_have_count(2)
    expect(frame.locator("[name=strength]").first).to_be_attached()

    page.get_by_role("button", name="Add a criterion").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name").first).to_be_focused()
    page.keyboard.type("Honest")
    expect(frame.locator("#desk")).to_contain_text("Honest")
    page.get_by_label("Harmful").focus()
    page.keyboard.press("Space")
    expect(frame.locator("[name=flag_harmful_1]")).to_be_attached()
    page.get_by_label("Rationale").select_option("required")
    expect(frame.locator("[name=rationale]")).to_be_attached()

    page.get_by_role("button", name="Save as version 2").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").first).to_have_text("Saved.")
    form = form_of(committed, place)
    assert (form.overall, form.rationale, [flag.key for flag in form.flags]) == ("pair", "required", ["harmful"])
    assert [(one.key, one.kind) for one in form.criteria] == [("honest", "score")]

    sign_in(page, place.annotator)
    page.goto(f"/projects/{place.project.slug}/desk")
    expect(page.locator("#desk")).to_contain_text("Honest")
    expect(page.locator("[name=rationale]")).to_be_attached()


def test_the_preview_takes_answers_and_says_what_a_label_would(page: Page, place: AdminProject) -> None:
    frame = opened(page, place)
    steps = page.evaluate("history.length")
    page.get_by_label("With", exact=True).select_option("3")
    expect(frame.locator("#desk .response")).to_have_count(3)
    click(page, frame.locator(".response[data-number='2'] [data-act=next]"))
    page.keyboard.press("1")
    page.keyboard.press("3")
    click(page, frame.get_by_role("button", name="Try it"))
    expect(frame.get_by_role("heading", name="What a label will say")).to_be_visible()
    assert json.loads(frame.locator("[data-said]").inner_text()) == {"groups": [[2], [1], [3]], "answers": {}}
    page.get_by_label("“All are bad” may stand instead").check()
    expect(frame.locator("[name=all_bad]")).to_be_attached()
    expect(frame.locator("[data-said]")).to_have_count(0)
    assert page.evaluate("history.length") == steps


def test_rows_move_and_go_where_one_is(page: Page, place: AdminProject) -> None:
    opened(page, place)
    page.get_by_text("Begin from a ready-made form").click()
    page.get_by_role("button", name="Helpful, honest, harmless").click()
    names = page.locator("[name^='criteria.'][name$='.name']")
    expect(names).to_have_count(3)
    page.get_by_role("button", name="Move Honest up").focus()
    page.keyboard.press("Enter")
    expect(names.first).to_have_value("Honest")
    page.get_by_role("button", name="Move Honest down").press("Enter")
    expect(names.nth(1)).to_have_value("Honest")
    expect(page.get_by_role("button", name="Move Honest down")).to_be_focused()
    page.get_by_label("Rationale").select_option("required")
    page.get_by_role("button", name="Remove Harmless").press("Enter")
    page.get_by_label("Correction").select_option("optional")  # while the answer is on its way
    expect(names).to_have_count(2)
    expect(page.get_by_label("Rationale")).to_have_value("required")
    expect(page.get_by_label("Correction")).to_have_value("optional")


def test_a_form_that_does_not_work_says_so_in_place_of_the_desk(page: Page, place: AdminProject) -> None:
    frame = opened(page, place)
    page.get_by_role("radio", name="None").check()
    expect(frame.get_by_role("alert")).to_contain_text("asks nothing")
    page.get_by_role("button", name="Save as version 2").click()
    expect(page.locator("#editor").get_by_role("alert")).to_contain_text("Nothing was saved.")
    expect(page.get_by_role("radio", name="None")).to_be_checked()
    page.get_by_label("A number for each response").check()
    expect(frame.locator("#desk [name^=score_]").first).to_be_attached()


def test_everything_works_without_javascript(
    browse: Browse, place: AdminProject, sign_in: SignIn, committed: Committed
) -> None:
    page = browse(java_script_enabled=False)
    sign_in(page, place.admin)
    page.goto(f"{place.root}/form")
    frame = page.frame_locator("iframe[name=preview]")
    page.get_by_role("button", name="Add a criterion").click()
    page.get_by_label("Name").first.fill("Honest")
    page.get_by_role("button", name="Show the preview").click()
    expect(frame.locator("#desk")).to_contain_text("Honest")
    expect(page.get_by_label("Name").first).to_have_value("Honest")
    for number, place_ in enumerate("1223", start=1):
        response = frame.locator(".response").nth(number - 1)
        response.locator("select").first.select_option(place_)
        response.locator("[name^=criterion_honest_score]").first.fill("3")
    frame.get_by_role("button", name="Try it").press("Enter")
    said = json.loads(frame.locator("[data-said]").inner_text())
    assert [len(group) for group in said["groups"]] == [1, 2, 1]
    assert set(said["answers"]["criteria"]["honest"]["scores"].values()) == {3}
    page.get_by_role("button", name="Save as version 2").click()
    assert form_of(committed, place).criteria[0].key == "honest"


def test_guidelines_show_themselves_while_one_writes(page: Page, place: AdminProject) -> None:
    page.goto(f"{place.root}/guidelines")
    page.get_by_label("What annotators are told").fill("Prefer **true** answers: $x^2$")
    shown = page.locator("#shown")
    expect(shown.locator("strong")).to_have_text("true")
    expect(shown.locator(".katex").first).to_be_visible()
    page.get_by_text("Worked examples").click()
    page.get_by_role("button", name="Insert it at the end").click()
    expect(shown.get_by_role("region", name="Example")).to_contain_text("Canberra.")
    page.get_by_role("button", name="Save as version 2").click()
    page.get_by_role("link", name="See the saved ones").click()
    expect(page.locator(".prose strong")).to_have_text("true")


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_editors_are_accessible_and_fit(
    browse: Browse, place: AdminProject, sign_in: SignIn, no_violations: Check, look: str
) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    page = browse(**(phone if look == "phone" else {"color_scheme": look, "viewport": {"width": 1440, "height": 900}}))
    sign_in(page, place.admin)
    opened(page, place)
    page.get_by_text("Begin from a ready-made form").click()
    for name, criteria in (("Graded pair, helpful and safe", 2), ("Ranking, correction and reasons", 0)):
        page.get_by_role("button", name=name).click()
        expect(page.locator("[name^='criteria.'][name$='.name']")).to_have_count(criteria)
        page.get_by_role("button", name="Add a flag of your own").click()
        expect(page.locator("[name='flags.0.name']")).to_be_focused()
        page.get_by_label("A number for each response").check()
        page.wait_for_timeout(800)  # until the preview has followed
        no_violations(page)
        fits(page)
    page.goto(f"{place.root}/guidelines")
    page.get_by_label("What annotators are told").fill("# Be kind\n\n```example\nprompt: a\nbetter: b\nworse: c\n```")
    expect(page.get_by_role("region", name="Example")).to_be_visible()
    no_violations(page)
    fits(page)


def fits(page: Page) -> None:
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0, f"{page.url} is {overflow} pixels too wide"

"""Can a person rank by key, by click, by drag, by touch and without JavaScript, and is nothing lost on the way?"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, labels, people
from app.tables import (
    Assignment,
    AssignmentState,
    Comparison,
    ComparisonState,
    Label,
    LabelRevision,
    Person,
    Project,
    Prompt,
    Purpose,
    Response,
    Role,
)
from tests.browser.desk_page import DeskPage, middle
from tests.factories import make_person, make_project, make_prompt, make_responses

Browse = Callable[..., Page]
SignIn = Callable[[Page, Person], None]
Check = Callable[[Page], None]

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


@dataclass
class Work:
    """A project with comparisons of four, and an annotator in it."""

    committed: sessionmaker[Session]
    project: Project
    person: Person
    annotator_id: int

    def label(self, assignment_id: int) -> list[list[int]] | None:
        """The stored ranking of an assignment, response ids best first; None where there is no label."""
        with self.committed() as session:
            label_id = session.scalar(select(Label.id).where(Label.assignment_id == assignment_id))
            if label_id is None:
                return None
            ranks = labels.get_label(session, self.project.id, label_id).revisions[-1].ranks
        places = sorted({rank.rank for rank in ranks})
        return [sorted(rank.response_id for rank in ranks if rank.rank == place) for place in places]

    def count(self, table: type[Label] | type[LabelRevision]) -> int:
        with self.committed() as session:
            return session.scalars(select(func.count()).select_from(table)).one()

    def expire(self) -> None:
        """Let every lease run out now."""
        with self.committed.begin() as session:
            session.execute(update(Assignment).values(expires_at=func.now()))


def add_comparison(session: Session, project: Project, prompt: Prompt, texts: list[str] | int = 4) -> None:
    ids = [response.id for response in make_responses(session, prompt, texts)]
    new = comparisons.NewComparison(
        project_id=project.id,
        prompt_id=prompt.id,
        response_ids=ids,
        k=1,
        purpose=Purpose.TRAIN,
        selected_because="by_hand",
    )
    comparisons.create_comparisons(session, [new])


@pytest.fixture
def work(committed: sessionmaker[Session]) -> Work:
    with committed.begin() as session:
        project = make_project(session, name="Stories")
        person = make_person(session, "Ann")
        member = people.add_member(session, project, person, Role.ANNOTATOR)
        for _ in range(3):
            add_comparison(session, project, make_prompt(session, project))
    return Work(committed, project, person, member.id)


@pytest.fixture
def desk(browser_page: Page, sign_in: SignIn, work: Work) -> DeskPage:
    sign_in(browser_page, work.person)
    return DeskPage(browser_page, work.project).open()


def ranked(ids: list[int], groups: list[list[int]]) -> list[list[int]]:
    """Groups of numbers shown as groups of response ids."""
    return [sorted(ids[number - 1] for number in group) for group in groups]


def test_by_keyboard(desk: DeskPage, work: Work) -> None:
    first, ids = desk.assignment, desk.response_ids()
    desk.press("3", "1", "Shift+Digit4")
    assert desk.groups() == [[3], [1, 4]]
    desk.press("Backspace", "2", "4")
    assert desk.groups() == [[3], [1], [2], [4]]
    desk.press("3")
    assert desk.groups() == [[1], [2], [4], [3]]
    desk.press("Shift+Digit2", "Enter")
    desk.next_assignment(first)
    assert work.label(first) == ranked(ids, [[1], [4], [3, 2]])
    expect(desk.page.get_by_text("1 label today")).to_be_visible()


def test_keyboard_never_submits_an_incomplete_ranking(desk: DeskPage, work: Work) -> None:
    first = desk.assignment
    desk.press("1", "2", "3", "Enter")
    expect(desk.page.locator("[data-announce]")).to_have_text("Not yet: give a place to 4.")
    desk.submit()
    assert desk.groups() == [[1], [2], [3]]
    assert work.label(first) is None


def test_arrows_move_the_focus_and_the_place(desk: DeskPage) -> None:
    desk.press("ArrowRight", "ArrowRight")
    expect(desk.card(2)).to_be_focused()
    desk.press("ArrowLeft", "ArrowLeft")
    expect(desk.card(1)).to_be_focused()
    desk.press("2", "3", "1", "Alt+ArrowUp")
    assert desk.groups() == [[2], [3, 1]]
    desk.press("Alt+ArrowUp")
    assert desk.groups() == [[2], [1], [3]]
    desk.press("Alt+ArrowDown", "Alt+ArrowDown")
    assert desk.groups() == [[2], [3], [1]]


def test_rank_changes_are_announced(desk: DeskPage) -> None:
    said = desk.page.locator("[data-announce]")
    desk.press("2")
    expect(said).to_have_text("Response 2: 1st. 3 left to rank.")
    desk.press("Shift+Digit1")
    expect(said).to_have_text("Response 1: tied 1st. 2 left to rank.")
    desk.press("3", "4")
    expect(said).to_have_text("Response 4: 3rd. All are ranked. Enter submits.")


def test_by_click(desk: DeskPage, work: Work) -> None:
    first, ids = desk.assignment, desk.response_ids()
    desk.click(2, "next")
    desk.click(4, "tie")
    desk.click(1, "next")
    desk.click(3, "next")
    assert desk.groups() == [[2, 4], [1], [3]]
    desk.click(3, "up")
    assert desk.groups() == [[2, 4], [1, 3]]
    desk.click(4, "down")
    assert desk.groups() == [[2], [4], [1, 3]]
    desk.click(1, "remove")
    expect(desk.card(1).locator("[data-place]")).to_have_text("not ranked")
    desk.click(1, "tie")
    desk.submit()
    desk.next_assignment(first)
    assert work.label(first) == ranked(ids, [[2], [4], [3, 1]])


def test_next_comparison_begins_at_its_top(desk: DeskPage, work: Work) -> None:
    with work.committed.begin() as session:
        session.execute(update(Response).values(text=Response.text + func.repeat("\n\nA paragraph.", 100)))
    desk.page.reload()
    desk.ready()
    first = desk.assignment
    desk.press("1", "2", "3", "4", "End")
    expect(desk.card(4).get_by_text("A paragraph.").last).to_be_in_viewport()
    desk.page.wait_for_timeout(500)  # the browser glides there, and a glide goes on over whatever comes
    desk.press("Enter")
    desk.next_assignment(first)
    assert desk.page.evaluate("scrollY") == 0


def test_enter_submits_after_clicks(desk: DeskPage, work: Work) -> None:
    first = desk.assignment
    for number in (1, 2, 3, 4):
        desk.click(number, "next")
    desk.press("Enter")
    desk.next_assignment(first)
    assert work.label(first) is not None


def test_by_drag(desk: DeskPage, work: Work) -> None:
    first, ids = desk.assignment, desk.response_ids()
    desk.drag(3, "[data-drop=gap][data-index='0']")
    desk.drag(1, "[data-drop=gap][data-index='1']")
    assert desk.groups() == [[3], [1]]
    desk.drag(2, "[data-drop=group][data-index='0']")
    assert desk.groups() == [[3, 2], [1]]
    desk.drag(4, "[data-drop=gap][data-index='1']")
    assert desk.groups() == [[3, 2], [4], [1]]
    desk.drag(2, "[data-drop=gap][data-index='3']")
    assert desk.groups() == [[3], [4], [1], [2]]
    desk.submit()
    desk.next_assignment(first)
    assert work.label(first) == ranked(ids, [[3], [4], [1], [2]])


def test_drag_from_a_card_and_escape(desk: DeskPage) -> None:
    page = desk.page
    page.mouse.move(*middle(desk.card(2).locator(".handle")))
    page.mouse.down()
    page.mouse.move(600, 500, steps=3)
    page.mouse.move(*middle(page.locator("[data-drop=gap]").first), steps=3)
    page.keyboard.press("Escape")
    page.mouse.up()
    assert desk.groups() == []
    page.mouse.move(*middle(desk.card(2).locator(".handle")))
    page.mouse.down()
    page.mouse.move(600, 500, steps=3)
    page.mouse.move(*middle(page.locator("[data-drop=gap]").first), steps=3)
    page.mouse.up()
    assert desk.groups() == [[2]]


def test_skip_by_keyboard_with_a_reason(desk: DeskPage, work: Work) -> None:
    first = desk.assignment
    desk.press("s")
    desk.page.get_by_label("I cannot judge this").check()
    desk.page.get_by_label("In your own words").fill("1 s g: about law")
    desk.press("Enter")
    desk.next_assignment(first)
    with work.committed() as session:
        skipped = session.get_one(Assignment, first)
    assert skipped.state is AssignmentState.SKIPPED
    assert skipped.skip_reason == "I cannot judge this: 1 s g: about law"


def test_skip_panel_closes_and_keeps_the_ranking(desk: DeskPage) -> None:
    desk.press("2", "s", "Escape", "3")
    expect(desk.page.locator(".skip-form")).to_be_hidden()
    assert desk.groups() == [[2], [3]]


def test_keys_are_left_alone_while_composing_and_when_switched_off(desk: DeskPage) -> None:
    desk.page.evaluate(
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', code: 'Digit1', isComposing: true}))"
    )
    assert desk.groups() == []
    desk.press("?")
    desk.page.get_by_label("Let single keys do this").uncheck()
    desk.press("Escape", "1")
    assert desk.groups() == []
    desk.page.reload()
    desk.ready()
    desk.press("1")
    assert desk.groups() == []


def test_back_and_edit(desk: DeskPage, work: Work) -> None:
    first, ids = desk.assignment, desk.response_ids()
    desk.press("1", "2", "3", "4", "Enter")
    desk.next_assignment(first)
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    assert desk.groups() == [[1], [2], [3], [4]]
    desk.press("1", "Enter")
    expect(desk.page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    assert work.label(first) == ranked(ids, [[2], [3], [4], [1]])
    assert (work.count(Label), work.count(LabelRevision)) == (1, 2)


def test_page_says_when_the_time_has_run_out(desk: DeskPage, work: Work) -> None:
    with work.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, 2)))
    desk.page.reload()
    desk.ready()
    desk.press("1")
    expect(desk.page.locator("#message")).to_contain_text("ran out. Your answer is still here")
    assert desk.groups() == [[1]]


def test_heartbeat_extends_the_lease(desk: DeskPage, work: Work) -> None:
    with work.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, 15)))
    desk.page.reload()
    desk.ready()
    with desk.page.expect_response("**/heartbeat") as answer:
        desk.press("1")
    assert answer.value.json()["seconds_left"] > 15 * 60


def test_seconds_are_measured(desk: DeskPage, work: Work) -> None:
    first = desk.assignment
    desk.page.wait_for_timeout(1200)
    desk.press("1", "2", "3", "4", "Enter")
    desk.next_assignment(first)
    with work.committed() as session:
        seconds = session.scalars(select(LabelRevision.seconds)).one()
    assert seconds is not None
    assert 1 <= seconds < 60


def test_layout_and_theme_are_remembered(desk: DeskPage) -> None:
    side = desk.card(2).bounding_box()
    desk.press("v")
    stacked = desk.card(2).bounding_box()
    assert side is not None
    assert stacked is not None
    assert stacked["y"] > side["y"]
    desk.page.get_by_role("button", name="Switch between dark and light").click()
    desk.page.reload()
    desk.ready()
    assert desk.card(2).bounding_box() == stacked
    expect(desk.page.locator("html")).to_have_attribute("data-theme", "dark")


def test_guidelines_and_keys_open_by_key(desk: DeskPage) -> None:
    desk.press("g")
    expect(desk.page.get_by_role("heading", name="Guidelines")).to_be_visible()
    desk.press("1")
    assert desk.groups() == [[1]]
    desk.press("Escape", "?")
    expect(desk.page.get_by_role("heading", name="Keys")).to_be_visible()
    desk.press("2")
    assert desk.groups() == [[1]]


def test_empty_queue_says_why(desk: DeskPage) -> None:
    for _ in range(2):
        shown = desk.assignment
        desk.press("1", "2", "3", "4", "Enter")
        desk.next_assignment(shown)
    desk.press("1", "2", "3", "4", "Enter")
    expect(desk.page.get_by_text("All comparisons have their labels")).to_be_visible()


def test_on_a_phone_by_touch(browse: Browse, sign_in: SignIn, work: Work, no_violations: Check) -> None:
    page = browse(**PHONE)
    sign_in(page, work.person)
    desk = DeskPage(page, work.project).open()
    first, ids = desk.assignment, desk.response_ids()
    for number, act in [(3, "next"), (1, "next"), (4, "tie"), (2, "next")]:
        desk.card(number).locator(f"[data-act={act}]").tap()
    assert desk.groups() == [[3], [1, 4], [2]]
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out sideways"
    no_violations(page)
    page.get_by_role("button", name="Submit").tap()
    desk.next_assignment(first)
    assert work.label(first) == ranked(ids, [[3], [1, 4], [2]])


def test_drag_by_touch(browse: Browse, sign_in: SignIn, work: Work) -> None:
    page = browse(**PHONE)
    sign_in(page, work.person)
    desk = DeskPage(page, work.project).open()
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *at: float) -> None:
        points = [{"x": at[0], "y": at[1]}] if at else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    x, y = middle(page.locator("[data-strip] [data-drag='2']"))
    send("touchStart", x, y)
    send("touchMove", x - 12, y - 12)
    send("touchMove", *middle(page.locator("[data-drop=gap]").first))
    send("touchEnd")
    assert desk.groups() == [[2]]


def test_without_javascript(browse: Browse, sign_in: SignIn, work: Work) -> None:
    page = browse(java_script_enabled=False)
    sign_in(page, work.person)
    desk = DeskPage(page, work.project)
    page.goto(f"{desk.root}/desk")
    first, ids = desk.assignment, desk.response_ids()
    for number, place in [(1, "2"), (2, "1"), (3, "2"), (4, "4")]:
        desk.card(number).get_by_label("Place").select_option(place)
    desk.submit()
    second = desk.assignment
    assert second != first
    assert work.label(first) == ranked(ids, [[2], [1, 3], [4]])
    page.locator("summary").click()
    page.get_by_role("button", name="Skip this comparison").click()
    third = desk.assignment
    assert third not in {first, second}
    page.get_by_role("link", name="Change my last label").click()
    desk.card(4).get_by_label("Place").select_option("1")
    page.get_by_role("button", name="Save").click()
    assert work.label(first) == ranked(ids, [[2, 4], [1, 3]])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_accessibility_violation(
    browse: Browse, sign_in: SignIn, work: Work, no_violations: Check, theme: str
) -> None:
    page = browse(viewport={"width": 1440, "height": 900}, color_scheme=theme)
    page.goto("/sign-in")
    no_violations(page)
    sign_in(page, work.person)
    desk = DeskPage(page, work.project).open()
    no_violations(page)
    first = desk.assignment
    desk.press("3", "Shift+Digit1", "2")
    no_violations(page)
    for keys in (["g"], ["?"], ["s"]):
        desk.press(*keys)
        no_violations(page)
        desk.press("Escape")
    desk.press("4", "Enter")
    desk.next_assignment(first)
    page.goto(f"{desk.root}/labels")
    no_violations(page)
    page.goto(f"{desk.root}/guidelines")
    no_violations(page)
    page.goto("/nowhere")
    no_violations(page)


def test_text_of_others_cannot_act(browser_page: Page, sign_in: SignIn, work: Work) -> None:
    hostile = [
        "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">",
        "[click](javascript:document.title='owned') ![pixel](https://example.org/pixel.png) [out](https://example.org)",
    ]
    with work.committed.begin() as session:
        session.execute(update(Comparison).values(state=ComparisonState.PAUSED))
        prompt = make_prompt(session, work.project, "<b>bold?</b> </template><script>document.title='owned'</script>")
        add_comparison(session, work.project, prompt, hostile)
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    sign_in(browser_page, work.person)
    desk = DeskPage(browser_page, work.project).open()
    assert browser_page.title() == "Stories · prefloop"
    expect(browser_page.get_by_text("<script>document.title = 'owned'</script>")).to_be_visible()
    expect(browser_page.get_by_text("pixel (https://example.org/pixel.png)")).to_be_visible()
    link = browser_page.get_by_role("link", name="out")
    expect(link).to_have_attribute("rel", re.compile("noopener noreferrer"))
    questions: list[str] = []
    browser_page.on("dialog", lambda dialog: (questions.append(dialog.message), dialog.dismiss()))
    link.click()
    assert "https://example.org" in questions[0]
    assert desk.assignment
    assert not [url for url in asked if "example.org" in url]

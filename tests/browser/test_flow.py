"""Is the next comparison there at once, and is no answer lost between the page and the database, whatever breaks?"""

import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from playwright.sync_api import Dialog, Page, Route, expect
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app import children
from app.domain import comparisons, labels, people
from app.tables import (
    Assignment,
    AssignmentState,
    Draft,
    Label,
    LabelRevision,
    Person,
    Project,
    ProjectState,
    Purpose,
    Role,
)
from tests.browser.desk_page import DeskPage
from tests.factories import make_person, make_project, make_prompt, make_responses

Browse = Callable[..., Page]
SignIn = Callable[[Page, Person], None]

ONE_WAITS = re.compile("^1 answer waits to be sent")


@dataclass
class Work:
    """A project with seven comparisons of three, and an annotator in it."""

    committed: sessionmaker[Session]
    project: Project
    person: Person

    def label(self, assignment_id: int) -> list[list[int]] | None:
        """The stored ranking of an assignment's comparison, response ids best first; None where there is no label."""
        with self.committed() as session:
            comparison_id = session.get_one(Assignment, assignment_id).comparison_id
            label_id = session.scalar(select(Label.id).where(Label.comparison_id == comparison_id))
            if label_id is None:
                return None
            ranks = labels.get_label(session, self.project.id, label_id).revisions[-1].ranks
        places = sorted({rank.rank for rank in ranks})
        return [sorted(rank.response_id for rank in ranks if rank.rank == place) for place in places]

    def count(self, table: type[Label] | type[LabelRevision] | type[Draft]) -> int:
        with self.committed() as session:
            return session.scalars(select(func.count()).select_from(table)).one()

    def expire(self) -> None:
        """Let every lease run out now."""
        with self.committed.begin() as session:
            session.execute(update(Assignment).values(expires_at=func.now()))


@pytest.fixture
def work(committed: sessionmaker[Session]) -> Work:
    with committed.begin() as session:
        project = make_project(session, name="Stories")
        person = make_person(session, "Ann")
        people.add_member(session, project, person, Role.ANNOTATOR)
        comparisons.create_comparisons(session, [_new_comparison(session, project) for _ in range(7)])
    return Work(committed, project, person)


def _new_comparison(session: Session, project: Project) -> comparisons.NewComparison:
    prompt = make_prompt(session, project)
    return comparisons.NewComparison(
        project_id=project.id,
        prompt_id=prompt.id,
        response_ids=[response.id for response in make_responses(session, prompt, 3)],
        k=1,
        purpose=Purpose.TRAIN,
        selected_because="by_hand",
    )


@pytest.fixture
def desk(browser_page: Page, sign_in: SignIn, work: Work) -> DeskPage:
    sign_in(browser_page, work.person)
    return open_ahead(DeskPage(browser_page, work.project))


def open_ahead(desk: DeskPage) -> DeskPage:
    """Open the desk and wait until the two comparisons after the one it shows have come too."""
    with desk.page.expect_response(lambda answer: answer.url.count("after=") == 2) as ahead:
        desk.open()
    ahead.value.finished()
    return desk


def rank(desk: DeskPage, *order: int) -> list[list[int]]:
    """Put the responses shown into this order; return it as it is stored."""
    ids = desk.response_ids()
    desk.press(*map(str, order))
    return [[ids[number - 1]] for number in order]


def shown_after(desk: DeskPage, first: int) -> int:
    """Wait until another assignment than `first` is shown, sent or not; return it."""
    expect(desk.page.locator("#ranking")).not_to_have_attribute("action", re.compile(f"/assignments/{first}/label$"))
    desk.ready()
    return desk.assignment


def other_tab(desk: DeskPage, work: Work) -> DeskPage:
    return DeskPage(desk.page.context.new_page(), work.project)


def hold(page: Page, address: str) -> list[Route]:
    """Keep requests to `address` from the server; they go on when they are told to."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        held.append(route)

    page.route(address, keep)
    return held


def go_on(desk: DeskPage, held: list[Route]) -> None:
    """Wait for the one request that is held, and let it go on."""
    until = time.monotonic() + 10
    while not held and time.monotonic() < until:
        desk.page.wait_for_timeout(20)
    [route] = held
    route.continue_()


def lines(desk: DeskPage, text: str | re.Pattern[str]) -> None:
    """Wait until the desk says `text` of what is on its way."""
    expect(desk.page.locator(".desk-status + div")).to_contain_text(text)


def test_next_comparison_is_shown_before_the_answer_has_arrived(desk: DeskPage, work: Work) -> None:
    held = hold(desk.page, "**/label")
    first, order = desk.assignment, rank(desk, 2, 3, 1)
    desk.press("Enter")
    second = shown_after(desk, first)
    assert work.label(first) is None
    assert desk.page.evaluate("[scrollY, document.activeElement.matches('[data-start]')]") == [0, True]
    expect(desk.page.locator("[data-today]")).to_have_text("0 labels today")
    go_on(desk, held)
    desk.sent()
    assert work.label(first) == order
    expect(desk.page.locator("[data-today]")).to_have_text("1 label today")
    expect(desk.page.locator("[data-done]")).to_have_text("1 of 7 done in the project")
    assert desk.assignment == second
    desk.press("b")
    desk.page.wait_for_url("**/labels/*")
    desk.ready()
    assert desk.groups() == [[2], [3], [1]]


def test_last_ones_come_without_being_fetched_ahead(desk: DeskPage, work: Work) -> None:
    for number in range(7):
        shown = desk.assignment
        order = rank(desk, 3, 1, 2)
        desk.press("Enter")
        if number < 6:
            desk.next_assignment(shown)
        else:
            expect(desk.page.locator("[data-empty]")).to_contain_text("All comparisons have their labels")
        assert work.label(shown) == order
    assert work.count(Label) == 7
    expect(desk.page.locator("[data-today]")).to_have_text("7 labels today")


def test_skip_goes_the_same_way(desk: DeskPage, work: Work) -> None:
    held = hold(desk.page, "**/skip")
    first = desk.assignment
    desk.press("s")
    desk.page.get_by_label("In your own words").fill("about law")
    desk.press("Enter")
    shown_after(desk, first)
    go_on(desk, held)
    desk.sent()
    with work.committed() as session:
        skipped = session.get_one(Assignment, first)
    assert (skipped.state, skipped.skip_reason) == (AssignmentState.SKIPPED, "about law")


def test_enter_twice_is_one_label(desk: DeskPage, work: Work) -> None:
    first = desk.assignment
    rank(desk, 1, 2, 3)
    desk.press("Enter", "Enter", "Enter")
    second = desk.next_assignment(first)
    assert (desk.groups(), work.count(Label)) == ([], 1)
    # Where the next one is not here yet, the answered one is still in sight.
    hold(desk.page, "**/desk?after=*")
    desk.page.reload()
    desk.ready()
    rank(desk, 1, 2, 3)
    desk.page.evaluate("for (let i = 0; i < 3; i++) document.getElementById('ranking').requestSubmit()")
    expect(desk.page.locator("#desk")).to_have_attribute("aria-busy", "true")
    desk.press("1")
    expect(desk.page.locator("[data-announce]")).to_contain_text("the next comparison is on its way")
    assert desk.assignment == second


def test_half_an_answer_comes_back_here_and_on_another_device(
    desk: DeskPage, work: Work, browse: Browse, sign_in: SignIn
) -> None:
    desk.press("3", "Shift+Digit1")
    desk.page.close()  # at once: only this device can know
    again = other_tab(desk, work).open()
    assert again.groups() == [[1, 3]]
    with again.page.expect_response("**/draft") as saved:
        again.press("2")
    assert saved.value.status == 204

    elsewhere = DeskPage(browse(), work.project)
    sign_in(elsewhere.page, work.person)
    elsewhere.open()
    assert elsewhere.groups() == [[1, 3], [2]]
    with elsewhere.page.expect_response("**/draft"):
        elsewhere.press("Backspace")
    again.page.reload()
    again.ready()
    assert again.groups() == [[1, 3]], "the newest draft wins, wherever it was made"
    rank(again, 2)
    shown = again.assignment
    again.press("Enter")
    again.next_assignment(shown)
    assert work.count(Draft) == 0


def test_answer_waits_for_the_network(desk: DeskPage, work: Work) -> None:
    page, first = desk.page, desk.assignment
    desk.press("2")
    page.context.set_offline(True)
    desk.press("1", "3", "Enter")
    second = shown_after(desk, first)
    lines(desk, ONE_WAITS)
    rank(desk, 3, 2, 1)
    desk.press("Enter")
    third = shown_after(desk, second)
    rank(desk, 2, 3, 1)
    desk.press("Enter")
    lines(desk, re.compile("^3 answers wait to be sent"))
    expect(page.locator("#desk")).to_have_attribute("aria-busy", "true")
    assert work.count(Label) == 0
    page.context.set_offline(False)
    desk.next_assignment(third)
    assert None not in [work.label(answered) for answered in (first, second, third)]
    assert work.count(LabelRevision) == 3
    expect(page.locator("[role=status]", has_text="to be sent")).to_have_count(0)


def test_closed_tab_sends_what_waited_when_one_comes_back(desk: DeskPage, work: Work) -> None:
    context, first = desk.page.context, desk.assignment
    order = rank(desk, 3, 1, 2)
    context.set_offline(True)
    desk.press("Enter")
    lines(desk, ONE_WAITS)
    desk.page.close()
    context.set_offline(False)
    again = DeskPage(context.new_page(), work.project)
    again.page.goto(f"{again.root}/desk")
    again.next_assignment(first)
    assert work.label(first) == order
    assert work.count(LabelRevision) == 1


def test_answer_is_sent_from_a_desk_with_nothing_to_do(desk: DeskPage, work: Work) -> None:
    context, first = desk.page.context, desk.assignment
    order = rank(desk, 3, 2, 1)
    context.set_offline(True)
    desk.press("Enter")
    lines(desk, ONE_WAITS)
    desk.page.close()
    context.set_offline(False)
    work.expire()
    with work.committed.begin() as session:
        session.execute(update(Project).values(state=ProjectState.PAUSED))
    again = DeskPage(context.new_page(), work.project)
    again.page.goto(f"{again.root}/desk")
    expect(again.page.locator("[data-empty]")).to_contain_text("paused")
    again.sent()
    assert work.label(first) == order


def test_two_tabs_send_once(desk: DeskPage, work: Work) -> None:
    other = open_ahead(other_tab(desk, work))
    first = desk.assignment
    assert other.assignment == first
    desk.page.context.set_offline(True)
    order = rank(desk, 1, 3, 2)
    desk.press("Enter")
    second = shown_after(desk, first)
    lines(other, ONE_WAITS)
    desk.page.context.set_offline(False)
    desk.sent()
    other.sent()
    rank(desk, 1, 2, 3)
    desk.press("Enter")
    third = desk.next_assignment(second)
    # The other tab still shows the first, and has the second ready, which was answered here.
    ids = other.response_ids()
    other.press(*(str(ids.index(group[0]) + 1) for group in order), "Enter")
    assert other.next_assignment(first) == third
    assert (work.count(Label), work.count(LabelRevision)) == (2, 2)


def test_refused_answer_is_shown_until_it_is_mended_or_let_go(desk: DeskPage, work: Work) -> None:
    other = open_ahead(other_tab(desk, work))
    first, order = desk.assignment, rank(desk, 1, 2, 3)
    desk.press("Enter")
    desk.next_assignment(first)
    other.press("3", "2", "1", "Enter")
    lines(other, "An answer was not taken: You have answered this comparison already, and differently")
    assert work.label(first) == order
    other.page.reload()
    lines(other, "An answer was not taken")
    other.page.get_by_role("link", name="Look at it again").click()
    other.page.wait_for_url("**/labels/*")
    other.ready()
    assert other.groups() == [[3], [2], [1]]
    other.page.get_by_role("button", name="Save").click()
    expect(other.page.get_by_role("status").filter(has_text="saved")).to_be_visible()
    assert work.label(first) == order[::-1]
    other.open()
    expect(other.page.get_by_text("An answer was not taken")).to_have_count(0)


def test_refused_answer_can_be_let_go(desk: DeskPage, work: Work, no_violations: Callable[[Page], None]) -> None:
    first = desk.assignment
    with work.committed.begin() as session:
        session.execute(update(Project).values(state=ProjectState.ARCHIVED))
    rank(desk, 1, 2, 3)
    desk.press("Enter")
    lines(desk, "An answer was not taken: ")
    link = desk.page.get_by_role("link", name="Look at it again")
    expect(link).to_have_attribute("href", f"{desk.root}/assignments/{first}")
    desk.page.context.clear_cookies()
    rank(desk, 3, 2, 1)
    desk.press("Enter")
    lines(desk, "1 answer waits to be sent.")
    lines(desk, "You are signed out.")
    no_violations(desk.page)
    desk.page.get_by_role("button", name="Let go of it").click()
    expect(desk.page.get_by_text("An answer was not taken")).to_have_count(0)
    expect(desk.page.locator("#desk")).to_have_attribute("data-unsent", "1")


def test_refused_answer_is_mended_where_it_was_given(desk: DeskPage, work: Work) -> None:
    first, order = desk.assignment, rank(desk, 2, 1, 3)
    with work.committed.begin() as session:
        session.execute(update(Project).values(state=ProjectState.ARCHIVED))
    desk.press("Enter")
    lines(desk, "An answer was not taken: ")
    with work.committed.begin() as session:
        session.execute(update(Project).values(state=ProjectState.ACTIVE))
    desk.page.get_by_role("link", name="Look at it again").click()
    desk.page.wait_for_url(f"**/assignments/{first}")
    desk.ready()
    assert desk.groups() == [[2], [1], [3]]
    desk.press("Enter")
    desk.next_assignment(first)
    assert work.label(first) == order
    assert desk.page.url.endswith("/desk")
    expect(desk.page.get_by_text("An answer was not taken")).to_have_count(0)


def test_session_that_ended_keeps_the_answer(desk: DeskPage, work: Work, sign_in: SignIn) -> None:
    first, order = desk.assignment, rank(desk, 2, 1, 3)
    desk.page.context.clear_cookies()
    desk.press("Enter")
    lines(desk, "You are signed out.")
    link = desk.page.get_by_role("link", name="Sign in again")
    expect(link).to_have_attribute("href", "/sign-in?next=%2Fprojects%2Fstories%2Fdesk")
    sign_in(desk.page, work.person)  # as if in another tab: this one has the old session's token
    desk.page.evaluate("dispatchEvent(new Event('pageshow'))")
    desk.sent()
    assert work.label(first) == order
    expect(link).to_have_count(0)


def test_somebody_else_who_signs_in_does_not_send_it(desk: DeskPage, work: Work, sign_in: SignIn) -> None:
    with work.committed.begin() as session:
        somebody = make_person(session, "Bo")
        people.add_member(session, work.project, somebody, Role.ANNOTATOR)
    first, order = desk.assignment, rank(desk, 2, 1, 3)
    desk.page.context.clear_cookies()
    sign_in(desk.page, somebody)
    desk.press("Enter")
    lines(desk, "You are signed out.")
    theirs = other_tab(desk, work).open()
    expect(theirs.page.locator("#desk")).to_have_attribute("data-unsent", "0")
    expect(theirs.page.get_by_text("An answer was not taken")).to_have_count(0)
    assert work.count(Label) == 0
    sign_in(desk.page, work.person)
    desk.page.evaluate("dispatchEvent(new Event('pageshow'))")  # as when one comes back; else it is tried in a while
    desk.sent()
    assert work.label(first) == order


def test_signing_out_sends_first_and_asks_where_it_cannot(desk: DeskPage, work: Work) -> None:
    page, first = desk.page, desk.assignment
    order = rank(desk, 1, 3, 2)
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.context.set_offline(True)
    desk.press("Enter")
    lines(desk, ONE_WAITS)
    with page.expect_event("dialog") as asked:
        page.get_by_role("button", name="Sign out").click()
    assert asked.value.message.startswith("1 answer could not be sent yet.")
    expect(page.locator("#desk")).to_have_attribute("data-unsent", "1")
    page.context.set_offline(False)
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    assert work.label(first) == order


def test_browser_that_keeps_nothing_stores_before_it_goes_on(browse: Browse, sign_in: SignIn, work: Work) -> None:
    page = browse()
    page.add_init_script("Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }")
    sign_in(page, work.person)
    desk = open_ahead(DeskPage(page, work.project))
    first, order = desk.assignment, rank(desk, 2, 3, 1)
    held = hold(page, "**/label")
    questions: list[str] = []

    def stay(dialog: Dialog) -> None:
        questions.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    desk.press("Enter")
    lines(desk, "This browser keeps nothing on this device")
    expect(page.locator("#desk")).to_have_attribute("aria-busy", "true")
    assert desk.assignment == first
    page.close(run_before_unload=True)
    expect(page.locator("#desk")).to_have_attribute("data-unsent", "1")
    assert questions == ["beforeunload"]
    go_on(desk, held)
    desk.next_assignment(first)
    assert work.label(first) == order


def test_lease_that_ran_out_keeps_the_answer_and_what_was_fetched_is_fetched_again(desk: DeskPage, work: Work) -> None:
    first, order = desk.assignment, rank(desk, 1, 2, 3)
    work.expire()
    desk.press("Enter")
    second = desk.next_assignment(first)
    assert work.label(first) == order
    order = rank(desk, 3, 2, 1)
    desk.press("Enter")
    desk.next_assignment(second)
    with work.committed() as session:
        stored = session.scalars(select(Label.id)).all()
        ranks = labels.get_label(session, work.project.id, stored[-1]).revisions[-1].ranks
    assert [[rank.response_id] for rank in sorted(ranks, key=lambda rank: rank.rank)] == order
    assert len(stored) == 2


class ServerProcess:
    """A server of a test's own, on a port that stays the same."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = children.start("app.commands", "serve", "--port", str(self.port))
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.address}/healthz").is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def own_server(database_url: str) -> Iterator[ServerProcess]:
    server = ServerProcess()
    server.start()
    yield server
    server.kill()


def test_server_that_restarts_loses_nothing(
    browse: Browse, sign_in: SignIn, work: Work, own_server: ServerProcess
) -> None:
    page = browse(base_url=own_server.address)
    sign_in(page, work.person)
    desk = open_ahead(DeskPage(page, work.project))
    first, order = desk.assignment, rank(desk, 2, 1, 3)
    own_server.kill()
    desk.press("Enter")
    second = shown_after(desk, first)
    lines(desk, ONE_WAITS)
    others = rank(desk, 3, 1)
    own_server.start()
    page.evaluate("dispatchEvent(new Event('pageshow'))")  # else it is tried in a while
    desk.sent()
    assert work.label(first) == order
    page.reload()
    desk.ready()
    assert (desk.assignment, desk.groups()) == (second, [[3], [1]])
    desk.press("2", "Enter")
    desk.next_assignment(second)
    stored = work.label(second)
    assert stored is not None
    assert stored[:2] == others

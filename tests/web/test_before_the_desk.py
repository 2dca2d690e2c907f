"""Do people read the guidelines and agree before they label, once for every wording?"""

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people, projects, queue
from app.tables import Consent, Person, Project, Reading, Role
from demo.page import Page
from tests.factories import make_person, make_project
from tests.factories_labelling import make_comparisons
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
ROOT = "/projects/stories"


class Newcomer:
    """Somebody who comes to a project's desk for the first time."""

    def __init__(self, committed: Committed, visit_as: Callable[[Person], Visitor]) -> None:
        self.committed = committed
        with committed.begin() as session:
            self.project = make_project(session, name="Stories")
            person = make_person(session, "Ann")
            self.annotator_id = people.add_member(session, self.project, person, Role.ANNOTATOR).id
            make_comparisons(session, self.project, 9)
        self.visitor = visit_as(person)

    def version(self, guidelines: str, consent_text: str = "") -> None:
        """The project says something else from now on; what was begun is put aside."""
        with self.committed.begin() as session:
            project = session.get_one(Project, self.project.id)
            projects.new_version(
                session, project, guidelines=guidelines, consent_text=consent_text, judgement_form=None, by=None
            )

    def let_go(self) -> None:
        with self.committed.begin() as session:
            queue.end_leases(session, self.annotator_id)

    def at_work(self) -> bool:
        answer = self.visitor.get(f"{ROOT}/desk")
        assert (answer.status_code, answer.headers.get("location")) in {(200, None), (303, f"{ROOT}/consent")}
        return answer.status_code == 200

    def page(self) -> str:
        return self.visitor.get(f"{ROOT}/consent").text

    def confirm(self) -> int:
        version_id = Page(self.page()).form_to("/consent").fields["version_id"]
        return self.visitor.post(f"{ROOT}/consent", {"version_id": version_id}).status_code


@pytest.fixture
def newcomer(committed: Committed, visit_as: Callable[[Person], Visitor]) -> Newcomer:
    return Newcomer(committed, visit_as)


def test_where_there_is_nothing_to_read_work_begins(newcomer: Newcomer) -> None:
    assert newcomer.at_work()
    assert newcomer.visitor.get(f"{ROOT}/consent").headers["location"] == f"{ROOT}/desk"


def test_guidelines_and_consent_come_together_before_the_first_task(newcomer: Newcomer) -> None:
    newcomer.version("Be *kind*.", "Your labels are *published*.")
    assert not newcomer.at_work()
    shown = newcomer.page()
    assert "Before you begin" in shown
    assert "<em>kind</em>" in shown
    assert "<em>published</em>" in shown
    assert "I have read the guidelines, and I accept" in shown
    assert newcomer.confirm() == 303
    assert newcomer.at_work()
    assert "You have read and accepted this." in newcomer.page()
    with newcomer.committed() as session:
        assert session.scalars(select(Reading.annotator_id)).all() == [newcomer.annotator_id]
        assert session.scalars(select(Consent.annotator_id)).all() == [newcomer.annotator_id]


def test_changed_guidelines_are_read_again_before_the_next_task(newcomer: Newcomer) -> None:
    newcomer.version("Be kind.")
    newcomer.confirm()
    assert newcomer.at_work()
    newcomer.version("Be strict.")
    assert newcomer.at_work()  # what was begun is finished
    live = Page(newcomer.visitor.get(f"{ROOT}/desk").text).form_to("/label").action.split("/")[-2]
    ahead = newcomer.visitor.get(f"{ROOT}/desk?after={live}", **{"HX-Request": "true"})
    assert "There is something to read before you go on." in ahead.text
    newcomer.let_go()
    assert not newcomer.at_work()
    shown = newcomer.page()
    assert "The guidelines have changed" in shown
    assert "You have read version 2; this is version 3." in shown
    assert newcomer.confirm() == 303
    assert newcomer.at_work()


def test_the_same_words_under_another_version_are_not_asked_again(newcomer: Newcomer) -> None:
    newcomer.version("Be kind.", "Yes?")
    newcomer.confirm()
    newcomer.version("Be kind.", "Yes?")
    assert newcomer.at_work()
    newcomer.version("", "")
    newcomer.let_go()
    assert newcomer.at_work()


def test_each_of_the_two_is_asked_for_by_itself(newcomer: Newcomer) -> None:
    newcomer.version("Be kind.", "Yes?")
    newcomer.confirm()
    newcomer.version("Be kind.", "Really?")
    assert not newcomer.at_work()
    shown = newcomer.page()
    assert "Before you begin" in shown
    assert "I accept" in shown
    assert "I have read" not in shown
    newcomer.confirm()
    newcomer.version("Be strict.", "Really?")
    newcomer.let_go()
    assert not newcomer.at_work()
    assert "I have read the guidelines" in newcomer.page()
    assert "I accept" not in newcomer.page()


def test_what_changed_while_it_was_read_is_shown_once_more(newcomer: Newcomer) -> None:
    newcomer.version("Be kind.")
    read = Page(newcomer.page()).form_to("/consent").fields["version_id"]
    newcomer.version("Be strict.")
    assert newcomer.visitor.post(f"{ROOT}/consent", {"version_id": read}).status_code == 409
    assert not newcomer.at_work()


def test_programs_are_asked_for_consent_alone(newcomer: Newcomer) -> None:
    newcomer.version("Be kind.")
    with newcomer.committed.begin() as session:
        assert queue.next_assignment(session, newcomer.project.id, newcomer.annotator_id)

"""Do people see all that is stored about them, and can they take it along, take it back and be gone?"""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, consent, drafts, labels, people, projects, queue
from app.tables import Assignment, Label, Membership, Person, Project, Purpose, Role
from tests.factories import make_member, make_person, make_project
from tests.factories_labelling import answer, make_comparisons
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]


class Subject:
    """Somebody with two labels, one of them edited, a skip and a draft in one project; and with a part in another."""

    def __init__(self, committed: Committed, visit_as: Callable[[Person], Visitor]) -> None:
        self.committed = committed
        with committed.begin() as session:
            self.project = make_project(session, name="Stories")
            projects.new_version(
                session,
                session.get_one(Project, self.project.id),
                guidelines="Be kind.",
                consent_text="Yes?",
                judgement_form=None,
                by=None,
            )
            self.person = make_person(session, "Ann")
            self.member = people.add_member(session, self.project, self.person, Role.ANNOTATOR)
            make_member(session, make_project(session, name="Other"), person=self.person)
            make_comparisons(session, self.project, 5)
            version = projects.get_project(session, self.project.id).current_version
            assert version is not None
            consent.accept(session, self.member.id, version)
            consent.read(session, self.member.id, version)
            self.first = answer(session, self.lease(session))
            labels.revise(session, self.first.label.id, self.member.id, [sorted(self.first.revision.shown_order)])
            answer(session, self.lease(session))
            queue.skip(session, self.lease(session).id, self.member.id, "Too hard")
            fields = [["rationale", "因为 <b>"]]
            drafts.save(session, self.lease(session), fields=fields, seconds=4, sequence=1, revision=0)
            self.stranger = make_member(session, self.project)
        self.visitor = visit_as(self.person)

    def lease(self, session: Session) -> Assignment:
        found = queue.next_assignment(session, self.project.id, self.member.id)
        assert isinstance(found, Assignment)
        return found

    def withdrawn(self) -> int:
        with self.committed() as session:
            return session.scalars(select(func.count(Label.withdrawn_at))).one()

    def withdraw(self, name: str, membership_id: int | None = None) -> tuple[int, str]:
        fields = {"membership_id": str(membership_id or self.member.id), "name": name}
        answered = self.visitor.post("/account/data/withdraw", fields)
        return answered.status_code, answered.text


@pytest.fixture
def subject(committed: Committed, visit_as: Callable[[Person], Visitor]) -> Subject:
    return Subject(committed, visit_as)


def test_the_page_says_what_is_stored(subject: Subject) -> None:
    assert 'href="/account/data"' in subject.visitor.get("/account").text
    shown = subject.visitor.get("/account/data").text
    for said in ("Ann", subject.person.email or "", "Stories", "Other", "version 2", f"<td>{subject.member.id}</td>"):
        assert said in shown
    assert shown.count("Take my labels back") == 1  # there are none in the other project


def test_everything_can_be_taken_along(subject: Subject) -> None:
    answered = subject.visitor.get("/account/data.json")
    assert answered.headers["content-disposition"] == 'attachment; filename="my-data.json"'
    data = json.loads(answered.text)
    assert (data["person"]["name"], data["person"]["email"]) == ("Ann", subject.person.email)
    assert len(data["person"]["sessions"]) == 1
    other, stories = data["projects"]
    assert (other["project"], other["labels"], other["skips"], other["drafts"]) == ("Other", [], [], [])
    assert [one["version"] for one in stories["consents"]] == [2]
    assert [one["version"] for one in stories["guidelines_read"]] == [2]
    assert [skip["skip_reason"] for skip in stories["skips"]] == ["Too hard"]
    assert [draft["fields"] for draft in stories["drafts"]] == [[["rationale", "因为 <b>"]]]
    first, second = stories["labels"]
    assert [one["revision"] for one in first["answers"]] == [1, 2]
    ids = sorted(subject.first.revision.shown_order)
    assert first["answers"][0]["ranks"] == {str(id_): rank for rank, id_ in enumerate(ids, start=1)}
    assert set(first["answers"][1]["ranks"].values()) == {1}
    assert first["answers"][0]["seconds"] == 3.5
    assert sorted(map(int, first["responses"])) == ids
    assert first["prompt"][0]["content"].startswith("Question")
    assert second["label_id"] > first["label_id"]
    secret = subject.visitor.client.cookies["prefloop_session"]
    assert secret not in answered.text
    assert "hash" not in answered.text


def test_nobody_else_gets_it(subject: Subject) -> None:
    subject.visitor.client.cookies.clear()
    assert subject.visitor.get("/account/data.json").status_code == 303
    assert subject.visitor.get("/account/data").status_code == 303


def test_labels_are_withdrawn_by_typing_the_projects_name(subject: Subject) -> None:
    status, shown = subject.withdraw("Storys")
    assert status == 422
    assert "This is not the project&#39;s name, so nothing was withdrawn." in shown
    assert subject.withdrawn() == 0
    assert subject.withdraw("stories ")[0] == 303
    assert subject.withdrawn() == 2
    shown = subject.visitor.get("/account/data?withdrawn=1").text
    assert "Your labels are withdrawn." in shown
    assert "Take my labels back" not in shown
    assert all(
        label["withdrawn_at"] for label in subject.visitor.get("/account/data.json").json()["projects"][1]["labels"]
    )


def test_other_peoples_labels_are_not_mine_to_withdraw(subject: Subject) -> None:
    assert subject.withdraw("Stories", subject.stranger.id)[0] == 404
    assert subject.withdrawn() == 0


def test_who_left_a_project_can_still_withdraw(subject: Subject) -> None:
    with subject.committed.begin() as session:
        people.remove_member(session, subject.project.id, subject.member.id, by=subject.person)
    assert subject.withdraw("Stories")[0] == 303
    assert subject.withdrawn() == 2


def test_erasing_oneself_needs_ones_address_and_ends_everything(subject: Subject) -> None:
    refused = subject.visitor.post("/account/erase", {"email": "other@example.org"})
    assert refused.status_code == 422
    assert "so nothing was erased" in refused.text
    assert subject.visitor.post("/account/erase", {"email": subject.person.email or ""}).status_code == 303
    assert subject.visitor.get("/account/data").status_code == 303
    with subject.committed() as session:
        person = session.get_one(Person, subject.person.id)
        assert (person.name, person.email) == (None, None)
        assert session.scalars(select(func.count(Label.id))).one() == 2


def test_what_others_withdrew_is_shown_to_nobody_again(
    committed: Committed, visit_as: Callable[[Person], Visitor]
) -> None:
    with committed.begin() as session:
        owner = make_person(session, is_owner=True)
        project = make_project(session, owner, name="Stories")
        form = {"correction": "optional"}
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
        writer, judge = (make_member(session, project) for _ in range(2))
        (first,) = make_comparisons(session, project, 1)
        taken = queue.next_assignment(session, project.id, writer.id)
        assert isinstance(taken, Assignment)
        ids = taken.shown_order
        said = {"corrections": {str(ids[0]): "Mine alone."}}
        revision = labels.submit(session, taken.id, writer.id, [ids], answers=said).revision
        mine = revision.answers["corrections"][str(ids[0])]["response_id"]
        new = comparisons.NewComparison(project.id, first.prompt_id, [mine, ids[1]], 1, Purpose.TRAIN, "by_hand")
        (second,) = comparisons.create_comparisons(session, [new])
        judged = queue.next_assignment(session, project.id, judge.id)
        assert isinstance(judged, Assignment)
        answer(session, judged)
        judging = session.get_one(Person, judge.person_id)
    pages = {judging: "/account/data.json", owner: f"/projects/stories/admin/comparisons/{second.id}"}
    for person, path in pages.items():
        assert "Mine alone." in visit_as(person).get(path).text
    with committed.begin() as session:
        labels.withdraw_annotator(session, session.get_one(Membership, writer.id))
        writing = session.get_one(Person, writer.person_id)
    for person, path in pages.items():
        shown = visit_as(person).get(path)
        assert shown.status_code == 200
        assert "Mine alone." not in shown.text
    assert "Mine alone." in visit_as(writing).get("/account/data.json").text

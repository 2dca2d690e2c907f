"""Does the desk answer well to what a browser sends, good or bad?"""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, labels, people, projects, queue
from app.tables import Assignment, Label, LabelRevision, Person, Project, ProjectState, Purpose, Response, Role
from demo.page import Page
from tests.factories import make_person, make_project, make_prompt, make_responses
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]
SYSTEM = "secret-model-7b"


class Desk:
    """An annotator with a browser and three comparisons of three responses."""

    def __init__(self, committed: Committed, visit_as: VisitAs) -> None:
        self.committed = committed
        with committed.begin() as session:
            self.project = make_project(session, name="Stories", k=2)
            self.person = make_person(session, "Ann")
            self.annotator_id = people.add_member(session, self.project, self.person, Role.ANNOTATOR).id
            for _ in range(3):
                add_comparison(session, self.project)
        self.visitor = visit_as(self.person)

    def open(self) -> Page:
        self.page = Page(self.visitor.get("/projects/stories/desk").text)
        return self.page

    @property
    def action(self) -> str:
        return self.page.form_to("/label").action

    @property
    def names(self) -> list[str]:
        """The fields for places, in the order shown."""
        return [name for name in self.page.form_to("/label").fields if name.startswith("rank_")]

    def answer(self, *places: object) -> dict[str, str]:
        return {name: str(place) for name, place in zip(self.names, places, strict=True)}

    def count(self, table: type[Label] | type[LabelRevision]) -> int:
        with self.committed() as session:
            return session.scalars(select(func.count()).select_from(table)).one()


def add_comparison(session: Session, project: Project) -> None:
    prompt = make_prompt(session, project)
    ids = [response.id for response in make_responses(session, prompt, 3)]
    new = comparisons.NewComparison(project.id, prompt.id, ids, 2, Purpose.TRAIN, "by_hand")
    comparisons.create_comparisons(session, [new])


@pytest.fixture
def desk(committed: Committed, visit_as: VisitAs) -> Desk:
    desk = Desk(committed, visit_as)
    desk.open()
    return desk


def test_answer_is_stored_and_the_next_one_comes(desk: Desk) -> None:
    ids = [int(name.removeprefix("rank_")) for name in desk.names]
    answered = desk.visitor.post(desk.action, desk.answer(2, 1, 2) | {"seconds": "12.5"})
    assert (answered.status_code, answered.headers["location"]) == (303, "/projects/stories/desk")
    with desk.committed() as session:
        (label,) = labels.my_labels(session, desk.project.id, desk.annotator_id)
        revision = label.revisions[-1]
    assert {rank.response_id: rank.rank for rank in revision.ranks} == {ids[0]: 2, ids[1]: 1, ids[2]: 2}
    assert revision.shown_order == ids
    assert revision.seconds == 12.5
    before = desk.action
    desk.open()
    assert desk.action != before


def test_places_need_not_be_dense(desk: Desk) -> None:
    desk.visitor.post(desk.action, desk.answer(9, 3, 3))
    with desk.committed() as session:
        (label,) = labels.my_labels(session, desk.project.id, desk.annotator_id)
    assert sorted(rank.rank for rank in label.revisions[-1].ranks) == [1, 1, 2]


@pytest.mark.parametrize(
    "places", [("", 1, 2), ("best", 1, 2), ("-1", 1, 2), ("1.5", 1, 2), ("²", 1, 2), ("9" * 5000, 1, 2)]
)
def test_bad_places_are_refused_and_the_good_ones_kept(desk: Desk, places: tuple[object, ...]) -> None:
    refused = desk.visitor.post(desk.action, desk.answer(*places))
    assert refused.status_code == 422
    shown = Page(refused.text)
    assert "Give every response a place" in refused.text
    assert shown.form_to("/label").fields[desk.names[2]] == "2"
    assert desk.count(Label) == 0


def test_foreign_and_missing_responses_are_refused(desk: Desk) -> None:
    answer = desk.answer(1, 2, 3)
    answer.pop(desk.names[0])
    assert desk.visitor.post(desk.action, answer).status_code == 422
    assert desk.visitor.post(desk.action, answer | {"rank_999999": "1"}).status_code == 422
    assert desk.visitor.post(desk.action, {}).status_code == 422
    assert desk.count(Label) == 0


def test_same_answer_twice_is_one_label_and_another_one_a_conflict(desk: Desk) -> None:
    assert desk.visitor.post(desk.action, desk.answer(1, 2, 3)).status_code == 303
    assert desk.visitor.post(desk.action, desk.answer(1, 2, 3)).status_code == 303
    refused = desk.visitor.post(desk.action, desk.answer(3, 2, 1))
    assert refused.status_code == 409
    assert "edit that label instead" in refused.text
    assert desk.count(LabelRevision) == 1


@pytest.mark.parametrize("seconds", ["", "soon", "nan", "inf", "-5", "1e300"])
def test_odd_seconds_lose_no_label(desk: Desk, seconds: str) -> None:
    assert desk.visitor.post(desk.action, desk.answer(1, 2, 3) | {"seconds": seconds}).status_code == 303
    assert desk.count(Label) == 1


def test_others_assignments_are_none_of_ones_business(desk: Desk, visit_as: VisitAs) -> None:
    with desk.committed.begin() as session:
        other = make_person(session)
        people.add_member(session, desk.project, other, Role.ANNOTATOR)
    stranger = visit_as(other)
    for act in ("label", "skip", "heartbeat"):
        path = desk.action.replace("label", act)
        assert stranger.post(path, desk.answer(1, 2, 3)).status_code == 404
    assert desk.count(Label) == 0


def test_responses_are_blinded(committed: Committed, visit_as: VisitAs) -> None:
    desk = Desk(committed, visit_as)
    with committed.begin() as session:
        session.execute(update(Response).values(system=SYSTEM))
    assert SYSTEM not in desk.visitor.get("/projects/stories/desk").text


def test_htmx_gets_the_block_alone(desk: Desk) -> None:
    whole = desk.visitor.get("/projects/stories/desk")
    block = desk.visitor.get("/projects/stories/desk", **{"HX-Request": "true"})
    assert whole.headers["vary"] == block.headers["vary"] == "HX-Request"
    assert block.text.lstrip().startswith('<ranking-desk id="desk"')
    assert block.text.rstrip().endswith("</ranking-desk>")
    assert "<!DOCTYPE html>" in whole.text
    restored = desk.visitor.get(
        "/projects/stories/desk", **{"HX-Request": "true", "HX-History-Restore-Request": "true"}
    )
    assert "<!DOCTYPE html>" in restored.text


def test_refusals_come_as_a_fragment_to_htmx(desk: Desk) -> None:
    refused = desk.visitor.post("/projects/stories/assignments/999999/label", {}, **{"HX-Request": "true"})
    assert refused.status_code == 404
    assert refused.headers["hx-retarget"] == "#message"
    assert "You have no assignment 999999." in refused.text
    assert "<html" not in refused.text


def test_heartbeat_begins_the_lease_anew(desk: Desk) -> None:
    beat = desk.visitor.post(desk.action.replace("/label", "/heartbeat"))
    assert 19 * 60 < beat.json()["seconds_left"] <= 20 * 60
    desk.visitor.post(desk.action.replace("/label", "/skip"))
    assert desk.visitor.post(desk.action.replace("/label", "/heartbeat")).status_code == 409


def test_late_label_is_kept_and_said_to_be_surplus(desk: Desk, visit_as: VisitAs) -> None:
    with desk.committed.begin() as session:
        ids = [row.id for row in comparisons.list_comparisons(session, desk.project.id)]
        comparisons.set_k(session, desk.project.id, ids, 1, None)
        session.execute(update(Assignment).values(expires_at=func.now()))
        queue.expire_leases(session)
        other = make_person(session)
        people.add_member(session, desk.project, other, Role.ANNOTATOR)
    quick = visit_as(other)
    late_action, late_answer = desk.action, desk.answer(1, 2, 3)
    page = Page(quick.get("/projects/stories/desk").text)
    places = {name: "1" for name in page.form_to("/label").fields if name.startswith("rank_")}
    assert set(places) == set(late_answer)
    quick.post(page.form_to("/label").action, places)
    kept = desk.visitor.post(late_action, late_answer)
    assert kept.headers["location"] == "/projects/stories/desk?kept=surplus"
    assert "It is kept all the same" in desk.visitor.get(kept.headers["location"]).text


def test_paused_project_says_so(desk: Desk) -> None:
    with desk.committed.begin() as session:
        projects.set_state(session, projects.get_project(session, desk.project.id), ProjectState.PAUSED, None)
    assert "This project is paused" in desk.visitor.get("/projects/stories/desk").text


def test_my_labels_are_listed_in_pages(desk: Desk) -> None:
    with desk.committed.begin() as session:
        for _ in range(20):
            add_comparison(session, desk.project)
    for _ in range(22):
        desk.open()
        desk.visitor.post(desk.action, desk.answer(1, 2, 3))
    first = desk.visitor.get("/projects/stories/labels").text
    assert first.count('class="card"') == 20
    assert "22 labels" in first
    (older,) = re.findall(r'href="([^"]+\?before=\d+)"', first)
    assert desk.visitor.get(older).text.count('class="card"') == 2


def test_editing_makes_a_revision_and_bad_edits_none(desk: Desk) -> None:
    desk.visitor.post(desk.action, desk.answer(1, 2, 3))
    with desk.committed() as session:
        (label,) = labels.my_labels(session, desk.project.id, desk.annotator_id)
    path = f"/projects/stories/labels/{label.id}"
    shown = Page(desk.visitor.get(path).text).form_to(path)
    assert [shown.fields[name] for name in desk.names] == ["1", "2", "3"]
    assert desk.visitor.post(path, desk.answer(1, "", 3)).status_code == 422
    assert desk.visitor.post(path, desk.answer(3, 2, 1)).headers["location"].endswith(f"labels?saved={label.id}")
    assert desk.visitor.post(path, desk.answer(3, 2, 1)).status_code == 303
    assert desk.count(LabelRevision) == 2
    assert desk.visitor.get("/projects/stories/labels/999999").status_code == 404


def test_admins_find_their_way_back(desk: Desk, visit_as: VisitAs) -> None:
    with desk.committed.begin() as session:
        admin = make_person(session)
        people.add_member(session, desk.project, admin, Role.ADMIN)
    browser = visit_as(admin)
    for path in ("desk", "labels", "guidelines"):
        assert 'href="/projects/stories/admin"' in browser.get(f"/projects/stories/{path}").text
        assert 'href="/projects/stories/admin"' not in desk.visitor.get(f"/projects/stories/{path}").text

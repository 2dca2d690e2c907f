"""Does the server give the desk's script what it asks for? The next one ahead of time, JSON answers, drafts."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from httpx import Response
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, labels, people, projects, queue
from app.tables import Assignment, AssignmentState, Draft, Label, Person, Project, ProjectState, Purpose, Role
from demo.page import Page
from tests.factories import make_person, make_project, make_prompt, make_responses
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]
ROOT = "/projects/stories"
JSON = {"Accept": "application/json"}


class Flow:
    """An annotator's browser with its script, before a project of so many comparisons of two responses."""

    def __init__(self, committed: Committed, visit_as: VisitAs, number: int = 5) -> None:
        self.committed = committed
        with committed.begin() as session:
            self.project = make_project(session, name="Stories")
            self.person = make_person(session, "Ann")
            self.member = people.add_member(session, self.project, self.person, Role.ANNOTATOR)
            new = [self._comparison(session) for _ in range(number)]
            self.comparison_ids = [row.id for row in comparisons.create_comparisons(session, new)]
        self.visitor = visit_as(self.person)

    def _comparison(self, session: Session) -> comparisons.NewComparison:
        prompt = make_prompt(session, self.project)
        ids = [response.id for response in make_responses(session, prompt, 2)]
        return comparisons.NewComparison(self.project.id, prompt.id, ids, 1, Purpose.TRAIN, "by_hand")

    def open(self, path: str = "/desk") -> "Shown":
        answer = self.visitor.get(ROOT + path)
        assert answer.status_code == 200, answer.headers.get("location")
        return Shown(answer.text)

    def after(self, *assignments: int) -> Response:
        at_hand = "&".join(f"after={assignment}" for assignment in assignments)
        return self.visitor.get(f"{ROOT}/desk?{at_hand}", **{"HX-Request": "true"})

    def post(self, assignment: int, act: str, fields: dict[str, str] | None = None, **headers: str) -> Response:
        return self.visitor.post(f"{ROOT}/assignments/{assignment}/{act}", fields, **headers)

    def put_draft(self, assignment: int, sent: object, **headers: str) -> Any:
        content = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
        return self.visitor.client.put(
            f"{ROOT}/assignments/{assignment}/draft",
            content=content,
            headers={"Content-Type": "application/json", "X-CSRF-Token": self.visitor.token, **headers},
        )

    def draft(self) -> Draft | None:
        with self.committed() as session:
            return session.scalar(select(Draft))

    def live(self) -> list[int]:
        live = select(Assignment.id).where(Assignment.state == AssignmentState.LIVE).order_by(Assignment.id)
        with self.committed() as session:
            return list(session.scalars(live))


class Shown:
    """A desk as it came: which assignment, and which fields."""

    def __init__(self, html: str) -> None:
        self.html = html
        form = Page(html).form_to("/label")
        self.fields = form.fields
        self.assignment = int(form.action.split("/")[-2])
        self.places = [name for name in form.fields if name.startswith("rank_")]

    def answer(self) -> dict[str, str]:
        return {name: str(place) for place, name in enumerate(self.places, start=1)}


def draft_of(*fields: tuple[str, str], sequence: int = 1, revision: int = 0, seconds: float = 2.5) -> dict[str, Any]:
    return {"fields": fields, "seconds": seconds, "sequence": sequence, "revision": revision}


@pytest.fixture
def flow(committed: Committed, visit_as: VisitAs) -> Flow:
    return Flow(committed, visit_as)


def test_two_are_leased_ahead_and_never_a_third(flow: Flow) -> None:
    first = flow.open()
    second = Shown(flow.after(first.assignment).text)
    assert second.html.lstrip().startswith("<ranking-desk")
    assert flow.live() == [first.assignment, second.assignment]
    assert Shown(flow.after(first.assignment).text).assignment == second.assignment
    assert Shown(flow.after(second.assignment).text).assignment == first.assignment
    third = Shown(flow.after(first.assignment, second.assignment).text)
    assert flow.live() == [first.assignment, second.assignment, third.assignment]
    fourth = flow.after(first.assignment, second.assignment, third.assignment).text
    assert "Answer what is before you first" in fourth
    assert len(flow.live()) == 3
    assert flow.open().assignment == first.assignment  # a closed tab comes back to the oldest one
    assert flow.post(first.assignment, "label", first.answer(), **JSON).status_code == 200
    # The one that was sent is asked about once more: what waits is given, nothing is leased.
    assert Shown(flow.after(first.assignment).text).assignment == second.assignment
    assert len(flow.live()) == 2


def test_the_last_ones_are_not_hoarded(committed: Committed, visit_as: VisitAs) -> None:
    flow = Flow(committed, visit_as, number=2)
    first = flow.open()
    block = flow.after(first.assignment)
    assert "These are the last ones" in block.text
    assert flow.live() == [first.assignment]
    flow.post(first.assignment, "label", first.answer(), **JSON)
    assert Shown(flow.after(first.assignment).text).assignment > first.assignment


def test_a_label_as_json_says_how_far_one_is(flow: Flow) -> None:
    first = flow.open()
    taken = flow.post(first.assignment, "label", first.answer(), **JSON)
    with flow.committed() as session:
        label = session.scalars(select(Label)).one()
    expected = {"label_id": label.id, "surplus": False, "today": 1, "total": 1, "done": 1, "wanted": 5}
    assert (taken.status_code, taken.json()) == (200, expected)
    assert flow.post(first.assignment, "label", first.answer(), **JSON).json() == expected
    skipped = flow.post(flow.open().assignment, "skip", {"reason": "I cannot judge this"}, **JSON)
    assert skipped.json() == {"skipped": True, "today": 1, "total": 1, "done": 1, "wanted": 5}


def test_refusals_as_json_have_a_sentence_and_a_code(flow: Flow) -> None:
    first = flow.open()
    refused = flow.post(first.assignment, "label", {first.places[0]: "1"}, **JSON)
    assert (refused.status_code, refused.json()["code"]) == (422, "InvalidRanking")
    assert refused.json()["error"]
    flow.post(first.assignment, "label", first.answer(), **JSON)
    other = dict.fromkeys(first.places, "1")
    assert flow.post(first.assignment, "label", other, **JSON).json()["code"] == "Conflict"
    assert flow.post(999_999, "label", other, **JSON).json()["code"] == "NotFound"
    assert flow.post(2**64, "label", other, **JSON).json()["code"] == "Invalid"
    flow.visitor.token = "forged"
    forged = flow.post(first.assignment, "label", other, **JSON)
    assert (forged.status_code, forged.json()["code"]) == (403, "NotAllowed")
    flow.visitor.client.cookies.clear()
    assert flow.post(first.assignment, "label", other, **JSON).status_code == 401


def test_an_assignment_is_shown_whatever_became_of_it(flow: Flow) -> None:
    first = flow.open()
    path = f"/assignments/{first.assignment}"
    assert flow.open(path).assignment == first.assignment
    with flow.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.now()))
        queue.expire_leases(session)
    assert flow.open(path).assignment == first.assignment
    again = flow.open()
    assert again.assignment > first.assignment
    assert flow.open(path).assignment == again.assignment
    flow.post(again.assignment, "label", again.answer())
    with flow.committed() as session:
        label_id = session.scalars(select(Label.id)).one()
    assert flow.visitor.get(ROOT + path).headers["location"] == f"{ROOT}/labels/{label_id}"
    skipped = flow.open()
    flow.post(skipped.assignment, "skip")
    assert flow.open(f"/assignments/{skipped.assignment}").assignment == skipped.assignment
    assert flow.visitor.get(f"{ROOT}/assignments/999999").status_code == 404


def test_a_draft_is_there_for_the_next_browser_and_gone_once_sent(flow: Flow, visit_as: VisitAs) -> None:
    first = flow.open()
    best, worst = first.places
    assert flow.put_draft(first.assignment, draft_of((best, "2"), (worst, "1"), sequence=7)).status_code == 204
    elsewhere = visit_as(flow.person)
    shown = Shown(elsewhere.get(f"{ROOT}/desk").text)
    assert (shown.fields[best], shown.fields[worst]) == ("2", "1")
    assert 'data-sequence="7"' in shown.html
    assert 'data-seconds="2.5"' in shown.html
    flow.post(first.assignment, "label", first.answer(), **JSON)
    assert flow.draft() is None
    skipped = flow.open()
    flow.put_draft(skipped.assignment, draft_of((skipped.places[0], "1")))
    flow.post(skipped.assignment, "skip")
    assert flow.draft() is None


def test_the_newest_draft_wins_in_whatever_order_they_come(flow: Flow) -> None:
    first = flow.open()
    name = first.places[0]
    for place, sequence in (("2", 20), ("1", 10), ("3", 20)):
        assert flow.put_draft(first.assignment, draft_of((name, place), sequence=sequence)).status_code == 204
    draft = flow.draft()
    assert draft is not None
    assert (draft.fields, draft.sequence) == ([[name, "2"]], 20)
    flow.put_draft(first.assignment, draft_of((name, "1"), sequence=21))
    assert flow.open().fields[name] == "1"


def test_a_draft_of_a_change_waits_beside_the_label(flow: Flow) -> None:
    first = flow.open()
    best, worst = first.places
    label_id = flow.post(first.assignment, "label", first.answer(), **JSON).json()["label_id"]
    changed = draft_of((best, "2"), (worst, "1"), sequence=3)
    # What the desk sends late, about the answer that went out already, is no draft any more.
    late = flow.put_draft(first.assignment, changed)
    assert (late.status_code, late.json()["code"]) == (409, "Conflict")
    assert flow.put_draft(first.assignment, changed | {"revision": 1}).status_code == 204
    path = f"{ROOT}/labels/{label_id}"
    assert Page(flow.visitor.get(path).text).form_to(path).fields[best] == "2"
    flow.visitor.post(path, {best: "1", worst: "1"})
    assert flow.draft() is None
    assert Page(flow.visitor.get(path).text).form_to(path).fields[worst] == "1"
    assert flow.put_draft(first.assignment, changed | {"revision": 1}).status_code == 409
    assert flow.put_draft(first.assignment, changed | {"revision": 2}).status_code == 204


def test_a_draft_goes_along_when_the_comparison_comes_again(flow: Flow) -> None:
    first = flow.open()
    flow.put_draft(first.assignment, draft_of((first.places[0], "2")))
    with flow.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.now()))
    again = flow.open()
    assert again.assignment > first.assignment
    assert again.fields[first.places[0]] == "2"
    # The old tab, still open, writes on to the one that took its place.
    assert flow.put_draft(first.assignment, draft_of((first.places[0], "1"), sequence=2)).status_code == 204
    draft = flow.draft()
    assert draft is not None
    assert (draft.assignment_id, draft.fields) == (again.assignment, [[first.places[0], "1"]])


def test_a_label_given_from_an_old_page_is_changed_under_the_form_that_it_followed(flow: Flow) -> None:
    """The lease ran out, the form changed, the comparison was leased anew, and the old page was sent."""
    old = flow.open()
    with flow.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.clock_timestamp()))
        project = session.get_one(Project, flow.project.id)
        form = {"overall": "pair", "score": {}}
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
    again = flow.open()
    assert again.assignment != old.assignment
    sent = flow.post(old.assignment, "label", dict(zip(old.places, "12", strict=True)), **JSON)
    assert sent.status_code == 200
    path = f"/labels/{sent.json()['label_id']}"
    form_shown = Page(flow.visitor.get(ROOT + path).text).form_to(path)
    assert [name for name in form_shown.fields if name.startswith("rank_")] == old.places
    changed = flow.visitor.post(ROOT + path, dict(zip(old.places, "21", strict=True)))
    assert changed.status_code == 303


@pytest.mark.parametrize(
    "sent",
    [
        b"{",
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"fields": [], "sequence": 1, "seconds": NaN}',
        b'{"fields": [], "sequence": 1, "seconds": 1e999}',
        {"sequence": 1},
        draft_of() | {"fields": {"rank_1": "1"}},
        draft_of() | {"fields": [["rank_1"]]},
        draft_of() | {"fields": [["rank_1", 1]]},
        draft_of() | {"fields": [["rank_1", "1", "2"]]},
        draft_of(("rationale", "\x00")),
        draft_of(("rationale", "\ud800")),
        draft_of(sequence=-1),
        draft_of(sequence=2**63),
        draft_of() | {"sequence": "1"},
        draft_of() | {"sequence": True},
        draft_of() | {"revision": 1.5},
        draft_of(seconds=-1),
        draft_of(("rationale", "x" * 1_000_001)),
    ],
)
def test_what_is_no_draft_is_refused_with_a_reason(flow: Flow, sent: object) -> None:
    refused = flow.put_draft(flow.open().assignment, sent)
    assert (refused.status_code, refused.json()["code"]) == (422, "Invalid")
    assert refused.json()["error"].endswith(".")
    assert flow.draft() is None


def test_a_draft_takes_no_longer_than_a_day(flow: Flow) -> None:
    whole = b'{"fields": [], "sequence": 1, "seconds": 1' + b"0" * 400 + b"}"  # too large for a float
    assert flow.put_draft(flow.open().assignment, whole).status_code == 204
    draft = flow.draft()
    assert draft is not None
    assert draft.seconds == 86_400


def test_a_long_draft_is_kept_and_a_far_too_long_body_not_read(flow: Flow) -> None:
    first = flow.open()
    assert flow.put_draft(first.assignment, draft_of(("written", "文" * 200_000))).status_code == 204
    assert flow.put_draft(first.assignment, draft_of(("written", "x" * 4_000_000))).status_code == 413


def test_others_assignments_take_no_draft_and_no_forged_one(flow: Flow, visit_as: VisitAs) -> None:
    first = flow.open()
    with flow.committed.begin() as session:
        other = make_person(session)
        people.add_member(session, flow.project, other, Role.ANNOTATOR)
    stranger = visit_as(other)
    sent = draft_of((first.places[0], "1"))
    assert flow.put_draft(first.assignment, sent, **{"X-CSRF-Token": stranger.token}).status_code == 403
    flow.visitor = stranger
    assert flow.put_draft(first.assignment, sent).status_code == 404
    assert stranger.get(f"{ROOT}/assignments/{first.assignment}").status_code == 404
    assert flow.draft() is None


def test_a_project_that_was_archived_takes_nothing(flow: Flow) -> None:
    first = flow.open()
    with flow.committed.begin() as session:
        projects.set_state(session, session.get_one(Project, flow.project.id), ProjectState.ARCHIVED, None)
    assert flow.put_draft(first.assignment, draft_of((first.places[0], "1"))).status_code == 409
    refused = flow.post(first.assignment, "label", first.answer(), **JSON)
    assert (refused.status_code, refused.json()["code"]) == (409, "Conflict")
    assert "paused" in flow.after(first.assignment).text


def test_a_withdrawn_label_and_a_skipped_comparison_take_no_draft(flow: Flow) -> None:
    first = flow.open()
    label_id = flow.post(first.assignment, "label", first.answer(), **JSON).json()["label_id"]
    skipped = flow.open()
    flow.post(skipped.assignment, "skip")
    assert f'href="{ROOT}/labels/{label_id}"' in flow.open().html
    with flow.committed.begin() as session:
        labels.withdraw_annotator(session, people.membership(session, flow.project.id, flow.person.id))  # type: ignore[arg-type]
    assert flow.put_draft(first.assignment, draft_of(revision=1)).status_code == 409
    assert flow.put_draft(skipped.assignment, draft_of()).status_code == 409
    # Nor is the label shown to be changed, as the way back from the desk would.
    assert f"/labels/{label_id}" not in flow.open().html
    assert flow.visitor.get(f"{ROOT}/labels/{label_id}").status_code == 409


def test_a_heartbeat_keeps_both_leases(flow: Flow) -> None:
    first = flow.open()
    second = Shown(flow.after(first.assignment).text)
    with flow.committed.begin() as session:
        session.execute(update(Assignment).values(expires_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 1)))
    beat = flow.post(second.assignment, "heartbeat")
    assert 19 * 60 < beat.json()["seconds_left"] <= 20 * 60
    with flow.committed() as session:
        left = session.scalars(select(func.extract("epoch", Assignment.expires_at - func.now()))).all()
    assert [19 * 60 < seconds <= 20 * 60 for seconds in left] == [True, True]

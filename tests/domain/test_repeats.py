"""Do annotators see their own work again, outside every k, and is their consistency what one computes by hand?"""

import random
from collections import Counter

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, overview, people, queue, repeats, snapshots
from app.domain.consistency import Consistency, consistency, shown_consistency
from app.domain.empty_queue import EmptyQueue
from app.domain.progress import progress
from app.tables import (
    Assignment,
    Comparison,
    ComparisonState,
    Label,
    Membership,
    Person,
    Project,
    Prompt,
    PromptState,
    Purpose,
    Response,
    ResponseState,
    Role,
    SnapshotRevision,
)
from tests.factories_labelling import Desk, answer, broken_rows, lease, make_desk

A, B, C = range(3)


def repeated(session: Session) -> list[Comparison]:
    query = select(Comparison).where(Comparison.purpose == Purpose.REPEAT).order_by(Comparison.id)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def label_all(session: Session, desk: Desk, annotator: int = 0) -> int:
    """Answer until the queue is empty; return how many were answered."""
    for number in range(1_000):
        found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[annotator])
        if isinstance(found, EmptyQueue):
            return number
        answer(session, found)
    raise AssertionError("the queue does not end")


@pytest.fixture
def seeded() -> None:
    random.seed(1)


@pytest.mark.usefixtures("seeded")
def test_a_share_of_the_work_comes_again_and_k_stays_exact(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=60, k=2, repeat_share=0.4)
    annotator_id = desk.annotator_ids[0]
    done = label_all(session, desk)
    rows = repeated(session)
    # Two thirds as many as new ones, once there is something to repeat: some 20, 39 * 2 / 3 at most on average.
    assert 10 <= len(rows) <= 40
    assert done == 60 + len(rows)
    assert set(Counter(row.repeats_id for row in rows).values()) == {1}
    order = list(session.scalars(select(Label.comparison_id).order_by(Label.id)))
    assert all(order.index(row.id) - order.index(row.repeats_id or 0) > repeats.LABELS_BETWEEN for row in rows)
    assert {(row.k, row.openings, row.submitted) for row in rows} == {(1, 0, 1)}
    assert not broken_rows(session)
    # Nothing is learned from them, and nobody's progress counts them as work of the project.
    assert labels.new_labels(session, desk.project_id) == 60
    taken = snapshots.take_snapshot(session, desk.project_id, by=None)
    pinned = select(func.count()).where(SnapshotRevision.snapshot_id == taken.id)
    assert session.scalar(pinned) == 60
    mine = progress(session, desk.project_id, annotator_id)
    assert (mine.total, mine.done, mine.wanted) == (done, 0, 60)
    assert overview.counts(session, desk.project_id).open == 60
    # The others get the comparisons themselves, never somebody's repeats.
    label_all(session, desk, 1)
    seen = select(Label.comparison_id).where(Label.annotator_id == desk.annotator_ids[1])
    assert not set(session.scalars(seen)) & {row.id for row in rows}


def test_without_a_share_nothing_comes_again(session: Session) -> None:
    desk = make_desk(session, comparisons=30)
    assert label_all(session, desk) == 30
    assert repeated(session) == []


def test_an_empty_queue_stays_empty(session: Session) -> None:
    desk = make_desk(session, comparisons=30, repeat_share=0.5)
    label_all(session, desk)
    number = len(repeated(session))
    for _ in range(10):
        assert isinstance(queue.next_assignment(session, desk.project_id, desk.annotator_ids[0]), EmptyQueue)
    assert len(repeated(session)) == number


def test_a_skipped_repeat_is_over(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=23)
    for _ in range(22):
        answer(session, lease(session, desk))
    assert repeats.add_repeat(session, desk.project_id, desk.annotator_ids[0], 1.0)
    assignment = lease(session, desk)
    (row,) = repeated(session)
    assert assignment.comparison_id == row.id
    queue.skip(session, assignment.id, assignment.annotator_id)
    assert repeated(session)[0].state is ComparisonState.CLOSED
    answer(session, lease(session, desk))
    assert queue.next_assignment(session, desk.project_id, desk.annotator_ids[1]) == EmptyQueue("all_done")


def test_repeats_stay_whose_they_are(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=22)
    mine, other = desk.annotator_ids
    for _ in range(22):
        answer(session, lease(session, desk))
    again = repeats.add_repeat(session, desk.project_id, mine, 1.0)
    assert again is not None
    member = session.get_one(Membership, mine)
    owner = session.get_one(Person, member.person_id)

    assert comparisons.set_k(session, desk.project_id, [again.id], 3, None) == 0
    assert comparisons.set_assignees(session, desk.project_id, [again.id], [other], None) == 0
    assert comparisons.set_assignees(session, desk.project_id, [again.id], [], None) == 0
    people.remove_member(session, desk.project_id, mine, owner)
    assert queue.next_assignment(session, desk.project_id, other) == EmptyQueue("all_done")
    people.add_member(session, session.get_one(Project, desk.project_id), owner, Role.ANNOTATOR)
    assert answer(session, lease(session, desk)).label.comparison_id == again.id
    people.remove_member(session, desk.project_id, mine, owner)
    people.add_member(session, session.get_one(Project, desk.project_id), owner, Role.ANNOTATOR)
    # Of 23 labels three are old enough, and one of those was shown twice.
    drawn = [repeats.add_repeat(session, desk.project_id, mine, 1.0) for _ in range(3)]
    assert {row.repeats_id for row in drawn if row} == set(desk.comparison_ids[:3]) - {again.repeats_id}
    assert drawn[2] is None
    assert not broken_rows(session)


def test_what_cannot_be_shown_again_is_not_drawn(session: Session) -> None:
    desk = make_desk(session, comparisons=25)
    for _ in range(repeats.LABELS_BETWEEN):
        answer(session, lease(session, desk))
    annotator_id = desk.annotator_ids[0]
    assert repeats.add_repeat(session, desk.project_id, annotator_id, 1.0) is None  # too soon
    answer(session, lease(session, desk))
    session.execute(update(Response).values(state=ResponseState.RETIRED))
    assert repeats.add_repeat(session, desk.project_id, annotator_id, 1.0) is None
    session.execute(update(Response).values(state=ResponseState.ACTIVE))
    session.execute(update(Prompt).values(state=PromptState.RETIRED))
    assert repeats.add_repeat(session, desk.project_id, annotator_id, 1.0) is None
    session.execute(update(Prompt).values(state=PromptState.ACTIVE))
    said = labels.list_labels(session, desk.project_id)
    labels.exclude(session, desk.project_id, [label.id for label in said], "A test.", None)
    assert repeats.add_repeat(session, desk.project_id, annotator_id, 1.0) is None
    labels.include(session, desk.project_id, [label.id for label in said], None)
    labels.withdraw_annotator(session, session.get_one(Membership, annotator_id))
    assert repeats.add_repeat(session, desk.project_id, annotator_id, 1.0) is None


def repeat(session: Session, desk: Desk, *answers: list[list[int]]) -> None:
    """Label enough, then answer one repeat after the other; responses are named by their place among the ids."""
    for _ in range(repeats.LABELS_BETWEEN + 5):
        answer(session, lease(session, desk))  # a better than b better than c
    again(session, desk, *answers)


def again(session: Session, desk: Desk, *answers: list[list[int]]) -> None:
    """Answer one repeat after the other."""
    for said in answers:
        assert repeats.add_repeat(session, desk.project_id, desk.annotator_ids[0], 1.0)
        assignment = lease(session, desk)
        ids = sorted(assignment.shown_order)
        answer(session, assignment, [[ids[place] for place in group] for group in said])


def test_consistency_is_the_share_of_pairs_that_came_out_the_same(session: Session) -> None:
    desk = make_desk(session, comparisons=30)
    assert consistency(session, desk.annotator_ids[0]) == Consistency(None, 0)
    # Of the pairs ab, ac, bc: 1 + 1 + 1; 0 + 0 + 0; 1/2 + 1 + 1; 1/2 + 1/2 + 1/2. Together 7 of 12.
    repeat(session, desk, [[A], [B], [C]], [[C], [B], [A]], [[A, B], [C]], [[A, B, C]])
    found = consistency(session, desk.annotator_ids[0])
    assert found.pairs == 12
    assert found.share == pytest.approx(7 / 12)


def test_a_tie_both_times_is_the_same_and_edits_do_not_count(session: Session) -> None:
    desk = make_desk(session, comparisons=30, responses=2)
    for _ in range(repeats.LABELS_BETWEEN + 1):
        assignment = lease(session, desk)
        label = answer(session, assignment, [assignment.shown_order]).label
    assert repeats.add_repeat(session, desk.project_id, desk.annotator_ids[0], 1.0)
    assignment = lease(session, desk)
    label = answer(session, assignment, [assignment.shown_order]).label
    labels.revise(session, label.id, label.annotator_id, [[id_] for id_ in assignment.shown_order])
    assert consistency(session, desk.annotator_ids[0]) == Consistency(1.0, 1)


def test_it_is_shown_where_the_project_says_so_and_pairs_are_enough(session: Session) -> None:
    desk = make_desk(session, comparisons=30, show_consistency=True)
    project = session.get_one(Project, desk.project_id)
    repeat(session, desk, *([[[A], [B], [C]]] * 3))
    assert shown_consistency(session, project, desk.annotator_ids[0]) is None  # nine pairs
    again(session, desk, [[B], [A], [C]])
    assert shown_consistency(session, project, desk.annotator_ids[0]) == pytest.approx(11 / 12)
    project.settings = project.settings | {"show_consistency": False}
    assert shown_consistency(session, project, desk.annotator_ids[0]) is None


def test_a_repeat_is_drawn_in_an_order_of_its_own(session: Session) -> None:
    desk = make_desk(session, comparisons=60, responses=9)
    repeat(session, desk, *([[[place] for place in range(9)]] * 3))
    pairs = session.execute(
        select(Comparison.repeats_id, Assignment.comparison_id, Assignment.shown_order)
        .join(Comparison, Comparison.id == Assignment.comparison_id)
        .where(Comparison.purpose == Purpose.REPEAT)
    ).all()
    for first_id, _, order in pairs:
        first = session.scalars(select(Assignment.shown_order).where(Assignment.comparison_id == first_id)).one()
        assert sorted(first) == sorted(order)
        assert first != order  # the same by chance once in 362,880 times

"""The queue hands out exactly k leases a comparison, and says why where it hands out none."""

from collections import Counter

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, queue
from app.domain.empty_queue import EmptyQueue
from app.errors import Conflict, NotFound
from app.tables import Assignment, AssignmentState, Comparison, Project, ProjectState
from tests.factories import make_project
from tests.factories_labelling import (
    Desk,
    answer,
    broken_rows,
    lease,
    let_run_out,
    make_comparisons,
    make_desk,
    response_ids,
)


def why_empty(session: Session, desk: Desk, annotator: int = 0) -> str:
    found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[annotator])
    assert isinstance(found, EmptyQueue)
    assert found.message
    return found.reason


def comparison(session: Session, desk: Desk, number: int = 0) -> Comparison:
    return session.get_one(Comparison, desk.comparison_ids[number], populate_existing=True)


def test_hands_out_by_priority_then_by_age(session: Session) -> None:
    desk = make_desk(session, comparisons=3)
    comparisons.set_priority(session, desk.project_id, [desk.comparison_ids[2]], 5, None)
    order = []
    for _ in range(3):
        assignment = lease(session, desk)
        order.append(assignment.comparison_id)
        answer(session, assignment)
    first, second, third = desk.comparison_ids
    assert order == [third, first, second]


def test_a_live_lease_is_given_again(session: Session) -> None:
    desk = make_desk(session, comparisons=2)
    first = lease(session, desk)
    assert lease(session, desk).id == first.id
    assert comparison(session, desk).openings == 0


def test_the_lease_lasts_as_long_as_the_project_says(session: Session) -> None:
    desk = make_desk(session, lease_minutes=45)
    assignment = lease(session, desk)
    now = session.scalar(select(func.clock_timestamp()))
    assert now is not None
    assert 44.9 * 60 < (assignment.expires_at - now).total_seconds() <= 45 * 60
    assert 44.9 * 60 < queue.view(session, assignment).seconds_left <= 45 * 60


def test_k_people_get_it_and_no_more(session: Session) -> None:
    desk = make_desk(session, annotators=4, k=3)
    for number in range(3):
        lease(session, desk, number)
    assert why_empty(session, desk, 3) == "all_leased"
    for number in range(3):
        answer(session, lease(session, desk, number))
    assert why_empty(session, desk, 3) == "all_done"
    row = comparison(session, desk)
    assert (row.openings, row.submitted) == (0, 3)


def test_nobody_gets_a_comparison_twice(session: Session) -> None:
    desk = make_desk(session, annotators=2, k=2)
    answer(session, lease(session, desk))
    assert why_empty(session, desk) == "you_did_all"
    answer(session, lease(session, desk, 1))
    assert why_empty(session, desk) == "all_done"


def test_the_order_shown_is_drawn_for_every_assignment(session: Session) -> None:
    desk = make_desk(session, annotators=60, k=60, responses=3)
    seen = Counter(tuple(lease(session, desk, number).shown_order) for number in range(60))
    ids = response_ids(session, desk.comparison_ids[0])
    assert all(sorted(order) == ids for order in seen)
    # Each of six orders has probability 1/6: fewer than 4 different ones in 60 draws come once in 10^9 times or so.
    assert len(seen) >= 4


def test_a_skip_returns_the_opening_and_is_not_asked_again(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    assignment = lease(session, desk)
    queue.skip(session, assignment.id, assignment.annotator_id, " too hard ")
    assert (assignment.state, assignment.skip_reason) == (AssignmentState.SKIPPED, "too hard")
    assert comparison(session, desk).openings == 1
    queue.skip(session, assignment.id, assignment.annotator_id)
    assert comparison(session, desk).openings == 1
    assert why_empty(session, desk) == "you_did_all"
    assert lease(session, desk, 1).comparison_id == desk.comparison_ids[0]


def test_what_was_answered_cannot_be_skipped(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    answer(session, assignment)
    with pytest.raises(Conflict, match="edit your label"):
        queue.skip(session, assignment.id, assignment.annotator_id)


def test_a_lease_that_ran_out_goes_to_whoever_comes_next(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    slow = lease(session, desk)
    assert why_empty(session, desk, 1) == "all_leased"
    let_run_out(session, [slow])
    assert lease(session, desk, 1).comparison_id == slow.comparison_id
    session.refresh(slow)
    assert slow.state is AssignmentState.EXPIRED
    assert slow.ended_at is not None
    assert not broken_rows(session)


def test_after_an_expiry_the_same_person_may_get_it_again(session: Session) -> None:
    desk = make_desk(session)
    first = lease(session, desk)
    let_run_out(session, [first])
    again = lease(session, desk)
    assert (again.comparison_id, again.id) == (first.comparison_id, first.id + 1)


def test_expire_leases_returns_openings_in_one_project_or_in_all(session: Session) -> None:
    desks = [make_desk(session, annotators=2, k=2), make_desk(session)]
    overdue = [lease(session, desks[0]), lease(session, desks[0], 1), lease(session, desks[1])]
    let_run_out(session, overdue)
    assert queue.expire_leases(session, desks[0].project_id) == 2
    assert comparison(session, desks[0]).openings == 2
    assert queue.expire_leases(session) == 1
    assert queue.expire_leases(session) == 0
    assert not broken_rows(session)


def test_a_heartbeat_begins_the_lease_anew(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    assignment = lease(session, desk)
    let_run_out(session, [assignment])
    assert queue.heartbeat(session, assignment.id, assignment.annotator_id) > assignment.leased_at
    assert why_empty(session, desk, 1) == "all_leased"
    answer(session, assignment)
    with pytest.raises(Conflict, match="answered"):
        queue.heartbeat(session, assignment.id, assignment.annotator_id)


def test_a_heartbeat_does_not_take_back_a_lost_lease(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    let_run_out(session, [assignment])
    queue.expire_leases(session)
    with pytest.raises(Conflict, match="ran out"):
        queue.heartbeat(session, assignment.id, assignment.annotator_id)


def test_assignees_alone_get_what_is_assigned(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=1)
    comparisons.set_assignees(session, desk.project_id, desk.comparison_ids, [desk.annotator_ids[1]], None)
    assert why_empty(session, desk, 0) == "not_assigned"
    assert lease(session, desk, 1).comparison_id == desk.comparison_ids[0]


def test_what_is_held_back_is_not_handed_out_but_started_work_counts(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=3, k=2)
    for act, number in ((comparisons.pause, 0), (comparisons.close, 1), (comparisons.close, 2)):
        started = lease(session, desk)
        assert started.comparison_id == desk.comparison_ids[number]
        assert act(session, desk.project_id, [started.comparison_id], None) == 1
        assert lease(session, desk).id == started.id
        answer(session, started)
        assert comparison(session, desk, number).submitted == 1
    assert why_empty(session, desk, 1) == "held_back"
    comparisons.reopen(session, desk.project_id, [desk.comparison_ids[1]], None)
    assert lease(session, desk, 1).comparison_id == desk.comparison_ids[1]


@pytest.mark.parametrize("state", [ProjectState.PAUSED, ProjectState.ARCHIVED])
def test_a_project_that_does_not_work_hands_nothing_out(session: Session, state: ProjectState) -> None:
    desk = make_desk(session)
    session.get_one(Project, desk.project_id).state = state
    assert why_empty(session, desk) == "project_paused"


def test_an_empty_project_says_so(session: Session) -> None:
    assert why_empty(session, make_desk(session, comparisons=0)) == "nothing_yet"


def test_projects_do_not_mix(session: Session) -> None:
    mine, other = make_desk(session, comparisons=0), make_desk(session)
    assert why_empty(session, mine) == "nothing_yet"
    with pytest.raises(NotFound):
        queue.next_assignment(session, mine.project_id, other.annotator_ids[0])


def test_other_peoples_assignments_do_not_exist_for_me(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    assignment = lease(session, desk)
    other = desk.annotator_ids[1]
    for act in (queue.get_assignment, queue.skip, queue.heartbeat):
        with pytest.raises(NotFound):
            act(session, assignment.id, other)
    with pytest.raises(NotFound):
        labels.submit(session, assignment.id, other, [assignment.shown_order])


def test_the_view_is_blinded_and_in_the_order_shown(session: Session) -> None:
    desk = make_desk(session, responses=9)
    assignment = lease(session, desk)
    view = queue.view(session, assignment)
    assert [response.id for response in view.responses] == assignment.shown_order
    assert {field for response in view.responses for field in vars(response)} == {"id", "text", "parts"}
    assert view.comparison.id == assignment.comparison_id
    assert view.prompt.messages[0]["role"] == "user"
    assert view.project_version.id == assignment.project_version_id


def test_new_comparisons_wake_an_empty_queue(session: Session) -> None:
    project = make_project(session)
    desk = make_desk(session)
    answer(session, lease(session, desk))
    assert why_empty(session, desk) == "all_done"
    make_comparisons(session, session.get_one(Project, desk.project_id), 1)
    assert isinstance(lease(session, desk), Assignment)
    assert project.id != desk.project_id

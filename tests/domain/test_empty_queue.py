"""Where nothing is handed out, do people learn why, and what will come?"""

from datetime import timedelta

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.domain import comparisons, queue
from app.domain.empty_queue import EmptyQueue, Reason
from app.language import LANGUAGES, speaking
from app.tables import Assignment, Project, ProjectState, RoundState
from app.tables.loop import LIVE_STATES, Round
from tests.factories_labelling import Desk, answer, lease, make_desk


def empty(session: Session, desk: Desk, annotator: int = 0) -> EmptyQueue:
    found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[annotator])
    assert isinstance(found, EmptyQueue)
    return found


def begin_round(session: Session, desk: Desk, state: RoundState) -> None:
    session.add(Round(project_id=desk.project_id, number=1, state=state, settings={}, seed=1))
    session.flush()


def test_a_paused_project(session: Session) -> None:
    desk = make_desk(session)
    session.get_one(Project, desk.project_id).state = ProjectState.PAUSED
    assert empty(session, desk).message.startswith("This project is paused. What you have answered is kept")


def test_nothing_yet_and_nobody_at_it(session: Session) -> None:
    found = empty(session, make_desk(session, comparisons=0))
    assert found.reason == "nothing_yet"
    assert found.message == (
        "There is nothing to label yet. The first comparisons come when an admin brings some in or starts a round."
    )


def test_nothing_yet_while_a_round_samples(session: Session) -> None:
    desk = make_desk(session, comparisons=0)
    begin_round(session, desk, RoundState.SAMPLING)
    assert empty(session, desk).message == (
        "There is nothing to label yet. New responses are being written right now; "
        "they come to you when they are ready."
    )


def test_others_at_work_on_all_that_is_left(session: Session) -> None:
    desk = make_desk(session, annotators=4, comparisons=1, k=3, lease_minutes=30)
    soon = lease(session, desk)
    session.execute(
        update(Assignment).where(Assignment.id == soon.id).values(expires_at=func.now() + timedelta(minutes=6))
    )
    lease(session, desk, 1)
    lease(session, desk, 2)
    found = empty(session, desk, 3)
    assert (found.reason, found.people, found.left) == ("all_leased", 3, 1)
    assert found.seconds is not None
    assert 5 * 60 < found.seconds <= 6 * 60
    assert found.message == (
        "3 other people are working on all that is left. The next lease ends in 6 minutes at the latest. "
        "What they leave comes to you."
    )


def test_one_other_at_work(session: Session) -> None:
    desk = make_desk(session, annotators=2, lease_minutes=1)
    lease(session, desk)
    assert empty(session, desk, 1).message == (
        "1 other person is working on all that is left. The next lease ends in 1 minute at the latest. "
        "What they leave comes to you."
    )


def test_leases_on_what_is_not_mine_are_not_counted(session: Session) -> None:
    desk = make_desk(session, annotators=3, comparisons=2)
    comparisons.set_assignees(session, desk.project_id, [desk.comparison_ids[0]], [desk.annotator_ids[0]], None)
    lease(session, desk, 0)
    lease(session, desk, 1)
    found = empty(session, desk, 2)
    assert (found.reason, found.people) == ("all_leased", 1)


def test_i_did_all_and_others_have_work_left(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=2, k=2)
    for _ in range(2):
        answer(session, lease(session, desk))
    found = empty(session, desk)
    assert (found.reason, found.left) == ("you_did_all", 2)
    said = "You have answered or skipped all that is open. 2 comparisons still need other people's eyes."
    assert found.message == said
    begin_round(session, desk, RoundState.LABELLING)
    assert empty(session, desk).message == said  # the model waits for those others
    session.execute(update(Round).values(state=RoundState.FITTING))
    assert empty(session, desk).message.endswith("new responses come after that.")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (None, "No round is running; new comparisons come when an admin starts one or brings some in."),
        (RoundState.SAMPLING, "New responses are being written right now; they come to you when they are ready."),
        (RoundState.LABELLING, "The model learns from the answers next, and then writes new responses."),
        (RoundState.FITTING, "The model is learning from the answers right now; new responses come after that."),
        (RoundState.IMPROVING, "The model is learning from the answers right now; new responses come after that."),
        (RoundState.EVALUATING, "The model has learned and is being tested; new responses come after that."),
        (RoundState.PROMOTED, "No round is running; new comparisons come when an admin starts one or brings some in."),
    ],
)
def test_all_done_and_what_comes_next(session: Session, state: RoundState | None, said: str) -> None:
    desk = make_desk(session)
    answer(session, lease(session, desk))
    if state is not None:
        begin_round(session, desk, state)
    found = empty(session, desk)
    assert found.reason == "all_done"
    assert found.message == f"All comparisons have their labels. Thank you! {said}"


def test_assigned_to_others_and_held_back(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    comparisons.set_assignees(session, desk.project_id, desk.comparison_ids, [desk.annotator_ids[1]], None)
    assert empty(session, desk).message == "What is left is assigned to other people."
    comparisons.pause(session, desk.project_id, desk.comparison_ids, None)
    assert empty(session, desk).message == "The admins hold back what is left. Come back later."
    comparisons.close(session, desk.project_id, desk.comparison_ids, None)
    assert empty(session, desk).reason == "all_done"  # nothing comes of what an admin ended


REASONS: tuple[Reason, ...] = (
    "project_paused",
    "nothing_yet",
    "all_leased",
    "you_did_all",
    "not_assigned",
    "held_back",
    "all_done",
    "last_ones",
    "enough_ahead",
    "to_read",
)


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_a_sentence_in_every_state(reason: Reason) -> None:
    for language in LANGUAGES:
        with speaking(language):
            for state in (None, *LIVE_STATES):
                for people, seconds in ((0, None), (2, 61.0)):
                    message = EmptyQueue(reason, 2, people, seconds, state).message
                    assert message.endswith((".", "!", "\u3002", "\uff01"))
                    assert "%(" not in message

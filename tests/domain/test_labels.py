"""A label is submitted once, revised at any time, and counts unless somebody said otherwise."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import audit, labels, queue, snapshots
from app.errors import Conflict, Invalid, InvalidRanking, NotFound
from app.tables import (
    Comparison,
    Label,
    LabelRevision,
    Membership,
    Policy,
    Project,
    ProjectState,
    Purpose,
    RewardModel,
    RewardModelPurpose,
    Round,
    RoundState,
    Run,
    RunState,
    Step,
)
from tests.factories import make_person
from tests.factories_labelling import (
    answer,
    broken_rows,
    lease,
    let_run_out,
    make_comparisons,
    make_desk,
    number_of,
    response_ids,
    set_form,
)


def ranks_of(revision: LabelRevision) -> dict[int, int]:
    return {rank.response_id: rank.rank for rank in revision.ranks}


def test_a_ranking_is_stored_with_its_ties_and_the_order_shown(session: Session) -> None:
    desk = make_desk(session, responses=4)
    set_form(session, desk, rationale="optional")
    assignment = lease(session, desk)
    a, b, c, d = response_ids(session, assignment.comparison_id)
    taken = labels.submit(
        session,
        assignment.id,
        assignment.annotator_id,
        [[c], [a, d], [b]],
        answers={"rationale": " warm"},
        seconds=12.5,
    )
    label = labels.get_label(session, desk.project_id, taken.label.id, assignment.annotator_id)
    (revision,) = label.revisions
    assert ranks_of(revision) == {c: 1, a: 2, d: 2, b: 3}
    assert (revision.number, revision.answers, revision.seconds) == (1, {"rationale": "warm"}, 12.5)
    assert revision.shown_order == assignment.shown_order
    assert revision.project_version_id == assignment.project_version_id
    assert (taken.surplus, taken.is_repeat, label.surplus) == (False, False, False)


def test_the_same_submit_again_is_the_same_label(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    first, again = answer(session, assignment), answer(session, assignment)
    assert (again.label.id, again.revision.id, again.is_repeat) == (first.label.id, first.revision.id, True)
    assert (number_of(session, Label), number_of(session, LabelRevision)) == (1, 1)


def test_another_answer_to_the_same_assignment_is_a_conflict(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    first = answer(session, assignment)
    with pytest.raises(Conflict, match="edit that label") as refused:
        answer(session, assignment, [assignment.shown_order])
    assert refused.value.details == {"label_id": first.label.id}


BAD_RANKINGS = {
    "foreign": lambda ids: [*[[id_] for id_ in ids], [10**9]],
    "missing": lambda ids: [[ids[0]], [ids[1]]],
    "double": lambda ids: [[ids[0]], [ids[1]], [ids[2]], [ids[0]]],
    "double in a tie": lambda ids: [[ids[0], ids[0]], [ids[1]], [ids[2]]],
    "empty group": lambda ids: [[ids[0]], [], [ids[1], ids[2]]],
    "empty": lambda _: [],
}


@pytest.mark.parametrize("name", BAD_RANKINGS)
def test_a_ranking_is_a_partition_of_the_comparisons_own_responses(session: Session, name: str) -> None:
    desk = make_desk(session, annotators=2)
    assignment = lease(session, desk)
    groups = BAD_RANKINGS[name](assignment.shown_order)
    with pytest.raises(InvalidRanking):
        answer(session, assignment, groups)
    label = answer(session, assignment).label
    with pytest.raises(InvalidRanking):
        labels.revise(session, label.id, label.annotator_id, groups)
    assert number_of(session, LabelRevision) == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"seconds": -1.0},
        {"seconds": float("nan")},
        {"answers": {"why": "nobody asked"}},
        {"answers": {"rationale": "a\x00b"}},
        {"answers": {"rationale": "\ud800"}},
        {"answers": {"rationale": "x" * 100_001}},
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(session: Session, bad: dict[str, Any]) -> None:
    desk = make_desk(session)
    set_form(session, desk, rationale="optional")
    assignment = lease(session, desk)
    with pytest.raises(Invalid):
        labels.submit(session, assignment.id, assignment.annotator_id, [assignment.shown_order], **bad)
    assert not answer(session, assignment).is_repeat


def test_a_form_may_forbid_ties(session: Session) -> None:
    desk = make_desk(session)
    set_form(session, desk, ranking={"ties": False})
    assignment = lease(session, desk)
    with pytest.raises(InvalidRanking, match="without ties"):
        answer(session, assignment, [assignment.shown_order])
    answer(session, assignment)


def test_a_late_answer_takes_an_opening_if_one_is_left(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    assignment = lease(session, desk)
    let_run_out(session, [assignment])
    queue.expire_leases(session)
    assert not answer(session, assignment).surplus
    row = session.get_one(Comparison, assignment.comparison_id)
    assert (row.openings, row.submitted) == (0, 1)
    assert not broken_rows(session)


def test_a_late_answer_is_surplus_if_none_is_left(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    late = lease(session, desk)
    let_run_out(session, [late])
    answer(session, lease(session, desk, 1))
    taken = answer(session, late)
    assert taken.surplus
    assert answer(session, late).is_repeat
    row = session.get_one(Comparison, late.comparison_id)
    assert (row.openings, row.submitted) == (0, 1)
    assert not broken_rows(session)


def test_an_answer_to_a_lease_nobody_noticed_running_out_keeps_its_place(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    let_run_out(session, [assignment])
    assert not answer(session, assignment).surplus
    assert not broken_rows(session)


def test_an_answer_from_an_old_page_answers_the_lease_that_stands(session: Session) -> None:
    desk = make_desk(session)
    old = lease(session, desk)
    let_run_out(session, [old])
    new = lease(session, desk)
    taken = answer(session, old)
    assert taken.label.assignment_id == new.id
    assert taken.revision.shown_order == old.shown_order
    assert answer(session, new).is_repeat
    assert not broken_rows(session)


def test_who_skipped_may_answer_after_all(session: Session) -> None:
    desk = make_desk(session)
    assignment = lease(session, desk)
    queue.skip(session, assignment.id, assignment.annotator_id)
    assert not answer(session, assignment).surplus
    assert not broken_rows(session)


def test_an_archived_project_takes_no_more_labels(session: Session) -> None:
    desk = make_desk(session, comparisons=2)
    done = answer(session, lease(session, desk))
    open_ = lease(session, desk)
    session.get_one(Project, desk.project_id).state = ProjectState.ARCHIVED
    session.flush()
    with pytest.raises(Conflict, match="archived"):
        answer(session, open_)
    with pytest.raises(Conflict, match="archived"):
        labels.revise(session, done.label.id, done.label.annotator_id, [done.revision.shown_order])


def test_an_edit_is_a_new_revision_and_the_same_answer_none(session: Session) -> None:
    desk = make_desk(session)
    set_form(session, desk, rationale="optional")
    label = answer(session, lease(session, desk)).label
    a, b, c = response_ids(session, label.comparison_id)
    second = labels.revise(session, label.id, label.annotator_id, [[c, b], [a]], seconds=2)
    assert second.number == 2
    same = labels.revise(session, label.id, label.annotator_id, [[b, c], [a]], seconds=9)
    assert same.id == second.id
    third = labels.revise(session, label.id, label.annotator_id, [[b, c], [a]], answers={"rationale": "shorter"})
    assert third.number == 3
    stored = labels.get_label(session, desk.project_id, label.id)
    assert [ranks_of(revision) for revision in stored.revisions] == [
        {a: 1, b: 2, c: 3},
        {b: 1, c: 1, a: 2},
        {b: 1, c: 1, a: 2},
    ]


def test_nobody_edits_or_reads_other_peoples_labels(session: Session) -> None:
    desk = make_desk(session, annotators=2)
    label = answer(session, lease(session, desk)).label
    with pytest.raises(NotFound):
        labels.revise(session, label.id, desk.annotator_ids[1], [response_ids(session, label.comparison_id)])
    with pytest.raises(NotFound):
        labels.get_label(session, desk.project_id, label.id, desk.annotator_ids[1])
    with pytest.raises(NotFound):
        labels.get_label(session, desk.project_id + 1, label.id)


def test_lists(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=3, k=2)
    mine = [answer(session, lease(session, desk)).label.id for _ in range(3)]
    theirs = answer(session, lease(session, desk, 1)).label
    me = desk.annotator_ids[0]

    newest_first = labels.my_labels(session, desk.project_id, me)
    assert [label.id for label in newest_first] == mine[::-1]
    assert [label.id for label in labels.my_labels(session, desk.project_id, me, before_id=mine[1])] == mine[:1]
    assert newest_first[0].comparison.prompt.messages[0]["content"].startswith("Question")

    def listed(**filters: Any) -> list[int]:
        return [label.id for label in labels.list_labels(session, desk.project_id, **filters)]

    assert listed() == [*mine, theirs.id]
    assert listed(annotator_id=theirs.annotator_id) == [theirs.id]
    assert listed(comparison_id=desk.comparison_ids[0]) == [mine[0], theirs.id]
    assert listed(after_id=mine[1], limit=1) == [mine[2]]
    labels.exclude(session, desk.project_id, [mine[0]], "spam", None)
    assert listed(excluded=True) == [mine[0]]
    assert listed(excluded=False) == [*mine[1:], theirs.id]
    question = newest_first[0].comparison.prompt.messages[0]["content"]
    assert listed(search=question.upper()) == [mine[2]]
    assert listed(search="no such words") == []


def test_exclusion_needs_a_reason_and_is_audited(session: Session) -> None:
    desk = make_desk(session, comparisons=2)
    ids = [answer(session, lease(session, desk)).label.id for _ in range(2)]
    admin = make_person(session)
    with pytest.raises(Invalid):
        labels.exclude(session, desk.project_id, ids, "  ", admin)
    assert labels.exclude(session, desk.project_id, ids[:1], "spam", admin) == 1
    assert labels.exclude(session, desk.project_id, ids, "random clicks", admin) == 1
    first = session.get_one(Label, ids[0], populate_existing=True)
    assert (first.excluded_reason, first.excluded_by_id) == ("spam", admin.id)
    assert labels.include(session, desk.project_id, ids, admin) == 2
    assert labels.include(session, desk.project_id, ids, admin) == 0
    events = audit.list_events(session, desk.project_id, limit=3)
    acts = [(event.action, event.details["ids"]) for event, _ in events]
    assert acts == [("label.include", ids), ("label.exclude", ids[1:]), ("label.exclude", ids[:1])]
    with pytest.raises(NotFound, match="not in this project"):
        labels.exclude(session, make_desk(session).project_id, ids, "not mine", admin)


def test_new_labels_are_those_that_count_and_the_last_snapshot_does_not_hold(session: Session) -> None:
    desk = make_desk(session, comparisons=3)

    def new() -> int:
        return labels.new_labels_since_snapshot(session, desk.project_id)

    first, second = (answer(session, lease(session, desk)).label for _ in range(2))
    assert new() == 2
    labels.exclude(session, desk.project_id, [second.id], "spam", None)
    assert new() == 1
    snapshots.take_snapshot(session, desk.project_id)
    assert new() == 0
    labels.revise(session, first.id, first.annotator_id, [response_ids(session, first.comparison_id)])
    assert new() == 0
    answer(session, lease(session, desk))
    labels.include(session, desk.project_id, [second.id], None)
    assert new() == 2
    make_comparisons(session, session.get_one(Project, desk.project_id), 1, purpose=Purpose.GATE)
    answer(session, lease(session, desk))
    assert new() == 2


def test_withdrawal_tombstones_labels_and_marks_what_was_built_on_them(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=2, k=2)
    leaver = session.get_one(Membership, desk.annotator_ids[0])
    answer(session, lease(session, desk, 1))
    clean = snapshots.take_snapshot(session, desk.project_id)
    label = answer(session, lease(session, desk)).label
    held = snapshots.take_snapshot(session, desk.project_id)
    untouched, reward_model = (_reward_model(session, snapshot) for snapshot in (clean, held))
    free = _policy(session, untouched, 1, None)
    trained = _policy(session, reward_model, 2, free)
    heir = _policy(session, untouched, 3, trained)
    open_ = lease(session, desk)

    assert labels.withdraw_annotator(session, leaver) == 1
    queue.expire_leases(session)

    for row in (label, clean, held, untouched, reward_model, free, trained, heir, open_):
        session.refresh(row)
    assert label.withdrawn_at is not None
    assert leaver.withdrawn_at is not None
    assert [row.tainted_at is not None for row in (clean, held)] == [False, True]
    assert [row.tainted_at is not None for row in (untouched, reward_model)] == [False, True]
    assert [row.tainted_at is not None for row in (free, trained, heir)] == [False, True, True]
    assert open_.ended_at is not None
    assert not broken_rows(session)
    snapshots.require_exportable(clean)
    with pytest.raises(Conflict, match="take a new snapshot"):
        snapshots.require_exportable(held)
    with pytest.raises(Conflict, match="withdrawn"):
        labels.revise(session, label.id, label.annotator_id, [response_ids(session, label.comparison_id)])
    fresh = snapshots.take_snapshot(session, desk.project_id)
    assert [ranked.annotator_id for ranked in snapshots.rankings(session, fresh)] == [desk.annotator_ids[1]]
    assert labels.withdraw_annotator(session, leaver) == 0


def _reward_model(session: Session, snapshot: Any) -> RewardModel:
    base = session.scalars(select(Policy).where(Policy.project_id == snapshot.project_id, Policy.version == 0)).one()
    round_ = Round(
        project_id=snapshot.project_id,
        number=snapshot.number,
        state=RoundState.PROMOTED,
        policy_id=base.id,
        seed=1,
        settings={},
    )
    session.add(round_)
    session.flush()
    run = Run(
        project_id=snapshot.project_id, round_id=round_.id, step=Step.FIT_REWARD_MODEL, state=RunState.DONE, attempt=1
    )
    session.add(run)
    session.flush()
    model = RewardModel(
        project_id=snapshot.project_id,
        round_id=round_.id,
        run_id=run.id,
        snapshot_id=snapshot.id,
        purpose=RewardModelPurpose.TRAINING,
        backbone="tiny",
        uri="nowhere",
        content_hash="0",
        gain=1.0,
        offset=0.0,
        card={},
    )
    session.add(model)
    session.flush()
    return model


def _policy(session: Session, reward_model: RewardModel, version: int, parent: Policy | None) -> Policy:
    policy = Policy(
        project_id=reward_model.project_id,
        version=version,
        parent_id=parent.id if parent else None,
        reward_model_id=reward_model.id,
        uri="nowhere",
    )
    session.add(policy)
    session.flush()
    return policy

"""Does a round move as it may, and only so? Moves, triggers, gates, stale attempts."""

from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain import comparisons, gates, labels, policies, projects, reward_models, rounds, runs, snapshots
from app.errors import Conflict, NotFound, StaleAttempt
from app.tables import (
    Comparison,
    ComparisonState,
    Membership,
    Policy,
    Project,
    ProjectState,
    Prompt,
    Purpose,
    Response,
    RewardModelPurpose,
    Round,
    RoundState,
    Run,
    RunMetric,
    RunState,
    Split,
    Step,
    Trigger,
)
from tests.factories import make_member, make_person
from tests.factories_labelling import make_comparisons
from tests.factories_loop import claim, label_all, make_loop_project, make_policy, make_round, make_samples

S = RoundState
EVERY_MOVE = {
    (S.SAMPLING, S.LABELLING),
    (S.LABELLING, S.FITTING),
    (S.FITTING, S.IMPROVING),
    (S.IMPROVING, S.EVALUATING),
    (S.EVALUATING, S.PROMOTED),
    (S.EVALUATING, S.REJECTED),
    *((live, end) for live in S if live.is_live for end in (S.FAILED, S.CANCELLED)),
}


def verdict(value: float) -> dict[str, Any]:
    return {"judge": "the evaluation reward model", "winrate_parent": {"value": value, "low": 0.1, "high": 0.9}}


def jobs(session: Session) -> list[int]:
    """The runs that have a job waiting."""
    found = session.execute(text("SELECT args ->> 'run_id' FROM procrastinate_jobs WHERE status = 'todo' ORDER BY id"))
    return [int(row[0]) for row in found]


def run_of(session: Session, round_: Round, step: Step) -> Run:
    return session.scalars(select(Run).where(Run.round_id == round_.id, Run.step == step)).one()


def labelling(session: Session, **loop: object) -> tuple[Project, Round]:
    """A round that waits for labels of six train comparisons."""
    project = make_loop_project(session, loop={"prompts_per_round": 0, **loop})
    make_comparisons(session, project, 6)
    return project, rounds.start_round(session, project, by=None, seed=1)


# Moves


@pytest.mark.parametrize("to", S)
@pytest.mark.parametrize("start", S)
def test_a_round_moves_as_it_may_and_only_so(session: Session, start: RoundState, to: RoundState) -> None:
    project = make_loop_project(session)
    before = project.current_policy_id
    round_ = make_round(session, project, start)
    policy = make_policy(session, round_)
    if (start, to) in EVERY_MOVE:
        assert rounds.transition(session, round_, to).state is to
        assert (round_.ended_at is not None) == (not to.is_live)
        assert (round_.labelling_since is not None) == (to is S.LABELLING)
        assert [run.step for run in runs.list_runs(session, project.id)] == [
            step for state, step in rounds.STEPS.items() if state is to
        ]
    else:
        with pytest.raises(Conflict, match=f"is {start}; it cannot become {to}"):
            rounds.transition(session, round_, to)
        assert round_.state is start
    is_promoted = (start, to) == (S.EVALUATING, S.PROMOTED)
    assert session.get_one(Project, project.id).current_policy_id == (policy.id if is_promoted else before)


def test_start_copies_settings_and_queues_the_first_step(session: Session) -> None:
    project = make_loop_project(session)
    owner = make_person(session, is_owner=True)
    round_ = rounds.start_round(session, project, by=owner, seed=7)
    assert (round_.number, round_.state, round_.seed, round_.started_by_id) == (1, S.SAMPLING, 7, owner.id)
    assert round_.policy_id == project.current_policy_id
    settings = projects.settings_of(project)
    loop = settings.loop.model_copy(update={"prompts_per_round": 3})
    projects.update_settings(session, project, settings.model_copy(update={"loop": loop}), owner)
    session.refresh(round_)
    assert round_.settings["loop"]["prompts_per_round"] == 200
    assert jobs(session) == [run_of(session, round_, Step.SAMPLE_RESPONSES).id]


def test_start_without_sampling_goes_to_the_labellers(session: Session) -> None:
    _, round_ = labelling(session)
    assert round_.state is S.LABELLING
    assert round_.labelling_since is not None
    assert jobs(session) == []


def test_one_live_round_a_project(session: Session) -> None:
    project = make_loop_project(session)
    first = rounds.start_round(session, project, by=None)
    with pytest.raises(Conflict, match="Round 1 is still sampling"):
        rounds.start_round(session, project, by=None)
    with pytest.raises(IntegrityError, match="uq_rounds_one_live"), session.begin_nested():
        make_round(session, project, S.LABELLING, number=2)
    rounds.cancel_round(session, first, make_person(session))
    assert rounds.live_round(session, project.id) is None
    assert rounds.start_round(session, project, by=None).number == 2


@pytest.mark.parametrize(
    ("sizes", "missing"),
    [({}, "test and train"), ({Split.TRAIN: 2}, "test"), ({Split.TEST: 2, Split.VALIDATION: 2}, "train")],
)
def test_a_round_needs_prompts_to_train_and_to_measure_on(
    session: Session, sizes: dict[Split, int], missing: str
) -> None:
    project = make_loop_project(session, sizes=sizes)
    with pytest.raises(Conflict, match=f"in the split {missing}:"):
        rounds.start_round(session, project, by=None)


def test_a_paused_project_starts_no_round_and_moves_none_on(session: Session) -> None:
    project, round_ = labelling(session, trigger_labels=1)
    label_all(session, project)
    projects.set_state(session, project, ProjectState.PAUSED, None)
    rounds.tick(session, project.id)
    assert round_.state is S.LABELLING
    other = make_loop_project(session)
    projects.set_state(session, other, ProjectState.PAUSED, None)
    with pytest.raises(Conflict, match="The project is paused"):
        rounds.start_round(session, other, by=None)


# Triggers


def test_enough_new_labels_fire(session: Session) -> None:
    project, round_ = labelling(session, trigger_labels=6)
    member = make_member(session, project)
    assert rounds.trigger(session, round_) is None
    label_all(session, project, [member])
    assert rounds.trigger(session, round_) is Trigger.LABELS
    rounds.tick(session, project.id)
    assert (round_.state, round_.trigger) == (S.FITTING, Trigger.LABELS)
    assert round_.snapshot_id is not None
    assert jobs(session) == [run_of(session, round_, Step.FIT_REWARD_MODEL).id]


def test_time_fires_with_the_least_number_of_labels(session: Session) -> None:
    project, round_ = labelling(session, trigger_labels=100, trigger_hours=2, trigger_min_labels=6)
    session.execute(update(Round).values(labelling_since=func.now() - text("interval '3 hours'")))
    session.refresh(round_)
    assert rounds.trigger(session, round_) is None
    label_all(session, project)
    assert rounds.trigger(session, round_) is Trigger.TIME
    session.execute(update(Round).values(labelling_since=func.now() - text("interval '1 hour'")))
    session.refresh(round_)
    assert rounds.trigger(session, round_) is None


def test_by_hand_needs_a_label_and_a_round_that_is_labelling(session: Session) -> None:
    project, round_ = labelling(session)
    with pytest.raises(Conflict, match="no labels to learn from"):
        rounds.fire(session, round_, Trigger.HAND)
    label_all(session, project)
    rounds.fire(session, round_, Trigger.HAND)
    assert (round_.state, round_.trigger) == (S.FITTING, Trigger.HAND)
    with pytest.raises(Conflict, match="is fitting: only a round that is labelling"):
        rounds.fire(session, round_, Trigger.HAND)


def test_later_labels_count_for_the_next_round(session: Session) -> None:
    project, round_ = labelling(session, trigger_labels=6)
    label_all(session, project)
    rounds.tick(session, project.id)
    make_comparisons(session, project, 6)
    label_all(session, project)
    rounds.cancel_round(session, round_, make_person(session))
    following = rounds.start_round(session, project, by=None)
    assert rounds.trigger(session, following) is Trigger.LABELS
    rounds.tick(session, project.id)
    assert following.snapshot_id != round_.snapshot_id


# Runs and their attempts


def test_a_stale_attempt_writes_nothing(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, first = claim(session, round_)
    second = runs.claim(session, run.id)
    assert (first, second) == (1, 2)
    with pytest.raises(StaleAttempt, match="Attempt 1 of run"):
        rounds.finish_step(session, run.id, first)
    with pytest.raises(StaleAttempt):
        rounds.fail_step(session, run.id, first, "too late", may_pass=False)
    with pytest.raises(StaleAttempt):
        runs.report(session, run.id, first, phase="x", done=1, total=2, points={1: {"loss": 1.0}})
    assert session.scalar(select(func.count()).select_from(RunMetric)) == 0
    runs.hand_back(session, run.id, first)
    assert (run.state, round_.state) == (RunState.RUNNING, S.SAMPLING)
    assert rounds.finish_step(session, run.id, second) is S.LABELLING
    with pytest.raises(StaleAttempt, match="is done"):
        rounds.finish_step(session, run.id, second)
    with pytest.raises(StaleAttempt, match="is done already"):
        runs.claim(session, run.id)


def test_a_cancelled_run_writes_nothing(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, attempt = claim(session, round_)
    rounds.cancel_round(session, round_, make_person(session))
    assert run.state is RunState.CANCELLED
    assert not runs.is_current(session, run.id, attempt)
    with pytest.raises(StaleAttempt, match="it is cancelled"):
        rounds.finish_step(session, run.id, attempt)
    assert round_.state is S.CANCELLED


def test_a_step_that_fails_for_good_fails_the_round(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, attempt = claim(session, round_)
    assert rounds.fail_step(session, run.id, attempt, "the model has no end token", may_pass=False) is S.FAILED
    assert (run.state, run.error) == (RunState.FAILED, "the model has no end token")
    assert round_.failure == "The step to sample responses failed. the model has no end token"
    assert rounds.start_round(session, project, by=None).number == 2


def test_an_error_that_may_pass_is_tried_twice_more(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    for state in (S.SAMPLING, S.SAMPLING, S.FAILED):
        run, attempt = claim(session, round_)
        assert rounds.fail_step(session, run.id, attempt, "out of memory", may_pass=True) is state
    assert (run.attempt, run.failures) == (3, 2)
    assert run.log.count("out of memory") == 3


def test_a_lost_run_is_queued_again_once(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, _ = claim(session, round_)
    assert runs.requeue_lost(session) == []
    session.execute(text("DELETE FROM procrastinate_jobs"))
    assert runs.requeue_lost(session) == [run.id]
    assert runs.requeue_lost(session) == []
    assert jobs(session) == [run.id]


def test_an_attempt_that_goes_on_keeps_the_points_before_it(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, first = claim(session, round_)
    losses = {step: {"loss": float(-step)} for step in range(1, 5)}
    runs.report(session, run.id, first, phase="SFT", done=2, total=2, points={1: {"loss": 9.0}})
    runs.report(session, run.id, first, phase="PPO", done=4, total=6, points=losses)
    second = runs.claim(session, run.id)
    runs.report(session, run.id, second, phase="PPO", done=4, total=6, points={3: {"loss": 0.3}, 4: {"loss": 0.4}})
    told = [(row.phase, row.step, row.values["loss"]) for row in runs.metrics(session, run.id)]
    assert told == [("SFT", 1, 9.0), ("PPO", 1, -1.0), ("PPO", 2, -2.0), ("PPO", 3, 0.3), ("PPO", 4, 0.4)]
    last = [(row.phase, row.step) for row in runs.last_metrics(session, run.id, each=3)]
    assert last == [("SFT", 1), ("PPO", 2), ("PPO", 3), ("PPO", 4)]
    other_run, attempt = claim(session, rounds.start_round(session, make_loop_project(session), by=None))
    runs.report(session, other_run.id, attempt, phase="PPO", done=1, total=6, points={1: {"loss": 1.0}})
    assert [(row.phase, row.step, row.values["loss"]) for row in runs.metrics(session, run.id)] == told


def test_an_attempt_that_begins_anew_takes_the_place_of_earlier_points(session: Session) -> None:
    project = make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run, first = claim(session, round_)
    runs.report(session, run.id, first, phase="PPO", done=1, total=4, points={1: {"loss": 2.0}})
    second = runs.claim(session, run.id)
    points = {1: {"loss": 3.0, "kl": float("nan")}, 2: {"loss": 1.0}}
    runs.report(session, run.id, second, phase="PPO", done=2, total=4, points=points)
    assert [(row.step, row.values) for row in runs.metrics(session, run.id)] == [
        (1, {"loss": 3.0, "kl": None}),
        (2, {"loss": 1.0}),
    ]
    session.refresh(run)
    assert (run.phase, run.done, run.total) == ("PPO", 2, 4)


def test_runs_and_rounds_of_others_are_not_found(session: Session) -> None:
    project, other = make_loop_project(session), make_loop_project(session)
    round_ = rounds.start_round(session, project, by=None)
    run = run_of(session, round_, Step.SAMPLE_RESPONSES)
    assert runs.get_run(session, project.id, run.id) is run
    with pytest.raises(NotFound):
        runs.get_run(session, other.id, run.id)
    with pytest.raises(NotFound):
        rounds.get_round(session, other.id, round_.number)


# Verdicts and gates


def evaluated(
    session: Session, value: float, *, pairs: int = 0, has_judge: bool = True, **loop: object
) -> tuple[Project, Round, Policy]:
    """A round whose last step has just ended with that win rate, and so many pairs before people."""
    project = make_loop_project(session, loop={"gate_pairs": pairs, **loop})
    round_ = make_round(session, project, S.EVALUATING)
    policy = make_policy(session, round_)
    runs.queue_run(session, round_, Step.EVALUATE_POLICY)
    run, attempt = claim(session, round_)
    if pairs:
        prompts = session.scalars(
            select(Prompt).where(Prompt.project_id == project.id, Prompt.split == Split.TEST).limit(pairs)
        ).all()
        parent = session.get_one(Policy, round_.policy_id)
        make_samples(session, run, policy, prompts, ["a new"])
        make_samples(session, run, parent, prompts, ["z old"])
        new, old = (
            session.scalars(select(Response).where(Response.policy_id == one.id).order_by(Response.id)).all()
            for one in (policy, parent)
        )
        gates.open_gate(session, round_, list(zip(new, old, strict=True)))
    told = verdict(value) if has_judge else verdict(value) | {"judge": None}
    rounds.finish_step(session, run.id, attempt, verdict=told)
    return project, round_, policy


@pytest.mark.parametrize(("value", "wanted", "state"), [(0.6, 0.5, S.PROMOTED), (0.6, 0.7, S.REJECTED)])
def test_the_reward_model_decides_where_nobody_is_asked(
    session: Session, value: float, wanted: float, state: RoundState
) -> None:
    project, round_, policy = evaluated(session, value, promote_winrate=wanted)
    assert round_.state is state
    assert round_.verdict is not None
    assert round_.verdict["decided_by"] == "the evaluation reward model"
    current = session.get_one(Project, project.id).current_policy_id
    assert current == (policy.id if state is S.PROMOTED else round_.policy_id)


def test_people_decide_where_they_are_asked(session: Session) -> None:
    project, round_, policy = evaluated(session, 0.1, pairs=3)
    assert round_.state is S.EVALUATING
    assert gates.gate_status(session, round_) == gates.GateStatus(3, 3, 0, 0, 0)
    rounds.tick(session, project.id)
    assert round_.state is S.EVALUATING
    assert label_all(session, project) == 3  # alphabetically, so "a new" wins
    rounds.tick(session, project.id)
    assert round_.state is S.PROMOTED
    assert session.get_one(Project, project.id).current_policy_id == policy.id
    assert round_.verdict is not None
    assert (round_.verdict["decided_by"], round_.verdict["gate"]["winrate"]) == ("people", 1.0)


def test_gate_labels_never_train(session: Session) -> None:
    project, _, _ = evaluated(session, 0.9, pairs=2)
    label_all(session, project)
    rounds.tick(session, project.id)
    following = rounds.start_round(session, project, by=None)
    run, attempt = claim(session, following)
    rounds.finish_step(session, run.id, attempt)
    with pytest.raises(Conflict, match="no labels to learn from"):
        rounds.fire(session, following, Trigger.HAND)


def test_a_gate_that_an_admin_closes_is_not_waited_for(session: Session) -> None:
    project, round_, _ = evaluated(session, 0.9, pairs=2)
    ids = session.scalars(select(Comparison.id).where(Comparison.purpose == Purpose.GATE)).all()
    comparisons.close(session, project.id, ids, None)
    rounds.tick(session, project.id)
    assert round_.state is S.PROMOTED  # by the reward model, since nobody has answered
    assert round_.verdict is not None
    assert round_.verdict["decided_by"] == "the evaluation reward model"


def test_a_cancelled_round_takes_its_gate_back(session: Session) -> None:
    project, round_, _ = evaluated(session, 0.9, pairs=2)
    rounds.cancel_round(session, round_, make_person(session))
    states = session.scalars(select(Comparison.state).where(Comparison.purpose == Purpose.GATE)).all()
    assert states == [ComparisonState.RETIRED] * 2
    assert label_all(session, project) == 0


def test_an_export_uses_no_labels_up_and_neither_does_a_failed_round(session: Session) -> None:
    project, round_ = labelling(session, trigger_labels=6)
    label_all(session, project)
    assert rounds.trigger(session, round_) is Trigger.LABELS
    snapshots.take_snapshot(session, project.id)
    assert rounds.trigger(session, round_) is Trigger.LABELS
    rounds.fire(session, round_, Trigger.LABELS)
    rounds.transition(session, round_, S.FAILED, failure="for this test")
    following = rounds.start_round(session, project, by=None)
    assert rounds.trigger(session, following) is Trigger.LABELS


def test_a_withdrawal_reaches_what_is_being_built(session: Session) -> None:
    project, round_ = labelling(session)
    label_all(session, project)
    rounds.fire(session, round_, Trigger.HAND)
    run, attempt = claim(session, round_)
    for membership in session.scalars(select(Membership).where(Membership.project_id == project.id)).all():
        labels.withdraw_annotator(session, membership)
    facts: dict[str, Any] = {
        "backbone": "tiny",
        "uri": "/none",
        "content_hash": "0",
        "gain": 1.0,
        "offset": 0.0,
        "card": {},
    }
    model = reward_models.add_reward_model(session, round_, run, RewardModelPurpose.TRAINING, **facts)
    assert model.tainted_at is not None
    rounds.finish_step(session, run.id, attempt)
    policy = policies.add_policy(session, round_, run, reward_model=model, uri="/none", content_hash="0")
    assert policy.tainted_at is not None


def test_the_model_that_ppo_climbed_promotes_nobody(session: Session) -> None:
    _, round_, _ = evaluated(session, 0.9, has_judge=False)
    assert round_.state is S.REJECTED
    assert round_.verdict is not None
    assert "too few validation labels" in round_.verdict["decided_by"]


def test_the_first_round_starts_by_itself_once_enough_is_labelled(session: Session) -> None:
    project = make_loop_project(session, loop={"automatic": True, "prompts_per_round": 0, "trigger_labels": 4})
    make_comparisons(session, project, 4)
    rounds.tick(session, project.id)
    assert rounds.live_round(session, project.id) is None
    label_all(session, project)
    rounds.tick(session, project.id)
    first = rounds.live_round(session, project.id)
    assert first is not None
    assert (first.number, first.state, first.started_by_id) == (1, S.LABELLING, None)
    rounds.tick(session, project.id)
    assert (first.state, first.trigger) == (S.FITTING, Trigger.LABELS)


def test_the_loop_goes_on_by_itself_after_a_good_end_alone(session: Session) -> None:
    project, _, policy = evaluated(session, 0.9, automatic=True)
    rounds.tick(session, project.id)
    following = rounds.live_round(session, project.id)
    assert following is not None
    assert (following.number, following.policy_id, following.started_by_id) == (2, policy.id, None)
    rounds.cancel_round(session, following, make_person(session))
    rounds.tick(session, project.id)
    assert rounds.live_round(session, project.id) is None

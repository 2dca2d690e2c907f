"""How does the loop turn? Rounds, the one function that moves them on, and what makes them start and go on."""

import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain import audit, comparisons, gates, labels, runs, snapshots
from app.domain.judgement import JudgementForm
from app.domain.settings import LoopSettings, ProjectSettings, parse_settings
from app.domain.writable import require_writable
from app.errors import Conflict, NotFound
from app.language import gettext as _
from app.language import mark
from app.tables import (
    LIVE_STATES,
    Person,
    Policy,
    Project,
    ProjectState,
    Prompt,
    PromptState,
    Round,
    RoundState,
    Run,
    RunState,
    Split,
    Step,
    Trigger,
)

ALLOWED: Mapping[RoundState, frozenset[RoundState]] = {
    RoundState.SAMPLING: frozenset({RoundState.LABELLING, RoundState.FAILED, RoundState.CANCELLED}),
    RoundState.LABELLING: frozenset({RoundState.FITTING, RoundState.FAILED, RoundState.CANCELLED}),
    RoundState.FITTING: frozenset({RoundState.IMPROVING, RoundState.FAILED, RoundState.CANCELLED}),
    RoundState.IMPROVING: frozenset({RoundState.EVALUATING, RoundState.FAILED, RoundState.CANCELLED}),
    RoundState.EVALUATING: frozenset(
        {RoundState.PROMOTED, RoundState.REJECTED, RoundState.FAILED, RoundState.CANCELLED}
    ),
    RoundState.PROMOTED: frozenset(),
    RoundState.REJECTED: frozenset(),
    RoundState.FAILED: frozenset(),
    RoundState.CANCELLED: frozenset(),
}
"""Every move that a round can make."""

STEPS: Mapping[RoundState, Step] = {
    RoundState.SAMPLING: Step.SAMPLE_RESPONSES,
    RoundState.FITTING: Step.FIT_REWARD_MODEL,
    RoundState.IMPROVING: Step.IMPROVE_POLICY,
    RoundState.EVALUATING: Step.EVALUATE_POLICY,
}
"""What the worker does in a state; people work in `labelling`, and in `evaluating` where there are gates."""

_AFTER: Mapping[Step, RoundState] = {
    Step.SAMPLE_RESPONSES: RoundState.LABELLING,
    Step.FIT_REWARD_MODEL: RoundState.IMPROVING,
    Step.IMPROVE_POLICY: RoundState.EVALUATING,
}
_SEED_LIMIT = 2**31


class Facts(TypedDict, total=False):
    """What a round learns on its way from one state to the next."""

    snapshot_id: int
    trigger: Trigger
    failure: str
    verdict: dict[str, Any]


def start_round(session: Session, project: Project, *, by: Person | None, seed: int | None = None) -> Round:
    """Start a project's next round with a copy of its settings; `by` is empty where the loop starts it itself.

    Raises Conflict where a round is live, the project is not active, it has no prompts to train or to measure on, or
    its form does not fit its settings.
    """
    project = session.get_one(Project, project.id, with_for_update={"key_share": True}, populate_existing=True)
    if project.state is not ProjectState.ACTIVE:
        raise Conflict(_("The project is %(state)s: make it active before starting a round.", state=_(project.state)))
    live = live_round(session, project.id)
    if live is not None:
        raise Conflict(
            _("Round %(number)s is still %(state)s: let it end, or cancel it.", number=live.number, state=_(live.state))
        )
    _require_prompts(session, project.id)
    settings = parse_settings(project.settings)
    samples = settings.loop.prompts_per_round > 0
    _require_fitting_form(comparisons.current_form(session, project.id), settings)
    last = session.scalar(select(func.max(Round.number)).where(Round.project_id == project.id))
    round_ = Round(
        project_id=project.id,
        number=(last or 0) + 1,
        state=RoundState.SAMPLING if samples else RoundState.LABELLING,
        settings=project.settings,
        seed=secrets.randbelow(_SEED_LIMIT) if seed is None else seed,
        policy_id=project.current_policy_id,
        started_by_id=by.id if by else None,
    )
    session.add(round_)
    session.flush()
    audit.record(session, "round.start", project_id=project.id, by=by, subject_id=round_.id)
    _enter(session, round_)
    return round_


def live_round(session: Session, project_id: int) -> Round | None:
    """The project's one round that is going on."""
    return session.scalar(select(Round).where(Round.project_id == project_id, Round.state.in_(LIVE_STATES)))


def get_round(session: Session, project_id: int, number: int) -> Round:
    """The project's round of that number, or NotFound."""
    found = session.scalar(select(Round).where(Round.project_id == project_id, Round.number == number))
    if found is None:
        raise NotFound(_("This project has no round %(number)s.", number=number))
    return found


def list_rounds(session: Session, project_id: int, *, limit: int = 100) -> list[Round]:
    """A project's rounds, newest first."""
    query = select(Round).where(Round.project_id == project_id).order_by(Round.number.desc())
    return list(session.scalars(query.limit(limit)))


def transition(session: Session, round_: Round, to: RoundState, **facts: Unpack[Facts]) -> Round:
    """Move a round to its next state, store what it learned, and queue the step that the new state calls for.

    The one function that changes a round's state after its start. Raises Conflict where `ALLOWED` has no such move.
    """
    round_ = _lock(session, round_)
    if to not in ALLOWED[round_.state]:
        raise Conflict(
            _(
                "Round %(number)s is %(state)s; it cannot become %(to)s.",
                number=round_.number,
                state=_(round_.state),
                to=_(to),
            )
        )
    for name, value in facts.items():
        setattr(round_, name, value)
    round_.state = to
    _enter(session, round_)
    return round_


def _enter(session: Session, round_: Round) -> None:
    """Do what belongs to the state that a round has just come to."""
    now = session.scalar(select(func.clock_timestamp()))
    if round_.state is RoundState.LABELLING:
        round_.labelling_since = now
    if round_.state in STEPS:
        runs.queue_run(session, round_, STEPS[round_.state])
    if round_.state is RoundState.PROMOTED:
        _promote(session, round_)
    if not round_.state.is_live:
        round_.ended_at = now
        runs.cancel_of_round(session, round_)
        gates.withdraw(session, round_)
    session.flush()


def _promote(session: Session, round_: Round) -> None:
    """Serve the round's policy, and retire what nobody has begun of the older ones."""
    policy = session.scalars(select(Policy).where(Policy.round_id == round_.id)).one()
    project = session.get_one(Project, round_.project_id, with_for_update={"key_share": True}, populate_existing=True)
    project.current_policy_id = policy.id
    session.flush()
    comparisons.retire_older(session, round_.project_id, policy.id)


def trigger(session: Session, round_: Round) -> Trigger | None:
    """What makes a labelling round's snapshot due now, if anything does."""
    if round_.state is not RoundState.LABELLING or round_.labelling_since is None:
        return None
    return _due(session, round_.project_id, parse_settings(round_.settings).loop, round_.labelling_since)


def _due(session: Session, project_id: int, loop: LoopSettings, since: datetime) -> Trigger | None:
    """Whether the labels that no round has learned from are enough, by their number or by the time since `since`."""
    new = labels.new_labels(session, project_id)
    if new >= loop.trigger_labels:
        return Trigger.LABELS
    if loop.trigger_hours is not None and new >= loop.trigger_min_labels:
        now = session.scalars(select(func.clock_timestamp())).one()
        if now - since >= timedelta(hours=loop.trigger_hours):
            return Trigger.TIME
    return None


def fire(session: Session, round_: Round, trigger: Trigger, by: Person | None = None) -> Round:
    """Freeze the labels in a snapshot and begin fitting.

    Raises Conflict where the round is not labelling, or there is no label to learn from.
    """
    round_ = _lock(session, round_)
    if RoundState.FITTING not in ALLOWED[round_.state]:
        raise Conflict(
            _(
                "Round %(number)s is %(state)s: only a round that is labelling can take its labels.",
                number=round_.number,
                state=_(round_.state),
            )
        )
    require_writable(session, round_.project_id)
    snapshot = snapshots.take_snapshot(session, round_.project_id, by)
    audit.record(
        session,
        "round.fire",
        project_id=round_.project_id,
        by=by,
        subject_id=round_.id,
        details={"trigger": trigger.value, "snapshot": snapshot.number},
    )
    return transition(session, round_, RoundState.FITTING, snapshot_id=snapshot.id, trigger=trigger)


def cancel_round(session: Session, round_: Round, by: Person) -> Round:
    """Stop a live round; its step ends within a second or two, its labels stay for the next round."""
    audit.record(session, "round.cancel", project_id=round_.project_id, by=by, subject_id=round_.id)
    return transition(session, round_, RoundState.CANCELLED)


def finish_step(session: Session, run_id: int, attempt: int, *, verdict: dict[str, Any] | None = None) -> RoundState:
    """End a run and move its round on, in the transaction that writes the run's results.

    `verdict`: of the step `evaluate_policy`, the figures that promote or reject. Raises StaleAttempt where the run was
    cancelled or begun anew; then nothing may be written.
    """
    round_, run = runs.lock_attempt(session, run_id, attempt)
    runs.end(session, run, RunState.DONE)
    if run.step is Step.EVALUATE_POLICY:
        round_.verdict = verdict
        session.flush()
        return settle(session, round_).state
    return transition(session, round_, _AFTER[run.step]).state


def fail_step(session: Session, run_id: int, attempt: int, error: str, *, may_pass: bool) -> RoundState:
    """End an attempt that broke off: begin it anew if the error may pass, else fail the round with it."""
    round_, run = runs.lock_attempt(session, run_id, attempt)
    if may_pass and run.failures < runs.MAX_FAILURES:
        runs.retry(session, run, error)
        return round_.state
    runs.end(session, run, RunState.FAILED, error=error)
    step = run.step.value.replace("_", " ")
    return transition(session, round_, RoundState.FAILED, failure=f"The step to {step} failed. {error}").state


def settle(session: Session, round_: Round) -> Round:
    """Promote or reject the policy of an evaluated round, once the people who gate it have answered.

    Where people were asked, they decide; otherwise the evaluation reward model does. The one that PPO climbed never
    does: without the other, and without people, the policy is rejected.
    """
    round_ = _lock(session, round_)
    if round_.state is not RoundState.EVALUATING or round_.verdict is None:
        return round_
    gate = gates.gate_status(session, round_)
    if gate.waiting:
        return round_
    loop = parse_settings(round_.settings).loop
    verdict = dict(round_.verdict)
    if gate.winrate is not None:
        verdict |= {"decided_by": mark("people"), "gate": gate.as_dict()}
        is_better = gate.winrate >= loop.gate_winrate
    elif verdict["judge"] is None:
        verdict |= {"decided_by": mark("nobody: too few validation labels for an evaluation reward model, and no gate")}
        is_better = False
    else:
        verdict |= {"decided_by": verdict["judge"]}
        is_better = verdict["winrate_parent"]["value"] >= loop.promote_winrate
    to = RoundState.PROMOTED if is_better else RoundState.REJECTED
    return transition(session, round_, to, verdict=verdict)


def tick(session: Session, project_id: int) -> None:
    """What time brings to a project's loop: triggers fire, gates settle, the next round starts."""
    project = session.get_one(Project, project_id)
    if project.state is not ProjectState.ACTIVE:
        return
    round_ = live_round(session, project_id)
    if round_ is None:
        _start_next(session, project)
    elif due := trigger(session, round_):
        fire(session, round_, due)
    elif _is_evaluated(session, round_):
        settle(session, round_)


def projects_to_tick(session: Session) -> list[int]:
    """The projects that `tick` is called for, each in a transaction of its own."""
    return list(session.scalars(select(Project.id).where(Project.state == ProjectState.ACTIVE).order_by(Project.id)))


def _start_next(session: Session, project: Project) -> None:
    """Where the loop is automatic: start the round after one that ended well, or the first once labels are due."""
    loop = parse_settings(project.settings).loop
    if not loop.automatic:
        return
    last = session.scalar(select(Round).where(Round.project_id == project.id).order_by(Round.number.desc()).limit(1))
    if last is None:
        if _due(session, project.id, loop, project.created_at) is not None:
            start_round(session, project, by=None)
    elif last.state in {RoundState.PROMOTED, RoundState.REJECTED}:
        # One seed makes a whole loop repeatable.
        start_round(session, project, by=None, seed=(last.seed + 1) % _SEED_LIMIT)


def _is_evaluated(session: Session, round_: Round) -> bool:
    state = select(Run.state).where(Run.round_id == round_.id, Run.step == Step.EVALUATE_POLICY)
    return session.scalar(state) is RunState.DONE


def _lock(session: Session, round_: Round) -> Round:
    return session.get_one(Round, round_.id, with_for_update=True, populate_existing=True)


def _require_prompts(session: Session, project_id: int) -> None:
    query = select(Prompt.split).where(Prompt.project_id == project_id, Prompt.state == PromptState.ACTIVE).distinct()
    missing = {Split.TRAIN, Split.TEST} - set(session.scalars(query))
    if missing:
        names = _(" and ").join(_(split) for split in sorted(missing))
        raise Conflict(
            _(
                "There are no active prompts in the split %(names)s: import more prompts, or raise the project's shares"
                " before importing. A round trains on train prompts and is measured on test prompts.",
                names=names,
            )
        )


def _require_fitting_form(form: JudgementForm, settings: ProjectSettings) -> None:
    """Raise Conflict where the round would have nothing to show to people, or learn nothing from its gate."""
    loop = settings.loop
    if loop.prompts_per_round > 0 and settings.responses_per_prompt < form.fewest_responses:
        raise Conflict(
            _(
                "The policy writes one response to a prompt, and the project's form compares responses with each other:"
                " raise the responses per prompt in the settings, or ask in the form for what is judged by itself,"
                " such as a score."
            )
        )
    if loop.gate_pairs > 0 and form.overall == "none":
        raise Conflict(
            _(
                "People are to judge pairs before a policy is promoted, and the project's form asks which response is"
                " better nowhere: ask for an overall judgement, or set the gate pairs in the settings to 0."
            )
        )

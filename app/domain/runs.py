"""Which steps run, and how far are they? A run is claimed, reports, and ends; only its newest attempt may write."""

import math
from collections.abc import Mapping

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.orm import Session

from app import jobs
from app.errors import NotFound, StaleAttempt
from app.language import gettext as _
from app.tables import Project, ProjectState, Round, Run, RunMetric, RunState, Step

MAX_FAILURES = 2
"""Errors that may pass (out of memory, a lost connection) after which a run is still begun anew."""

_UNFINISHED = (RunState.WAITING, RunState.RUNNING)


def queue_run(session: Session, round_: Round, step: Step) -> Run:
    """Create the run of a round's step together with its job."""
    run = Run(
        project_id=round_.project_id,
        round_id=round_.id,
        step=step,
        state=RunState.WAITING,
        settings=round_.settings,
    )
    session.add(run)
    session.flush()
    jobs.defer_run(session, run.id)
    return run


def get_run(session: Session, project_id: int, run_id: int) -> Run:
    """The run of that project, or NotFound."""
    run = session.scalar(select(Run).where(Run.project_id == project_id, Run.id == run_id))
    if run is None:
        raise NotFound(_("There is no run %(number)s in this project.", number=run_id))
    return run


def list_runs(
    session: Session, project_id: int, *, round_id: int | None = None, before_id: int | None = None, limit: int = 50
) -> list[Run]:
    """A project's runs, newest first."""
    query = select(Run).where(Run.project_id == project_id)
    if round_id is not None:
        query = query.where(Run.round_id == round_id)
    if before_id is not None:
        query = query.where(Run.id < before_id)
    return list(session.scalars(query.order_by(Run.id.desc()).limit(limit)))


def metrics(session: Session, run_id: int, *, after_id: int = 0) -> list[RunMetric]:
    """The points of a run's curves, oldest first: those that no later attempt said again."""
    query = select(RunMetric).where(*_told_last(run_id), RunMetric.id > after_id)
    return list(session.scalars(query.order_by(RunMetric.id)))


def last_metrics(session: Session, run_id: int, *, each: int) -> list[RunMetric]:
    """The last `each` points of every phase, oldest first."""
    place = func.row_number().over(partition_by=RunMetric.phase, order_by=RunMetric.id.desc()).label("place")
    placed = select(RunMetric.id, place).where(*_told_last(run_id)).subquery()
    query = select(RunMetric).join(placed, placed.c.id == RunMetric.id).where(placed.c.place <= each)
    return list(session.scalars(query.order_by(RunMetric.id)))


def _told_last(run_id: int) -> tuple[ColumnElement[bool], ...]:
    """Of a point: it is of this run, and no later attempt began its phase at its step or before.

    An attempt that goes on where an earlier one was killed leaves the earlier points standing; one that begins anew
    takes their place.
    """
    begun = (
        select(RunMetric.attempt, RunMetric.phase, func.min(RunMetric.step).label("step"))
        .where(RunMetric.run_id == run_id)
        .group_by(RunMetric.attempt, RunMetric.phase)
        .subquery()
    )
    told_again = select(begun.c.step).where(
        begun.c.attempt > RunMetric.attempt, begun.c.phase == RunMetric.phase, begun.c.step <= RunMetric.step
    )
    return RunMetric.run_id == run_id, ~told_again.exists()


def claim(session: Session, run_id: int) -> int:
    """Begin a run, anew where an earlier worker was lost; return the attempt's number.

    Raises StaleAttempt where there is nothing to do: the run has ended, or its project is paused.
    """
    run = session.get(Run, run_id, with_for_update=True, populate_existing=True)
    if run is None:
        raise NotFound(_("There is no run %(number)s.", number=run_id))
    if run.state not in _UNFINISHED:
        raise StaleAttempt(f"Run {run_id} is {run.state} already.")
    project = session.get_one(Project, run.project_id)
    if project.state is not ProjectState.ACTIVE:
        raise StaleAttempt(f"Project {project.slug} is {project.state}: run {run_id} waits.")
    run.attempt += 1
    run.state = RunState.RUNNING
    run.started_at = session.scalar(select(func.clock_timestamp()))
    run.phase, run.done, run.total, run.error = "", 0, 0, None
    note(run, f"attempt {run.attempt} begins")
    session.flush()
    return run.attempt


def report(
    session: Session,
    run_id: int,
    attempt: int,
    *,
    phase: str,
    done: int,
    total: int,
    points: Mapping[int, Mapping[str, float]] | None = None,
) -> None:
    """Store how far an attempt is, and its new points (step -> metrics). Raises StaleAttempt when it should stop."""
    touched = session.execute(
        update(Run)
        .where(Run.id == run_id, Run.attempt == attempt, Run.state == RunState.RUNNING)
        .values(phase=phase, done=done, total=total)
    )
    if touched.rowcount == 0:  # type: ignore[attr-defined]
        raise StaleAttempt(f"Attempt {attempt} of run {run_id} was cancelled or given to another worker.")
    session.add_all(
        RunMetric(run_id=run_id, attempt=attempt, phase=phase, step=step, values=_finite(values))
        for step, values in (points or {}).items()
    )


def is_current(session: Session, run_id: int, attempt: int) -> bool:
    """Whether an attempt may go on: not cancelled, and no other worker has begun a newer one."""
    found = session.execute(select(Run.attempt, Run.state).where(Run.id == run_id)).one()
    return tuple(found) == (attempt, RunState.RUNNING)


def lock_attempt(session: Session, run_id: int, attempt: int) -> tuple[Round, Run]:
    """Lock a run and its round until the transaction ends, so that the attempt alone may write its results.

    Raises StaleAttempt where the run was cancelled, or begun anew by another worker.
    """
    # Round before run, as in cancelling: one order for all, or two transactions wait for each other.
    round_ = session.scalars(
        select(Round)
        .join(Run, Run.round_id == Round.id)
        .where(Run.id == run_id)
        .with_for_update(of=Round)
        .execution_options(populate_existing=True)
    ).one()
    run = session.get_one(Run, run_id, with_for_update=True, populate_existing=True)
    if run.attempt != attempt or run.state is not RunState.RUNNING:
        raise StaleAttempt(
            f"Attempt {attempt} of run {run_id} may write nothing: it is {run.state} in attempt {run.attempt}."
        )
    return round_, run


def end(session: Session, run: Run, state: RunState, *, error: str | None = None) -> None:
    """End a run whose row the caller has locked."""
    run.state = state
    run.error = error
    run.ended_at = session.scalar(select(func.clock_timestamp()))
    note(run, f"attempt {run.attempt} is {state}" + (f": {error}" if error else ""))
    session.flush()


def note(run: Run, line: str) -> None:
    """Add a line to the log of a run whose row the caller has locked."""
    run.log += line + "\n"


def retry(session: Session, run: Run, error: str) -> None:
    """Queue a run again after an error that may pass."""
    run.failures += 1
    note(run, f"attempt {run.attempt} ended: {error}; trying again")
    _requeue(session, run)


def hand_back(session: Session, run_id: int, attempt: int) -> None:
    """Queue a run again because its worker stops; an attempt that is no longer current is left alone."""
    try:
        _round, run = lock_attempt(session, run_id, attempt)
    except StaleAttempt:
        return
    note(run, f"attempt {run.attempt} was interrupted: the worker stops")
    _requeue(session, run)


def cancel_of_round(session: Session, round_: Round) -> None:
    """End every unfinished run of a round that its caller has locked."""
    for run in session.scalars(
        select(Run).where(Run.round_id == round_.id, Run.state.in_(_UNFINISHED)).with_for_update()
    ):
        end(session, run, RunState.CANCELLED)


def requeue_lost(session: Session) -> list[int]:
    """Queue every unfinished run of an active project that has no job left; return their ids."""
    lost = session.scalars(
        text(
            """
            SELECT runs.id FROM runs JOIN projects ON projects.id = runs.project_id
            WHERE runs.state IN ('waiting', 'running') AND projects.state = 'active' AND NOT EXISTS (
                SELECT FROM procrastinate_jobs jobs
                WHERE jobs.task_name = :task AND jobs.status IN ('todo', 'doing')
                  AND (jobs.args ->> 'run_id')::bigint = runs.id
            )
            """
        ),
        {"task": jobs.RUN_STEP},
    ).all()
    for run_id in lost:
        jobs.defer_run(session, run_id)
    return list(lost)


def _requeue(session: Session, run: Run) -> None:
    run.state = RunState.WAITING
    session.flush()
    jobs.defer_run(session, run.id)


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no infinity and no NaN; a curve has a gap there."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}

"""Where does a project stand? Counts along the flow, labels a day, and who labelled how much."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Date, and_, cast, func, select, true
from sqlalchemy.orm import Session

from app.domain.filters import IS_DONE, IS_UNTOUCHED
from app.tables import (
    LIVE_STATES,
    Comparison,
    ComparisonState,
    Label,
    LabelRevision,
    Policy,
    Project,
    Prompt,
    PromptState,
    Purpose,
    Response,
    ResponsePurpose,
    ResponseState,
    Round,
    RoundState,
    Split,
)


@dataclass(frozen=True)
class Counts:
    """A project's comparisons by what they wait for, and its labels.

    Every comparison is in exactly one of `open`, `done`, `paused`, `closed` and `retired`; a finished one is `done`
    in any state. `started` are those of the open ones that somebody has begun. `labels` leaves withdrawn ones out and
    counts `surplus` ones, `live` are leases, `openings` can be handed out now.
    """

    open: int
    started: int
    done: int
    paused: int
    closed: int
    retired: int
    labels: int
    surplus: int
    live: int
    openings: int


@dataclass(frozen=True)
class Flow:
    """What stands at each station between prompts and policies. Retired rows are left out."""

    prompts: dict[Split, int]
    responses: int
    rounds: int
    policies: int

    @property
    def all_prompts(self) -> int:
        """Active prompts of every split."""
        return sum(self.prompts.values())


@dataclass(frozen=True)
class ProjectCounts:
    """A project in one line of a list."""

    prompts: int
    labels: int
    openings: int
    live_round: RoundState | None


@dataclass(frozen=True)
class Pace:
    """What one annotator did: labels, of them excluded, median seconds a label, and when the last one came."""

    labels: int
    excluded: int
    seconds: float | None
    last_at: datetime


def flow(session: Session, project_id: int) -> Flow:
    """The counts that no other room keeps; those of comparisons and labels are `counts`."""
    rows = session.execute(
        select(Prompt.split, func.count())
        .where(Prompt.project_id == project_id, Prompt.state == PromptState.ACTIVE)
        .group_by(Prompt.split)
    )
    by_split = dict(rows.all())
    return Flow(
        prompts={split: by_split.get(split, 0) for split in Split},
        responses=_count(
            session,
            Response.project_id == project_id,
            Response.state == ResponseState.ACTIVE,
            Response.purpose == ResponsePurpose.LABELLING,
        ),
        rounds=_count(session, Round.project_id == project_id),
        policies=_count(session, Policy.project_id == project_id),
    )


def labels_by_day(session: Session, project_id: int, days: int = 14) -> list[tuple[date, int]]:
    """Labels that arrived on each of the last `days` days in UTC, today last; days without labels count 0."""
    arrived = cast(func.timezone("UTC", Label.created_at), Date)
    today = session.scalars(select(cast(func.timezone("UTC", func.now()), Date))).one()
    first = today - timedelta(days=days - 1)
    rows = session.execute(
        select(arrived, func.count()).where(Label.project_id == project_id, arrived >= first).group_by(arrived)
    )
    counted = dict(rows.all())
    return [(day, counted.get(day, 0)) for day in (first + timedelta(days=number) for number in range(days))]


def paces(session: Session, project_id: int) -> dict[int, Pace]:
    """For every annotator id with labels, how much and how fast."""
    first = (LabelRevision.label_id == Label.id) & (LabelRevision.number == 1)
    rows = session.execute(
        select(
            Label.annotator_id,
            func.count(Label.id),
            func.count(Label.excluded_at),
            func.percentile_cont(0.5).within_group(LabelRevision.seconds),
            func.max(Label.created_at),
        )
        .join(LabelRevision, first)
        .where(Label.project_id == project_id)
        .group_by(Label.annotator_id)
    )
    return {annotator: Pace(labels, excluded, seconds, last) for annotator, labels, excluded, seconds, last in rows}


def project_counts(session: Session, projects: Sequence[Project]) -> dict[int, ProjectCounts]:
    """One line for each project, by its id."""
    ids = [project.id for project in projects]
    prompts = _by_project(session, Prompt.project_id, ids, func.count(), Prompt.state == PromptState.ACTIVE)
    labels = _by_project(session, Label.project_id, ids, func.count())
    openings = _by_project(
        session,
        Comparison.project_id,
        ids,
        func.sum(Comparison.openings),
        Comparison.state == ComparisonState.OPEN,
        Comparison.purpose != Purpose.REPEAT,
    )
    live = _by_project(session, Round.project_id, ids, func.min(Round.state), Round.state.in_(LIVE_STATES))
    return {
        id_: ProjectCounts(
            prompts=int(prompts.get(id_, 0)),
            labels=int(labels.get(id_, 0)),
            openings=int(openings.get(id_, 0)),
            live_round=live.get(id_),
        )
        for id_ in ids
    }


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return session.scalar(select(func.count()).where(*conditions)) or 0


def _by_project(
    session: Session, project: Any, ids: Sequence[int], value: ColumnElement[Any], *conditions: ColumnElement[bool]
) -> dict[int, Any]:
    """`value` over the rows of each project that has any."""
    rows = session.execute(select(project, value).where(project.in_(ids), *conditions).group_by(project))
    return dict(rows.all())


def counts(session: Session, project_id: int) -> Counts:
    """How far a project's labelling has come. What annotators are shown again is no new work, so it is left out."""

    def many(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(*conditions)

    def total(value: Any, *conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.coalesce(func.sum(value).filter(true(), *conditions), 0)

    waits = {state: and_(Comparison.state == state, ~IS_DONE) for state in ComparisonState}
    is_open = waits[ComparisonState.OPEN]
    row = session.execute(
        select(
            many(is_open).label("open"),
            many(is_open, ~IS_UNTOUCHED).label("started"),
            many(IS_DONE).label("done"),
            many(waits[ComparisonState.PAUSED]).label("paused"),
            many(waits[ComparisonState.CLOSED]).label("closed"),
            many(waits[ComparisonState.RETIRED]).label("retired"),
            total(Comparison.k - Comparison.openings - Comparison.submitted).label("live"),
            total(Comparison.openings, is_open).label("openings"),
        ).where(Comparison.project_id == project_id, Comparison.purpose != Purpose.REPEAT)
    ).one()
    labels = session.execute(
        select(func.count().label("labels"), func.count().filter(Label.surplus).label("surplus")).where(
            Label.project_id == project_id, Label.withdrawn_at.is_(None)
        )
    ).one()
    return Counts(**{name: int(value) for name, value in {**row._mapping, **labels._mapping}.items()})

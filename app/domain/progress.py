"""How far have they come? An annotator's own labels, and the project's comparisons."""

import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from app.tables import Comparison, ComparisonState, Label, Purpose

_LARGE = 2_000  # comparisons, from which on counting them takes long
_SECONDS_KEPT = 5.0
_COUNTED: WeakKeyDictionary[Engine, dict[int, tuple[float, tuple[int, int]]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Progress:
    """`today` (by UTC) and `total` count the annotator's labels, `done` and `wanted` the project's comparisons."""

    today: int
    total: int
    done: int
    wanted: int


def progress(session: Session, project_id: int, annotator_id: int) -> Progress:
    """What an annotator sees of their work and of the whole; withdrawn labels and retired comparisons are left out."""
    is_today = Label.created_at >= func.date_trunc("day", func.now(), "UTC")
    today, total = session.execute(
        select(func.count().filter(is_today), func.count()).where(
            Label.project_id == project_id, Label.annotator_id == annotator_id, Label.withdrawn_at.is_(None)
        )
    ).one()
    return Progress(today, total, *_of_project(session, project_id))


def _of_project(session: Session, project_id: int) -> tuple[int, int]:
    """Finished and wanted comparisons. Of a large project the count is some seconds old: it would slow every page."""
    kept = _COUNTED.setdefault(session.connection().engine, {})
    until, counted = kept.get(project_id, (0.0, (0, 0)))
    if time.monotonic() < until:
        return counted
    is_done = Comparison.submitted >= Comparison.k
    done, wanted = session.execute(
        select(
            func.count().filter(is_done), func.count().filter(is_done | (Comparison.state == ComparisonState.OPEN))
        ).where(Comparison.project_id == project_id, Comparison.purpose != Purpose.REPEAT)
    ).one()
    if wanted > _LARGE:
        kept[project_id] = (time.monotonic() + _SECONDS_KEPT, (done, wanted))
    return done, wanted


def last_label(session: Session, annotator_id: int) -> Label | None:
    """The annotator's newest label that can still be changed, by itself."""
    own = (Label.annotator_id == annotator_id, Label.withdrawn_at.is_(None))
    return session.scalar(select(Label).where(*own).order_by(Label.id.desc()).limit(1))

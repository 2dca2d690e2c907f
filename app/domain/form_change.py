"""What would a new judgement form meet? The work that is going on, and the comparisons that wait."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.tables import (
    Assignment,
    AssignmentState,
    Comparison,
    ComparisonResponse,
    ComparisonState,
    ProjectVersion,
)


@dataclass(frozen=True)
class Standing:
    """What stands in the project while its form is changed."""

    live: Mapping[int, int]  # version number -> comparisons that are being worked on under it
    single: int  # waiting comparisons of one response
    several: int  # waiting comparisons of three and more


def standing(session: Session, project_id: int) -> Standing:
    """The project's live leases by the version that they follow, and its waiting comparisons by their size."""
    session.flush()
    live = (
        select(ProjectVersion.number, func.count())
        .join(Assignment, Assignment.project_version_id == ProjectVersion.id)
        .where(
            Assignment.project_id == project_id,
            Assignment.state == AssignmentState.LIVE,
            Assignment.expires_at > func.clock_timestamp(),
        )
        .group_by(ProjectVersion.number)
        .order_by(ProjectVersion.number)
    )
    sizes = (
        select(func.count().label("size"))
        .select_from(ComparisonResponse)
        .join(Comparison, Comparison.id == ComparisonResponse.comparison_id)
        .where(
            Comparison.project_id == project_id,
            Comparison.state.in_((ComparisonState.OPEN, ComparisonState.PAUSED)),
            Comparison.openings > 0,
        )
        .group_by(ComparisonResponse.comparison_id)
        .subquery()
    )
    of_size = _counted(session, select(sizes.c.size, func.count()).group_by(sizes.c.size))
    return Standing(
        live=_counted(session, live),
        single=of_size.get(1, 0),
        several=sum(number for size, number in of_size.items() if size > 2),
    )


def _counted(session: Session, query: Select[int, int]) -> dict[int, int]:
    return {row[0]: row[1] for row in session.execute(query)}

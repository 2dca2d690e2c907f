"""Who did what? Writes and reads the one row that every administrative act leaves."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.tables import AuditEvent, Person


def record(
    session: Session,
    action: str,
    *,
    project_id: int | None = None,
    by: Person | None,
    subject_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write down that `by` (nobody: the loop itself) did `action`, such as comparison.close, to row `subject_id`.

    `details` must hold no personal data: erasing a person empties their row alone.
    """
    session.add(
        AuditEvent(
            project_id=project_id,
            person_id=by.id if by else None,
            action=action,
            subject_id=subject_id,
            details=dict(details or {}),
        )
    )


def list_events(
    session: Session, project_id: int | None, after_id: int | None = None, limit: int = 50
) -> Sequence[tuple[AuditEvent, Person | None]]:
    """A project's events (None: those of no project), newest first, with who acted; `after_id`: the last one seen."""
    session.flush()
    query = (
        select(AuditEvent, Person)
        .outerjoin(Person, Person.id == AuditEvent.person_id)
        .where(AuditEvent.project_id.is_not_distinct_from(project_id))
        .order_by(AuditEvent.id.desc())
        .limit(limit)
    )
    if after_id is not None:
        query = query.where(AuditEvent.id < after_id)
    return [(event, person) for event, person in session.execute(query)]

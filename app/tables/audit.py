"""Who changed what? One row for every administrative act."""

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Created, Id


class AuditEvent(Base):
    """An act of a person, or of the loop where no person is named. Append-only."""

    __tablename__ = "audit_events"

    id: Mapped[Id]
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    action: Mapped[str] = mapped_column(comment="subject.verb, such as comparison.close")
    subject_id: Mapped[int | None] = mapped_column(comment="the row that was acted on, in the subject's table")
    details: Mapped[dict[str, Any]] = mapped_column(comment="what changed: before and after, or the reason")
    created_at: Mapped[Created]

    __table_args__ = (Index("ix_audit_events_project_id", "project_id", "id"),)

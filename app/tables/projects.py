"""What is being aligned? Projects and the immutable versions of what their annotators are shown."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.base import Base, Created, Explained, Id, explained


class ProjectState(Explained):
    """Whether a project's people and its loop may work."""

    ACTIVE = "active", "comparisons are handed out and rounds may start"
    PAUSED = "paused", "nothing is handed out, no round moves on"
    ARCHIVED = "archived", "read only"


class Project(Base):
    """One model being aligned."""

    __tablename__ = "projects"

    id: Mapped[Id]
    slug: Mapped[str] = mapped_column(unique=True, comment="the name in addresses: lower case, digits, hyphens")
    name: Mapped[str]
    state: Mapped[ProjectState] = explained(ProjectState)
    settings: Mapped[dict[str, Any]] = mapped_column(comment="ProjectSettings of app.domain.settings")
    current_version_id: Mapped[int | None]
    current_policy_id: Mapped[int | None] = mapped_column(comment="the policy that is served and sampled")
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[Created]
    archived_at: Mapped[datetime | None]

    current_version: Mapped["ProjectVersion | None"] = relationship(
        primaryjoin="foreign(Project.current_version_id) == ProjectVersion.id", lazy="raise", viewonly=True
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["id", "current_version_id"],
            ["project_versions.project_id", "project_versions.id"],
            name="fk_projects_current_version",
            use_alter=True,
        ),
        ForeignKeyConstraint(
            ["id", "current_policy_id"],
            ["policies.project_id", "policies.id"],
            name="fk_projects_current_policy",
            use_alter=True,
        ),
    )


class ProjectVersion(Base):
    """Guidelines, consent text and judgement form as they were shown; never changed, only followed by the next."""

    __tablename__ = "project_versions"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int]
    guidelines: Mapped[str] = mapped_column(comment="markdown")
    consent_text: Mapped[str] = mapped_column(server_default=text("''"), comment="markdown; empty: none is asked for")
    judgement_form: Mapped[dict[str, Any]] = mapped_column(
        comment="what annotators are asked, beginning with the ranking"
    )
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[Created]

    __table_args__ = (UniqueConstraint("project_id", "number"), UniqueConstraint("project_id", "id"))

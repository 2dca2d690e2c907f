"""Who takes part? People, how they sign in, and the pseudonymous memberships that labels refer to."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.base import Base, Created, Explained, Id, explained


class Role(Explained):
    """What a member may do in a project."""

    ADMIN = "admin", "runs the project: people, prompts, rounds, exports"
    ANNOTATOR = "annotator", "labels comparisons and sees their own labels"


class Person(Base):
    """The one table with personal data; erasure empties its row and keeps its key."""

    __tablename__ = "people"

    id: Mapped[Id]
    email: Mapped[str | None] = mapped_column(comment="lower case; empty after erasure")
    name: Mapped[str | None]
    password_hash: Mapped[str | None] = mapped_column(comment="argon2id")
    language: Mapped[str | None] = mapped_column(comment="the pages' language; empty: as the browser asks")
    is_owner: Mapped[bool] = mapped_column(
        default=False, server_default=text("false"), comment="may create projects and administers every project"
    )
    created_at: Mapped[Created]
    erased_at: Mapped[datetime | None]

    memberships: Mapped[list["Membership"]] = relationship(back_populates="person", lazy="raise")

    __table_args__ = (
        Index("uq_people_email", text("lower(email)"), unique=True),
        CheckConstraint("erased_at IS NULL OR (email IS NULL AND name IS NULL)", name="erased_is_empty"),
    )


class SignInTry(Base):
    """Wrong passwords in a row for one e-mail address, known or not, from one client's address."""

    __tablename__ = "sign_in_tries"

    id: Mapped[Id]
    key_hash: Mapped[str] = mapped_column(unique=True, comment="sha256 of the e-mail typed and the client's address")
    failed: Mapped[int] = mapped_column(server_default=text("0"))
    last_at: Mapped[Created]


class Membership(Base):
    """A person in a project. Its key is the pseudonymous annotator id that labels and assignments hold."""

    __tablename__ = "memberships"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    role: Mapped[Role] = explained(Role)
    joined_at: Mapped[Created]
    left_at: Mapped[datetime | None]
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="this annotator withdrew all labels")
    label_weight: Mapped[float] = mapped_column(
        Float,
        default=1.0,
        server_default=text("1"),
        comment="how much a label of theirs counts beside others where the project gives weights; 1 is an ordinary one",
    )

    person: Mapped[Person] = relationship(back_populates="memberships", lazy="raise")

    __table_args__ = (
        UniqueConstraint("project_id", "person_id"),
        UniqueConstraint("project_id", "id"),
        CheckConstraint("label_weight BETWEEN 0 AND 10", name="label_weight_in_range"),
    )


class Consent(Base):
    """That an annotator accepted the consent text of a project version."""

    __tablename__ = "consents"

    id: Mapped[Id]
    project_id: Mapped[int]
    annotator_id: Mapped[int]
    project_version_id: Mapped[int]
    accepted_at: Mapped[Created]

    __table_args__ = (
        UniqueConstraint("annotator_id", "project_version_id"),
        ForeignKeyConstraint(["project_id", "annotator_id"], ["memberships.project_id", "memberships.id"]),
        ForeignKeyConstraint(
            ["project_id", "project_version_id"], ["project_versions.project_id", "project_versions.id"]
        ),
    )


class Reading(Base):
    """That an annotator went through the guidelines of a project version before labelling under them."""

    __tablename__ = "readings"

    project_id: Mapped[int]
    annotator_id: Mapped[int]
    project_version_id: Mapped[int]
    read_at: Mapped[Created]

    __table_args__ = (
        PrimaryKeyConstraint("annotator_id", "project_version_id"),
        ForeignKeyConstraint(["project_id", "annotator_id"], ["memberships.project_id", "memberships.id"]),
        ForeignKeyConstraint(
            ["project_id", "project_version_id"], ["project_versions.project_id", "project_versions.id"]
        ),
    )


class Invite(Base):
    """A link that lets its holders join a project, or be an owner where it names no project."""

    __tablename__ = "invites"

    id: Mapped[Id]
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"), index=True)
    role: Mapped[Role] = explained(Role)
    token_hash: Mapped[str] = mapped_column(unique=True, comment="sha256 of the link's secret")
    created_by_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[Created]
    expires_at: Mapped[datetime]
    max_uses: Mapped[int] = mapped_column(default=1)
    uses: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    revoked_at: Mapped[datetime | None]

    __table_args__ = (CheckConstraint("uses <= max_uses", name="uses_within_max"),)


class SignInLink(Base):
    """A one-time link that signs one person in."""

    __tablename__ = "sign_in_links"

    id: Mapped[Id]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    token_hash: Mapped[str] = mapped_column(unique=True, comment="sha256 of the link's secret")
    created_at: Mapped[Created]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class WebSession(Base):
    """A browser that is signed in. The cookie holds a secret, the row its hash."""

    __tablename__ = "web_sessions"

    id: Mapped[Id]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    token_hash: Mapped[str] = mapped_column(unique=True, comment="sha256 of the cookie's secret")
    csrf_token: Mapped[str] = mapped_column(comment="every form of this session carries it")
    created_at: Mapped[Created]
    last_seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class ApiToken(Base):
    """A program that acts for a person over REST."""

    __tablename__ = "api_tokens"

    id: Mapped[Id]
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(comment="the token's first characters, to tell tokens apart")
    token_hash: Mapped[str] = mapped_column(unique=True, comment="sha256 of the token")
    created_at: Mapped[Created]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

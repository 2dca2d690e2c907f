"""What do people do? Comparisons, their leases to annotators, and the labels that come back."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import BigInteger

from app.tables.base import Base, Created, Explained, Id, explained
from app.tables.prompts import Prompt, Response


class Purpose(Explained):
    """What a comparison's labels are for."""

    TRAIN = "train", "fits reward models, measures them or makes choices, as its prompt's split says"
    EVALUATION = "evaluation", "measures policies; never trained on"
    GOLD = "gold", "its answer is known and checks the annotator; never trained on"
    REPEAT = "repeat", "shown again to the same annotator to measure consistency"
    GATE = "gate", "decides whether a round's policy is promoted; never trained on"


class ComparisonState(Explained):
    """Whether a comparison is handed out."""

    OPEN = "open", "handed out while it has openings"
    PAUSED = "paused", "an admin holds it back; can be opened again"
    CLOSED = "closed", "an admin ended it; started work still counts; can be opened again"
    RETIRED = "retired", "superseded by a newer policy's responses before anybody started"


class Comparison(Base):
    """One unit of labelling work: a prompt and 2 to 9 of its responses, to be labelled by k annotators.

    k = openings + live assignments + submitted, always: the three numbers change together on the locked row.
    """

    __tablename__ = "comparisons"

    id: Mapped[Id]
    project_id: Mapped[int]
    prompt_id: Mapped[int]
    round_id: Mapped[int | None]
    purpose: Mapped[Purpose] = explained(Purpose)
    state: Mapped[ComparisonState] = explained(ComparisonState)
    k: Mapped[int] = mapped_column(Integer, comment="labels wanted")
    openings: Mapped[int] = mapped_column(Integer, comment="labels wanted and not yet leased")
    submitted: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"), comment="labels within k")
    priority: Mapped[int] = mapped_column(
        Integer, default=0, server_default=text("0"), comment="higher is handed out first"
    )
    selected_because: Mapped[str] = mapped_column(comment="fresh, mixed, imported, gate or by_hand")
    selection_probability: Mapped[float | None] = mapped_column(Float, comment="with which it was drawn")
    gold_groups: Mapped[list[Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="response ids, best group first"
    )
    repeats_id: Mapped[int | None] = mapped_column(comment="the comparison that this one repeats")
    created_at: Mapped[Created]

    prompt: Mapped[Prompt] = relationship(
        primaryjoin="foreign(Comparison.prompt_id) == Prompt.id", viewonly=True, lazy="raise"
    )
    members: Mapped[list["ComparisonResponse"]] = relationship(
        primaryjoin="Comparison.id == foreign(ComparisonResponse.comparison_id)",
        viewonly=True,
        lazy="raise",
        order_by="ComparisonResponse.place",
    )

    __table_args__ = (
        UniqueConstraint("project_id", "id"),
        UniqueConstraint("prompt_id", "id"),
        ForeignKeyConstraint(["project_id", "prompt_id"], ["prompts.project_id", "prompts.id"]),
        ForeignKeyConstraint(["project_id", "round_id"], ["rounds.project_id", "rounds.id"]),
        ForeignKeyConstraint(["project_id", "repeats_id"], ["comparisons.project_id", "comparisons.id"]),
        CheckConstraint("openings >= 0", name="openings_not_negative"),
        CheckConstraint("submitted >= 0 AND openings + submitted <= k", name="within_k"),
        Index(
            "ix_comparisons_queue",
            "project_id",
            text("priority DESC"),
            "id",
            postgresql_where=text("state = 'open' AND openings > 0"),
        ),
        Index("ix_comparisons_round_id", "round_id"),
        Index("ix_comparisons_prompt_id", "prompt_id"),
    )


class ComparisonResponse(Base):
    """A response in a comparison. The keys make sure that both belong to the same prompt."""

    __tablename__ = "comparison_responses"

    comparison_id: Mapped[int]
    response_id: Mapped[int]
    prompt_id: Mapped[int]
    place: Mapped[int] = mapped_column(
        Integer, comment="order of storing, 0 first; the order shown is drawn per assignment"
    )

    response: Mapped[Response] = relationship(
        primaryjoin="foreign(ComparisonResponse.response_id) == Response.id", viewonly=True, lazy="raise"
    )

    __table_args__ = (
        PrimaryKeyConstraint("comparison_id", "response_id"),
        UniqueConstraint("comparison_id", "place"),
        ForeignKeyConstraint(["prompt_id", "comparison_id"], ["comparisons.prompt_id", "comparisons.id"]),
        ForeignKeyConstraint(["prompt_id", "response_id"], ["responses.prompt_id", "responses.id"]),
        CheckConstraint("place BETWEEN 0 AND 8", name="at_most_nine"),
        Index("ix_comparison_responses_response_id", "response_id"),
    )


class ComparisonAssignee(Base):
    """Where a comparison has assignees, it is handed out to them alone."""

    __tablename__ = "comparison_assignees"

    project_id: Mapped[int]
    comparison_id: Mapped[int]
    annotator_id: Mapped[int]

    __table_args__ = (
        PrimaryKeyConstraint("comparison_id", "annotator_id"),
        ForeignKeyConstraint(["project_id", "comparison_id"], ["comparisons.project_id", "comparisons.id"]),
        ForeignKeyConstraint(["project_id", "annotator_id"], ["memberships.project_id", "memberships.id"]),
    )


class AssignmentState(Explained):
    """What became of a lease."""

    LIVE = "live", "leased until `expires_at`"
    SUBMITTED = "submitted", "answered"
    SKIPPED = "skipped", "handed back by the annotator, who is not asked again"
    EXPIRED = "expired", "the time ran out; the opening went back"


class Assignment(Base):
    """A comparison leased to one annotator until a time."""

    __tablename__ = "assignments"

    id: Mapped[Id]
    project_id: Mapped[int]
    comparison_id: Mapped[int]
    annotator_id: Mapped[int]
    project_version_id: Mapped[int] = mapped_column(comment="the guidelines and form that were shown")
    occasion: Mapped[int] = mapped_column(Integer, default=1, server_default=text("1"), comment="2 and more: a repeat")
    state: Mapped[AssignmentState] = explained(AssignmentState)
    shown_order: Mapped[list[int]] = mapped_column(ARRAY(BigInteger), comment="response ids as shown, first one first")
    leased_at: Mapped[Created]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    skip_reason: Mapped[str | None]

    comparison: Mapped[Comparison] = relationship(
        primaryjoin="foreign(Assignment.comparison_id) == Comparison.id", viewonly=True, lazy="raise"
    )

    __table_args__ = (
        UniqueConstraint("comparison_id", "id"),
        ForeignKeyConstraint(["project_id", "comparison_id"], ["comparisons.project_id", "comparisons.id"]),
        ForeignKeyConstraint(["project_id", "annotator_id"], ["memberships.project_id", "memberships.id"]),
        ForeignKeyConstraint(
            ["project_id", "project_version_id"], ["project_versions.project_id", "project_versions.id"]
        ),
        Index(
            "uq_assignments_once",
            "comparison_id",
            "annotator_id",
            "occasion",
            unique=True,
            postgresql_where=text("state IN ('live', 'submitted')"),
        ),
        Index("ix_assignments_annotator_id", "annotator_id", "id"),
        Index("ix_assignments_expiring", "expires_at", postgresql_where=text("state = 'live'")),
    )


class Draft(Base):
    """What an annotator has filled in and not sent yet: for a live assignment, or while changing its label."""

    __tablename__ = "drafts"

    assignment_id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int]
    comparison_id: Mapped[int]
    revision: Mapped[int] = mapped_column(Integer, comment="the revision that is being changed; 0: a new label")
    fields: Mapped[list[Any]] = mapped_column(JSONB, comment="[name, value] of the form's fields, as they were filled")
    seconds: Mapped[float] = mapped_column(Float, comment="time in front of it so far")
    sequence: Mapped[int] = mapped_column(
        comment="counts up in the browser: an older draft that comes late is left out"
    )
    saved_at: Mapped[Created]

    __table_args__ = (
        ForeignKeyConstraint(["comparison_id", "assignment_id"], ["assignments.comparison_id", "assignments.id"]),
        ForeignKeyConstraint(["project_id", "comparison_id"], ["comparisons.project_id", "comparisons.id"]),
    )


class Label(Base):
    """An annotator's answer. What it says stands in its revisions; this row says whether it counts."""

    __tablename__ = "labels"

    id: Mapped[Id]
    project_id: Mapped[int]
    comparison_id: Mapped[int]
    assignment_id: Mapped[int] = mapped_column(unique=True)
    annotator_id: Mapped[int]
    surplus: Mapped[bool] = mapped_column(
        default=False,
        server_default=text("false"),
        comment="came after its lease, when no opening was left: kept outside k",
    )
    excluded_at: Mapped[datetime | None]
    excluded_reason: Mapped[str | None]
    excluded_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    withdrawn_at: Mapped[datetime | None] = mapped_column(comment="the annotator took it back: never exported again")
    created_at: Mapped[Created]

    revisions: Mapped[list["LabelRevision"]] = relationship(
        primaryjoin="Label.id == foreign(LabelRevision.label_id)",
        viewonly=True,
        lazy="raise",
        order_by="LabelRevision.number",
    )
    comparison: Mapped[Comparison] = relationship(
        primaryjoin="foreign(Label.comparison_id) == Comparison.id", viewonly=True, lazy="raise"
    )

    __table_args__ = (
        UniqueConstraint("comparison_id", "id"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "comparison_id"], ["comparisons.project_id", "comparisons.id"]),
        ForeignKeyConstraint(["comparison_id", "assignment_id"], ["assignments.comparison_id", "assignments.id"]),
        ForeignKeyConstraint(["project_id", "annotator_id"], ["memberships.project_id", "memberships.id"]),
        CheckConstraint("(excluded_at IS NULL) = (excluded_reason IS NULL)", name="exclusion_has_a_reason"),
        Index("ix_labels_project_id_created_at", "project_id", "created_at"),
        Index("ix_labels_annotator_id", "annotator_id", "id"),
    )


class LabelRevision(Base):
    """What a label said at one time. Append-only: an edit is the next number; snapshots pin revisions."""

    __tablename__ = "label_revisions"

    id: Mapped[Id]
    project_id: Mapped[int]
    comparison_id: Mapped[int]
    label_id: Mapped[int]
    number: Mapped[int] = mapped_column(Integer)
    project_version_id: Mapped[int] = mapped_column(comment="the guidelines and form that this answer follows")
    shown_order: Mapped[list[int]] = mapped_column(
        ARRAY(BigInteger), comment="response ids as shown when it was answered"
    )
    answers: Mapped[dict[str, Any]] = mapped_column(
        server_default=text("'{}'"), comment="what the judgement form asks beside the ranking"
    )
    seconds: Mapped[float | None] = mapped_column(Float, comment="time in front of it")
    created_at: Mapped[Created]

    ranks: Mapped[list["LabelRank"]] = relationship(
        primaryjoin="LabelRevision.id == foreign(LabelRank.revision_id)",
        viewonly=True,
        lazy="raise",
        order_by="LabelRank.rank",
    )

    __table_args__ = (
        UniqueConstraint("label_id", "number"),
        UniqueConstraint("comparison_id", "id"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["comparison_id", "label_id"], ["labels.comparison_id", "labels.id"]),
        ForeignKeyConstraint(["project_id", "label_id"], ["labels.project_id", "labels.id"]),
        ForeignKeyConstraint(
            ["project_id", "project_version_id"], ["project_versions.project_id", "project_versions.id"]
        ),
    )


class LabelRank(Base):
    """The place a revision gives to a response: 1 is best, equal numbers are ties, numbers are dense."""

    __tablename__ = "label_ranks"

    revision_id: Mapped[int]
    response_id: Mapped[int]
    comparison_id: Mapped[int]
    rank: Mapped[int] = mapped_column(Integer)

    __table_args__ = (
        PrimaryKeyConstraint("revision_id", "response_id"),
        ForeignKeyConstraint(["comparison_id", "revision_id"], ["label_revisions.comparison_id", "label_revisions.id"]),
        ForeignKeyConstraint(
            ["comparison_id", "response_id"],
            ["comparison_responses.comparison_id", "comparison_responses.response_id"],
        ),
        CheckConstraint("rank BETWEEN 1 AND 9", name="rank_in_range"),
    )


class Snapshot(Base):
    """A frozen, content-hashed set of label revisions: what a reward model trained on and an export delivers."""

    __tablename__ = "snapshots"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int] = mapped_column(Integer)
    content_hash: Mapped[str] = mapped_column(comment="sha256 over the pinned revisions and what they say")
    labels_count: Mapped[int] = mapped_column(Integer)
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[Created]
    tainted_at: Mapped[datetime | None] = mapped_column(comment="a label in it was withdrawn: no longer exported")

    __table_args__ = (UniqueConstraint("project_id", "number"), UniqueConstraint("project_id", "id"))


class SnapshotRevision(Base):
    """That a snapshot holds a revision."""

    __tablename__ = "snapshot_revisions"

    project_id: Mapped[int]
    snapshot_id: Mapped[int]
    revision_id: Mapped[int]

    __table_args__ = (
        PrimaryKeyConstraint("snapshot_id", "revision_id"),
        ForeignKeyConstraint(["project_id", "snapshot_id"], ["snapshots.project_id", "snapshots.id"]),
        ForeignKeyConstraint(["project_id", "revision_id"], ["label_revisions.project_id", "label_revisions.id"]),
        Index("ix_snapshot_revisions_revision_id", "revision_id"),
    )

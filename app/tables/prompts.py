"""What is asked, and what was answered? Imports, prompts and responses."""

from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.tables.base import Base, Created, Explained, Id, explained


class ImportState(Explained):
    """How far an uploaded file has come."""

    PREVIEWED = "previewed", "read and checked; nothing taken yet"
    TAKEN = "taken", "its good rows are prompts and responses now"
    DISCARDED = "discarded", "the admin took nothing"


class Import(Base):
    """An uploaded file between its preview and the decision to take it."""

    __tablename__ = "imports"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"), index=True)
    filename: Mapped[str]
    content: Mapped[bytes | None] = mapped_column(comment="the file; emptied once taken or discarded")
    state: Mapped[ImportState] = explained(ImportState)
    report: Mapped[dict[str, Any]] = mapped_column(comment="counts, and errors by line")
    created_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    created_at: Mapped[Created]

    __table_args__ = (UniqueConstraint("project_id", "id"),)


class Split(Explained):
    """What a prompt is used for, decided once at import by the hash of its group key."""

    TRAIN = "train", "fits reward models and is rolled out in PPO"
    VALIDATION = "validation", "makes choices and fits the evaluation reward model"
    TEST = "test", "measures; nothing is ever chosen on it"


class PromptState(Explained):
    """Whether new work may use a prompt."""

    ACTIVE = "active", "sampled and compared"
    RETIRED = "retired", "replaced by a newer version or taken out by an admin"


class Prompt(Base):
    """A conversation to be answered."""

    __tablename__ = "prompts"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    messages: Mapped[list[Any]] = mapped_column(comment="[{role, content}], content a text or a list of parts")
    group_key: Mapped[str] = mapped_column(comment="the conversation's root: prompts of one group share a split")
    split: Mapped[Split] = explained(Split)
    state: Mapped[PromptState] = explained(PromptState)
    version: Mapped[int] = mapped_column(Integer, default=1, server_default=sql("1"))
    replaces_id: Mapped[int | None] = mapped_column(unique=True, comment="the version that this one was edited from")
    import_id: Mapped[int | None]
    external_id: Mapped[str | None] = mapped_column(comment="the prompt's name where it came from")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"), comment="what else its source said")
    content_hash: Mapped[str] = mapped_column(comment="sha256 of the messages")
    created_at: Mapped[Created]

    responses: Mapped[list["Response"]] = relationship(
        primaryjoin="Prompt.id == foreign(Response.prompt_id)", viewonly=True, lazy="raise", order_by="Response.id"
    )

    __table_args__ = (
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "replaces_id"], ["prompts.project_id", "prompts.id"]),
        ForeignKeyConstraint(["project_id", "import_id"], ["imports.project_id", "imports.id"]),
        Index(
            "uq_prompts_active_content",
            "project_id",
            "content_hash",
            unique=True,
            postgresql_where=sql("state = 'active'"),
        ),
        Index("ix_prompts_project_id_split", "project_id", "split"),
    )


class ResponseSource(Explained):
    """Who wrote a response."""

    POLICY = "policy", "sampled from a policy of this project"
    IMPORTED = "imported", "came with an import, written by a system that its `system` names"
    PERSON = "person", "written or corrected by a person"


class FinishReason(Explained):
    """How a response stops."""

    ENDED = "ended", "the writer ended it, a policy with its end token"
    CUT = "cut", "the longest allowed length cut it off"


class ResponseState(Explained):
    """Whether new comparisons may use a response."""

    ACTIVE = "active", "may be compared"
    RETIRED = "retired", "taken out by an admin or superseded by a newer policy's"


class ResponsePurpose(Explained):
    """What a response was made for."""

    LABELLING = "labelling", "to be ranked by people"
    EVALUATION = "evaluation", "to measure a policy; compared only to gate a promotion"


class Response(Base):
    """What a policy, an imported system or a person wrote for a prompt."""

    __tablename__ = "responses"

    id: Mapped[Id]
    project_id: Mapped[int]
    prompt_id: Mapped[int]
    source: Mapped[ResponseSource] = explained(ResponseSource)
    purpose: Mapped[ResponsePurpose] = explained(ResponsePurpose)
    state: Mapped[ResponseState] = explained(ResponseState)
    policy_id: Mapped[int | None]
    run_id: Mapped[int | None]
    import_id: Mapped[int | None]
    author_id: Mapped[int | None] = mapped_column(comment="the membership of the person who wrote it")
    corrects_id: Mapped[int | None] = mapped_column(comment="the response that a person corrected by writing this one")
    system: Mapped[str | None] = mapped_column(comment="the imported system's name; never shown to annotators")
    text: Mapped[str]
    parts: Mapped[list[Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="content parts where there is more than text"
    )
    token_ids: Mapped[list[int] | None] = mapped_column(ARRAY(Integer))
    finish_reason: Mapped[FinishReason] = explained(FinishReason)
    sampling: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="temperature, top_p, longest length"
    )
    seed: Mapped[int | None]
    content_hash: Mapped[str] = mapped_column(comment="sha256 of the content")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=sql("'{}'"))
    created_at: Mapped[Created]

    __table_args__ = (
        UniqueConstraint("project_id", "id"),
        UniqueConstraint("prompt_id", "id"),
        ForeignKeyConstraint(["project_id", "prompt_id"], ["prompts.project_id", "prompts.id"]),
        ForeignKeyConstraint(["prompt_id", "corrects_id"], ["responses.prompt_id", "responses.id"]),
        ForeignKeyConstraint(["project_id", "policy_id"], ["policies.project_id", "policies.id"]),
        ForeignKeyConstraint(["project_id", "run_id"], ["runs.project_id", "runs.id"]),
        ForeignKeyConstraint(["project_id", "import_id"], ["imports.project_id", "imports.id"]),
        ForeignKeyConstraint(["project_id", "author_id"], ["memberships.project_id", "memberships.id"]),
        CheckConstraint("(source = 'policy') = (policy_id IS NOT NULL)", name="policy_names_its_policy"),
        Index("ix_responses_project_id_prompt_id", "project_id", "prompt_id"),
        Index("ix_responses_policy_id", "policy_id"),
        Index("ix_responses_run_id", "run_id"),
        Index("ix_responses_author_id", "author_id", postgresql_where=sql("author_id IS NOT NULL")),
    )

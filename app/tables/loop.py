"""How does the loop turn? Rounds, the runs of their steps, and the reward models and policies that come out."""

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.tables.base import Base, Created, Explained, Id, explained


class RoundState(Explained):
    """Where a round stands. The first five are live; a project has at most one live round."""

    SAMPLING = "sampling", "the current policy writes responses to be compared"
    LABELLING = "labelling", "people label; the trigger has not fired yet"
    FITTING = "fitting", "a reward model is fitted on the round's snapshot"
    IMPROVING = "improving", "the policy is improved: by PPO, by fine-tuning on labels, or by both"
    EVALUATING = "evaluating", "the new policy is measured, by the evaluation reward model and, if asked, by people"
    PROMOTED = "promoted", "the new policy is the project's current one"
    REJECTED = "rejected", "the new policy was not better; the old one stays"
    FAILED = "failed", "a step failed for good; `failure` says why"
    CANCELLED = "cancelled", "an admin stopped it"

    @property
    def is_live(self) -> bool:
        """Whether the round is still going on."""
        return self in LIVE_STATES


LIVE_STATES = (
    RoundState.SAMPLING,
    RoundState.LABELLING,
    RoundState.FITTING,
    RoundState.IMPROVING,
    RoundState.EVALUATING,
)


class Trigger(Explained):
    """What made a round's snapshot be taken."""

    LABELS = "labels", "enough new labels were there"
    TIME = "time", "enough time had passed, with at least some new labels"
    HAND = "hand", "an admin said so"


class Round(Base):
    """One turn of the loop."""

    __tablename__ = "rounds"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    number: Mapped[int] = mapped_column(Integer, comment="1 is the project's first")
    state: Mapped[RoundState] = explained(RoundState)
    settings: Mapped[dict[str, Any]] = mapped_column(comment="the project's settings as they were when it started")
    seed: Mapped[int]
    policy_id: Mapped[int | None] = mapped_column(comment="the policy that it samples and improves")
    snapshot_id: Mapped[int | None]
    trigger: Mapped[Trigger | None] = explained(Trigger)
    failure: Mapped[str | None]
    verdict: Mapped[dict[str, Any] | None] = mapped_column(
        JSONB(none_as_null=True), comment="the figures that promoted or rejected the new policy"
    )
    started_by_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"), comment="empty: the loop itself")
    started_at: Mapped[Created]
    labelling_since: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("project_id", "number"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "snapshot_id"], ["snapshots.project_id", "snapshots.id"]),
        ForeignKeyConstraint(
            ["project_id", "policy_id"],
            ["policies.project_id", "policies.id"],
            name="fk_rounds_policy",
            use_alter=True,
        ),
        Index(
            "uq_rounds_one_live",
            "project_id",
            unique=True,
            postgresql_where=text("state IN ('sampling', 'labelling', 'fitting', 'improving', 'evaluating')"),
        ),
    )


class Step(Explained):
    """What a run executes."""

    SAMPLE_RESPONSES = "sample_responses", "the policy answers prompts; comparisons are opened"
    FIT_REWARD_MODEL = "fit_reward_model", "a training and an evaluation reward model are fitted"
    IMPROVE_POLICY = "improve_policy", "PPO against the training reward model, fine-tuning on labels, or both"
    EVALUATE_POLICY = "evaluate_policy", "new, parent and version 0 are sampled on test prompts and scored"


class RunState(Explained):
    """Where a run stands."""

    WAITING = "waiting", "its job is queued"
    RUNNING = "running", "a worker executes it"
    DONE = "done", "its results are stored"
    FAILED = "failed", "it ended with an error and is not tried again"
    CANCELLED = "cancelled", "an admin stopped it"


class Run(Base):
    """One execution of a worker step. `attempt` grows whenever it is begun anew; only the newest may write results."""

    __tablename__ = "runs"

    id: Mapped[Id]
    project_id: Mapped[int]
    round_id: Mapped[int]
    step: Mapped[Step] = explained(Step)
    state: Mapped[RunState] = explained(RunState)
    attempt: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    failures: Mapped[int] = mapped_column(
        Integer, default=0, server_default=text("0"), comment="times it ended with an error that might pass"
    )
    settings: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    phase: Mapped[str] = mapped_column(server_default=text("''"), comment="what it is doing, in words")
    done: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    total: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"), comment="0: not known yet")
    log: Mapped[str] = mapped_column(server_default=text("''"))
    error: Mapped[str | None]
    created_at: Mapped[Created]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("round_id", "step"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "round_id"], ["rounds.project_id", "rounds.id"]),
    )


class RunMetric(Base):
    """A point of a run's curves: all metrics of one step of one phase."""

    __tablename__ = "run_metrics"

    id: Mapped[Id]
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    attempt: Mapped[int] = mapped_column(Integer)
    phase: Mapped[str]
    step: Mapped[int] = mapped_column(Integer)
    values: Mapped[dict[str, Any]]
    created_at: Mapped[Created]

    __table_args__ = (Index("ix_run_metrics_run_id", "run_id", "attempt", "id"),)


class RewardModelPurpose(Explained):
    """What a reward model may be used for."""

    TRAINING = "training", "fitted on train prompts; PPO climbs it"
    EVALUATION = "evaluation", "fitted on validation prompts; PPO never sees it"


class RewardModel(Base):
    """A model fitted on a snapshot; scores a response to a prompt."""

    __tablename__ = "reward_models"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    round_id: Mapped[int]
    run_id: Mapped[int]
    snapshot_id: Mapped[int]
    purpose: Mapped[RewardModelPurpose] = explained(RewardModelPurpose)
    backbone: Mapped[str] = mapped_column(comment="what it was fitted from")
    uri: Mapped[str]
    content_hash: Mapped[str] = mapped_column(comment="sha256 over its files")
    gain: Mapped[float] = mapped_column(Float, comment="normalised = gain * raw + offset, on version 0's samples")
    offset: Mapped[float] = mapped_column(Float)
    card: Mapped[dict[str, Any]] = mapped_column(comment="what was measured, held-out accuracy first")
    tainted_at: Mapped[datetime | None]
    created_at: Mapped[Created]

    __table_args__ = (
        UniqueConstraint("round_id", "purpose"),
        UniqueConstraint("project_id", "id"),
        ForeignKeyConstraint(["project_id", "round_id"], ["rounds.project_id", "rounds.id"]),
        ForeignKeyConstraint(["project_id", "run_id"], ["runs.project_id", "runs.id"]),
        ForeignKeyConstraint(["project_id", "snapshot_id"], ["snapshots.project_id", "snapshots.id"]),
    )


class Policy(Base):
    """A version of the language model; version 0 is the base or SFT model."""

    __tablename__ = "policies"

    id: Mapped[Id]
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    version: Mapped[int] = mapped_column(Integer)
    parent_id: Mapped[int | None] = mapped_column(comment="the policy that it was improved from")
    reference_id: Mapped[int | None] = mapped_column(comment="the policy that KL is measured against")
    reward_model_id: Mapped[int | None] = mapped_column(
        comment="what PPO climbed; empty for version 0, and where labels alone were fine-tuned on"
    )
    round_id: Mapped[int | None]
    run_id: Mapped[int | None]
    uri: Mapped[str] = mapped_column(comment="an artifact, or for version 0 a hub name or folder")
    content_hash: Mapped[str | None] = mapped_column(comment="sha256 over its files; empty for a hub name")
    measures: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"), comment="KL, ended rate, length ...")
    tainted_at: Mapped[datetime | None]
    created_at: Mapped[Created]

    __table_args__ = (
        UniqueConstraint("project_id", "version"),
        UniqueConstraint("project_id", "id"),
        UniqueConstraint("round_id"),
        ForeignKeyConstraint(["project_id", "parent_id"], ["policies.project_id", "policies.id"]),
        ForeignKeyConstraint(["project_id", "reference_id"], ["policies.project_id", "policies.id"]),
        ForeignKeyConstraint(["project_id", "reward_model_id"], ["reward_models.project_id", "reward_models.id"]),
        ForeignKeyConstraint(["project_id", "round_id"], ["rounds.project_id", "rounds.id"]),
        ForeignKeyConstraint(["project_id", "run_id"], ["runs.project_id", "runs.id"]),
    )


class PolicyScore(Base):
    """A cell of a round's matrix policies x reward models. Scores of different reward models share no axis."""

    __tablename__ = "policy_scores"

    id: Mapped[Id]
    project_id: Mapped[int]
    round_id: Mapped[int]
    policy_id: Mapped[int]
    reward_model_id: Mapped[int]
    mean: Mapped[float] = mapped_column(Float, comment="normalised score over test prompts")
    winrate: Mapped[float] = mapped_column(Float, comment="against version 0 on the same prompts, ties half")
    winrate_low: Mapped[float | None] = mapped_column(
        Float, comment="95 % interval, bootstrap by prompt; empty where there is one prompt"
    )
    winrate_high: Mapped[float | None] = mapped_column(Float)
    samples: Mapped[int] = mapped_column(Integer)

    __table_args__ = (
        UniqueConstraint("round_id", "policy_id", "reward_model_id"),
        ForeignKeyConstraint(["project_id", "round_id"], ["rounds.project_id", "rounds.id"]),
        ForeignKeyConstraint(["project_id", "policy_id"], ["policies.project_id", "policies.id"]),
        ForeignKeyConstraint(["project_id", "reward_model_id"], ["reward_models.project_id", "reward_models.id"]),
    )

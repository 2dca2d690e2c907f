"""Which models came out, and from which labels? Policies, reward models and the walk back."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import Field

from app.api.access import AdminProject, Database
from app.api.shapes import PathId, Shown
from app.domain import policies, reward_models
from app.domain.settings import ImproveBy
from app.tables import RewardModelPurpose

router = APIRouter(tags=["the loop"])


class PolicyShown(Shown):
    """A version of the language model."""

    id: int
    version: int
    parent_id: int | None = Field(description="The policy that it was improved from.")
    reference_id: int | None = Field(description="The policy that KL is measured against.")
    reward_model_id: int | None = Field(description="What PPO climbed; empty where labels alone were fine-tuned on.")
    round_id: int | None
    run_id: int | None
    uri: str
    content_hash: str | None
    measures: dict[str, Any]
    tainted_at: datetime | None
    created_at: datetime


class Policies(Shown):
    """All policies of a project, the newest first."""

    current_policy_id: int | None
    items: list[PolicyShown]


class LinkShown(Shown):
    """One step of the walk from a policy's weights to the labels behind them."""

    policy_version: int
    round_number: int | None
    improved_by: ImproveBy | None = Field(description="How its round made it; empty for version 0.")
    reward_model_id: int | None
    snapshot_number: int | None
    revisions: int = Field(description="Label revisions that the snapshot pins.")
    annotators: int


class PolicyInFull(PolicyShown):
    """A policy with its lineage: itself first, version 0 last."""

    lineage: list[LinkShown]


class RewardModelShown(Shown):
    """A model that scores responses."""

    id: int
    round_id: int
    snapshot_id: int
    purpose: RewardModelPurpose
    backbone: str
    uri: str
    content_hash: str
    gain: float = Field(description="normalised = gain * raw + offset")
    offset: float
    card: dict[str, Any] = Field(description="What was measured of it, and how it came about.")
    tainted_at: datetime | None
    created_at: datetime


class RewardModels(Shown):
    """All reward models of a project."""

    items: list[RewardModelShown]


@router.get("/projects/{project}/policies")
def list_policies(session: Database, project: AdminProject) -> Policies:
    """All policies."""
    rows = policies.list_policies(session, project.id)
    return Policies(current_policy_id=project.current_policy_id, items=[PolicyShown.of(row) for row in rows])


@router.get("/projects/{project}/policies/{version}")
def get_policy(
    session: Database, project: AdminProject, version: Annotated[int, Path(ge=0, le=2**31 - 1)]
) -> PolicyInFull:
    """One policy, by version, and the way back to the labels that it was trained on."""
    policy = policies.get_policy(session, project.id, version)
    lineage = [
        LinkShown(
            policy_version=link.policy.version,
            round_number=link.round.number if link.round else None,
            improved_by=link.improved_by,
            reward_model_id=link.reward_model.id if link.reward_model else None,
            snapshot_number=link.snapshot.number if link.snapshot else None,
            revisions=link.revisions,
            annotators=link.annotators,
        )
        for link in policies.lineage(session, policy)
    ]
    return PolicyInFull(**PolicyShown.of(policy).model_dump(), lineage=lineage)


@router.get("/projects/{project}/reward-models")
def list_reward_models(session: Database, project: AdminProject) -> RewardModels:
    """All reward models."""
    rows = reward_models.list_reward_models(session, project.id)
    return RewardModels(items=[RewardModelShown.of(row) for row in rows])


@router.get("/projects/{project}/reward-models/{reward_model_id}")
def get_reward_model(session: Database, project: AdminProject, reward_model_id: PathId) -> RewardModelShown:
    """One reward model and its card."""
    return RewardModelShown.of(reward_models.get_reward_model(session, project.id, reward_model_id))

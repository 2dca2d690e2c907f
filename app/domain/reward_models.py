"""Which reward models are there, what do their cards say, and how does each score the policies? Rows alone."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.language import gettext as _
from app.tables import Policy, PolicyScore, Project, RewardModel, RewardModelPurpose, Round, Run, Snapshot


def list_reward_models(session: Session, project_id: int) -> list[RewardModel]:
    """A project's reward models, newest first."""
    query = select(RewardModel).where(RewardModel.project_id == project_id).order_by(RewardModel.id.desc())
    return list(session.scalars(query))


def get_reward_model(session: Session, project_id: int, reward_model_id: int) -> RewardModel:
    """The project's reward model of that id, or NotFound."""
    query = select(RewardModel).where(RewardModel.project_id == project_id, RewardModel.id == reward_model_id)
    found = session.scalar(query)
    if found is None:
        raise NotFound(_("There is no reward model %(number)s in this project.", number=reward_model_id))
    return found


def reward_models_of_round(session: Session, round_: Round) -> dict[RewardModelPurpose, RewardModel]:
    """A round's reward models; the evaluation one is missing where too few validation labels were there."""
    query = select(RewardModel).where(RewardModel.round_id == round_.id).order_by(RewardModel.id)
    return {model.purpose: model for model in session.scalars(query)}


def previous_training_model(session: Session, round_: Round) -> RewardModel | None:
    """The newest training reward model of an earlier round, which a fit may start from; none that is tainted."""
    query = select(RewardModel).where(
        RewardModel.project_id == round_.project_id,
        RewardModel.round_id < round_.id,
        RewardModel.purpose == RewardModelPurpose.TRAINING,
        RewardModel.tainted_at.is_(None),
    )
    return session.scalar(query.order_by(RewardModel.id.desc()).limit(1))


def add_reward_model(
    session: Session,
    round_: Round,
    run: Run,
    purpose: RewardModelPurpose,
    *,
    backbone: str,
    uri: str,
    content_hash: str,
    gain: float,
    offset: float,
    card: dict[str, Any],
) -> RewardModel:
    """Store a reward model that was fitted on a round's snapshot."""
    if round_.snapshot_id is None:
        raise NotFound(_("Round %(number)s has no snapshot.", number=round_.number))
    # The project's row is locked as withdrawing does: no label can be withdrawn unseen while this is stored.
    session.execute(select(Project.id).where(Project.id == round_.project_id).with_for_update(key_share=True))
    snapshot = session.get_one(Snapshot, round_.snapshot_id, populate_existing=True)
    model = RewardModel(
        project_id=round_.project_id,
        round_id=round_.id,
        run_id=run.id,
        snapshot_id=round_.snapshot_id,
        purpose=purpose,
        backbone=backbone,
        uri=uri,
        content_hash=content_hash,
        gain=gain,
        offset=offset,
        card=card,
        tainted_at=snapshot.tainted_at,  # a label may have been withdrawn while it was fitted
    )
    session.add(model)
    session.flush()
    return model


def score_matrix(session: Session, project_id: int, *, round_id: int | None = None) -> list[PolicyScore]:
    """The cells policies x reward models, by round, reward model and policy version.

    Scores of different reward models share no axis: compare along a row, never down a column.
    """
    query = (
        select(PolicyScore)
        .join(Policy, Policy.id == PolicyScore.policy_id)
        .where(PolicyScore.project_id == project_id)
        .order_by(PolicyScore.round_id, PolicyScore.reward_model_id, Policy.version)
    )
    if round_id is not None:
        query = query.where(PolicyScore.round_id == round_id)
    return list(session.scalars(query))

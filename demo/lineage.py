"""Can one walk from a policy's weights to the labels behind them? Every step back is taken and checked."""

from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.tables import (
    Label,
    LabelRank,
    LabelRevision,
    Policy,
    Response,
    RewardModel,
    Round,
    Snapshot,
    SnapshotRevision,
)
from worker.learning.checkpoints import hash_folder


def gaps(session: Session, policy: Policy) -> list[str]:
    """Walk from `policy` to version 0; return what is broken on the way, nothing if all is well."""
    found: list[str] = []
    while policy.version > 0:
        found += [f"policy {policy.version}: {gap}" for gap in _gaps_of(session, policy)]
        parent = session.get(Policy, policy.parent_id) if policy.parent_id else None
        if parent is None or parent.version >= policy.version:
            return [*found, f"policy {policy.version} names no earlier policy as its parent"]
        policy = parent
    return found


def _gaps_of(session: Session, policy: Policy) -> list[str]:
    """What is broken between one policy and the labels of its round."""
    reward_model = session.get(RewardModel, policy.reward_model_id) if policy.reward_model_id else None
    round_ = session.get(Round, policy.round_id) if policy.round_id else None
    reference = session.get(Policy, policy.reference_id) if policy.reference_id else None
    if reward_model is None or round_ is None or reference is None:
        return ["its reward model, its round or its reference is not named"]
    snapshot = session.get_one(Snapshot, reward_model.snapshot_id)
    broken = {
        "its weights are not those that were stored": not _intact(policy.uri, policy.content_hash),
        "its reward model's weights are not those that were stored": not _intact(
            reward_model.uri, reward_model.content_hash
        ),
        "its reward model is of another round": reward_model.round_id != round_.id,
        "its reward model was fitted on another snapshot than its round's": round_.snapshot_id != snapshot.id,
        "its round began with another policy than its parent": round_.policy_id != policy.parent_id,
        "its reference is not version 0": reference.version != 0,
    }
    return [gap for gap, is_broken in broken.items() if is_broken] + _gaps_of_snapshot(session, snapshot, policy)


def _intact(uri: str, stored_hash: str | None) -> bool:
    folder = Path(uri.removeprefix("file://"))
    return folder.is_dir() and hash_folder(folder) == stored_hash


def _gaps_of_snapshot(session: Session, snapshot: Snapshot, policy: Policy) -> list[str]:
    """What is broken between a snapshot and the responses that its labels ranked."""
    pinned = select(SnapshotRevision.revision_id).where(SnapshotRevision.snapshot_id == snapshot.id)
    labels = session.scalar(
        select(func.count())
        .select_from(LabelRevision)
        .join(Label, Label.id == LabelRevision.label_id)
        .where(LabelRevision.id.in_(pinned))
    )
    writers = session.execute(
        select(Policy.version, func.count())
        .select_from(LabelRank)
        .join(Response, Response.id == LabelRank.response_id)
        .outerjoin(Policy, Policy.id == Response.policy_id)
        .where(LabelRank.revision_id.in_(pinned))
        .group_by(Policy.version)
    ).all()
    broken = {
        f"snapshot {snapshot.number} pins {labels} labels and claims {snapshot.labels_count}": labels
        != snapshot.labels_count,
        f"snapshot {snapshot.number} is empty": not labels,
        f"snapshot {snapshot.number} ranks responses of no earlier policy": any(
            version is None or version >= policy.version for version, _ in writers
        ),
    }
    return [gap for gap, is_broken in broken.items() if is_broken]

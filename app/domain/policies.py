"""Which versions of the language model are there, and which labels stand behind each? The walk to the labels."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain.settings import ImproveBy, parse_settings
from app.errors import Conflict, NotFound
from app.language import gettext as _
from app.tables import (
    Label,
    LabelRevision,
    Policy,
    Project,
    RewardModel,
    Round,
    Run,
    Snapshot,
    SnapshotRevision,
)


@dataclass(frozen=True)
class Link:
    """One step of the walk from weights to labels. Version 0 has a policy alone: nothing here trained it.

    A policy without a reward model was fine-tuned on the snapshot's labels themselves.
    """

    policy: Policy
    round: Round | None
    reward_model: RewardModel | None
    snapshot: Snapshot | None
    revisions: int
    annotators: int

    @property
    def improved_by(self) -> ImproveBy | None:
        """How its round made it; None of version 0."""
        return parse_settings(self.round.settings).loop.improve_by if self.round is not None else None


def list_policies(session: Session, project_id: int) -> list[Policy]:
    """A project's policies, newest first."""
    query = select(Policy).where(Policy.project_id == project_id).order_by(Policy.version.desc())
    return list(session.scalars(query))


def get_policy(session: Session, project_id: int, version: int) -> Policy:
    """The project's policy of that version, or NotFound."""
    policy = session.scalar(select(Policy).where(Policy.project_id == project_id, Policy.version == version))
    if policy is None:
        raise NotFound(_("This project has no policy of version %(version)s.", version=version))
    return policy


def current_policy(session: Session, project: Project) -> Policy:
    """The policy that is served and sampled."""
    if project.current_policy_id is None:
        raise Conflict(_("The project has no policy yet: name its base model in the settings."))
    return session.get_one(Policy, project.current_policy_id)


def base_policy(session: Session, project_id: int) -> Policy:
    """Version 0: the base or SFT model, which KL is measured against and reward models start from."""
    return get_policy(session, project_id, 0)


def policy_of_round(session: Session, round_: Round) -> Policy:
    """The policy that a round has made."""
    policy = session.scalar(select(Policy).where(Policy.round_id == round_.id))
    if policy is None:
        raise NotFound(_("Round %(number)s has not made a policy yet.", number=round_.number))
    return policy


def add_policy(
    session: Session, round_: Round, run: Run, *, reward_model: RewardModel | None, uri: str, content_hash: str
) -> Policy:
    """Store what a round made of its policy: the next version, its child. No reward model: it was only fine-tuned."""
    # The project's row is locked as withdrawing does: no label can be withdrawn unseen while this is stored.
    session.execute(select(Project.id).where(Project.id == round_.project_id).with_for_update(key_share=True))
    last = session.scalar(select(func.max(Policy.version)).where(Policy.project_id == round_.project_id))
    parent = session.get_one(Policy, round_.policy_id, populate_existing=True)
    tainted = [parent.tainted_at]  # labels may have been withdrawn meanwhile
    if round_.snapshot_id is not None:
        tainted.append(session.get_one(Snapshot, round_.snapshot_id, populate_existing=True).tainted_at)
    if reward_model is not None:
        tainted.append(session.get_one(RewardModel, reward_model.id, populate_existing=True).tainted_at)
    policy = Policy(
        project_id=round_.project_id,
        version=(last or 0) + 1,
        parent_id=round_.policy_id,
        reference_id=base_policy(session, round_.project_id).id,
        reward_model_id=reward_model.id if reward_model is not None else None,
        round_id=round_.id,
        run_id=run.id,
        uri=uri,
        content_hash=content_hash,
        tainted_at=next(filter(None, tainted), None),
    )
    session.add(policy)
    session.flush()
    return policy


def measure(session: Session, policy_id: int, measures: dict[str, Any]) -> None:
    """Store what the newest evaluation measured of a policy."""
    session.get_one(Policy, policy_id).measures = measures
    session.flush()


def lineage(session: Session, policy: Policy) -> list[Link]:
    """The walk from a policy to version 0, and from each policy on it to the labels it was trained on."""
    links: list[Link] = []
    here: Policy | None = policy
    while here is not None:
        links.append(_link(session, here))
        here = session.get(Policy, here.parent_id) if here.parent_id is not None else None
    return links


def _link(session: Session, policy: Policy) -> Link:
    reward_model = session.get(RewardModel, policy.reward_model_id) if policy.reward_model_id else None
    round_ = session.get(Round, policy.round_id) if policy.round_id else None
    learned_from = reward_model or round_
    if learned_from is None or learned_from.snapshot_id is None:
        return Link(policy, round_, reward_model, None, 0, 0)
    snapshot = session.get_one(Snapshot, learned_from.snapshot_id)
    counts = session.execute(
        select(func.count(), func.count(Label.annotator_id.distinct()))
        .select_from(SnapshotRevision)
        .join(LabelRevision, LabelRevision.id == SnapshotRevision.revision_id)
        .join(Label, Label.id == LabelRevision.label_id)
        .where(SnapshotRevision.snapshot_id == snapshot.id)
    ).one()
    return Link(policy, round_, reward_model, snapshot, *counts)

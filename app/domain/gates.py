"""Do people prefer a round's policy to its parent? Blinded pairs that gate the promotion."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from app.domain import comparisons
from app.domain.filters import IS_DONE, IS_UNTOUCHED
from app.tables import (
    Comparison,
    ComparisonState,
    Label,
    LabelRank,
    LabelRevision,
    Policy,
    Purpose,
    Response,
    Round,
)

_PRIORITY = 10  # a round waits for its gate: before all ordinary work


@dataclass(frozen=True)
class GateStatus:
    """What people said so far: `waiting` pairs have no label yet; a label with a tie counts half."""

    pairs: int
    waiting: int
    wins: int
    ties: int
    losses: int

    @property
    def winrate(self) -> float | None:
        """How often the new policy's response was preferred; None before the first label."""
        answers = self.wins + self.ties + self.losses
        return (self.wins + self.ties / 2) / answers if answers else None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"winrate": self.winrate}


def open_gate(session: Session, round_: Round, pairs: Sequence[tuple[Response, Response]]) -> list[Comparison]:
    """Put pairs of a new and a parent's response to the same prompt before one person each."""
    items = [
        comparisons.NewComparison(
            project_id=round_.project_id,
            prompt_id=new.prompt_id,
            response_ids=[new.id, old.id],
            k=1,
            purpose=Purpose.GATE,
            selected_because="gate",
            round_id=round_.id,
            priority=_PRIORITY,
        )
        for new, old in pairs
    ]
    return comparisons.create_comparisons(session, items)


def gate_status(session: Session, round_: Round) -> GateStatus:
    """The pairs of a round's gate and their latest valid labels. A pair that an admin closed is not waited for."""
    is_gate = (Comparison.round_id == round_.id, Comparison.purpose == Purpose.GATE)
    pairs = session.scalars(select(func.count()).select_from(Comparison).where(*is_gate)).one()
    waiting = session.scalars(
        select(func.count())
        .select_from(Comparison)
        .where(
            *is_gate,
            Comparison.state.in_((ComparisonState.OPEN, ComparisonState.PAUSED)),
            ~IS_DONE,
        )
    ).one()
    ranks = _ranks(session, round_)
    wins = sum(new < old for new, old in ranks)
    losses = sum(new > old for new, old in ranks)
    return GateStatus(pairs, waiting, wins, len(ranks) - wins - losses, losses)


def withdraw(session: Session, round_: Round) -> None:
    """Retire the pairs that nobody has begun when their round ends."""
    idle = session.scalars(
        select(Comparison.id).where(
            Comparison.round_id == round_.id,
            Comparison.purpose == Purpose.GATE,
            Comparison.state.in_((ComparisonState.OPEN, ComparisonState.PAUSED)),
            IS_UNTOUCHED,
        )
    ).all()
    if idle:
        comparisons.retire(session, round_.project_id, idle, None)


def _ranks(session: Session, round_: Round) -> list[tuple[int, int]]:
    """(rank of the new policy's response, rank of the parent's) of each gate label that counts."""
    new, old = aliased(LabelRank), aliased(LabelRank)
    written_by_new, written_by_old = aliased(Response), aliased(Response)
    later = aliased(LabelRevision)
    query = (
        select(new.rank, old.rank)
        .select_from(Comparison)
        .join(Label, Label.comparison_id == Comparison.id)
        .join(LabelRevision, LabelRevision.label_id == Label.id)
        .join(new, new.revision_id == LabelRevision.id)
        .join(written_by_new, written_by_new.id == new.response_id)
        .join(Policy, Policy.id == written_by_new.policy_id)
        .join(old, old.revision_id == LabelRevision.id)
        .join(written_by_old, written_by_old.id == old.response_id)
        .where(
            Comparison.round_id == round_.id,
            Comparison.purpose == Purpose.GATE,
            Policy.round_id == round_.id,
            written_by_old.policy_id == round_.policy_id,
            Label.excluded_at.is_(None),
            Label.withdrawn_at.is_(None),
            ~select(later.id).where(later.label_id == Label.id, later.number > LabelRevision.number).exists(),
        )
    )
    return [(first, second) for first, second in session.execute(query)]

"""How well do people agree with each other, and how does the model compare with them?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from worker.learning.reward.evaluation import figures_with_curve
from worker.learning.reward.judged import JudgedPair, Share, as_pairs, half_ties, share

ALL_AGREE = (1.0, 1.0)
AGREEMENT_LEVELS = ((0.0, 0.75), (0.75, 1.0), ALL_AGREE)
"""From which share of agreeing annotators on, and below which."""


@dataclass(frozen=True)
class Votes:
    """What several annotators said of the same two texts: the orders that they gave, and how many tied the two."""

    ordered: tuple[JudgedPair, ...]
    ties: int

    @property
    def majority(self) -> JudgedPair | None:
        """A vote of the larger side; None where both are as large."""
        first = [vote for vote in self.ordered if vote.texts == self.ordered[0].texts]
        others = [vote for vote in self.ordered if vote.texts != self.ordered[0].texts]
        if len(first) == len(others):
            return None
        return max(first, others, key=len)[0]

    def agreeing(self, vote: JudgedPair) -> int:
        """How many ordered the two as this vote does, itself included."""
        return sum(other.texts == vote.texts for other in self.ordered)


def votes_on(judged: Sequence[JudgedPair]) -> list[Votes]:
    """The texts that two or more annotators judged. Of somebody who judged them twice, the later answer counts.

    Labels without an annotator's name count as different people's.
    """
    by_texts: dict[tuple[int, frozenset[str]], dict[str | int, JudgedPair]] = {}
    for pair in judged:
        if pair.texts[0] == pair.texts[1]:
            continue  # the same text twice has no order to agree on
        own = by_texts.setdefault((pair.prompt, frozenset(pair.texts)), {})
        own[pair.place if pair.label.annotator is None else pair.label.annotator] = pair
    answers = [list(own.values()) for own in by_texts.values() if len(own) > 1]
    return [Votes(tuple(pair for pair in own if pair.grade), sum(not pair.grade for pair in own)) for own in answers]


def noise_ceiling(judged: Sequence[JudgedPair], seed: int) -> dict[str, Share] | None:
    """How right people are about people, on the texts that at least two of them ordered; None where there are none.

    Every order that somebody gave counts once, ties are left out. Keys: `another_annotator`, the share in which one
    other annotator, drawn at random, ordered the two alike; `majority_of_others`, the share that the majority of the
    others gets right, an even split counting half; and `model`, the model's accuracy on the same orders. A model can
    beat the first: it has learned from many people's answers.
    """
    several = [votes for votes in votes_on(judged) if len(votes.ordered) > 1]
    orders = [(vote, votes) for votes in several for vote in votes.ordered]
    if not orders:
        return None
    pairs = [vote for vote, _ in orders]
    alike = [(votes.agreeing(vote) - 1, len(votes.ordered) - 1) for vote, votes in orders]
    return {
        "another_annotator": share([same / others for same, others in alike], pairs, seed),
        "majority_of_others": share([half_ties(2 * same - others) for same, others in alike], pairs, seed),
        "model": share([half_ties(vote.difference) for vote in pairs], pairs, seed),
    }


def by_agreement(judged: Sequence[JudgedPair], seed: int) -> list[dict[str, Any]]:
    """The model against the majority, by the share of annotators who stand behind it.

    One row a level that occurs (`AGREEMENT_LEVELS`): `low`, `high`, and what `figures_with_curve` has, each two texts
    counting once. Who tied them does not stand behind the majority; where the sides are even there is none.
    """
    settled: list[tuple[float, JudgedPair]] = []
    for votes in votes_on(judged):
        majority = votes.majority if votes.ordered else None
        if majority is not None:
            settled.append((votes.agreeing(majority) / (len(votes.ordered) + votes.ties), majority))
    rows: list[dict[str, Any]] = []
    for low, high in AGREEMENT_LEVELS:
        own = [pair for agreed, pair in settled if agreement_level(agreed) == (low, high)]
        if own:
            rows.append({"low": low, "high": high, **figures_with_curve(as_pairs(own), seed)})
    return rows


def agreement_level(agreed: float) -> tuple[float, float]:
    """The one of `AGREEMENT_LEVELS` that a share of agreeing annotators is in."""
    return next(((low, high) for low, high in AGREEMENT_LEVELS if low <= agreed < high), ALL_AGREE)

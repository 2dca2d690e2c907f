"""What do labels say, as tensors? Graded pairs and scores, each with its weight and its label."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.columns import OrderRow, PairRow, ScoreRow, columns_of, pairs_of

OVERALL = "overall"
"""The output that orders responses as a whole: the reward."""
SCORE = "score"
"""The output that predicts overall scores."""

Source = Literal["orders", "scores", "criteria"]


@dataclass(frozen=True)
class AnswerShape:
    """Which answers the labels hold, and with them which parameters the answer model has.

    `outputs` are the model's, `OVERALL` first. `scales` has every output's scales, the most frequent first, and
    `shares` how often each scale's tie and grades 1, 2, ... were answered. `scored` names the outputs that predict
    scores, and `moments` the mean and the standard deviation of the scores that each of them predicts. `annotators`
    is empty where nobody's noise is to be learned. `overall_from` says which answers order the overall output.
    """

    outputs: tuple[str, ...] = (OVERALL,)
    scales: Mapping[str, tuple[Scale, ...]] = field(default_factory=lambda: {OVERALL: (Scale(),)})
    scored: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()
    shares: Mapping[str, tuple[tuple[float, ...], ...]] = field(default_factory=dict)
    moments: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    overall_from: Source = "orders"

    @property
    def ladders(self) -> list[tuple[str, Scale]]:
        """Every output's scales, one after another: each has thresholds of its own."""
        return [(output, scale) for output in self.outputs for scale in self.scales.get(output, ())]

    @property
    def first_rungs(self) -> dict[tuple[str, Scale], int]:
        """Where each scale's edges begin among all: it has one below its tie, one above each answer (`Thresholds`)."""
        starts = accumulate((scale.levels + 2 for _, scale in self.ladders), initial=0)
        return dict(zip(self.ladders, starts, strict=False))


@dataclass(frozen=True)
class Weighting:
    """How much the parts of a label count.

    All pairs of a judgement together weigh `set_weight`, 1 or K - 1 for K responses in order, beside the overall
    order of an ordinary label: pairs that a correction implies weigh `implied_weight` as much, each criterion
    `criteria_weight`, the scores of a judgement `score_weight`.
    """

    set_weight: Literal["1", "k-1"] = "1"
    implied_weight: float = 1.0
    criteria_weight: float = 1.0
    score_weight: float = 1.0

    def of_set(self, count: int) -> float:
        """What a set of `count` responses weighs."""
        return 1.0 if self.set_weight == "1" else max(1.0, count - 1.0)


@dataclass(frozen=True)
class Observations:
    """Labels as the likelihood reads them: pairs (the better one first), scores, and the labels that they are from.

    `first`, `second` and `response` are places in the outputs [responses, outputs], `output` and `scored_output` are
    columns. A pair's `rung` is the first edge of its scale plus its grade, 0 for a tie (see `Thresholds`). `shown` is 1
    where the first of the pair was shown before the second, -1 where after, 0 where that is not known. `score` is
    standardised by the moments of the scored output that `scored` counts. `annotator` is a place among the shape's
    annotators, and their number for anybody else. A pair or a score weighs `pair_weight` or `score_weight` times its
    label's `label_weight`.
    """

    first: Tensor  # [pairs]
    second: Tensor  # [pairs]
    output: Tensor  # [pairs]
    rung: Tensor  # [pairs]
    shown: Tensor  # [pairs]
    pair_weight: Tensor  # [pairs]
    pair_label: Tensor  # [pairs]
    response: Tensor  # [scores]
    scored_output: Tensor  # [scores]
    scored: Tensor  # [scores]
    score: Tensor  # [scores]
    score_weight: Tensor  # [scores]
    score_label: Tensor  # [scores]
    annotator: Tensor  # [labels]
    label_weight: Tensor  # [labels]

    def __len__(self) -> int:
        return len(self.label_weight)

    def to(self, device: torch.device | str) -> "Observations":
        """The same on another device."""
        return Observations(*(getattr(self, one.name).to(device, non_blocking=True) for one in fields(self)))


def teaches(label: Label) -> bool:
    """Whether a label says anything: it has a weight, and two responses in order (or tied), or a score."""
    return label.weight > 0 and any(map(_is_answered, (label.overall, *label.criteria.values())))


def shape_of(labels: Sequence[Label], annotators: bool) -> AnswerShape:
    """Which answers the labels hold; a criterion by which nobody judged is none.

    Where no label has an overall order, the order of the overall scores stands for it, and where there are none
    either, every criterion's judgement counts as the overall one too.

    Args:
        annotators: whether each annotator's noise is to be learned.

    Raises:
        ValueError: if a criterion has the name of an output of ours.
    """
    criteria = sorted({key for label in labels for key, own in label.criteria.items() if _is_answered(own)})
    if taken := {OVERALL, SCORE}.intersection(criteria):
        raise ValueError(f'a criterion cannot be called "{min(taken)}", an output of the reward model: rename it')
    source = _overall_source(labels)
    counts: dict[str, dict[Scale, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    scores: dict[str, list[float]] = defaultdict(list)
    for label in labels:
        for order in _orders(label, source):
            counts[order.output][order.scale].update(_grades(order))
        for output, judgement in _scored_judgements(label):
            scores[output] += [score for score in judgement.scores if score is not None]
    outputs = (OVERALL, *([SCORE] if SCORE in scores else []), *criteria)
    scored = tuple(output for output in outputs if output in scores)
    scales = {
        output: tuple(sorted(counts[output], key=lambda scale: (-counts[output][scale].total(), str(scale))))
        for output in outputs
        if output in counts
    } or {OVERALL: (Scale(),)}
    return AnswerShape(
        outputs=outputs,
        scales=scales,
        scored=scored,
        annotators=tuple(sorted({one.annotator for one in labels if one.annotator is not None})) if annotators else (),
        shares={
            output: tuple(_shares(scale, counts[output][scale]) for scale in own) for output, own in scales.items()
        },
        moments={output: _moments(scores[output]) for output in scored},
        overall_from=source,
    )


def observe(
    labels: Sequence[Label], places: Sequence[Sequence[int]], shape: AnswerShape, weighting: Weighting
) -> Observations:
    """Turns labels into tensors; all pairs of a judgement stand in it together.

    Args:
        places: for every label, where each of its responses stands among all responses that are scored together.
        shape: of all labels of the fitting, of which these may be a part.

    Raises:
        ValueError: if a label asks for an output or a scale that the shape has not.
    """
    rows = _Rows(shape, weighting)
    for number, (label, own) in enumerate(zip(labels, places, strict=True)):
        if len(own) != len(label.responses):
            raise ValueError(f"label {number} has {len(label.responses)} responses and {len(own)} places")
        rows.add(number, label, own)
    return rows.observations()


def overall_judgements(label: Label, source: Source) -> list[Judgement]:
    """Which of a label's judgements order its responses as a whole: one, none, or every criterion's."""
    if source == "orders":
        overall = [label.overall]
    elif source == "scores":
        overall = [_by_scores(label.overall)]
    else:
        overall = [one if one.ranked else _by_scores(one) for one in label.criteria.values()]
    return [judgement for judgement in overall if len(judgement.ranked) > 1]


@dataclass(frozen=True)
class _Order:
    """A judgement's order in rank numbers, 0 the best: of which responses, for which output, on which scale."""

    output: str
    scale: Scale
    responses: tuple[int, ...]
    ranks: tuple[int, ...]
    grade: int = 1
    share: float = 1.0


def _orders(label: Label, source: Source) -> Iterator[_Order]:
    """All orders that a label gives, those that stand for the overall one first."""
    stating = overall_judgements(label, source)
    for judgement in stating:
        yield _order(OVERALL, judgement, 1 / len(stating))
    for key, judgement in label.criteria.items():
        if len(judgement.ranked) > 1:
            yield _order(key, judgement)


def _order(output: str, judgement: Judgement, share: float = 1.0) -> _Order:
    ranks = tuple(rank for rank, group in enumerate(judgement.groups) for _ in group)
    return _Order(output, judgement.scale, judgement.ranked, ranks, judgement.strength or 1, share)


def _by_scores(judgement: Judgement) -> Judgement:
    """The order that scores imply: the highest first, equal ones tied."""
    groups: dict[float, list[int]] = defaultdict(list)
    for index, score in enumerate(judgement.scores):
        if score is not None:
            groups[score].append(index)
    order = tuple(tuple(groups[score]) for score in sorted(groups, reverse=True))
    return Judgement(order) if sum(map(len, order)) > 1 else Judgement()


def _overall_source(labels: Sequence[Label]) -> Source:
    if any(len(label.overall.ranked) > 1 for label in labels):
        return "orders"
    if any(len(_by_scores(label.overall).ranked) > 1 for label in labels):
        return "scores"
    return "criteria" if any(_is_answered(one) for label in labels for one in label.criteria.values()) else "orders"


def _scored_judgements(label: Label) -> Iterator[tuple[str, Judgement]]:
    if _has_scores(label.overall):
        yield SCORE, label.overall
    yield from ((key, judgement) for key, judgement in label.criteria.items() if _has_scores(judgement))


def _is_answered(judgement: Judgement) -> bool:
    """Whether it orders (or ties) two responses, or has a score."""
    return len(judgement.ranked) > 1 or _has_scores(judgement)


def _has_scores(judgement: Judgement) -> bool:
    return any(score is not None for score in judgement.scores)


def _grades(order: _Order) -> Counter[int]:
    """How often each grade stands in an order, 0 for a tie."""
    ties = sum(math.comb(count, 2) for count in Counter(order.ranks).values())
    return Counter({0: ties, order.grade: math.comb(len(order.ranks), 2) - ties})


def _shares(scale: Scale, counts: Counter[int]) -> tuple[float, ...]:
    """How often a tie and the grades 1, 2, ... were answered, with one more of each: none was never seen."""
    seen = [counts[grade] + 1 if grade or scale.ties else 0 for grade in range(scale.levels + 1)]
    return tuple(count / sum(seen) for count in seen)


def _moments(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; 1 for the latter where all scores are equal."""
    return float(np.mean(scores)), float(np.std(scores)) or 1.0


class _Rows:
    """Collects orders by their number of responses, so that NumPy pairs up all of one size at once."""

    def __init__(self, shape: AnswerShape, weighting: Weighting) -> None:
        self._shape, self._weighting = shape, weighting
        self._columns = {output: column for column, output in enumerate(shape.outputs)}
        self._annotators: dict[str | None, int] = {name: place for place, name in enumerate(shape.annotators)}
        self._rungs = shape.first_rungs
        self._orders: dict[int, list[OrderRow]] = defaultdict(list)
        self._scores: list[ScoreRow] = []
        self._labels: list[tuple[float, float]] = []

    def add(self, number: int, label: Label, places: Sequence[int]) -> None:
        """Notes all that a label says."""
        orders = list(_orders(label, self._shape.overall_from))
        scored = list(_scored_judgements(label))
        temper = self._temper(orders, scored)
        for order in orders:
            self._add_order(number, label, places, order, temper)
        for output, judgement in scored:
            self._add_scores(number, places, output, judgement, temper)
        weight = label.weight * (self._weighting.implied_weight if label.implied else 1.0)
        self._labels.append((self._annotators.get(label.annotator, len(self._annotators)), weight * temper))

    def _temper(self, orders: Sequence[_Order], scored: Sequence[tuple[str, Judgement]]) -> float:
        """The exponent of the whole label: a set's weight over what its order tells in bits, log2 K!."""
        if orders:
            count = max(len(order.ranks) for order in orders)
            return self._weighting.of_set(count) / math.log2(math.factorial(count))
        count = max((len(judgement.scores) for _, judgement in scored), default=1)
        return self._weighting.of_set(count) / count

    def _add_order(self, number: int, label: Label, places: Sequence[int], order: _Order, temper: float) -> None:
        if (order.output, order.scale) not in self._rungs:
            raise ValueError(f'label {number} answers "{order.output}" on {order.scale}, which the shape has not')
        count = len(order.ranks)
        weight = self._weighting.of_set(count) / math.comb(count, 2) * order.share / temper
        if order.output != OVERALL:
            weight *= self._weighting.criteria_weight
        turns = {response: turn for turn, response in enumerate(label.shown)}
        self._orders[count].append(
            OrderRow(
                label=number,
                output=self._columns[order.output],
                first_rung=self._rungs[order.output, order.scale],
                grade=order.grade,
                weight=weight,
                ranks=order.ranks,
                places=[places[response] for response in order.responses],
                turns=[turns.get(response, 0) for response in order.responses],
            )
        )

    def _add_scores(self, number: int, places: Sequence[int], output: str, judgement: Judgement, temper: float) -> None:
        if output not in self._shape.scored:
            raise ValueError(f'label {number} has scores for "{output}", which the shape has not')
        mean, deviation = self._shape.moments.get(output, (0.0, 1.0))
        given = [(place, score) for place, score in zip(places, judgement.scores, strict=True) if score is not None]
        weight = self._weighting.of_set(len(given)) / len(given) * self._weighting.score_weight / temper
        if output != SCORE:
            weight *= self._weighting.criteria_weight
        column, scored = self._columns[output], self._shape.scored.index(output)
        self._scores += [
            ScoreRow(number, column, scored, weight, place, (score - mean) / deviation) for place, score in given
        ]

    def observations(self) -> Observations:
        """All that was noted, as tensors."""
        parts = [pairs_of(OrderRow(*columns_of(rows))) for _, rows in sorted(self._orders.items())]
        pairs = PairRow(*(map(np.concatenate, zip(*parts, strict=True)) if parts else [np.empty(0)] * 7))
        scores = ScoreRow(*(columns_of(self._scores) if self._scores else [np.empty(0)] * 6))
        annotators, weights = np.array(self._labels).reshape(-1, 2).T
        return Observations(
            pair_label=_whole(pairs.label),
            output=_whole(pairs.output),
            rung=_whole(pairs.rung),
            pair_weight=_real(pairs.weight),
            first=_whole(pairs.first),
            second=_whole(pairs.second),
            shown=_real(pairs.shown),
            score_label=_whole(scores.label),
            scored_output=_whole(scores.output),
            scored=_whole(scores.scored),
            score_weight=_real(scores.weight),
            response=_whole(scores.response),
            score=_real(scores.score),
            annotator=_whole(annotators),
            label_weight=_real(weights),
        )


def _whole(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.int64))


def _real(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))

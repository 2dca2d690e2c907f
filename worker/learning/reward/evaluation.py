"""How often is a reward model right about people's orders, and does it know how often? Figures on held-out pairs."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.learning.evaluation import Estimate, bootstrap_mean
from worker.learning.records import Prompt
from worker.learning.seeds import generator_for

BINS = 15
LEAST_PROBABILITY = 1e-12
"""A lower one counts as this much, so that one sure mistake costs 28 nats and not infinitely many."""

TIED = 1e-7
"""Confidences no further apart are tied: p and 1 - p of one pair judged either way differ by rounding."""

Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Pairs:
    """Pairs of responses that somebody ordered, and what the model thinks of them; all [pairs]."""

    probabilities: Tensor
    """P(the first is better | no tie)."""
    outcomes: Tensor
    """1 where the first was put before the second, 0 where behind it."""
    prompts: Tensor
    """Which prompt each belongs to: pairs of one prompt are drawn together."""

    def __len__(self) -> int:
        return len(self.probabilities)

    def where(self, chosen: Tensor) -> "Pairs":
        """Only those with True in `chosen` [pairs]."""
        return Pairs(self.probabilities[chosen], self.outcomes[chosen], self.prompts[chosen])

    @property
    def confidences(self) -> Tensor:
        """How sure the model is of the order that it finds likelier: from 0.5 to 1."""
        return torch.maximum(self.probabilities, 1 - self.probabilities).double()

    @property
    def right(self) -> Tensor:
        """1 where the likelier order is people's, 0 where not, 1/2 where both are as likely."""
        return _right(self.probabilities, self.outcomes)


def figures(pairs: Pairs, seed: int) -> Figures:
    """The figures of a reward model on ordered pairs; ties are left out before.

    Keys: `accuracy`, `nll` (mean -log P of the order, in nats) and `ece` (`expected_calibration_error`), each with a
    95 % interval over prompts (`_low`, `_high`; None where there is one prompt); `ece_by_chance`, the error that a
    perfectly calibrated model shows on so many pairs; and `n`, the number of pairs. Where there is none, that is 0 and
    all else None.
    """
    own = brief_figures(pairs, seed)
    calibration: Figures = {"ece": None, "ece_low": None, "ece_high": None, "ece_by_chance": None}
    if len(pairs):
        error = expected_calibration_error(pairs.probabilities, pairs.outcomes)
        low, high = calibration_interval(pairs, seed)
        chance = calibration_by_chance(pairs.confidences, seed)
        calibration = {"ece": error, "ece_low": low, "ece_high": high, "ece_by_chance": chance}
    return {**own, **calibration}


def figures_with_curve(pairs: Pairs, seed: int) -> dict[str, Any]:
    """As `figures`, and the `reliability` curve behind `ece`."""
    return {**figures(pairs, seed), "reliability": reliability(pairs, seed)}


def brief_figures(pairs: Pairs, seed: int) -> Figures:
    """`accuracy` and `nll` with their intervals, and `n`."""
    if not len(pairs):
        return {**spread("accuracy", None), **spread("nll", None), "n": 0}
    accuracy = bootstrap_mean(pairs.right, pairs.prompts, seed)
    nll = bootstrap_mean(negative_log_likelihoods(pairs.probabilities, pairs.outcomes), pairs.prompts, seed)
    return {**spread("accuracy", accuracy), **spread("nll", nll), "n": len(pairs)}


def spread(name: str, estimate: Estimate | None) -> Figures:
    """An estimate as three keys: `name`, `name_low`, `name_high`."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def negative_log_likelihoods(probabilities: Tensor, outcomes: Tensor) -> Tensor:
    """-log P of what people said, in nats [pairs]."""
    said = torch.where(outcomes.bool(), probabilities, 1 - probabilities)
    return -said.double().clamp(min=LEAST_PROBABILITY).log()


def expected_calibration_error(probabilities: Tensor, outcomes: Tensor, bins: int = BINS) -> float:
    """How far the confidences are from the share that is right, over bins of equally many pairs.

    sum_b n_b / n |share right in b - mean confidence in b|, the confidence being max(p, 1 - p) (Naeini et al. 2015;
    with bins of equal count, Nixon et al. 2019). Pairs of tied confidences, as of two texts that many people judged,
    are spread evenly over the bins that they fall in, so that their order means nothing. The error is biased upwards on
    few pairs: see `calibration_by_chance`.

    Raises:
        ValueError: if there is no pair.
    """
    if not len(probabilities):
        raise ValueError("there is no pair to measure the calibration on")
    confidences, order = torch.maximum(probabilities, 1 - probabilities).double().sort(stable=True)
    right = _shared(_right(probabilities, outcomes)[order], _ties(confidences))
    return _binned_error(confidences, right, bins)


def calibration_by_chance(confidences: Tensor, seed: int, bins: int = BINS, draws: int = 200) -> float:
    """The calibration error that a perfectly calibrated model shows on average with these confidences.

    Outcomes are drawn from the confidences themselves (the consistency resampling of Bröcker and Smith 2007).
    """
    sure = confidences.double().sort().values
    generator = generator_for(seed, "calibrated")
    outcomes = (torch.rand(draws, len(sure), generator=generator, dtype=torch.float64) < sure).double()
    return sum(_binned_error(sure, own, bins) for own in _shared(outcomes, _ties(sure))) / draws


def calibration_interval(pairs: Pairs, seed: int, resamples: int = 500) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of the calibration error, over prompts drawn with replacement; of one prompt there is none.

    The error of a resample is biased upwards once more, so that its percentiles would miss the truth: the interval is
    the basic one, 2 e - quantile (Davison and Hinkley 1997, section 5.2), cut off at 0.
    """
    confidences, order = pairs.confidences.sort(stable=True)
    right, ties = pairs.right[order], _ties(confidences)
    clusters, place = torch.unique(pairs.prompts[order], return_inverse=True)
    if len(clusters) < 2:
        return None, None
    generator = generator_for(seed, "calibration")
    errors = []
    for _ in range(resamples):
        drawn = torch.randint(len(clusters), (len(clusters),), generator=generator)
        times = torch.bincount(drawn, minlength=len(clusters))[place]
        # Repeated in place, the pairs stay sorted.
        own = _shared(right, ties, times).repeat_interleave(times)
        errors.append(_binned_error(confidences.repeat_interleave(times), own, BINS))
    error = _binned_error(confidences, _shared(right, ties), BINS)
    low, high = torch.tensor(errors, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975]).double()).tolist()
    return max(0.0, 2 * error - high), max(0.0, 2 * error - low)


def reliability(pairs: Pairs, seed: int, bins: int = BINS) -> list[Figures]:
    """The reliability curve: one row a bin of equally many pairs, the least sure first.

    A row has the least and the greatest confidence in it (`low`, `high`), their mean (`probability`), the share of
    pairs that the model put as people did (`right`, `right_low`, `right_high`) and the number of pairs (`count`). Tied
    confidences are spread over their bins as in `expected_calibration_error`.
    """
    confidences, order = pairs.confidences.sort(stable=True)
    right, prompts, ties = pairs.right[order], pairs.prompts[order], _ties(confidences)
    rows: list[Figures] = []
    for place in torch.tensor_split(torch.arange(len(pairs)), bins):
        if not len(place):
            continue
        sure = confidences[place]
        inside = torch.zeros_like(confidences).index_fill(0, place, 1.0)
        rows.append(
            {
                "low": float(sure[0]),
                "high": float(sure[-1]),
                "probability": float(sure.mean()),
                **spread("right", bootstrap_mean(right, prompts, seed, _shared(inside, ties))),
                "count": len(place),
            }
        )
    return rows


def score_errors(predicted: Tensor, given: Tensor) -> Figures:
    """How far predicted scores are from people's: `rmse`, `rank_correlation`, `n`; both arguments are [scores].

    The rank correlation is Spearman's, None where one side has but one value.
    """
    if not len(given):
        return {"rmse": None, "rank_correlation": None, "n": 0}
    rmse = float((predicted.double() - given.double()).square().mean().sqrt())
    return {"rmse": rmse, "rank_correlation": correlation(ranks(predicted), ranks(given)), "n": len(given)}


def correlation(one: Tensor, other: Tensor) -> float | None:
    """Pearson's; None where one of the two does not vary."""
    one, other = one.double() - one.double().mean(), other.double() - other.double().mean()
    size = float(one.norm() * other.norm())
    return float(one @ other) / size if size > 0 else None


def ranks(values: Tensor) -> Tensor:
    """Each value's place from 1, equal values sharing the mean of their places [values]."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    middles: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return middles.double()[place]


def prompt_key(prompt: Prompt) -> str:
    """The same text for the same prompt, whatever its messages' keys are ordered by."""
    return json.dumps([dict(message) for message in prompt], sort_keys=True)


def _right(probabilities: Tensor, outcomes: Tensor) -> Tensor:
    agreed = (probabilities > 0.5) == outcomes.bool()
    return torch.where(probabilities == 0.5, 0.5, agreed.double()).double()


def _ties(confidences: Tensor) -> Tensor:
    """The number of its group for each of sorted confidences, of which the tied ones are together [pairs]."""
    return (confidences.diff(prepend=confidences[:1]) > TIED).cumsum(0)


def _shared(values: Tensor, ties: Tensor, times: Tensor | None = None) -> Tensor:
    """Instead of each value the mean of those that are tied with it [..., pairs].

    Args:
        values: [..., pairs], sorted by confidence.
        ties: see `_ties`.
        times: how often each pair counts [pairs]; once, if nothing is said. Pairs of no count at all have no mean.
    """
    counts = torch.ones_like(ties) if times is None else times
    groups = int(ties[-1]) + 1 if len(ties) else 0
    sums = values.new_zeros(*values.shape[:-1], groups).index_add(-1, ties, counts * values)
    means: Tensor = sums / torch.bincount(ties, weights=counts.double(), minlength=groups)
    return means[..., ties]


def _binned_error(confidences: Tensor, right: Tensor, bins: int) -> float:
    """The calibration error of pairs that are sorted by confidence, those that are tied sharing what is right."""
    gaps = [part.sum().abs() for part in torch.tensor_split(right - confidences, bins)]
    return float(torch.stack(gaps).sum()) / max(len(right), 1)

"""How good is a policy, and how sure are we? Figures with intervals, from samples and scores."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.records import Sample
from worker.learning.seeds import generator_for

_DRAWN_AT_ONCE = 2**18
"""Resampled clusters in memory at once: a table of all would be 300 MB for 20,000 clusters."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval and the number of things it was counted over.

    One cluster alone says nothing of how much others would differ: there is no interval, and both its ends are None.
    """

    value: float
    low: float | None
    high: float | None
    count: int


def bootstrap_ratio(numerators: Tensor, denominators: Tensor, seed: int, resamples: int = 2_000) -> Estimate:
    """The ratio of two sums over clusters, with a percentile interval by resampling clusters.

    What shares a prompt is not independent, so whole prompts are drawn with replacement, never
    single pairs (Efron and Tibshirani 1993, section 13.3: the percentile interval).

    Args:
        numerators: [clusters], for instance the pairs won in each prompt.
        denominators: [clusters], for instance the pairs of each prompt.

    Raises:
        ValueError: if nothing was counted.
    """
    if denominators.sum() <= 0:
        raise ValueError("there is nothing to estimate: no pair was counted")
    clusters = len(numerators)
    value, count = float(numerators.double().sum() / denominators.double().sum()), round(float(denominators.sum()))
    if int((denominators > 0).sum()) < 2:
        return Estimate(value, None, None, count)
    sums = []
    generator = generator_for(seed, "bootstrap")
    at_once = max(1, _DRAWN_AT_ONCE // clusters)
    for start in range(0, resamples, at_once):
        drawn = torch.randint(clusters, (min(at_once, resamples - start), clusters), generator=generator)
        sums.append(torch.stack([values.double()[drawn].sum(dim=1) for values in (numerators, denominators)]))
    above, below = torch.cat(sums, dim=1)
    ratios = (above / below)[below > 0]
    low, high = ratios.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(value, low, high, count)


def bootstrap_mean(values: Tensor, clusters: Tensor, seed: int, weights: Tensor | None = None) -> Estimate:
    """The mean of values, with the interval of `bootstrap_ratio` over their clusters.

    Args:
        values: [items].
        clusters: [items], the same number for items of one cluster; a prompt's, for instance.
        weights: how much each value counts [items], at least 0; if nothing is said, 1. Those of 0 are left out.

    Raises:
        ValueError: if there is no value.
    """
    weights = torch.ones_like(values, dtype=torch.float64) if weights is None else weights
    counted = weights > 0
    numbers, place = torch.unique(clusters[counted], return_inverse=True)
    nothing, weights = torch.zeros(len(numbers), dtype=torch.float64), weights[counted].double()
    sums = nothing.index_add(0, place, weights * values[counted].double())
    return bootstrap_ratio(sums, nothing.index_add(0, place, weights), seed)


def win_rate(scores: Tensor, other_scores: Tensor, seed: int) -> Estimate:
    """How often the first policy's response beats the second's, a tie counting half.

    Args:
        scores, other_scores: [prompts, pairs]; entry (i, j) of both belongs to pair j of prompt i.

    Raises:
        ValueError: if the shapes differ.
    """
    if scores.shape != other_scores.shape or scores.dim() != 2:
        raise ValueError(
            "win_rate needs two tables [prompts, pairs] of one shape,"
            f" not {list(scores.shape)} and {list(other_scores.shape)}"
        )
    won = (scores > other_scores).double() + 0.5 * (scores == other_scores).double()
    return bootstrap_ratio(won.sum(dim=1), torch.ones_like(won).sum(dim=1), seed)


def implicit_preference(better: Tensor, worse: Tensor, clusters: Tensor, seed: int) -> Estimate:
    """How often a policy has moved towards the better of two responses, a tie counting half.

    A policy that was improved against a reward with a price on KL says by its log-ratio to the reference what it was
    rewarded for: r(x, y) = beta log pi(y|x) / ref(y|x) + a part that responses to a prompt share (Rafailov et al.
    2023, "Direct preference optimization", equation 5). beta does not change which of two is the greater.

    Args:
        better, worse: log-ratios [pairs] of whole responses, log pi(y|x) - log ref(y|x).
        clusters: [pairs], the same number for pairs that are not independent.

    Raises:
        ValueError: if there is no pair.
    """
    return bootstrap_mean((better > worse).double() + 0.5 * (better == worse).double(), clusters, seed)


def sequence_kl(logprobs: Sequence[Tensor], reference_logprobs: Sequence[Tensor]) -> Tensor:
    """The log-ratio log pi(y|x) - log ref(y|x) of each response [responses], in nats.

    The mean over samples of pi estimates KL(pi || ref) per sequence without bias (the k1 estimator,
    Schulman 2020, "Approximating KL divergence"); a single value may be negative.

    Args:
        logprobs, reference_logprobs: token log-probabilities [length] of the same responses, as
            `likelihood.response_logprobs` gives them.
    """
    return torch.stack([(own - other).sum() for own, other in zip(logprobs, reference_logprobs, strict=True)])


def ended_rate(samples: Sequence[Sample]) -> float:
    """The share of responses that the policy ended itself."""
    return sum(sample.finish_reason == "ended" for sample in samples) / len(samples)


def mean_length(samples: Sequence[Sample]) -> float:
    """Tokens per response, the end token included."""
    return sum(len(sample.token_ids) for sample in samples) / len(samples)


def length_ratio(samples: Sequence[Sample], others: Sequence[Sample]) -> float:
    """How much longer the first responses are than the second, by their mean tokens."""
    return mean_length(samples) / mean_length(others)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """The distinct n-grams of words over all n-grams, in all the texts together.

    Li et al. 2016, "A diversity-promoting objective function", section 5: low where a policy
    repeats itself. Words are split at white space. The figure falls as the text grows, so compare
    sets of equally many responses. Zero where no text has n words.
    """
    grams = [
        tuple(words[start : start + n])
        for words in (text.split() for text in texts)
        for start in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0

"""How far would one get without learning: by drawing n responses and keeping the one that the reward model likes best?

The baseline that a policy is held against. Its price is n times the sampling, at every answer anew.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.evaluation import Estimate, bootstrap_ratio


@dataclass(frozen=True)
class Best:
    """The best of `n` responses: how far away choosing it leads at most, and the judge's mean score of it."""

    n: int
    kl: float
    score: float


@dataclass(frozen=True)
class BestOfN:
    """A policy beside the best of n responses of another one, as a judge that chose none of them sees the two."""

    n: int
    kl: float
    """The most nats a sequence that choosing the best of n leads away."""
    winrate: Estimate
    """How often the policy's response beats the best of the other's n, ties half."""
    score: float
    """The judge's mean score of the policy's responses."""
    best: list[Best]
    """What the best of 1, of 2 ... and at the end of as many as were drawn would get instead."""


def against_best_of_n(own: Tensor, drawn: Tensor, judged: Tensor, n: int, seed: int) -> BestOfN:
    """Compares a policy's responses with the best of `n` of another policy's, on the same prompts.

    Args:
        own: the judge's scores of the policy's responses [prompts, responses].
        drawn: of the other's responses [prompts, at least n], by the reward model that chooses the best.
        judged: of the same, by the judge.
        n: how many responses the best is chosen from.

    Raises:
        ValueError: if fewer than `n` were drawn, or the tables do not fit each other.
    """
    if drawn.shape != judged.shape or len(own) != len(drawn):
        raise ValueError(f"scores of shapes {[list(one.shape) for one in (own, drawn, judged)]} do not fit each other")
    wins = (own[:, :, None] > judged[:, None, :]).double() + 0.5 * (own[:, :, None] == judged[:, None, :]).double()
    won = (wins * chances_to_be_best(drawn, n)[:, None, :]).sum(dim=(1, 2))
    counted = torch.full((len(own),), float(own.shape[1]), dtype=torch.float64)
    best = [Best(k, best_of_n_kl(k), score) for k, score in enumerate(best_scores(drawn, judged), start=1)]
    return BestOfN(n, best_of_n_kl(n), bootstrap_ratio(won, counted, seed), float(own.double().mean()), best)


def best_of_n_kl(n: int) -> float:
    """Log n - (n - 1) / n, the nats between the best of n and a single response.

    Stiennon et al. 2020, appendix G.3. Exact where no two responses are alike, and never too little (Beirami et al.
    2024, "Theoretical guarantees on the best-of-n alignment policy").
    """
    return math.log(n) - (n - 1) / n


def best_scores(drawn: Tensor, judged: Tensor) -> list[float]:
    """The judge's mean score of the best of k, without bias, for every k up to as many as were drawn.

    Args:
        drawn: [prompts, responses], by the reward model that chooses the best.
        judged: of the same responses, by the judge; `drawn` itself for what the choosing model thinks.
    """
    return [
        float((chances_to_be_best(drawn, k) * judged.double()).sum(dim=1).mean()) for k in range(1, drawn.shape[1] + 1)
    ]


def chances_to_be_best(drawn: Tensor, n: int) -> Tensor:
    """The chance of each response to be the best of `n` that are picked from all that were drawn.

    Of N responses in rising order the i-th is the best of C(i - 1, n - 1) of the C(N, n) sets that could be picked
    (Nakano et al. 2021, "WebGPT", appendix I). So nothing is wasted: what is drawn beyond n sharpens the estimate.

    Args:
        drawn: scores [prompts, responses]; of equal ones the later counts as the better.

    Returns:
        [prompts, responses], each row with the sum 1.

    Raises:
        ValueError: if fewer than `n` were drawn.
    """
    count = drawn.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"the best of {n} cannot be told from {count} responses to a prompt: draw at least as many")
    sets = math.comb(count, n)
    by_rank = torch.tensor([math.comb(rank, n - 1) / sets for rank in range(count)], dtype=torch.float64)
    ranks = drawn.argsort(dim=1, stable=True).argsort(dim=1)
    return by_rank[ranks.cpu()]

"""Where does one grade end and the next begin? An ordered logit whose thresholds are learned.

The proportional odds of McCullagh 1980 ("Regression models for ordinal data"), with thresholds that lie symmetrically
about 0: d + e, with d the log-odds by which the first response is better and e logistic, falls between cuts[k - 1] and
cuts[k] for grade k. One cut is Rao and Kupper 1967 with eta = log theta = cuts[0]; one cut of 0 is Bradley and Terry
1952, where a tie is impossible.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.records import Scale
from worker.learning.reward.observations import AnswerShape

SMALLEST_STEP = 1e-3
"""The least distance of two thresholds, so that an answer which was never seen keeps a probability above 0."""
STEP_DEVIATION = 2.0
"""Deviation of the normal prior of a threshold's step about its start, before the softplus."""


def log_interval(differences: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log-probability P(low < d + e < high) for a logistic e; exact also where either sigmoid rounds to 1.

    From sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)), in which only the width, which does not depend on
    d, stands in the difference.
    """
    width = high - low
    is_open = width > 0
    inside = torch.log(-torch.expm1(-torch.where(is_open, width, 1.0)))
    inside = torch.where(is_open, inside, -math.inf)
    return functional.logsigmoid(differences - low) + functional.logsigmoid(high - differences) + inside


class Thresholds(nn.Module):
    """The learned cuts of every output's scales.

    Cuts increase by softplus(steps) + SMALLEST_STEP; on a scale without ties the first cut is 0 and not learned.
    They start where they explain how often each grade was given if no response were better than another: at d = 0 a
    grade of at most k to either side has probability 2 sigma(its upper cut) - 1.
    """

    starts: Tensor

    def __init__(self, shape: AnswerShape) -> None:
        super().__init__()
        self.scales = [scale for _, scale in shape.ladders]
        given = [share for output in shape.outputs for share in shape.shares.get(output, ())]
        self.shares = given or [_alike(scale) for scale in self.scales]
        steps = [
            step
            for scale, share in zip(self.scales, self.shares, strict=True)
            for step in _first_steps(scale, torch.tensor(share).cumsum(0))
        ]
        self.steps = nn.Parameter(torch.tensor(steps))
        self.register_buffer("starts", torch.tensor(steps), persistent=False)

    def cuts(self) -> list[Tensor]:
        """Every scale's cuts [levels]."""
        steps = functional.softplus(self.steps) + SMALLEST_STEP
        own = torch.split(steps, [len(_free(scale)) for scale in self.scales])
        return [
            (step if scale.ties else torch.cat([step.new_zeros(1), step])).cumsum(0)
            for scale, step in zip(self.scales, own, strict=True)
        ]

    def rungs(self) -> Tensor:
        """The edges of all scales, end to end: a scale's tie or grade k lies between its edges k and k + 1."""
        infinite = self.steps.new_full((1,), math.inf)
        ladders = [torch.cat([-cuts[:1], cuts, infinite]) for cuts in self.cuts()]
        return torch.cat(ladders) if ladders else infinite

    @torch.no_grad()
    def set_cuts(self, cuts: list[Tensor]) -> None:
        """Puts every scale's cuts in place."""
        steps = [
            _inverse_softplus(torch.diff(own, prepend=own.new_zeros(1))[_free(scale)] - SMALLEST_STEP)
            for scale, own in zip(self.scales, cuts, strict=True)
        ]
        if steps:
            self.steps.copy_(torch.cat(steps))

    def log_prior(self) -> Tensor:
        """Holds steps that no answer speaks of near their start."""
        return -((self.steps - self.starts) / STEP_DEVIATION).square().sum() / 2


def _alike(scale: Scale) -> tuple[float, ...]:
    """Shares that make all answers equally likely: a grade stands for two, either response being better."""
    shares = [2.0 if grade else float(scale.ties) for grade in range(scale.levels + 1)]
    return tuple(share / sum(shares) for share in shares)


def _free(scale: Scale) -> range:
    """Which of a scale's cuts are learned."""
    return range(0 if scale.ties else 1, scale.levels)


def _first_steps(scale: Scale, shares: Tensor) -> list[float]:
    """The steps with which cuts explain cumulative shares at d = 0."""
    cuts = torch.logit((1 + shares[:-1]) / 2)
    steps = torch.diff(cuts, prepend=cuts.new_zeros(1))[_free(scale)]
    return [float(step) for step in _inverse_softplus(steps - SMALLEST_STEP)]


def _inverse_softplus(values: Tensor) -> Tensor:
    values = values.clamp(min=1e-6)
    return values + torch.log(-torch.expm1(-values))

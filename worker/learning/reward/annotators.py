"""How far is each annotator believed? A quality and a position bias, learned with the reward."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.reward.observations import Observations

TYPICAL_QUALITY = 0.8
"""The mean of the Beta prior of the quality of an annotator of whom nothing is known."""
QUALITY_STRENGTH = 10.0
"""How many labels a Beta prior of a quality counts for, the sum of its two parameters."""
BIAS_DEVIATION = 1.0
"""Deviation of the normal prior of a position bias, in log-odds; its mean is 0."""


class Annotators(nn.Module):
    """Every annotator's quality g and position bias b.

    A label is considered with probability g; else it is careless, which spoils all of it: its answers then follow from
    what was shown first, with log-odds b. crowd-kit's NoisyBradleyTerry has the same two numbers and tosses the coin
    for every pair; here it is tossed once a label.

    One more quality and bias belong to anybody else. That quality is the mean of the other ones' Beta prior too, and is
    learned: few labels leave an annotator as good as the people of this project are. The density is that of
    log g/(1 - g), which has its mode at the prior's mean.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        start = torch.tensor(TYPICAL_QUALITY).logit()
        self.quality_logits = nn.Parameter(start.repeat(len(names) + 1))
        self.position_biases = nn.Parameter(torch.zeros(len(names) + 1))

    @property
    def qualities(self) -> Tensor:
        """The probability that a label is considered [annotators + 1]."""
        return self.quality_logits.sigmoid()

    def careless_differences(self, observed: Observations) -> Tensor:
        """The log-odds with which a careless label prefers the first of each pair [pairs]."""
        return self.position_biases[observed.annotator[observed.pair_label]] * observed.shown

    def parts(self, considered: Tensor, careless: Tensor, observed: Observations) -> tuple[Tensor, Tensor]:
        """The mixture's two log-likelihoods [labels], from those of a considered and of a careless label."""
        logits = self.quality_logits[observed.annotator]
        return functional.logsigmoid(logits) + considered, functional.logsigmoid(-logits) + careless

    def facts(self) -> dict[str, Any]:
        """The numbers of each annotator by name, and those of anybody else."""
        numbers = [
            {"quality": quality, "position_bias": bias}
            for quality, bias in zip(
                self.quality_logits.double().sigmoid().tolist(), self.position_biases.tolist(), strict=True
            )
        ]
        return {"each": dict(zip(self.names, numbers[:-1], strict=True)), "others": numbers[-1]}

    @torch.no_grad()
    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Puts numbers in place as `facts` gave them."""
        numbers = [*(facts["each"][name] for name in self.names), facts["others"]]
        self.quality_logits.copy_(torch.tensor([one["quality"] for one in numbers], dtype=torch.float64).logit())
        self.position_biases.copy_(torch.tensor([one["position_bias"] for one in numbers]))

    def log_prior(self) -> Tensor:
        """The log-density of all qualities and biases, those of the biases without its constant."""
        typical = self.qualities.new_tensor(TYPICAL_QUALITY)
        means = torch.cat([self.qualities[-1:].expand(len(self.names)), typical[None]])
        qualities = _log_beta(self.quality_logits, means)
        return qualities.sum() - (self.position_biases / BIAS_DEVIATION).square().sum() / 2


def _log_beta(logits: Tensor, means: Tensor) -> Tensor:
    """The log-density of the logit of a number that is Beta distributed with these means."""
    considered, careless = QUALITY_STRENGTH * means, QUALITY_STRENGTH * (1 - means)
    logs = considered * functional.logsigmoid(logits) + careless * functional.logsigmoid(-logits)
    return logs + math.lgamma(QUALITY_STRENGTH) - torch.lgamma(considered) - torch.lgamma(careless)

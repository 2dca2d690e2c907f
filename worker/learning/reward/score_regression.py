"""Which scores would annotators give? A line on the model's output, with a normal deviation."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worker.learning.reward.observations import AnswerShape, Observations

SCORE_DEVIATION = 1.0
"""Deviation of the normal priors of a score's level, log slope and log deviation, the scores' own deviation being 1."""


class ScoreRegressions(nn.Module):
    """Scores as normal about level + slope * output, with a deviation: three numbers for each scored output.

    All in units of the scores' own mean and deviation, which are in the shape: a careless score is standard normal.
    """

    def __init__(self, shape: AnswerShape) -> None:
        super().__init__()
        self.outputs = shape.scored
        self.moments = [shape.moments.get(output, (0.0, 1.0)) for output in shape.scored]
        self.levels = nn.Parameter(torch.zeros(len(shape.scored)))
        self.log_slopes = nn.Parameter(torch.zeros(len(shape.scored)))
        self.log_deviations = nn.Parameter(torch.zeros(len(shape.scored)))

    def log_densities(self, outputs: Tensor, observed: Observations) -> Tensor:
        """Of every score [scores]."""
        values = outputs[observed.response, observed.scored_output]
        expected = self.levels[observed.scored] + self.log_slopes.exp()[observed.scored] * values
        deviations = self.log_deviations[observed.scored]
        return log_normal((observed.score - expected) * torch.exp(-deviations)) - deviations

    def facts(self) -> dict[str, dict[str, float]]:
        """Every scored output's numbers, with the deviation that its outputs leave as `residual`."""
        return {
            output: {"mean": mean, "deviation": deviation, "level": level, "slope": slope, "residual": residual}
            for output, (mean, deviation), level, slope, residual in zip(
                self.outputs,
                self.moments,
                self.levels.tolist(),
                self.log_slopes.double().exp().tolist(),
                self.log_deviations.double().exp().tolist(),
                strict=True,
            )
        }

    @torch.no_grad()
    def set_facts(self, facts: Mapping[str, Mapping[str, float]]) -> None:
        """Puts numbers in place as `facts` gave them."""
        for place, output in enumerate(self.outputs):
            self.levels[place] = facts[output]["level"]
            self.log_slopes[place] = math.log(facts[output]["slope"])
            self.log_deviations[place] = math.log(facts[output]["residual"])

    def log_prior(self) -> Tensor:
        """Holds what no score speaks of near its start."""
        numbers = torch.cat([self.levels, self.log_slopes, self.log_deviations])
        return -(numbers / SCORE_DEVIATION).square().sum() / 2


def log_normal(values: Tensor) -> Tensor:
    """The standard normal's log-density."""
    return -(values.square() + math.log(2 * math.pi)) / 2

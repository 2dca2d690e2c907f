"""When does a run end before its last rollout? When KL, or a reward that nobody learns from, says: too far."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from worker.learning.policy.kl import exceeds_budget
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings

Ended = Literal["done", "kl_budget", "watched"]
"""Why a run is over: all rollouts were learned from, or one of the guards spoke."""

Weights = Mapping[str, Tensor]


@dataclass
class Guards:
    """What the guards remember: where KL began, and copies of the policies that a run could go back to."""

    kl_start: float | None = None
    """Nats a sequence between the first policy and the reference, known after one rollout."""
    within: dict[str, Tensor] = field(default_factory=dict)
    """The newest weights whose KL was found within the budget."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights that the watched reward liked best."""
    best_score: float = -math.inf
    below: int = 0
    """Rollouts in a row that were certainly worse than the best."""

    def judge(self, rollout: Rollout, weights: Weights, settings: PPOSettings) -> Ended | None:
        """Looks at what the policy with these weights wrote; says why the run is over, if it is."""
        if self.kl_start is None:
            self.kl_start = max(rollout.kl, 0.0)
        if exceeds_budget(rollout.kl, self.kl_start, settings):
            return "kl_budget"
        if settings.kl_budget is not None:
            self.within = _copied(weights)
        if settings.watch_patience is not None and self._worsens(rollout, weights, settings.watch_patience):
            return "watched"
        return None

    def _worsens(self, rollout: Rollout, weights: Weights, patience: int) -> bool:
        scores = torch.stack(list(rollout.watched.values())).mean(dim=0)
        score, error = float(scores.mean()), float(scores.std(unbiased=False)) / math.sqrt(len(scores))
        if score > self.best_score:
            self.best, self.best_score = _copied(weights), score
        self.below = self.below + 1 if score < self.best_score - error else 0
        return self.below >= patience

    @torch.no_grad()
    def go_back(self, ended: Ended, weights: Weights) -> None:
        """Puts the weights back to which a run returns that ended so; one that is done keeps its last."""
        remembered = {"kl_budget": self.within, "watched": self.best, "done": {}}[ended]
        for name, value in remembered.items():
            weights[name].copy_(value)


def _copied(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}

"""How fast does it go: tokens and seconds by phase, the share of what the hardware could do, and when will it end?

The floor is the least time that a phase can take: its multiplications in linear layers, over the rate at which this
device was seen to multiply matrices. Attention's own products are left out, so the true floor is a little higher.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import fmean

import torch
from torch import nn
from transformers import PreTrainedModel

from worker.learning.models import Precision, computes_in_bf16

RECENT = 10
"""Rollouts from which the time left is estimated: responses grow longer or shorter while a policy learns."""
MEASURED_SECONDS = 0.1
SIDES = {"cpu": 1_024, "cuda": 8_192}
"""Sides of the matrices that the rate is measured with: large enough that nothing but multiplying counts."""


@dataclass(frozen=True)
class Weights:
    """How many weights a token is multiplied with: in the trunk, and to predict the next token."""

    trunk: int
    head: int


class Pace:
    """Books the time of a run's phases; a row of metrics for each rollout."""

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        precision: Precision,
        *,
        episodes: int,
        total: int,
        done: int = 0,
        devices: int = 1,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Starts the clock.

        Args:
            weights: of the model that the phases run.
            device, precision: of its products.
            episodes: in each rollout.
            total: rollouts in the whole run.
            done: rollouts that an earlier process did.
            devices: such devices that share every phase; tokens are counted over all of them.
            clock: seconds from any start.
        """
        self._weights, self._rate = weights, devices * matmul_rate(device, computes_in_bf16(device, precision))
        self._device, self._episodes = device, episodes
        self._total, self._done = total, done
        self._clock = clock
        self._rollouts: list[float] = []
        self._last = clock()
        self._booked = _nothing()

    def begin(self) -> None:
        """Starts the clock of a rollout: what was done since the last one ended is no part of either."""
        self._last = self._clock()

    def lap(self, phase: str, tokens: int, passes: float = 0.0, predicted: int = 0) -> None:
        """Books the time since the last lap on a phase of this rollout; a phase may have several laps.

        Args:
            tokens: that went through the trunk, padding not counted; one that went through twice counts twice.
            passes: what each cost in forward passes: 1 forward alone, 3 with the backward pass, 2 with a backward pass
                through frozen weights. 0 where the phase is not this model's work: then it has no floor.
            predicted: of how many tokens the next one was predicted, too.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = self._clock()
        products = self._weights.trunk * tokens + self._weights.head * predicted
        self._add("seconds", phase, now - self._last)
        self._add("tokens", phase, tokens)
        self._add("floor", phase, 2 * passes * products / self._rate)
        self._last = now

    def metrics(self) -> dict[str, float]:
        """Ends the rollout: seconds, tokens and share of the floor by phase, episodes a second, seconds left."""
        phases = self._booked["seconds"]
        seconds = sum(phases.values())
        self._rollouts.append(seconds)
        self._done += 1
        row = {f"seconds/{phase}": spent for phase, spent in phases.items()}
        row |= {f"tokens/{phase}": tokens for phase, tokens in self._booked["tokens"].items()}
        row |= {f"floor/{phase}": least / phases[phase] for phase, least in self._booked["floor"].items() if least}
        row["episodes_per_second"] = self._episodes / seconds
        row["seconds/left"] = fmean(self._rollouts[-RECENT:]) * (self._total - self._done)
        self._booked = _nothing()
        self.begin()
        return row

    def _add(self, kind: str, phase: str, amount: float) -> None:
        booked = self._booked[kind]
        booked[phase] = booked.get(phase, 0.0) + amount


def _nothing() -> dict[str, dict[str, float]]:
    """Of each kind, an amount by phase."""
    return {"seconds": {}, "tokens": {}, "floor": {}}


def weights_of(model: PreTrainedModel) -> Weights:
    """What multiplies in a language model; a table that is looked up does not, nor do experts that are not asked."""
    head = model.get_output_embeddings().weight
    left_out = {id(head)} | {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    config = model.config.get_text_config()
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None) or 1
    asked = (getattr(config, "num_experts_per_tok", None) or 1) / experts
    trunk = sum(
        weight.numel() * (asked if ".experts." in name else 1.0)
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and id(weight) not in left_out
    )
    return Weights(round(trunk), head.numel())


@cache
def matmul_rate(device: torch.device, is_bf16: bool) -> float:
    """Operations a second in one large matrix product, two a multiplication; measured once a process."""
    side = SIDES.get(device.type, SIDES["cpu"])
    noise = torch.Generator(device).manual_seed(0)  # numbers like those of a model: plain ones are multiplied faster
    factor = torch.rand(side, side, generator=noise, device=device)
    factor = factor.bfloat16() if is_bf16 else factor

    def seconds() -> float:
        began = time.perf_counter()
        torch.mm(factor, factor)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    seconds()  # the first one sets libraries up
    best, began = seconds(), time.perf_counter()
    while time.perf_counter() - began < MEASURED_SECONDS:
        best = min(best, seconds())
    return 2 * side**3 / best

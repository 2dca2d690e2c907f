"""Actors of every kind on one policy, and what tests do to them and read of them."""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from worker.learning.likelihood import Dialogue
from worker.learning.policy.actor import Actor, new_actor
from worker.learning.policy.settings import PPOSettings

FULL = PPOSettings(precision="fp32")
LORA = replace(FULL, lora_rank=4, lora_alpha=8.0)
DIALOGUES = [Dialogue([3, 4], [5, 6, 7, 1]), Dialogue([8], [9, 1]), Dialogue([10, 11, 12], [13, 14, 15])]
VARIANTS = [
    variant
    for kind in (FULL, LORA)
    for variant in (kind, replace(kind, critic="separate"), replace(kind, estimator="rloo", group_size=2))
]
NAMES = [f"{'lora' if one.lora_rank else 'full'}-{one.critic if one.has_critic else 'none'}" for one in VARIANTS]


def disturb(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def actor_of(policy: Any, settings: PPOSettings, critic: Any = None, reference: Any = None) -> Actor:
    if reference is None and settings.lora_rank is None:
        reference = deepcopy(policy)
    return new_actor(policy, reference, critic, settings, seed=0)


def outputs(actor: Actor) -> Any:
    return actor(DIALOGUES, 1.0, "fp32")


def touched(actor: Actor) -> set[str]:
    return {name for name, weight in actor.named_parameters() if weight.grad is not None and bool(weight.grad.any())}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def by_dialogue(table: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[kept].detach() for row, kept in zip(table, mask, strict=True)]


def taken(*models: nn.Module) -> int:
    """Numbers in memory, those that models share once."""
    return sum({weight.data_ptr(): weight.numel() for model in models for weight in model.parameters()}.values())

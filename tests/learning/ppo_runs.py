"""Short runs of PPO on the tiny model, and rollouts made by hand: what the tests of PPO share."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from worker.learning.likelihood import Dialogue
from worker.learning.policy.outputs import TokenOutputs
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import ImprovedPolicy, improve_policy
from worker.learning.records import Message, Prompt, Sample
from worker.learning.sampling import SamplingSettings

PROMPTS: list[tuple[Message, ...]] = [
    ({"role": "user", "content": text},) for text in ("the cat", "a big old dog saw", "rain and sun", "small", "new")
]
QUICK = PPOSettings(
    episodes=256,
    batch_episodes=64,
    learning_rate=2e-3,
    kl_coefficient=0.02,
    kl_horizon=None,
    epoch_kl_limit=None,
    sampling=SamplingSettings(max_new_tokens=10),
    precision="fp32",
)
ENDED = Sample("x", (5, 6, 1), "ended", 0)
CUT = Sample("x", (5, 6, 7, 8), "cut", 0)


def count_good(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    return torch.tensor([float(response.split().count("good")) for response in responses])


def nothing(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    return torch.zeros(len(responses))


def improve(model: Any, tokenizer: Any, settings: PPOSettings, seed: int = 0, **given: Any) -> ImprovedPolicy:
    """PPO on five prompts for as many of the word "good" as possible, the reference a copy of the model."""
    arguments = {"reference": deepcopy(model), "reward": count_good, "prompts": PROMPTS} | given
    return improve_policy(model, tokenizer=tokenizer, settings=settings, seed=seed, **arguments)


def weights_of(model: Any) -> list[Tensor]:
    """A copy of all weights."""
    return [parameter.detach().clone() for parameter in model.parameters()]


def are_equal(ones: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two lists of weights are the same to the bit."""
    return all(torch.equal(one, other) for one, other in zip(ones, others, strict=True))


def rollout_of(samples: Sequence[Sample], scores: Sequence[float], log_ratios: Tensor, **given: Any) -> Rollout:
    """A rollout with these log-ratios [episodes, tokens] to the reference; all else is zero."""
    mask = torch.arange(log_ratios.shape[1]) < torch.tensor([[len(sample.token_ids)] for sample in samples])
    zeros = torch.zeros_like(log_ratios)
    outputs = TokenOutputs(log_ratios * mask, zeros, zeros, mask)
    dialogues = [Dialogue([5], sample.token_ids) for sample in samples]
    return Rollout(dialogues, list(samples), torch.tensor(scores), zeros, outputs, **given)

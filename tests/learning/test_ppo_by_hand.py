"""Does a whole turn do what the papers say? Every step done again in the plainest way, to the same weights.

The other version reads one response at a time through the model's own output layer, sums in loops, has an Adam of its
own (Kingma and Ba 2015, algorithm 1) and shares no line with the learner but the order of the episodes.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.learning.ppo_runs import QUICK, improve
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings
from worker.learning.sampling import SamplingSettings
from worker.learning.seeds import generator_for

pytestmark = pytest.mark.learning

ODD = replace(
    QUICK,
    episodes=24,
    batch_episodes=24,
    epochs=2,
    minibatches=3,
    kl_coefficient=0.3,
    discount=0.97,
    gae_lambda=0.9,
    whiten_rewards=True,
    score_clip=1.5,
    max_grad_norm=0.5,
    clip_range=0.1,
    value_clip_range=0.05,
    value_coefficient=0.5,
    length_penalty=0.1,
    micro_batch_tokens=60,
    sampling=SamplingSettings(temperature=0.8, max_new_tokens=10),
)
COMPARED = replace(ODD, estimator="rloo", group_size=4, whiten_rewards=False)


@dataclass
class Read:
    """One response read by a model: numbers of each token [tokens]."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor


def read(model: Any, head: Sequence[Tensor], prompt: Sequence[int], response: Sequence[int]) -> Read:
    output = model(input_ids=torch.tensor([[*prompt, *response]]), output_hidden_states=True)
    before = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
    logs = (output.logits[0, before] / ODD.sampling.temperature).log_softmax(dim=-1)
    chosen = logs[torch.arange(len(response)), torch.tensor(response)]
    weight, bias = head
    return Read(chosen, -(logs.exp() * logs).sum(dim=-1).detach(), output.hidden_states[-1][0, before] @ weight + bias)


def token_rewards(rollout: Rollout, old: list[Read], reference: list[Read], settings: PPOSettings) -> list[list[float]]:
    target = float(np.mean([len(sample.token_ids) for sample in rollout.samples]))
    rewards = []
    for number, sample in enumerate(rollout.samples):
        score = float(np.clip(float(rollout.scores[number]), -1.5, 1.5))
        score -= settings.missing_end_score * (sample.token_ids[-1] != 1)
        score -= settings.length_penalty * max(0.0, float(len(sample.token_ids)) - target)
        ratios = (old[number].logprobs - reference[number].logprobs).tolist()
        row = [-settings.kl_coefficient * ratio * (settings.kl_in == "reward") for ratio in ratios]
        row[-1] += score
        rewards.append(row)
    return rewards


def whitened(rows: list[list[float]], keep_mean: bool) -> list[list[float]]:
    everything = np.concatenate(rows)
    mean, scale = everything.mean(), np.sqrt(everything.var() + 1e-8)
    return [[(one - mean) / scale + keep_mean * mean for one in row] for row in rows]


def advantages_and_returns(
    rewards: list[list[float]], old: list[Read], settings: PPOSettings
) -> tuple[list[list[float]], list[list[float]]]:
    if settings.estimator == "gae":
        rewards = whitened(rewards, keep_mean=True) if settings.whiten_rewards else rewards
        advantages = []
        for row, one in zip(rewards, old, strict=True):
            values = [*one.values.tolist(), 0.0]
            deltas = [row[t] + settings.discount * values[t + 1] - values[t] for t in range(len(row))]
            decay = settings.discount * settings.gae_lambda
            advantages.append([sum(decay**k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(row))])
        returns = [
            [a + v for a, v in zip(row, one.values.tolist(), strict=True)]
            for row, one in zip(advantages, old, strict=True)
        ]
        return whitened(advantages, keep_mean=False), returns
    totals = [sum(row) for row in rewards]
    advantages = []
    for number, row in enumerate(rewards):
        first = number - number % settings.group_size
        group = totals[first : first + settings.group_size]
        others = [total for place, total in enumerate(group) if first + place != number]
        own = totals[number] - float(np.mean(others))
        if settings.estimator == "grpo":
            own = (totals[number] - float(np.mean(group))) / (float(np.std(group, ddof=1)) + 1e-6)
        advantages.append([own] * len(row))
    return advantages, [[0.0] * len(row) for row in rewards]


@dataclass
class Adam:
    """Kingma and Ba 2015, algorithm 1, with epsilon 1e-5; gradients longer than `longest` are scaled down to it."""

    parameters: list[Tensor]
    rate: float
    longest: float

    def __post_init__(self) -> None:
        self.t = 0
        self.means = [torch.zeros_like(one) for one in self.parameters]
        self.squares = [torch.zeros_like(one) for one in self.parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> float:
        self.t += 1
        known = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]
        norm = float(np.sqrt(sum(float(one.square().sum()) for one in known)))
        for place, gradient in enumerate(known):
            bounded = gradient * min(1.0, self.longest / norm)
            self.means[place] = 0.9 * self.means[place] + 0.1 * bounded
            self.squares[place] = 0.999 * self.squares[place] + 0.001 * bounded**2
            mean, square = self.means[place] / (1 - 0.9**self.t), self.squares[place] / (1 - 0.999**self.t)
            self.parameters[place] -= self.rate * mean / (square.sqrt() + 1e-5)
        return norm


def one_step(
    model: Any,
    head: Sequence[Tensor],
    rollout: Rollout,
    known: tuple[list[Read], list[Read], list[list[float]], list[list[float]]],
    episodes: list[int],
    settings: PPOSettings,
) -> tuple[Tensor, dict[str, float]]:
    """The loss over the tokens of some episodes, and figures of them."""
    old, reference, advantages, returns = known
    policy_losses, value_losses, leaving, entropies, log_ratios, clipped = [], [], [], [], [], []
    for number in episodes:
        dialogue = rollout.dialogues[number]
        new = read(model, head, dialogue.prompt_ids, dialogue.response_ids)
        for t in range(len(dialogue.response_ids)):
            ratio = (new.logprobs[t] - old[number].logprobs[t]).exp()
            bounded = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
            advantage = advantages[number][t]
            policy_losses.append(-torch.minimum(advantage * ratio, advantage * bounded))
            clipped.append(float(advantage * bounded < advantage * ratio))
            error = (new.values[t] - returns[number][t]) ** 2
            near = old[number].values[t] + (new.values[t] - old[number].values[t]).clamp(
                -settings.value_clip_range, settings.value_clip_range
            )
            value_losses.append(torch.maximum(error, (near - returns[number][t]) ** 2) / 2)
            away = (reference[number].logprobs[t] - new.logprobs[t]).exp()
            leaving.append(away - away.log() - 1)
            entropies.append(float(new.entropies[t]))
            log_ratios.append(float(ratio.detach().log()))
    policy_loss, value_loss = torch.stack(policy_losses).mean(), torch.stack(value_losses).mean()
    loss = policy_loss
    if settings.estimator == "gae":
        loss = loss + settings.value_coefficient * value_loss
    if settings.kl_in == "loss":
        loss = loss + settings.kl_coefficient * torch.stack(leaving).mean()
    return loss, {
        "loss/policy": float(policy_loss.detach()),
        "policy/clipfrac": float(np.mean(clipped)),
        "policy/entropy": float(np.mean(entropies)),
        "policy/approxkl": float(np.mean(np.square(log_ratios)) / 2),
        **({"loss/value": float(value_loss.detach())} if settings.estimator == "gae" else {}),
    }


def learn_by_hand(
    model: Any, reference: Any, rollout: Rollout, settings: PPOSettings, seed: int
) -> list[dict[str, float]]:
    """Learns from a rollout; changes the model, returns figures of every step."""
    head = [torch.zeros(model.config.hidden_size, requires_grad=True), torch.zeros((), requires_grad=True)]
    with torch.no_grad():
        old, before = (
            [read(one, head, dialogue.prompt_ids, dialogue.response_ids) for dialogue in rollout.dialogues]
            for one in (model, reference)
        )
    rewards = token_rewards(rollout, old, before, settings)
    known = (old, before, *advantages_and_returns(rewards, old, settings))
    parameters = [*model.parameters(), *(head if settings.estimator == "gae" else [])]
    adam = Adam(parameters, settings.learning_rate, settings.max_grad_norm)
    rows = []
    for epoch in range(settings.epochs):
        order = torch.randperm(settings.batch_episodes, generator=generator_for(seed, "minibatches", 0, epoch))
        for episodes in order.tensor_split(settings.minibatches):
            loss, row = one_step(model, head, rollout, known, episodes.tolist(), settings)
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            rows.append(row | {"grad_norm": adam.step(gradients)})
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(ODD, id="gae"),
        pytest.param(COMPARED, id="rloo"),
        pytest.param(replace(COMPARED, estimator="grpo", kl_in="loss"), id="grpo"),
    ],
)
def test_a_whole_turn_is_what_the_papers_say(tiny_model: Any, tiny_tokenizer: Any, settings: PPOSettings) -> None:
    reference, other = deepcopy(tiny_model), deepcopy(tiny_model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():  # so that there is KL to pay for from the first token on
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=noise))
    start = torch.nn.utils.parameters_to_vector(tiny_model.parameters()).detach().clone()
    kept: list[Rollout] = []
    [row] = improve(
        tiny_model, tiny_tokenizer, settings, 3, reference=reference, keep=lambda rollout, _: kept.append(rollout)
    ).metrics
    figures = learn_by_hand(other, reference, kept[0], settings, 3)
    ours, by_hand = (torch.nn.utils.parameters_to_vector(model.parameters()) for model in (tiny_model, other))
    assert (by_hand - start).norm() > 0.2
    assert (ours - by_hand).norm() < 1e-3 * (by_hand - start).norm()
    for name in figures[0]:
        assert row[name] == pytest.approx(np.mean([figure[name] for figure in figures]), rel=1e-3, abs=1e-6), name
    assert row["policy/clipfrac"] > 0
    assert row["grad_norm"] > settings.max_grad_norm, "nothing was clipped"

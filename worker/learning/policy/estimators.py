"""How much better than expected was each token? The advantages, by a value function or by the rest of a group."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings


@dataclass(frozen=True)
class Estimate:
    """What the policy and the value function learn from, both [episodes, tokens], zero after the last token."""

    advantages: Tensor
    returns: Tensor
    """What the values are to be; zero where there is no value function."""


def estimate(rollout: Rollout, rewards: Tensor, settings: PPOSettings) -> Estimate:
    """The advantages of a rollout by the estimator that the settings name.

    gae: generalised advantages over the values, whitened over all tokens of the rollout.
    rloo: a response's whole reward less the mean of the others to its prompt (Ahmadian et al. 2024, "Back to basics",
        equation 5), for every token of it.
    grpo: its reward less the mean of all to its prompt, over their deviation (Shao et al. 2024, "DeepSeekMath",
        section 4.1.2), for every token of it; without the deviation as Liu et al. 2025 ("Understanding R1-Zero").

    Args:
        rewards: of tokens [episodes, tokens]; whitened here where the settings say so.
    """
    if settings.whiten_rewards:
        rewards = whiten(rewards, rollout.mask, shift_mean=False)
    if settings.estimator == "gae":
        advantages, returns = generalised_advantages(
            rewards, rollout.outputs.values, settings.discount, settings.gae_lambda
        )
        return Estimate(whiten(advantages, rollout.mask), returns)
    # In fp32 the mean of equal rewards may be off by a rounding error, which their deviation would make large again.
    grouped = rewards.double().sum(dim=1).view(-1, settings.group_size)
    advantages = left_out_advantages(grouped) if settings.estimator == "rloo" else group_advantages(grouped, settings)
    return Estimate(advantages.view(-1, 1).to(rewards) * rollout.mask, torch.zeros_like(rewards))


def generalised_advantages(
    rewards: Tensor, values: Tensor, discount: float, gae_lambda: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [episodes, tokens].

    delta_t = r_t + gamma V_{t+1} - V_t;  A_t = delta_t + gamma lambda A_{t+1};  R_t = A_t + V_t
    (Schulman et al. 2016, equations 11 to 16; after the last token V and A are zero).

    Args:
        rewards, values: [episodes, tokens], zero after the last token.
    """
    advantages = torch.zeros_like(rewards)
    following = rewards.new_zeros(len(rewards))
    next_values = torch.cat([values[:, 1:], values.new_zeros((len(values), 1))], dim=1)
    deltas = rewards + discount * next_values - values
    for t in reversed(range(rewards.shape[1])):
        following = deltas[:, t] + discount * gae_lambda * following
        advantages[:, t] = following
    return advantages, advantages + values


def left_out_advantages(rewards: Tensor) -> Tensor:
    """R_i - mean of R_j over j != i, which is n / (n - 1) (R_i - mean of all): [groups, responses]."""
    count = rewards.shape[1]
    return (rewards - rewards.mean(dim=1, keepdim=True)) * (count / (count - 1))


def group_advantages(rewards: Tensor, settings: PPOSettings) -> Tensor:
    """(R_i - mean) / deviation within each group: [groups, responses]."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    return centred / (rewards.std(dim=1, keepdim=True) + 1e-6) if settings.grpo_scale else centred


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scales to variance 1 (biased, as in lm-human-preferences) over all that the mask keeps.

    Returns:
        [episodes, tokens], zero where masked out; the mean is 0, or kept with shift_mean=False.
    """
    kept = values[mask].double()  # where all are equal, a rounding error of the mean would be scaled up, too
    mean, variance = kept.mean(), kept.var(unbiased=False)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask

"""How does a policy get better under a reward? Proximal policy optimisation for language models.

The papers: Schulman et al. 2017 (PPO), Schulman et al. 2016 (GAE), Ziegler et al. 2019 (RLHF with
an adaptive KL penalty). Kept from Ziegler's code, lm-human-preferences: the per-token KL penalty
inside the reward, the score on the end token, whitening with the biased variance, the clipped
value loss, the zero-initialised value head on the policy's trunk, Adam's epsilon of 1e-5.
Changed: log-probabilities all come from the training forward; advantages are whitened over
the whole rollout; the loss is normalised over the tokens of the optimiser step; gradients are
clipped; PyTorch's Adam; lambda is 1 unless set; and the KL target counts from where the policy
starts, so that a second round does not undo the first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import group_by_length, token_budget
from worker.learning.models import Precision, computes_in_bf16
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt
from worker.learning.rollouts import (
    Clock,
    PolicyWithValue,
    RewardFunction,
    Rollout,
    TokenOutputs,
    check_first_ratio,
    choose_prompts,
    collect,
    rollout_metrics,
)
from worker.learning.sampling import SamplingSettings
from worker.learning.seeds import derive_seed, generator_for


@dataclass(frozen=True)
class PPOSettings:
    """Every choice of a PPO run."""

    episodes: int = 8_192
    """Responses sampled and learned from in the whole run."""
    batch_episodes: int = 256
    """Responses a rollout; the policy is fixed while they are written."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 1
    """Optimiser steps a pass: a run makes rollouts x epochs x minibatches of them."""
    learning_rate: float = 1e-5
    """Of Adam, at the start; it falls linearly to 0 over the run."""
    adam_epsilon: float = 1e-5
    """Larger than Adam's own 1e-8, as in lm-human-preferences."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm."""
    clip_range: float = 0.2
    """The probability ratio gains nothing beyond 1 +- this."""
    value_clip_range: float = 0.2
    """The new value counts as at most this far from the rollout's."""
    value_coefficient: float = 0.1
    """Weight of the value loss beside the policy's."""
    discount: float = 1.0
    """gamma: what a reward one token later is worth."""
    gae_lambda: float = 1.0
    """lambda: 1 trusts whole returns, 0 the value function alone. The only score comes at the end: with
    Ziegler's 0.95 the 60th token before it hears 5 % of it, unless the value function is already good."""
    whiten_rewards: bool = False
    """Scale the token rewards to variance 1 over the rollout, keeping their mean."""
    score_clip: float | None = 5.0
    """Scores beyond +- this count as this; None leaves them."""
    missing_end: Literal["subtract", "replace"] = "subtract"
    """For a response that was cut: subtract `missing_end_score` from its score, or put it there."""
    missing_end_score: float = 1.0
    """See `missing_end`; when replacing, a negative number."""
    kl_coefficient: float = 0.15
    """beta at the start: the price in score of one nat away from the reference."""
    kl_target: float = 6.0
    """Nats a sequence that this run may add to the KL at which its policy starts."""
    kl_horizon: float | None = 10_000
    """Episodes over which beta adapts; smaller is quicker; None keeps beta as it is."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """How responses are drawn; PPO needs top_p = 1 and a temperature above 0."""
    micro_batch_tokens: int | None = None
    """The most tokens, padding included, in one forward; None lets the device say."""
    precision: Precision = "auto"
    """Of the forward and backward passes; weights, loss and the output layer stay in fp32."""

    def __post_init__(self) -> None:
        if self.sampling.top_p != 1 or self.sampling.temperature <= 0:
            raise ValueError(
                "PPO needs top_p = 1 and a temperature above 0: the ratio compares the"
                " distribution that was sampled, and a truncated one has zeros"
            )
        if self.episodes < self.batch_episodes:
            raise ValueError(f"{self.episodes} episodes do not fill a rollout of {self.batch_episodes}")
        if self.batch_episodes < self.minibatches:
            raise ValueError(f"{self.batch_episodes} episodes do not fill {self.minibatches} minibatches")

    @property
    def rollouts(self) -> int:
        """Rollouts in the run; episodes that do not fill one are not sampled."""
        return self.episodes // self.batch_episodes


@dataclass
class PPOState:
    """All that changes while PPO runs. There is no generator: noise comes from (seed, step)."""

    policy: PolicyWithValue
    optimiser: torch.optim.Optimizer
    kl_coefficient: float
    kl_start: float | None = None
    """Nats a sequence between the first policy and the reference, known after one rollout."""
    step: int = 0
    """Rollouts learned from."""


@dataclass(frozen=True)
class ImprovedPolicy:
    """The policy after PPO, and a row of metrics for each rollout."""

    policy: PreTrainedModel
    metrics: list[dict[str, float]]


def improve_policy(
    policy: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward: RewardFunction,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    seed: int,
    report: Report = silent,
) -> ImprovedPolicy:
    """Trains `policy`, in place, to score higher under `reward` and to stay near `reference`.

    Args:
        policy: where to start; it may differ from the reference.
        reference: what KL is measured against, version 0 as a rule; another object than `policy`.
        prompts: the train prompts; each pass over them is shuffled anew.
        report: called after every rollout; may raise to abort.
    """
    if reference is policy:
        raise ValueError("the reference must be a copy: the policy is changed in place")
    state = new_state(policy, settings)
    history: list[dict[str, float]] = []
    while state.step < settings.rollouts:
        clock = Clock()
        chosen = choose_prompts(len(prompts), settings.batch_episodes, seed, state.step)
        rollout = collect(
            state.policy,
            reference,
            tokenizer,
            reward,
            [prompts[index] for index in chosen],
            settings.sampling,
            settings.precision,
            derive_seed(seed, "rollout", state.step),
            clock,
        )
        rewards = token_rewards(rollout, state.kl_coefficient, settings)
        advantages, returns = generalised_advantages(
            rewards, rollout.outputs.values, settings.discount, settings.gae_lambda
        )
        advantages = whiten(advantages, rollout.mask)
        losses = learn(state, rollout, advantages, returns, settings, seed)
        clock.lap("learn")
        described = rollout_metrics(rollout, rewards, returns, state.kl_coefficient)
        history.append(described | losses | clock.seconds)
        adapt_kl_coefficient(state, rollout, settings)
        state.step += 1
        report(Progress("improve_policy", state.step, settings.rollouts, history[-1]))
    return ImprovedPolicy(policy, history)


def token_rewards(rollout: Rollout, kl_coefficient: float, settings: PPOSettings) -> Tensor:
    """r_t = -beta (log pi - log ref), plus the score at the last token: [episodes, tokens].

    Ziegler et al. 2019, equation 2. The last token is the end token, or where the response was cut.
    """
    rewards = -kl_coefficient * rollout.log_ratios
    scores = effective_scores(rollout, settings)
    last = rollout.mask.sum(dim=1) - 1
    rewards[torch.arange(len(scores)), last] += scores
    return whiten(rewards, rollout.mask, shift_mean=False) if settings.whiten_rewards else rewards


def effective_scores(rollout: Rollout, settings: PPOSettings) -> Tensor:
    """The scores [episodes] after clipping, and after the price of never ending."""
    scores = rollout.scores
    if settings.score_clip is not None:
        scores = scores.clamp(-settings.score_clip, settings.score_clip)
    cut = torch.tensor([sample.finish_reason == "cut" for sample in rollout.samples])
    price = torch.tensor(settings.missing_end_score, device=scores.device)
    priced = price if settings.missing_end == "replace" else scores - price
    return torch.where(cut.to(scores.device), priced, scores)


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


def whiten(values: Tensor, mask: Tensor, shift_mean: bool = True) -> Tensor:
    """Scales to variance 1 (biased, as in lm-human-preferences) over all that the mask keeps.

    Returns:
        [episodes, tokens], zero where masked out; the mean is 0, or kept with shift_mean=False.
    """
    kept = values[mask]
    mean, variance = kept.mean(), kept.var(unbiased=False)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


def clipped_policy_loss(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)) of each token, rho = pi / pi_old.

    Schulman et al. 2017, equation 7, negated. The log-ratio is held within +-20 against overflow.
    """
    ratio = (logprobs - old_logprobs).clamp(-20, 20).exp()
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range))


def clipped_value_loss(values: Tensor, old_values: Tensor, returns: Tensor, clip_range: float) -> Tensor:
    """1/2 max((V - R)^2, (V_old + clip(V - V_old, -c, c) - R)^2) of each token.

    From lm-human-preferences (`train_policy.py`, `loss`).
    """
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    return 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())


def next_kl_coefficient(kl_coefficient: float, kl: float, target: float, episodes: int, horizon: float) -> float:
    """The new beta (1 + e n / horizon), e = clip(KL / target - 1, -0.2, 0.2).

    Ziegler et al. 2019, section 2.2; `AdaptiveKLController` in lm-human-preferences.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coefficient * (1 + error * episodes / horizon)


def adapt_kl_coefficient(state: PPOState, rollout: Rollout, settings: PPOSettings) -> None:
    """Moves beta so that KL approaches the start's plus `kl_target`."""
    if state.kl_start is None:
        state.kl_start = max(rollout.kl, 0.0)
    if settings.kl_horizon is not None:
        state.kl_coefficient = next_kl_coefficient(
            state.kl_coefficient,
            rollout.kl,
            state.kl_start + settings.kl_target,
            len(rollout.samples),
            settings.kl_horizon,
        )


def new_state(policy: PreTrainedModel, settings: PPOSettings) -> PPOState:
    """The state before the first rollout; dropout is off from here on."""
    with_value = PolicyWithValue(policy.eval())
    optimiser = torch.optim.AdamW(
        with_value.parameters(),
        lr=settings.learning_rate,
        eps=settings.adam_epsilon,
        weight_decay=0.0,
        fused=True,
    )
    return PPOState(with_value, optimiser, settings.kl_coefficient)


def learn(
    state: PPOState,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    settings: PPOSettings,
    seed: int,
) -> dict[str, float]:
    """Exactly epochs x minibatches optimiser steps on one rollout; returns their mean metrics."""
    for group in state.optimiser.param_groups:
        group["lr"] = settings.learning_rate * (1 - state.step / settings.rollouts)
    rows: list[dict[str, float]] = []
    for epoch in range(settings.epochs):
        generator = generator_for(seed, "minibatches", state.step, epoch)
        order = torch.randperm(len(rollout.samples), generator=generator)
        for minibatch in order.tensor_split(settings.minibatches):
            episodes = minibatch.tolist()
            rows.append(optimise(state, rollout, advantages, returns, episodes, settings))
    first = {key: rows[0][key] for key in ("policy/ratio_error", "policy/ratio_error_mean")}
    check_first_ratio(*first.values(), is_bf16=computes_in_bf16(rollout.mask.device, settings.precision))
    means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    return {
        **means,
        **first,
        "policy/ratio_max": max(row["policy/ratio_max"] for row in rows),
        "learning_rate": state.optimiser.param_groups[0]["lr"],
    }


def optimise(
    state: PPOState,
    rollout: Rollout,
    advantages: Tensor,
    returns: Tensor,
    episodes: Sequence[int],
    settings: PPOSettings,
) -> dict[str, float]:
    """One optimiser step on some episodes; the loss is the mean over all their tokens.

    Micro-batches only bound memory: each adds its sum over tokens divided by the step's count.
    """
    tokens = int(rollout.mask[list(episodes)].sum())
    known = (rollout.outputs.logprobs, rollout.outputs.values, advantages, returns)
    seen: list[dict[str, Tensor]] = []
    lengths = [len(rollout.dialogues[episode]) for episode in episodes]
    budget = settings.micro_batch_tokens or token_budget(rollout.mask.device)
    for group in group_by_length(lengths, budget):
        rows = [episodes[index] for index in group]
        new: TokenOutputs = state.policy(
            [rollout.dialogues[row] for row in rows],
            settings.sampling.temperature,
            settings.precision,
        )
        old_logprobs, old_values, gains, goals = (  # all [tokens of the micro-batch]
            table[rows, : new.mask.shape[1]][new.mask] for table in known
        )
        logprobs, values = new.logprobs[new.mask], new.values[new.mask]
        policy_loss = clipped_policy_loss(logprobs, old_logprobs, gains, settings.clip_range)
        value_loss = clipped_value_loss(values, old_values, goals, settings.value_clip_range)
        loss = policy_loss.sum() + settings.value_coefficient * value_loss.sum()
        (loss / tokens).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            log_ratios = logprobs - old_logprobs
            seen.append(
                {
                    "log_ratio": log_ratios,
                    "policy_loss": policy_loss.detach(),
                    "value_loss": value_loss.detach(),
                    "policy_clipped": policy_loss > -gains * log_ratios.clamp(-20, 20).exp(),
                    "value_clipped": value_loss > 0.5 * (values - goals).square(),
                    "entropy": new.entropies[new.mask],
                }
            )
    norm = nn.utils.clip_grad_norm_(state.policy.parameters(), settings.max_grad_norm)
    state.optimiser.step()
    state.optimiser.zero_grad()
    return step_metrics({key: torch.cat([part[key] for part in seen]) for key in seen[0]}) | {"grad_norm": float(norm)}


def step_metrics(tokens: dict[str, Tensor]) -> dict[str, float]:
    """Metrics of one optimiser step over its real tokens, under the field's usual names.

    `policykl`, `approxkl` and `approxkl_k3` are Schulman's k1, k2 and k3 estimates of
    KL(old || new) ("Approximating KL divergence", 2020).
    """
    log_ratio = tokens["log_ratio"]
    ratio = log_ratio.exp()
    named = {
        "loss/policy": tokens["policy_loss"].mean(),
        "loss/value": tokens["value_loss"].mean(),
        "policy/policykl": -log_ratio.mean(),
        "policy/approxkl": 0.5 * log_ratio.square().mean(),
        "policy/approxkl_k3": (ratio - 1 - log_ratio).mean(),
        "policy/clipfrac": tokens["policy_clipped"].float().mean(),
        "policy/ratio_mean": ratio.mean(),
        "policy/ratio_max": ratio.max(),
        "policy/ratio_error": (ratio - 1).abs().max(),
        "policy/ratio_error_mean": (ratio - 1).abs().mean(),
        "policy/entropy": tokens["entropy"].mean(),
        "val/clipfrac": tokens["value_clipped"].float().mean(),
    }
    return {name: float(value) for name, value in named.items()}

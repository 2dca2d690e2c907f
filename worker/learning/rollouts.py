"""What did the policy write, and what was known of it before learning?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import group_by_length, token_budget
from worker.learning.evaluation import ended_rate, mean_length
from worker.learning.likelihood import (
    Dialogue,
    log_probabilities,
    logits_from,
    response_logprobs,
    response_states,
)
from worker.learning.models import Precision, encode_prompt
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import SamplingSettings, sample_responses
from worker.learning.seeds import generator_for

RewardFunction = Callable[[Sequence[Prompt], Sequence[str]], Tensor]
"""(prompts, response texts) -> scores [responses]; response i answers prompt i."""


@dataclass(frozen=True)
class TokenOutputs:
    """What a policy says about each response token, all [rows, tokens]; zero where masked out."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor
    mask: Tensor


class PolicyWithValue(nn.Module):
    """A language model and, on the same trunk, a value head that starts at zero."""

    def __init__(self, language_model: PreTrainedModel) -> None:
        super().__init__()
        self.language_model = language_model
        width = language_model.get_output_embeddings().in_features
        self.value_head = nn.Linear(width, 1).to(language_model.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    def forward(self, dialogues: Sequence[Dialogue], temperature: float, precision: Precision) -> TokenOutputs:
        """One pass for log-probabilities, entropies and values.

        The value of a token is read, like its probability, from the state before it.
        """
        states = response_states(self.language_model, dialogues, precision)
        logits = logits_from(self.language_model, states.hidden) / temperature
        logprobs, entropies = log_probabilities(logits, states.targets)
        values = self.value_head(states.hidden).squeeze(-1)
        return TokenOutputs(states.by_row(logprobs), states.by_row(entropies), states.by_row(values), states.mask)


@dataclass(frozen=True)
class Rollout:
    """Episodes under a fixed policy; tensors [episodes, tokens] on the policy's device."""

    dialogues: list[Dialogue]
    samples: list[Sample]
    scores: Tensor
    """[episodes], as the reward gave them."""
    reference_logprobs: Tensor
    outputs: TokenOutputs

    @property
    def mask(self) -> Tensor:
        """Which tokens are there: the response's, its end token included."""
        return self.outputs.mask

    @property
    def log_ratios(self) -> Tensor:
        """The log-ratio log pi - log ref of every token: the k1 estimate of KL(pi || ref)."""
        return self.outputs.logprobs - self.reference_logprobs

    @property
    def kl(self) -> float:
        """Nats a sequence between policy and reference, the mean over episodes."""
        return float(self.log_ratios.sum(dim=1).mean())


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Books the time since the last lap on a phase."""
        now = time.perf_counter()
        self.seconds[f"seconds/{phase}"] = now - self._last
        self._last = now


def choose_prompts(count: int, episodes: int, seed: int, step: int) -> list[int]:
    """Which prompts rollout `step` answers: it goes on in an endless row of shuffled passes."""
    passes: dict[int, list[int]] = {}
    chosen = []
    for episode in range(step * episodes, (step + 1) * episodes):
        turn, place = divmod(episode, count)
        if turn not in passes:
            generator = generator_for(seed, "prompts", turn)
            passes[turn] = torch.randperm(count, generator=generator).tolist()
        chosen.append(passes[turn][place])
    return chosen


def collect(
    policy: PolicyWithValue,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward: RewardFunction,
    prompts: Sequence[Prompt],
    sampling: SamplingSettings,
    precision: Precision,
    seed: int,
    clock: Clock,
) -> Rollout:
    """Has each prompt answered and scored, and takes log-probabilities and values.

    The sampler's own log-probabilities are not used: old, reference and new ones come from the
    same forward pass at the sampling temperature, so that the first ratio is 1.
    """
    drawn = sample_responses(policy.language_model, tokenizer, prompts, 1, sampling, seed)
    samples = [sample for [sample] in drawn]
    clock.lap("sample")
    scores = reward(prompts, [sample.text for sample in samples])
    if scores.shape != (len(samples),):
        raise ValueError(f"the reward gave scores of shape {list(scores.shape)} for {len(samples)} responses")
    clock.lap("score")
    dialogues = [
        Dialogue(encode_prompt(tokenizer, prompt), sample.token_ids)
        for prompt, sample in zip(prompts, samples, strict=True)
    ]
    outputs = outputs_of(policy, dialogues, sampling.temperature, precision)
    reference_logprobs = torch.zeros_like(outputs.logprobs)
    reference_logprobs[outputs.mask] = torch.cat(
        response_logprobs(reference, dialogues, sampling.temperature, precision)
    ).to(reference_logprobs)
    clock.lap("evaluate")
    return Rollout(dialogues, samples, scores.to(outputs.logprobs), reference_logprobs, outputs)


@torch.no_grad()
def outputs_of(
    policy: PolicyWithValue,
    dialogues: Sequence[Dialogue],
    temperature: float,
    precision: Precision,
) -> TokenOutputs:
    """The policy's outputs for any number of dialogues, in their order, without gradients."""
    tokens = max(len(dialogue.response_ids) for dialogue in dialogues)
    shape = (len(dialogues), tokens)
    device = policy.language_model.device
    logprobs, entropies, values = (torch.zeros(shape, device=device) for _ in range(3))
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for group in group_by_length([len(dialogue) for dialogue in dialogues], 2 * token_budget(device)):
        part: TokenOutputs = policy([dialogues[row] for row in group], temperature, precision)
        width = part.mask.shape[1]
        logprobs[group, :width] = part.logprobs
        entropies[group, :width] = part.entropies
        values[group, :width] = part.values
        mask[group, :width] = part.mask
    return TokenOutputs(logprobs, entropies, values, mask)


def rollout_metrics(rollout: Rollout, rewards: Tensor, returns: Tensor, kl_coefficient: float) -> dict[str, float]:
    """Metrics of a rollout before learning from it, under the field's usual names."""
    values, wanted = rollout.outputs.values[rollout.mask], returns[rollout.mask]
    unexplained = (wanted - values).var(unbiased=False)
    return {
        "objective/kl": rollout.kl,
        "objective/kl_coef": kl_coefficient,
        "objective/scores": float(rollout.scores.mean()),
        "objective/scores_std": float(rollout.scores.std(unbiased=False)),
        "objective/rlhf_reward": float(rewards.sum(dim=1).mean()),
        "val/mean": float(values.mean()),
        "val/explained_variance": float(1 - unexplained / wanted.var(unbiased=False)),
        "returns/mean": float(wanted.mean()),
        "ended_rate": ended_rate(rollout.samples),
        "length": mean_length(rollout.samples),
    }


def check_first_ratio(largest: float, mean: float, *, is_bf16: bool) -> None:
    """Old and new policy are the same at the first step, so every ratio must be 1.

    In bf16 differently shaped batches round differently, single tokens by several percent: the mean says it there.

    Args:
        largest, mean: of |ratio - 1| over the tokens of the first step.
        is_bf16: whether the forward passes ran in bf16.
    """
    error, limit = (mean, 0.05) if is_bf16 else (largest, 1e-3)
    if not error < limit:
        raise RuntimeError(
            f"the first ratio between new and old probabilities is off by {error:.3g}: the two"
            " forward passes disagree (is dropout on, or the model changed while sampling?)"
        )

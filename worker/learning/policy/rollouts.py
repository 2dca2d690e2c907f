"""What did the policy write, and what was known of it before learning?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from worker.learning.batches import group_by_length, token_budget
from worker.learning.likelihood import Dialogue
from worker.learning.models import Precision, encode_prompt
from worker.learning.pace import Pace
from worker.learning.policy.actor import Actor
from worker.learning.policy.outputs import TokenOutputs
from worker.learning.policy.settings import PPOSettings
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import sample_responses
from worker.learning.seeds import derive_seed, generator_for

RewardFunction = Callable[[Sequence[Prompt], Sequence[str]], Tensor]
"""(prompts, response texts) -> scores [responses]; response i answers prompt i."""


@dataclass(frozen=True)
class Judges:
    """Who scores what a policy writes: the reward that it learns from, and by name those that only watch."""

    reward: RewardFunction
    watched: Mapping[str, RewardFunction] = field(default_factory=dict)


@dataclass(frozen=True)
class Rollout:
    """Episodes under a fixed policy; tensors [episodes, tokens] on the policy's device."""

    dialogues: list[Dialogue]
    samples: list[Sample]
    scores: Tensor
    """[episodes], as the reward gave them."""
    reference_logprobs: Tensor
    outputs: TokenOutputs
    watched: Mapping[str, Tensor] = field(default_factory=dict)
    """Scores [episodes] by rewards that nothing is learned from, by name."""

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


def choose_prompts(count: int, wanted: int, seed: int, step: int) -> list[int]:
    """Which of `count` prompts rollout `step` answers: it goes on in an endless row of shuffled passes."""
    passes: dict[int, list[int]] = {}
    chosen = []
    for number in range(step * wanted, (step + 1) * wanted):
        turn, place = divmod(number, count)
        if turn not in passes:
            generator = generator_for(seed, "prompts", turn)
            passes[turn] = torch.randperm(count, generator=generator).tolist()
        chosen.append(passes[turn][place])
    return chosen


def collect(
    actor: Actor,
    tokenizer: PreTrainedTokenizerBase,
    judges: Judges,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    seed: int,
    step: int,
    pace: Pace,
) -> Rollout:
    """Has the prompts of rollout `step` answered and scored, and takes log-probabilities and values.

    The responses to one prompt stand side by side. The sampler's own log-probabilities are not used: old, reference and
    new ones come from the same forward pass at the sampling temperature, so that the first ratio is 1.
    """
    chosen = choose_prompts(len(prompts), settings.batch_episodes // settings.group_size, seed, step)
    own = [prompts[index] for index in chosen]
    drawn = sample_responses(
        actor.language_model, tokenizer, own, settings.group_size, settings.sampling, derive_seed(seed, "rollout", step)
    )
    asked = [prompt for prompt in own for _ in range(settings.group_size)]
    samples = [sample for group in drawn for sample in group]
    dialogues = [
        Dialogue(encode_prompt(tokenizer, prompt), sample.token_ids)
        for prompt, sample in zip(asked, samples, strict=True)
    ]
    tokens, written = sum(map(len, dialogues)), sum(len(sample.token_ids) for sample in samples)
    pace.lap("sample", tokens, passes=1, predicted=written)
    scores = scores_of(judges.reward, asked, samples)
    watched = {name: scores_of(reward, asked, samples) for name, reward in judges.watched.items()}
    pace.lap("score", tokens * (1 + len(watched)))
    outputs = outputs_of(actor, dialogues, settings.sampling.temperature, settings.precision)
    reference_logprobs = torch.zeros_like(outputs.logprobs)
    reference_logprobs[outputs.mask] = torch.cat(
        actor.reference_logprobs(dialogues, settings.sampling.temperature, settings.precision)
    ).to(reference_logprobs)
    pace.lap("evaluate", 2 * tokens, passes=1, predicted=2 * written)
    return Rollout(dialogues, samples, scores.to(outputs.logprobs), reference_logprobs, outputs, watched)


def scores_of(reward: RewardFunction, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Tensor:
    """The scores [responses] of samples, fp32 on the CPU.

    Raises:
        ValueError: if the reward gave another number of scores, or one that is not finite.
    """
    scores = reward(prompts, [sample.text for sample in samples])
    if scores.shape != (len(samples),):
        raise ValueError(f"the reward gave scores of shape {list(scores.shape)} for {len(samples)} responses")
    scores = scores.detach().float().cpu()
    if not bool(scores.isfinite().all()):
        wrong = int((~scores.isfinite()).nonzero()[0])
        raise ValueError(f"the reward gave {float(scores[wrong])} for this response: {samples[wrong].text!r}")
    return scores


@torch.no_grad()
def outputs_of(actor: Actor, dialogues: Sequence[Dialogue], temperature: float, precision: Precision) -> TokenOutputs:
    """The policy's outputs for any number of dialogues, in their order, without gradients."""
    tokens = max(len(dialogue.response_ids) for dialogue in dialogues)
    shape = (len(dialogues), tokens)
    device = actor.language_model.device
    logprobs, entropies, values = (torch.zeros(shape, device=device) for _ in range(3))
    mask = torch.zeros(shape, dtype=torch.bool, device=device)
    for group in group_by_length([len(dialogue) for dialogue in dialogues], 2 * token_budget(device)):
        part: TokenOutputs = actor([dialogues[row] for row in group], temperature, precision)
        width = part.mask.shape[1]
        logprobs[group, :width] = part.logprobs
        entropies[group, :width] = part.entropies
        values[group, :width] = part.values
        mask[group, :width] = part.mask
    return TokenOutputs(logprobs, entropies, values, mask)

"""What did the policy write, and what was known of it before learning?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from worker.learning.batches import prediction_budget
from worker.learning.likelihood import Dialogue, micro_batches
from worker.learning.models import Precision
from worker.learning.pace import Pace
from worker.learning.policy.actor import Actor
from worker.learning.policy.devices import gathered, shared_out
from worker.learning.policy.outputs import TokenOutputs
from worker.learning.policy.settings import PPOSettings
from worker.learning.records import Prompt, Sample
from worker.learning.sampling import sample_responses
from worker.learning.seeds import generator_for

RewardFunction = Callable[[Sequence[Prompt], Sequence[str]], Tensor]
"""(prompts, response texts) -> scores [responses]; response i answers prompt i."""


@dataclass(frozen=True)
class Judges:
    """Who scores what a policy writes: the reward that it learns from, and by name those that only watch."""

    reward: RewardFunction
    watched: Mapping[str, RewardFunction] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A prompt as messages, which judges read, and as tokens, which the policy reads."""

    messages: Prompt
    ids: Sequence[int]


@dataclass(frozen=True)
class Answers:
    """What the policy wrote in a rollout, and the scores [episodes] that it was given, on the CPU."""

    samples: list[Sample]
    scores: Tensor
    watched: Mapping[str, Tensor]


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
    asked: Sequence[Prompt] = ()
    """The prompt of each episode."""

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


def asked_prompts(prompts: Sequence[Asked], settings: PPOSettings, seed: int, step: int) -> list[Asked]:
    """The prompt of each episode of rollout `step`; the episodes of a group stand side by side."""
    chosen = choose_prompts(len(prompts), settings.batch_episodes // settings.group_size, seed, step)
    return [prompts[index] for index in chosen for _ in range(settings.group_size)]


def answer(
    actor: Actor,
    tokenizer: PreTrainedTokenizerBase,
    judges: Judges,
    asked: Sequence[Asked],
    settings: PPOSettings,
    seed: int,
    pace: Pace,
) -> Answers:
    """Has the prompt of each episode answered by the policy, and the answers scored."""
    prompts, size = [one.messages for one in asked], settings.group_size
    drawn = sample_responses(actor.language_model, tokenizer, prompts[::size], size, settings.sampling, seed)
    samples = [sample for group in drawn for sample in group]
    written = sum(len(sample.token_ids) for sample in samples)
    tokens = sum(len(one.ids) for one in asked) + written
    pace.lap("sample", tokens, passes=1, predicted=written)
    scores = scores_of(judges.reward, prompts, samples)
    watched = {name: scores_of(reward, prompts, samples) for name, reward in judges.watched.items()}
    pace.lap("score", tokens * (1 + len(watched)))
    return Answers(samples, scores, watched)


def collect(
    actor: Actor,
    asked: Sequence[Asked],
    answers: Answers,
    settings: PPOSettings,
    pace: Pace,
) -> Rollout:
    """Takes log-probabilities and values of all answers before anything is learned from them.

    The sampler's own log-probabilities are not used: old, reference and new ones come from the same forward pass at
    the sampling temperature, so that the first ratio is 1.
    """
    dialogues = [Dialogue(one.ids, sample.token_ids) for one, sample in zip(asked, answers.samples, strict=True)]
    own = shared_out(dialogues)
    temperature, precision = settings.sampling.temperature, settings.precision
    outputs = outputs_of(actor, own, temperature, precision)
    reference = actor.reference_logprobs(own, temperature, precision)
    rows = gathered([torch.cat([known, other[None]]) for known, other in zip(outputs, reference, strict=True)])
    table = pad_sequence([row.T for row in rows], batch_first=True).to(actor.language_model.device)
    logprobs, entropies, values, reference_logprobs = table.permute(2, 0, 1).contiguous()  # [episodes, tokens] each
    lengths = torch.tensor([len(dialogue.response_ids) for dialogue in dialogues])
    mask = (torch.arange(table.shape[1]) < lengths[:, None]).to(table.device)
    tokens, written = sum(map(len, dialogues)), int(lengths.sum())
    pace.lap("evaluate", 2 * tokens, passes=1, predicted=2 * written)
    scores, watched = answers.scores.to(table), answers.watched
    known = TokenOutputs(logprobs, entropies, values, mask)
    return Rollout(
        dialogues, answers.samples, scores, reference_logprobs, known, watched, [one.messages for one in asked]
    )


def scores_of(reward: RewardFunction, prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Tensor:
    """The scores [responses] of samples, fp32 on the CPU; each process has its share of them scored.

    Raises:
        ValueError: if the reward gave another number of scores, or one that is not finite.
    """
    texts = [sample.text for sample in shared_out(samples)]
    own = torch.as_tensor(reward(shared_out(prompts), texts)).detach().float().cpu()
    if own.shape != (len(texts),):
        raise ValueError(f"the reward gave scores of shape {list(own.shape)} for {len(texts)} responses")
    if not bool(own.isfinite().all()):
        wrong = int((~own.isfinite()).nonzero()[0])
        raise ValueError(f"the reward gave {float(own[wrong])} for this response: {texts[wrong]!r}")
    return torch.tensor(gathered(own.tolist()))


@torch.no_grad()
def outputs_of(actor: Actor, dialogues: Sequence[Dialogue], temperature: float, precision: Precision) -> list[Tensor]:
    """The log-probability, the entropy and the value of each response token, without gradients.

    Returns:
        A CPU tensor [3, response length] a dialogue, in the order given.
    """
    rows: dict[int, Tensor] = {}
    budget = 2 * prediction_budget(actor.language_model.device)
    for group in micro_batches(actor.language_model, dialogues, budget):
        part: TokenOutputs = actor([dialogues[row] for row in group], temperature, precision)
        table = torch.stack([part.logprobs, part.entropies, part.values], dim=1).cpu()  # [rows, 3, tokens]
        for row, known, mask in zip(group, table, part.mask.cpu(), strict=True):
            rows[row] = known[:, mask]
    return [rows[row] for row in range(len(dialogues))]

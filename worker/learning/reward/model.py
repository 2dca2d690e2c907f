"""What score does a reward model give a response, and how sure is it? The model, its scale, and its folder."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import token_budget
from worker.learning.checkpoints import written_aside
from worker.learning.models import Precision
from worker.learning.records import Prompt
from worker.learning.reward.backbone import (
    load_backbone,
    load_classifier,
    load_reward_tokenizer,
    longest_text,
    output_layer,
)
from worker.learning.reward.encoding import Encoded, EncodedSet, encode_sets
from worker.learning.reward.forward import Forward
from worker.learning.reward.likelihood import AnswerModel
from worker.learning.reward.memory import in_pieces
from worker.learning.reward.normalisation import Normalisation, gain_and_offset
from worker.learning.reward.observations import AnswerShape
from worker.learning.reward.uncertainty import Posterior
from worker.learning.seeds import generator_for

REWARD_FACTS = "reward.json"
REWARD_TENSORS = "reward.safetensors"
CARD = "card.json"

Set = tuple[Prompt, Sequence[str]]


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one output, its tokenizer, and what turns features into scores and probabilities."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    forward: Forward
    """Runs the backbone over sets of responses."""
    answers: AnswerModel
    """What the outputs say of answers."""
    heads: nn.Linear | None = None
    """The outputs after the overall one, on the same features."""
    posterior: Posterior | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    max_tokens: int = 1_024
    """Longer dialogues lose their beginning."""
    batch_tokens: int | None = None
    """The most tokens, padding included, that are scored at once; None lets the device say."""
    precision: Precision = "auto"

    @property
    def outputs(self) -> tuple[str, ...]:
        """What each output stands for; the first is the overall one."""
        return self.answers.shape.outputs

    @property
    def limit(self) -> int:
        """The most tokens of a prompt and one response together."""
        return longest_text(self.model, self.max_tokens)

    def weights(self) -> dict[str, nn.Parameter]:
        """All weights by name, heads and answers included."""
        parts = {"model": self.model, "heads": self.heads, "answers": self.answers}
        named = ((part, module.named_parameters()) for part, module in parts.items() if module is not None)
        return {f"{part}.{name}": weight for part, weights in named for name, weight in weights}

    def read(self, features: Tensor) -> Tensor:
        """The outputs [responses, outputs], not yet moved to the zero of the scores, of features [responses, width]."""
        overall: Tensor = output_layer(self.model)(features)
        return overall if self.heads is None else torch.cat([overall, self.heads(features)], dim=1)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores [responses]; response i answers prompt i."""
        return score_responses(self, prompts, responses)


def score_responses(reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    """Normalised scores [responses] on the CPU; response i answers prompt i.

    Raises:
        ValueError: if there are not as many prompts as responses.
    """
    return all_outputs(reward_model, _singles(prompts, responses))[:, 0]


@dataclass(frozen=True)
class Scored:
    """All that a reward model says of responses, each [responses] on the CPU."""

    scores: Tensor
    """Normalised."""
    deviations: Tensor | None
    """Standard deviations of the scores; None from a model that was fitted without a posterior."""
    outputs: dict[str, Tensor]
    """By the names of the further outputs; those of scores as the score that people would give, in their own unit."""


def read_scores(reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]) -> Scored:
    """Everything about responses, each to its own prompt, from one pass.

    Raises:
        ValueError: if there are not as many prompts as responses.
    """
    posterior, answers = reward_model.posterior, reward_model.answers

    def read(features: Tensor) -> Tensor:
        outputs = reward_model.read(features)
        if posterior is None:
            return outputs
        return torch.cat([outputs, posterior.deviations(features).to(outputs)[:, None]], dim=1)

    columns = _read_responses(reward_model, prompts, responses, read).unbind(dim=1)
    further = dict(zip(reward_model.outputs[1:], columns[1:], strict=False))
    with torch.no_grad():
        expected = {
            output: answers.expected_scores(values.to(answers.slopes.device), output).cpu()
            for output, values in further.items()
            if output in answers.shape.scored
        }
    return Scored(
        columns[0] + reward_model.normalisation.offset,
        None if posterior is None else columns[-1],
        further | expected,
    )


def member_scores(
    reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str], count: int, seed: int
) -> Tensor:
    """Normalised scores [responses, members] on the CPU by `count` heads that are drawn from the posterior.

    Raises:
        ValueError: if the model has no posterior, or there are not as many prompts as responses.
    """
    posterior = reward_model.posterior
    if posterior is None:
        raise ValueError("this reward model was fitted without a posterior, so there are no members to draw")
    members = posterior.members(count, seed)

    def read(features: Tensor) -> Tensor:
        return reward_model.read(features)[:, :1] + posterior.differences(features, members).to(features)

    return _read_responses(reward_model, prompts, responses, read) + reward_model.normalisation.offset


def all_outputs(reward_model: RewardModel, sets: Sequence[Set]) -> Tensor:
    """All outputs [responses, outputs] on the CPU of prompts with their responses, the overall one normalised."""
    encoded = _encode(reward_model, sets)
    outputs = read_features(reward_model, encoded.sets, reward_model.read)[_flat(encoded)]
    outputs[:, 0] += reward_model.normalisation.offset
    return outputs


@torch.no_grad()
def read_features(reward_model: RewardModel, sets: Sequence[EncodedSet], read: Callable[[Tensor], Tensor]) -> Tensor:
    """`read` of the features [responses, width] of all sets, in fp32 on the CPU, as many at a time as memory holds.

    Raises:
        ValueError: if memory does not hold one response.
    """
    forward = reward_model.forward

    def split(spans: Sequence[Span], budget: int) -> list[list[Span]]:
        small = [part for span in spans for part in _parts(sets, span, budget)]
        groups = forward.micro_batches([_cut(sets, span) for span in small], budget)
        return [[small[index] for index in group] for group in groups]

    def work(spans: Sequence[Span]) -> list[Tensor]:
        values = read(forward.features([_cut(sets, span) for span in spans])).float().cpu()
        return list(torch.split(values, [stop - start for _, start, stop in spans]))

    def tokens(spans: Sequence[Span]) -> int:
        return sum(_cut(sets, span).tokens for span in spans)

    whole = [(index, 0, len(each.response_ids)) for index, each in enumerate(sets)]
    found: dict[Span, Tensor] = {}
    device = reward_model.model.device
    for spans, values in in_pieces(whole, scoring_budget(reward_model), split, tokens, work, device):
        found.update(zip(spans, values, strict=True))
    return torch.cat([found[span] for span in sorted(found)]) if sets else torch.zeros(0, len(reward_model.outputs))


Span = tuple[int, int, int]
"""Of a set, by its number, the responses from a first one up to a last one."""


def _cut(sets: Sequence[EncodedSet], span: Span) -> EncodedSet:
    index, start, stop = span
    return EncodedSet(sets[index].prompt_ids, sets[index].response_ids[start:stop])


def _parts(sets: Sequence[EncodedSet], span: Span, budget: int) -> list[Span]:
    """A span in halves, until each has no more tokens than the budget, or a single response."""
    index, start, stop = span
    if stop - start == 1 or _cut(sets, span).tokens <= budget:
        return [span]
    middle = (start + stop) // 2
    return [*_parts(sets, (index, start, middle), budget), *_parts(sets, (index, middle, stop), budget)]


def scoring_budget(reward_model: RewardModel) -> int:
    """The tokens in one forward without gradients, where there is room for more than with them."""
    return reward_model.batch_tokens or 2 * token_budget(reward_model.model.device)


def normalise(reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> RewardModel:
    """Gives scores the zero and the unit of version 0's samples.

    The unit is the pooled deviation within prompts; the zero is the mean over prompts. The gain is folded into the
    heads, in place, so the model has the unit wherever it is loaded; the offset stands beside it. Probabilities stay
    as they were.

    Args:
        reward_model: as fitted; normalising twice changes nothing.
        prompts: train prompts.
        responses: for each prompt, version 0's samples, two or more.

    Raises:
        ValueError: if the scores do not differ within any prompt.
    """
    counts = [len(group) for group in responses]
    sets = list(zip(prompts, responses, strict=True))
    scores = all_outputs(reward_model, sets)[:, 0]
    before = reward_model.normalisation
    gain, offset = gain_and_offset(torch.split(scores, counts))
    posterior = reward_model.posterior
    if posterior is not None:
        encoded = _encode(reward_model, sets)
        features = read_features(reward_model, encoded.sets, lambda own: own)[_flat(encoded)]
        posterior = posterior.centred(features, counts).rescaled(gain)
    rescale(reward_model, gain)
    normalisation = Normalisation(gain * before.gain, gain * before.offset + offset, len(prompts), len(scores))
    return replace(reward_model, normalisation=normalisation, posterior=posterior)


@torch.no_grad()
def rescale(reward_model: RewardModel, gain: float) -> None:
    """Multiplies all outputs by `gain`, in place; what they say of answers stays."""
    for layer in (output_layer(reward_model.model), reward_model.heads):
        if layer is not None:
            for parameter in layer.parameters():
                parameter.mul_(gain)
    reward_model.answers.rescale(gain)


def new_reward_model(
    source: str,
    seed: int,
    device: torch.device,
    shape: AnswerShape,
    max_tokens: int = 1_024,
    precision: Precision = "auto",
) -> RewardModel:
    """A pretrained model, causal or encoder, with fresh heads; see `backbone.load_backbone`.

    Raises:
        ValueError: if there is no such model.
    """
    tokenizer = load_reward_tokenizer(source)
    model = load_backbone(source, tokenizer, seed)
    model = model.to(device)
    return RewardModel(
        model,
        tokenizer,
        Forward(model, tokenizer, precision),
        AnswerModel(shape).to(device),
        new_heads(output_layer(model).in_features, len(shape.outputs) - 1, seed, device),
        max_tokens=max_tokens,
        precision=precision,
    )


def new_heads(width: int, count: int, seed: int, device: torch.device) -> nn.Linear | None:
    """Layers for further outputs, with weights as in `new_reward_model`'s own head; None for none."""
    if not count:
        return None
    heads = nn.Linear(width, count)
    noise = torch.randn(heads.weight.shape, generator=generator_for(seed, "further heads"))
    with torch.no_grad():
        heads.weight.copy_(noise / math.sqrt(width + 1))
        heads.bias.zero_()
    return heads.to(device)


def save_reward_model(reward_model: RewardModel, folder: Path, card: Mapping[str, Any] | None = None) -> None:
    """Writes a folder that AutoModelForSequenceClassification loads: one output, the overall score without its offset.

    Beside it stand `reward.json` (scale, limit, what outputs mean, thresholds, annotators), `reward.safetensors`
    (further outputs, posterior) and `card.json`.
    """
    heads, posterior = reward_model.heads, reward_model.posterior
    tensors = {f"heads.{name}": value for name, value in heads.state_dict().items()} if heads is not None else {}
    facts = {
        **asdict(reward_model.normalisation),
        "max_tokens": reward_model.max_tokens,
        "answers": reward_model.answers.facts(),
    }
    with written_aside(folder) as aside:
        reward_model.model.save_pretrained(aside)
        reward_model.tokenizer.save_pretrained(aside)
        save_file(tensors | (posterior.tensors() if posterior is not None else {}), aside / REWARD_TENSORS)
        (aside / REWARD_FACTS).write_text(json.dumps(facts, indent=2) + "\n")
        if card is not None:
            (aside / CARD).write_text(json.dumps(card, indent=2) + "\n")


def load_reward_model(folder: Path, device: torch.device, precision: Precision = "auto") -> RewardModel:
    """Reads what `save_reward_model` wrote; it scores as it did then.

    Raises:
        ValueError: if the folder does not hold a reward model, or one of its files is damaged.
    """
    if not (folder / REWARD_FACTS).is_file():
        raise ValueError(f"{folder} is no reward model of ours: it has no {REWARD_FACTS}")
    for file in sorted(folder.glob("*.safetensors")):
        with _read(file), safe_open(file, "pt"):
            pass  # it refuses what was cut off
    with _read(folder / REWARD_FACTS):
        facts = json.loads((folder / REWARD_FACTS).read_text())
        answers = AnswerModel.from_facts(facts["answers"]).to(device)
        normalisation = Normalisation(*(facts[name] for name in ("gain", "offset", "prompts", "samples")))
        max_tokens = int(facts["max_tokens"])
    with _read(folder):
        model = load_classifier(str(folder)).to(device)
    with _read(folder / REWARD_TENSORS):
        tensors = load_file(folder / REWARD_TENSORS)
        heads = new_heads(output_layer(model).in_features, len(answers.shape.outputs) - 1, 0, device)
        if heads is not None:
            heads.load_state_dict({name: tensors[f"heads.{name}"] for name in heads.state_dict()})
        posterior = Posterior.from_tensors(tensors)
    tokenizer = load_reward_tokenizer(str(folder))
    return RewardModel(
        model,
        tokenizer,
        Forward(model, tokenizer, precision),
        answers,
        heads,
        posterior.to(device) if posterior is not None else None,
        normalisation,
        max_tokens=max_tokens,
        precision=precision,
    )


@contextmanager
def _read(file: Path) -> Iterator[None]:
    """Names what cannot be read."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{file} cannot be read: {reason}. Copy the model anew, or fit it again") from error


def _singles(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[Set]:
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts do not match {len(responses)} responses")
    return [(prompt, [response]) for prompt, response in zip(prompts, responses, strict=True)]


def _read_responses(
    reward_model: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    read: Callable[[Tensor], Tensor],
) -> Tensor:
    """`read` of the features of each response, in their order."""
    encoded = _encode(reward_model, _singles(prompts, responses))
    return read_features(reward_model, encoded.sets, read)[_flat(encoded)]


def _encode(reward_model: RewardModel, sets: Sequence[Set]) -> Encoded:
    return encode_sets(reward_model.tokenizer, reward_model.limit, sets)


def _flat(encoded: Encoded) -> list[int]:
    return [place for own in encoded.places for place in own]

"""What score does a reward model give a response? The model, its scale, and its folder."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import group_by_length, pad, token_budget
from worker.learning.checkpoints import written_aside
from worker.learning.models import Precision, autocast, encode_prompt, load_tokenizer
from worker.learning.records import Prompt
from worker.learning.seeds import generator_for

SCALE_FILE = "reward.json"


@dataclass(frozen=True)
class Normalisation:
    """The scale of the scores: version 0 has mean 0 and a deviation of 1 within a prompt.

    Bradley-Terry fixes only differences of scores within a prompt, so the unit comes from stored
    samples of version 0: score = gain * raw + offset. `gain` is already inside the saved head.
    """

    gain: float = 1.0
    offset: float = 0.0
    prompts: int = 0
    samples: int = 0


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one output, its tokenizer, and what turns outputs into scores."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    normalisation: Normalisation = field(default_factory=Normalisation)
    max_tokens: int = 1_024
    """Longer dialogues lose their beginning."""
    batch_tokens: int | None = None
    """The most tokens, padding included, that are scored at once; None lets the device say."""
    precision: Precision = "auto"

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores [responses]; response i answers prompt i."""
        return score_responses(self, prompts, responses)


def score_responses(reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    """Normalised scores [responses] on the CPU; response i answers prompt i."""
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts do not match {len(responses)} responses")
    rows = [encode(reward_model, prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    scores = torch.zeros(len(rows))
    budget = reward_model.batch_tokens or 2 * token_budget(reward_model.model.device)
    with torch.no_grad():
        for group in group_by_length([len(row) for row in rows], budget):
            scores[group] = raw_scores(reward_model, [rows[index] for index in group]).cpu()
    return scores + reward_model.normalisation.offset


def normalise(reward_model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]) -> RewardModel:
    """Gives scores the zero and the unit of version 0's samples.

    The unit is the pooled deviation within prompts; the zero is the mean over prompts. The gain
    is folded into the head, in place, so the model has the unit wherever it is loaded; the offset
    stands beside it.

    Args:
        reward_model: as fitted; normalising twice changes nothing.
        prompts: train prompts.
        responses: for each prompt, version 0's samples, two or more.

    Raises:
        ValueError: if the scores do not differ within any prompt.
    """
    scores = score_responses(
        reward_model,
        [prompt for prompt, group in zip(prompts, responses, strict=True) for _ in group],
        [response for group in responses for response in group],
    )
    before = reward_model.normalisation
    gain, offset = gain_and_offset(torch.split(scores, [len(group) for group in responses]))
    with torch.no_grad():
        for parameter in output_layer(reward_model.model).parameters():
            parameter.mul_(gain)
    normalisation = Normalisation(gain * before.gain, gain * before.offset + offset, len(prompts), len(scores))
    return replace(reward_model, normalisation=normalisation)


def gain_and_offset(scores: Sequence[Tensor]) -> tuple[float, float]:
    """The gain and offset for which gain * s + offset has mean 0 and a deviation of 1 within prompts.

    The pooled deviation is sqrt(sum (s - mean of its prompt)^2 / sum (n - 1)).

    Args:
        scores: the scores [samples] of each prompt.

    Raises:
        ValueError: if the scores do not differ within any prompt.
    """
    squares = sum(float((own - own.mean()).square().sum()) for own in scores)
    freedom = sum(len(own) - 1 for own in scores)
    if freedom == 0 or squares == 0:
        raise ValueError(
            "the scores do not differ within any prompt: normalising needs a prompt with two different responses"
        )
    gain = math.sqrt(freedom / squares)
    mean = sum(float(own.mean()) for own in scores) / len(scores)
    return gain, -gain * mean


def new_reward_model(
    source: str,
    seed: int,
    device: torch.device,
    max_tokens: int = 1_024,
    precision: Precision = "auto",
) -> RewardModel:
    """A pretrained model, causal or encoder, with a fresh head: w from N(0, 1/(d + 1)), b = 0.

    As in lm-human-preferences, where 1/sqrt(d + 1) is the deviation; Stiennon et al. 2020 print
    the same figure as the variance. Dropout is off for good, also while fitting.
    """
    tokenizer = load_reward_tokenizer(source)
    model = _load_classifier(source)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    # The score is read at the last token that is not this one, so it must not be the end token.
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    head = output_layer(model)
    noise = torch.randn(head.weight.shape, generator=generator_for(seed, "reward head"))
    with torch.no_grad():
        head.weight.copy_(noise / math.sqrt(head.in_features + 1))
        if head.bias is not None:
            head.bias.zero_()
    return RewardModel(model.to(device).eval(), tokenizer, max_tokens=max_tokens, precision=precision)


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The layer that gives the score: the last linear layer with one output."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no output layer with one score")
    return layers[-1]


def encode(reward_model: RewardModel, prompt: Prompt, response: str) -> list[int]:
    """Prompt, response and end token; for an encoder, its own marks around the two.

    What is too long loses its beginning, since the response and its end decide the score. Names of
    special tokens inside a response are ordinary text.
    """
    tokenizer = reward_model.tokenizer
    before = encode_prompt(tokenizer, prompt)
    written = tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    room = getattr(reward_model.model.config.get_text_config(), "max_position_embeddings", None)
    limit = min(reward_model.max_tokens, room or reward_model.max_tokens)
    if tokenizer.cls_token_id is None:
        return [*before, *written, tokenizer.eos_token_id][-limit:]
    tail = [*before, tokenizer.sep_token_id, *written, tokenizer.sep_token_id][1 - limit :]
    return [tokenizer.cls_token_id, *tail]


def raw_scores(reward_model: RewardModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """The model's outputs [rows] in fp32, each read at its row's last real token.

    Rows are padded on the right, where every architecture counts positions as it does without
    padding.
    """
    model = reward_model.model
    batch = pad(rows, int(reward_model.tokenizer.pad_token_id), model.device)
    with autocast(model.device, reward_model.precision):
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
    scores: Tensor = output.logits.float().squeeze(-1)
    return scores


def save_reward_model(reward_model: RewardModel, folder: Path) -> None:
    """Writes a folder that AutoModelForSequenceClassification loads, with scale and limit in `reward.json`."""
    with written_aside(folder) as aside:
        reward_model.model.save_pretrained(aside)
        reward_model.tokenizer.save_pretrained(aside)
        scale = asdict(reward_model.normalisation) | {"max_tokens": reward_model.max_tokens}
        (aside / SCALE_FILE).write_text(json.dumps(scale, indent=2) + "\n")


def load_reward_model(folder: Path, device: torch.device, precision: Precision = "auto") -> RewardModel:
    """Reads what `save_reward_model` wrote; it scores as it did then.

    Raises:
        ValueError: if the folder does not hold a reward model.
    """
    file = folder / SCALE_FILE
    if not file.is_file():
        raise ValueError(f"{folder} is no reward model of ours: it has no {SCALE_FILE}")
    model = _load_classifier(str(folder))
    scale = json.loads(file.read_text())
    max_tokens = int(scale.pop("max_tokens"))
    tokenizer = load_reward_tokenizer(str(folder))
    return RewardModel(
        model.to(device).eval(), tokenizer, Normalisation(**scale), max_tokens=max_tokens, precision=precision
    )


def load_reward_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """A tokenizer for scoring. An encoder's marks a text by [CLS] and [SEP] and needs no end token."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    marked = None not in {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    return tokenizer if marked else load_tokenizer(source)


def _load_classifier(source: str) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f'no reward model can be loaded from "{source}" (in safetensors): {error}') from error
    return model

"""How likely is a response under a language model, token by token?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from worker.learning.batches import group_by_length, prediction_budget
from worker.learning.models import Precision
from worker.learning.reward.encoding import EncodedSet
from worker.learning.trunk import Way, states_before, way_of

LOGITS_AT_ONCE = 2**27
"""Numbers, of 4 bytes each: of a vocabulary of 32,768 the logits of 4,096 tokens."""


@dataclass(frozen=True)
class Dialogue:
    """A prompt and a response to it, as tokens."""

    prompt_ids: Sequence[int]
    response_ids: Sequence[int]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.response_ids:
            raise ValueError("a prompt and its response need at least one token each")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass(frozen=True)
class ResponseStates:
    """What the model knows before it writes each response token.

    `hidden` [tokens, width] holds, row after row, the states from which the response tokens
    `targets` [tokens] are predicted; `mask` [rows, longest response] says where each belongs, so
    `padded[mask] = flat` lays them out by row.
    """

    hidden: Tensor
    targets: Tensor
    mask: Tensor

    def by_row(self, flat: Tensor) -> Tensor:
        """Lays one number per response token out as [rows, longest response], zero elsewhere."""
        padded = flat.new_zeros(self.mask.shape)
        padded[self.mask] = flat
        return padded


def micro_batches(model: PreTrainedModel, dialogues: Sequence[Dialogue], budget: int) -> list[list[int]]:
    """Splits dialogues into groups for one pass each, so that there is little padding and prompts are read once.

    Args:
        budget: the most tokens of a group, padding included; a dialogue that is longer stands alone.

    Returns:
        Lists of indices into `dialogues`, which depend on the dialogues and their order alone.
    """
    return [
        [index for row in group for index in own[row].dialogues]
        for own in _rows(dialogues, way_of(model.base_model), budget)
        for group in group_by_length([row.encoded.tokens for row in own], budget)
    ]


def response_states(model: PreTrainedModel, dialogues: Sequence[Dialogue], precision: Precision) -> ResponseStates:
    """One pass of the trunk over dialogues; only response positions are kept, in fp32.

    Dialogues with the same prompt share a row where that costs less. The others are padded on the right, where causal
    attention never looks, so that they need no mask and the fast causal kernels apply.
    """
    trunk = model.base_model
    way = way_of(trunk)
    lengths = [len(dialogue.response_ids) for dialogue in dialogues]
    parts: dict[int, Tensor] = {}
    for rows in _rows(dialogues, way):
        order = [index for row in rows for index in row.dialogues]
        states = states_before(trunk, [row.encoded for row in rows], way, precision).float()
        parts |= dict(zip(order, torch.split(states, [lengths[index] for index in order]), strict=True))
    written = [token for dialogue in dialogues for token in dialogue.response_ids]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ResponseStates(
        torch.cat([parts[index] for index in range(len(dialogues))]),
        torch.tensor(written, device=model.device),
        mask.to(model.device),
    )


def predictions(model: PreTrainedModel, states: ResponseStates, temperature: float) -> tuple[Tensor, Tensor]:
    """The log-probability of each response token [tokens], and the entropy of its distribution in nats [tokens].

    Where all logits would take too much room they are made a few tokens at a time, and once more in the backward pass.
    """

    def predicted(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return log_probabilities(logits_from(model, hidden, temperature), targets)

    tokens = max(1, LOGITS_AT_ONCE // model.get_output_embeddings().weight.shape[0])
    if len(states.targets) <= tokens:
        return predicted(states.hidden, states.targets)
    pieces = [
        checkpoint(predicted, *piece, use_reentrant=False, preserve_rng_state=False)
        for piece in zip(torch.split(states.hidden, tokens), torch.split(states.targets, tokens), strict=True)
    ]
    logprobs, entropies = zip(*pieces, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def logits_from(model: PreTrainedModel, hidden: Tensor, temperature: float = 1.0) -> Tensor:
    """The logits [tokens, vocabulary] over final hidden states [tokens, width], in fp32, divided by the temperature.

    Some families scale or cap the output layer's result: Granite divides it, Cohere multiplies
    it, Gemma caps it by a tanh. Their configurations say so.
    """
    logits: Tensor = model.get_output_embeddings()(hidden).float()
    config = model.config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits, scale = torch.tanh(logits * (scale / cap)), cap
    return logits if scale == temperature else logits * (scale / temperature)


def log_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of each target [tokens] and the entropy in nats [tokens], the latter without gradient.

    Args:
        logits: [tokens, vocabulary], fp32, already divided by the temperature.
        targets: token ids [tokens].

    """
    logprobs, entropies = _LogProbabilities.apply(logits, targets)  # type: ignore[no-untyped-call]
    return logprobs, entropies


class _LogProbabilities(torch.autograd.Function):
    """What `log_softmax`, `gather` and a sum over the vocabulary give, in half as many passes over it."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """With log Z the normaliser, log p = logit - log Z, and the entropy is log Z minus the mean logit under p."""
        logs = logits.log_softmax(dim=-1)
        at = targets[:, None]
        logprobs = logs.gather(-1, at)
        normalisers = (logits.gather(-1, at) - logprobs).squeeze(-1)
        probabilities = logs.exp_()
        entropies = normalisers - torch.bmm(probabilities[:, None], logits[:, :, None]).flatten()
        ctx.save_for_backward(probabilities, targets)
        ctx.mark_non_differentiable(entropies)
        return logprobs.squeeze(-1), entropies

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of log p_target by logit i is [i = target] - p_i."""
        probabilities, targets = ctx.saved_tensors
        own = gradients[0][:, None]
        return (probabilities * -own).scatter_add_(-1, targets[:, None], own), None


@torch.no_grad()
def response_logprobs(
    model: PreTrainedModel,
    dialogues: Sequence[Dialogue],
    temperature: float = 1.0,
    precision: Precision = "auto",
    batch_tokens: int | None = None,
) -> list[Tensor]:
    """Gives log pi(token | prompt, tokens before it) of every response token, end token included.

    `batch_tokens` bounds what one forward holds, padding included; None lets the device say.

    Returns:
        One CPU tensor [response length] a dialogue, in the order given.

    """
    budget = batch_tokens or 2 * prediction_budget(model.device)  # no gradients: room for more
    rows: dict[int, Tensor] = {}
    for group in micro_batches(model, dialogues, budget):
        flat, _ = predictions(
            model, response_states(model, [dialogues[index] for index in group], precision), temperature
        )
        lengths = [len(dialogues[index].response_ids) for index in group]
        rows.update(zip(group, torch.split(flat.cpu(), lengths), strict=True))
    return [rows[index] for index in range(len(dialogues))]


@dataclass(frozen=True)
class _Row:
    """Dialogues with one prompt that stand in one row, and the tokens that are read of them."""

    dialogues: list[int]
    encoded: EncodedSet


def _rows(dialogues: Sequence[Dialogue], way: Way, budget: float = math.inf) -> list[list[_Row]]:
    """The rows that cost least: first those of one response, then those that share a prompt, where there are any."""
    of_prompt: dict[tuple[int, ...], list[int]] = {}
    for index, dialogue in enumerate(dialogues):
        of_prompt.setdefault(tuple(dialogue.prompt_ids), []).append(index)
    alone: list[_Row] = []
    shared: list[_Row] = []
    for prompt_ids, indices in of_prompt.items():
        read = tuple(tuple(dialogues[index].response_ids[:-1]) for index in indices)
        left = iter(indices)
        for row in way.rows(EncodedSet(prompt_ids, read), budget):
            own = _Row([next(left) for _ in row.response_ids], row)
            (shared if way.is_shared(row) else alone).append(own)
    return [rows for rows in (alone, shared) if rows]

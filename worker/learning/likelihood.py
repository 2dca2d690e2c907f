"""How likely is a response under a language model, token by token?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from worker.learning.batches import group_by_length, pad, token_budget
from worker.learning.models import Precision, autocast


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


def response_states(model: PreTrainedModel, dialogues: Sequence[Dialogue], precision: Precision) -> ResponseStates:
    """One pass of the trunk over whole dialogues; only response positions are kept, in fp32.

    Sequences are padded on the right, where causal attention never looks, so no mask is needed
    and the fast causal kernels apply.
    """
    sequences = [[*dialogue.prompt_ids, *dialogue.response_ids] for dialogue in dialogues]
    ids = pad(sequences, 0, model.device).input_ids  # [rows, columns]
    with autocast(model.device, precision):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    hidden = hidden[:, :-1]  # [rows, columns - 1, width]; a state predicts the next column's token
    starts = torch.tensor([len(dialogue.prompt_ids) for dialogue in dialogues])
    ends = torch.tensor([len(dialogue) for dialogue in dialogues])
    columns = torch.arange(ids.shape[1])
    written = ((columns >= starts[:, None]) & (columns < ends[:, None])).to(ids.device)
    mask = torch.arange(int((ends - starts).max())) < (ends - starts)[:, None]
    return ResponseStates(hidden[written[:, 1:]].float(), ids[written], mask.to(ids.device))


def logits_from(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits [tokens, vocabulary] over final hidden states [tokens, width], in fp32.

    Some families scale or cap the output layer's result: Granite divides it, Cohere multiplies
    it, Gemma caps it by a tanh. Their configurations say so.
    """
    logits: Tensor = model.get_output_embeddings()(hidden).float()
    config = model.config.get_text_config()
    logits = logits * (getattr(config, "logit_scale", None) or 1.0)
    logits = logits / (getattr(config, "logits_scaling", None) or 1.0)
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def log_probabilities(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The log-probability of each target [tokens] and the entropy in nats [tokens], the latter without gradient.

    Args:
        logits: [tokens, vocabulary], fp32, already divided by the temperature.
        targets: token ids [tokens].

    """
    logs = logits.log_softmax(dim=-1)
    with torch.no_grad():
        entropies = -(logs.exp() * logs).sum(dim=-1)
    return logs.gather(-1, targets[:, None]).squeeze(-1), entropies


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
    budget = batch_tokens or 2 * token_budget(model.device)  # no gradients: room for more
    rows: dict[int, Tensor] = {}
    for group in group_by_length([len(dialogue) for dialogue in dialogues], budget):
        states = response_states(model, [dialogues[index] for index in group], precision)
        flat, _ = log_probabilities(logits_from(model, states.hidden) / temperature, states.targets)
        lengths = [len(dialogues[index].response_ids) for index in group]
        rows.update(zip(group, torch.split(flat.cpu(), lengths), strict=True))
    return [rows[index] for index in range(len(dialogues))]

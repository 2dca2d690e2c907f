"""What does a policy answer? Responses drawn by our own loop, by continuous batching, or by a server."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.continuous_batching import CannotBatch, write_continuously
from worker.learning.decoding import Request, write_responses
from worker.learning.models import Precision, encode_prompt
from worker.learning.policy.devices import gathered, shared_out
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt, Sample
from worker.learning.seeds import SEED_LIMIT, generator_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are drawn."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token every time."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability may be drawn."""
    max_new_tokens: int = 128
    """A response that has not ended by then is cut."""
    batch_tokens: int = 32_768
    """The most tokens, prompts and room for responses, that are in the loop's cache at once."""
    precision: Precision = "fp32"
    """bf16 is faster where the hardware has it; auto takes it there. In fp32 batches of other sizes draw the same."""
    engine: Literal["auto", "loop", "continuous"] = "auto"
    """Our own loop, in which every response has a seed of its own, or transformers' continuous batching, which keeps a
    GPU busy and has one seed for all; auto takes continuous on CUDA and the loop elsewhere."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")


class Sampler(Protocol):
    """Whatever answers prompts: a policy in this process, or a server."""

    def __call__(self, prompts: Sequence[Prompt], n: int, seed: int, report: Report = silent) -> list[list[Sample]]:
        """Gives `n` samples to each prompt, in order."""


def policy_sampler(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: SamplingSettings) -> Sampler:
    """The sampler of a policy in this process; it draws from the weights as they are at each call."""
    return lambda prompts, n, seed, report=silent: sample_responses(
        model, tokenizer, prompts, n, settings, seed, report
    )


def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    n: int,
    settings: SamplingSettings,
    seed: int,
    report: Report = silent,
) -> list[list[Sample]]:
    """Draws `n` responses to each prompt.

    In the loop every response has a seed of its own, from which all its noise comes, so that it does not
    depend on what else is in its batch (beyond the rounding of a larger matrix product), nor on
    which of several processes writes it: under torchrun each answers its share of the prompts.
    Continuous batching has one seed for all, which every sample then names. Where it cannot be used a
    warning says why, and the loop draws.

    Returns:
        For each prompt, in order, its `n` samples.

    Raises:
        ValueError: if a prompt leaves no room for a response in the model's context.
    """
    generator = generator_for(seed, "sample_responses")
    seeds = torch.randint(SEED_LIMIT, (len(prompts), n), generator=generator).tolist()
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    for prompt_ids in encoded:
        check_room(model, prompt_ids, settings)
    ends = end_token_ids(model, tokenizer)
    mine = shared_out(list(zip(encoded, seeds, strict=True)))
    written = _written(model, mine, ends, settings, report)
    return gathered([[_finished(tokenizer, ids, ends, one) for ids, one in own] for own in written])


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a response: the tokenizer's, and those the model's generation settings name."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = named if isinstance(named, list) else [named]
    found = frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    if not found:
        raise ValueError("the tokenizer has no end token (eos_token): responses would never end")
    return found


def truncate_after_end(token_ids: Sequence[int], ends: frozenset[int]) -> list[int]:
    """The tokens up to and including the first end token, or all of them."""
    for position, token in enumerate(token_ids):
        if token in ends:
            return list(token_ids[: position + 1])
    return list(token_ids)


def draw_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draws a token a row by inverting the cumulative distribution.

    The tokens are laid side by side from the likeliest to the least likely, each as wide as its
    probability; the row's number says how far along the line to stop. With `top_p` the line is
    cut after the token at which it reaches top_p (Holtzman et al. 2020, equation 3).

    Args:
        logits: [rows, vocabulary].
        uniform: [rows], in [0, 1).

    Returns:
        Token ids [rows].
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    if top_p < 1:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0)
    line = probabilities.cumsum(dim=-1, dtype=torch.float64)
    at = uniform[:, None].to(line) * line[:, -1:]
    drawn = torch.searchsorted(line, at, right=True).clamp_max(line.shape[-1] - 1)
    return order.gather(-1, drawn).squeeze(-1) if top_p < 1 else drawn.squeeze(-1)


_Asked = Sequence[tuple[list[int], list[int]]]
"""For each prompt its token ids, and the seeds of its responses."""
_Written = list[list[tuple[list[int], int]]]
"""For each prompt the token ids of its responses, each with the seed that it was drawn with."""


def _written(
    model: PreTrainedModel, asked: _Asked, ends: frozenset[int], settings: SamplingSettings, report: Report
) -> _Written:
    total = sum(len(own) for _ids, own in asked)

    def written(done: int) -> None:
        report(Progress("sample_responses", done, total))

    is_continuous = settings.engine == "continuous" or (settings.engine == "auto" and model.device.type == "cuda")
    if is_continuous and total:
        try:
            return _continuously(model, asked, ends, settings, written)
        except CannotBatch as error:
            logger.warning("continuous batching cannot be used, so the loop samples: %s", error)
    return _in_loop(model, asked, ends, settings, written)


def _in_loop(
    model: PreTrainedModel,
    asked: _Asked,
    ends: frozenset[int],
    settings: SamplingSettings,
    written: Callable[[int], None],
) -> _Written:
    requests = [[Request(ids, _noise(one, settings.max_new_tokens)) for one in own] for ids, own in asked]
    write_responses(
        model,
        [request for own in requests for request in own],
        partial(draw_tokens, temperature=settings.temperature, top_p=settings.top_p),
        ends,
        settings.batch_tokens,
        settings.precision,
        written,
    )
    return [
        [(request.token_ids, one) for request, one in zip(own, seeds, strict=True)]
        for own, (_ids, seeds) in zip(requests, asked, strict=True)
    ]


def _continuously(
    model: PreTrainedModel,
    asked: _Asked,
    ends: frozenset[int],
    settings: SamplingSettings,
    written: Callable[[int], None],
) -> _Written:
    seed = asked[0][1][0]
    responses = write_continuously(
        model,
        [ids for ids, _own in asked],
        len(asked[0][1]),
        ends,
        settings.temperature,
        settings.top_p,
        settings.max_new_tokens,
        settings.batch_tokens,
        settings.precision,
        seed,
        written,
    )
    return [[(ids, seed) for ids in own] for own in responses]


def check_room(model: PreTrainedModel, prompt_ids: Sequence[int], settings: SamplingSettings) -> None:
    """Raises ValueError where a prompt is empty, or leaves no room for a response in the model's context."""
    if not prompt_ids:
        raise ValueError("the prompt has no token: there is nothing to go on from")
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and len(prompt_ids) + settings.max_new_tokens > room:
        raise ValueError(
            f"a prompt of {len(prompt_ids)} tokens and {settings.max_new_tokens} new ones do not fit"
            f" the model's {room} positions: shorten the prompt or lower max_new_tokens"
        )


def _noise(seed: int, length: int) -> Tensor:
    """One number in [0, 1) a token, the same on every machine and device."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _finished(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], ends: frozenset[int], seed: int) -> Sample:
    """The sample of what was written; its text has no special tokens."""
    written = truncate_after_end(token_ids, ends)
    text = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Sample(
        text=str(text),
        token_ids=tuple(written),
        finish_reason="ended" if written[-1] in ends else "cut",
        seed=seed,
    )

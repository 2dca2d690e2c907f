"""What does a policy answer? Batched sampling with a key-value cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import pad
from worker.learning.models import Precision, autocast, encode_prompt
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt, Sample
from worker.learning.seeds import SEED_LIMIT, generator_for


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are drawn."""

    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token every time."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability may be drawn."""
    max_new_tokens: int = 128
    """A response that has not ended by then is cut."""
    batch_tokens: int = 16_384
    """The most tokens, prompts and room for responses, that are in the cache at once."""
    precision: Precision = "fp32"
    """One-token steps wait for memory, not for arithmetic: on a CPU bf16 gains nothing here."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")


@dataclass
class _Request:
    """One response to be written: where it belongs, what it continues, its seed and its tokens."""

    prompt: int
    prompt_ids: list[int]
    seed: int
    token_ids: list[int]


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

    Every response has a seed of its own, from which all its noise comes, so that it does not
    depend on what else is in its batch (beyond the rounding of a larger matrix product).

    Returns:
        For each prompt, in order, its `n` samples.

    Raises:
        ValueError: if a prompt leaves no room for a response in the model's context.
    """
    generator = generator_for(seed, "sample_responses")
    seeds = torch.randint(SEED_LIMIT, (len(prompts), n), generator=generator).tolist()
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    for prompt_ids in encoded:
        _check_room(model, prompt_ids, settings)
    requests = [
        _Request(index, prompt_ids, seeds[index][copy], [])
        for index, prompt_ids in enumerate(encoded)
        for copy in range(n)
    ]
    ends = end_token_ids(model, tokenizer)
    done = 0
    for batch in _batches(requests, settings):
        _write(model, batch, settings, ends)
        done += len(batch)
        report(Progress("sample_responses", done, len(requests), {}))
    samples: list[list[Sample]] = [[] for _ in prompts]
    for request in requests:
        samples[request.prompt].append(_finished(tokenizer, request, ends))
    return samples


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


def _check_room(model: PreTrainedModel, prompt_ids: Sequence[int], settings: SamplingSettings) -> None:
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if room is not None and len(prompt_ids) + settings.max_new_tokens > room:
        raise ValueError(
            f"a prompt of {len(prompt_ids)} tokens and {settings.max_new_tokens} new ones do not fit"
            f" the model's {room} positions: shorten the prompt or lower max_new_tokens"
        )


def _batches(requests: Sequence[_Request], settings: SamplingSettings) -> Iterable[list[_Request]]:
    """Requests of similar prompt length, as many as the token budget holds (at least one)."""
    batch: list[_Request] = []
    for request in sorted(requests, key=lambda request: len(request.prompt_ids)):
        width = len(request.prompt_ids) + settings.max_new_tokens
        if batch and (len(batch) + 1) * width > settings.batch_tokens:
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


@torch.no_grad()
def _write(
    model: PreTrainedModel,
    requests: Sequence[_Request],
    settings: SamplingSettings,
    ends: frozenset[int],
) -> None:
    """Writes the token ids of a batch of requests.

    Finished rows leave the cache as soon as an eighth of the rows are finished, so that no work
    is spent on them (2.6 times faster than waiting for the longest row, measured on a CPU).
    """
    live = list(requests)
    noise = torch.stack([_noise(request.seed, settings.max_new_tokens) for request in live])
    batch = pad([request.prompt_ids for request in live], 0, model.device, side="left")
    mask, positions, ids = batch.attention_mask, batch.position_ids, batch.input_ids
    cache = DynamicCache(config=model.config)
    going = [True] * len(live)
    for step in range(settings.max_new_tokens):
        with autocast(model.device, settings.precision):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        uniform = noise[:, step].to(model.device)
        tokens = draw_tokens(output.logits[:, -1], uniform, settings.temperature, settings.top_p)
        for row, token in enumerate(tokens.tolist()):
            live[row].token_ids.append(token)
            going[row] = going[row] and token not in ends
        if not any(going):
            return
        ids, positions = tokens[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones((len(live), 1))], dim=1)
        if going.count(False) * 8 >= len(going):
            kept = [row for row, goes_on in enumerate(going) if goes_on]
            rows = torch.tensor(kept, device=model.device)
            cache.batch_select_indices(rows)
            ids, positions, mask = ids[rows], positions[rows], mask[rows]
            noise = noise[kept]
            live = [live[row] for row in kept]
            going = [True] * len(live)


def _noise(seed: int, length: int) -> Tensor:
    """One number in [0, 1) a token, the same on every machine and device."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _finished(tokenizer: PreTrainedTokenizerBase, request: _Request, ends: frozenset[int]) -> Sample:
    """The sample of a request; its text has no special tokens."""
    written = truncate_after_end(request.token_ids, ends)
    text = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Sample(
        text=str(text),
        token_ids=tuple(written),
        finish_reason="ended" if written[-1] in ends else "cut",
        seed=request.seed,
    )

"""How are many responses written at once, a token each at a time? Our own loop, with a key-value cache."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DummyLayer, DynamicLayer, DynamicSlidingWindowLayer

from worker.learning.batches import pad
from worker.learning.models import Precision, autocast

SPARE_COLUMNS = 64
"""The least room, in tokens, that a cache layer takes ahead."""

Draw = Callable[[Tensor, Tensor], Tensor]
"""(logits [rows, vocabulary], numbers in [0, 1) [rows]) -> token ids [rows]."""


@dataclass
class Request:
    """One response to be written: what it continues, the noise it is drawn with, and its tokens so far."""

    prompt_ids: Sequence[int]
    noise: Tensor
    """A number in [0, 1) for each token; as many tokens it has at most."""
    token_ids: list[int] = field(default_factory=list)

    @property
    def room(self) -> int:
        """The most tokens that prompt and response have together."""
        return len(self.prompt_ids) + len(self.noise)


@torch.no_grad()
def write_responses(
    model: PreTrainedModel,
    requests: Sequence[Request],
    draw: Draw,
    ends: frozenset[int],
    batch_tokens: int,
    precision: Precision,
    written: Callable[[int], None],
) -> None:
    """Writes the token ids of every request, up to and including its first end token.

    Each row reads its own prompt and its own noise, so what it writes does not depend on the rows beside it (beyond
    the rounding of a larger matrix product). A prompt that several requests continue is read once.

    Args:
        batch_tokens: the most tokens, prompts and room for responses, that are in the cache at once.
        written: told after each batch how many requests are done.
    """
    done = 0
    for batch in _batches(requests, batch_tokens, mixed=_pads(model)):
        with autocast(model.device, precision):  # around all steps, so that weights are cast once
            _write(model, batch, draw, ends)
        done += len(batch)
        written(done)


def _batches(requests: Sequence[Request], batch_tokens: int, *, mixed: bool) -> Iterator[list[Request]]:
    """Requests of similar prompt length (of the same unless `mixed`), as many as the budget holds, at least one."""
    batch: list[Request] = []
    for request in sorted(requests, key=lambda request: len(request.prompt_ids)):
        is_full = (len(batch) + 1) * request.room > batch_tokens
        if batch and (is_full or not (mixed or len(request.prompt_ids) == len(batch[0].prompt_ids))):
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch


def _write(model: PreTrainedModel, requests: Sequence[Request], draw: Draw, ends: frozenset[int]) -> None:
    """Writes a batch. A row that has ended leaves it at once, and the last row takes its place in the cache."""
    live = list(requests)
    noise = torch.stack([request.noise for request in live]).to(model.device)
    reader = _reader(model, live)
    logits = reader.logits
    for step in range(noise.shape[1]):
        tokens = draw(logits, noise[:, step])
        going = []
        for row, token in enumerate(tokens.tolist()):
            live[row].token_ids.append(token)
            if token not in ends:
                going.append(row)
        if not going or step + 1 == noise.shape[1]:
            return
        if len(going) < len(live):
            kept = _filled(going)
            rows = torch.tensor(kept, device=model.device)
            reader.select(rows)
            tokens, noise = tokens[rows], noise[rows]
            live = [live[row] for row in kept]
        logits = reader.read(tokens)


def _filled(going: Sequence[int]) -> list[int]:
    """The rows that go on, in an order that moves few: the last ones fill the places of those that have ended."""
    size = len(going)
    staying = {row for row in going if row < size}
    moving = iter([row for row in going if row >= size])
    return [row if row in staying else next(moving) for row in range(size)]


# How rows are read on


class _Reader(Protocol):
    """Rows of tokens inside a model. `logits` [rows, vocabulary] are those after the last token read."""

    logits: Tensor

    def read(self, tokens: Tensor) -> Tensor:
        """Reads one token more a row, [rows], and gives the logits after it."""

    def select(self, rows: Tensor) -> None:
        """Keeps these rows, in this order; a row may be taken several times."""


def _reader(model: PreTrainedModel, requests: Sequence[Request]) -> _Reader:
    """The fastest reader that is exact for the model, with every request's prompt read."""
    owners: dict[tuple[int, ...], int] = {}
    rows = [owners.setdefault(tuple(request.prompt_ids), len(owners)) for request in requests]
    cache_name = _cache_name(model)
    reader: _Reader
    if cache_name is None:
        reader = _WithoutCache(model, list(owners))
    elif _pads(model):
        reader = _Padded(model, list(owners), max(len(request.noise) for request in requests))
    else:
        reader = _EqualLengths(model, list(owners), cache_name)
    if len(owners) < len(requests):
        reader.select(torch.tensor(rows, device=model.device))
    return reader


class _Padded:
    """Prompts of any lengths, padded on the left: for attention that takes a mask and positions."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], room: int) -> None:
        self._model = model
        batch = pad(prompts, 0, model.device, side="left")
        self._cache = _roomy_cache(model, batch.input_ids.shape[1] + room)
        self._mask = torch.cat([batch.attention_mask, batch.attention_mask.new_ones((len(prompts), room))], dim=1)
        self._last_alone = _last_alone(model)
        self._read = 0
        self._positions = batch.position_ids
        self.logits = self._forward(batch.input_ids)

    def read(self, tokens: Tensor) -> Tensor:
        self._positions = self._positions[:, -1:] + 1
        return self._forward(tokens[:, None])

    def select(self, rows: Tensor) -> None:
        self._cache.reorder_cache(rows)
        self._mask, self._positions, self.logits = self._mask[rows], self._positions[rows], self.logits[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        self._read += ids.shape[1]
        output = self._model(
            input_ids=ids,
            attention_mask=self._mask[:, : self._read],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._last_alone,
        )
        self.logits = output.logits[:, -1]
        return self.logits


class _EqualLengths:
    """Prompts of one length, so that nothing is padded: for states that padding would run through."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], cache_name: str) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._keywords = {cache_name: self._cache, "use_cache": True, **_last_alone(model)}
        self.logits = self._forward(torch.tensor(prompts, device=model.device))

    def read(self, tokens: Tensor) -> Tensor:
        return self._forward(tokens[:, None])

    def select(self, rows: Tensor) -> None:
        self._cache.reorder_cache(rows)
        self.logits = self.logits[rows]

    def _forward(self, ids: Tensor) -> Tensor:
        self.logits = self._model(input_ids=ids, **self._keywords).logits[:, -1]
        return self.logits


class _WithoutCache:
    """Prompts of one length, read anew with every token: for models that keep their past in a way of their own."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> None:
        self._model = model
        self._ids = torch.tensor(prompts, device=model.device)
        self._last_alone = _last_alone(model)
        self.logits = self._forward()

    def read(self, tokens: Tensor) -> Tensor:
        self._ids = torch.cat([self._ids, tokens[:, None]], dim=1)
        return self._forward()

    def select(self, rows: Tensor) -> None:
        self._ids, self.logits = self._ids[rows], self.logits[rows]

    def _forward(self) -> Tensor:
        self.logits = self._model(input_ids=self._ids, use_cache=False, **self._last_alone).logits[:, -1]
        return self.logits


# What a model can


def _cache_name(model: PreTrainedModel) -> str | None:
    """By which name its forward takes a cache of transformers' kind; None if it has one of its own."""
    if not model._supports_default_dynamic_cache():
        return None
    taken = _forward_arguments(model)
    return next((name for name in ("past_key_values", "cache_params") if name in taken), None)


def _pads(model: PreTrainedModel) -> bool:
    """Whether padding on the left changes nothing: every layer is attention, with a mask and given positions."""
    if _cache_name(model) != "past_key_values":
        return False
    if not {"attention_mask", "position_ids"} <= _forward_arguments(model):
        return False
    plain = (DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return all(type(layer) in plain for layer in DynamicCache(config=model.config).layers)


def _last_alone(model: PreTrainedModel) -> dict[str, int]:
    """What spares the logits of all tokens but the last, where the model can."""
    return {"logits_to_keep": 1} if "logits_to_keep" in _forward_arguments(model) else {}


def _forward_arguments(model: PreTrainedModel) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


# The cache


def _roomy_cache(model: PreTrainedModel, tokens: int) -> DynamicCache:
    """The model's own cache, with room ahead wherever a layer attends to everything before."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer(tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):  # type: ignore[misc] # transformers is not typed
    """Keys and values in room that is taken ahead, both [rows or more, heads, columns or more, width].

    transformers' own layer copies all of it to append a token, and again to drop rows; on a CPU that took as long as
    the attention itself. Here a token is written into its column, columns double when they are full, and rows that
    leave are filled with the last ones. `keys` and `values` show the part that is in use. It takes no more room
    than for `limit` tokens a row before they are there.
    """

    def __init__(self, limit: int = 2**62) -> None:
        super().__init__()
        self._limit = limit

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Takes device and shape from the first states: [rows, heads, tokens, width].

        Under autocast attention rounds what it is given; what is kept is rounded once, when it is written.
        """
        self.device = key_states.device
        rounds = torch.is_autocast_enabled(self.device.type)
        self.dtype = torch.get_autocast_dtype(self.device.type) if rounds else key_states.dtype
        self.keys, self.values = (states[:, :, :0].to(self.dtype) for states in (key_states, value_states))
        self._rooms = [self.keys, self.values]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Appends states [rows, heads, tokens, width] and gives all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, start = len(key_states), self.keys.shape[2]
        end = start + key_states.shape[2]
        if end > self._rooms[0].shape[2]:
            self._move(rows, max(end, min(end + max(SPARE_COLUMNS, end), self._limit)))
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:rows, :, start:end] = states
        self._show(rows, end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps these rows, in this order; they may be more than before."""
        if not self.is_initialized:
            return
        count, columns = len(indices), self.keys.shape[2]
        if count > len(self._rooms[0]):
            self.keys, self.values = self.keys[indices], self.values[indices]
            self._move(count, self._rooms[0].shape[2])
        else:
            moved = (indices != torch.arange(count, device=indices.device)).nonzero().squeeze(1)
            for room in self._rooms:
                room[moved, :, :columns] = room[indices[moved], :, :columns]
        self._show(count, columns)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """As `batch_select_indices`."""
        self.batch_select_indices(beam_idx)

    def _move(self, rows: int, columns: int) -> None:
        """Takes new room and brings what is in use along."""
        old = self.keys, self.values
        self._rooms = [states.new_empty((rows, states.shape[1], columns, states.shape[3])) for states in old]
        for room, states in zip(self._rooms, old, strict=True):
            room[:, :, : states.shape[2]] = states

    def _show(self, rows: int, columns: int) -> None:
        self.keys, self.values = (room[:rows, :, :columns] for room in self._rooms)

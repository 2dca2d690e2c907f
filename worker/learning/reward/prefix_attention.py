"""How do several responses attend to one prompt without multiplying what they may not see?

A mask hides the other responses of a row, but attention multiplies what it hides all the same, and that grows with the
square of the row. Here every response's queries meet the keys of its prompt and its own alone. All other layers look
at each token by itself and see the row as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from worker.learning.reward.shared_prefix import PREFIX, PROMPT, Layout


@dataclass(frozen=True)
class Groups:
    """Which tokens of a layout meet which. Places are in the rows laid end to end; tables are padded.

    Prompts stand at the beginning of their rows, so that `prompt_mask` [rows, 1, longest prompt, same] is all there is
    to say of them. `queries` [responses, tokens] are the places of responses, of which `real` are there, and
    `keys` [responses, seen tokens] those of their prompts and themselves; `mask` is [responses, 1, tokens, seen].
    """

    prompt_mask: Tensor
    queries: Tensor
    real: Tensor
    keys: Tensor
    mask: Tensor


def groups_of(layout: Layout) -> Groups:
    """Every prompt sees itself, and every response its prompt and itself."""
    rows, columns = layout.blocks.shape
    blocks = layout.blocks.cpu()
    prompts, responses, seen = [], [], []
    for row in range(rows):
        prompts.append(row * columns + (blocks[row] == PROMPT).nonzero().flatten())
        for block in range(PROMPT + 1, int(blocks[row].max()) + 1):
            responses.append(row * columns + (blocks[row] == block).nonzero().flatten())
            seen.append(prompts[-1])
    _, in_prompt = _padded(prompts)
    queries, real = _padded(responses)
    before, is_before = _padded(seen)
    sees_prompt = is_before[:, None].expand(-1, queries.shape[1], -1)
    tables = (
        _causal(in_prompt)[:, None],
        queries,
        real,
        torch.cat([before, queries], dim=1),
        torch.cat([sees_prompt, _causal(real)], dim=2)[:, None],
    )
    return Groups(*(table.to(layout.blocks.device) for table in tables))


def _padded(places: list[Tensor]) -> tuple[Tensor, Tensor]:
    table = pad_sequence(places, batch_first=True, padding_value=-1)
    return table.clamp_min(0), table >= 0


def _causal(real: Tensor) -> Tensor:
    """Each token sees itself and the real ones before it [groups, tokens, tokens]; no softmax is empty."""
    tokens = real.shape[1]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return (earlier & real[:, None]) | torch.eye(tokens, dtype=torch.bool)


_groups: ContextVar[Groups | None] = ContextVar("groups", default=None)


@contextmanager
def behind_prompts(layout: Layout) -> Iterator[None]:
    """Inside, attention of this name goes by the layout; elsewhere it is plain scaled dot-product attention."""
    token = _groups.set(groups_of(layout))
    try:
        yield
    finally:
        _groups.reset(token)


def shared_prefix_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Attention as transformers calls it: states [rows, heads, columns, width] -> [rows, columns, heads, width]."""
    groups = _groups.get()
    if groups is None:
        return _attended(module, query, key, value, attention_mask, **options), None
    rows, _, columns, _ = query.shape
    longest = groups.prompt_mask.shape[-1]
    before = (query[:, :, :longest], key[:, :, :longest], value[:, :, :longest])
    prompts = _attended(module, *before, groups.prompt_mask, **options)
    own = (_taken(query, groups.queries), _taken(key, groups.keys), _taken(value, groups.keys))
    responses = _attended(module, *own, groups.mask, **options)
    # Behind a shorter prompt stand responses, whose own outputs replace what was computed there.
    whole = torch.cat([prompts, prompts.new_zeros(rows, columns - longest, *prompts.shape[2:])], dim=1)
    flat = whole.flatten(0, 1).index_copy(0, groups.queries[groups.real], responses[groups.real])
    return flat.view(rows, columns, *flat.shape[1:]), None


def _attended(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Tensor:
    """Plain attention. On CPUs it is up to twice as fast in fp32 as in bf16, with the backward pass and conversions."""
    states = query, key, value
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            attended, _ = sdpa_attention_forward(module, *(each.float() for each in states), mask, **options)
    else:
        attended, _ = sdpa_attention_forward(module, *states, mask, **options)
    return attended.to(value.dtype)  # type: ignore[no-any-return]


def _taken(states: Tensor, places: Tensor) -> Tensor:
    """States [rows, heads, columns, width] at places [groups, tokens] -> [groups, heads, tokens, width]."""
    by_token = states.transpose(1, 2).flatten(0, 1)  # [rows * columns, heads, width]
    taken = by_token.index_select(0, places.flatten())
    return taken.view(*places.shape, *by_token.shape[1:]).transpose(1, 2)


AttentionInterface.register(PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(PREFIX, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])

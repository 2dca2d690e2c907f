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

from worker.learning.reward.shared_prefix import PROMPT, Layout

PREFIX = "shared_prefix"
"""The name under which transformers knows this attention."""


@dataclass(frozen=True)
class Group:
    """Queries and the keys that they meet, as places in the rows laid end to end.

    `queries` [groups, tokens] and `keys` [groups, seen tokens] are padded; `mask` [groups, 1, tokens, seen tokens] says
    who sees whom, and `real` [groups, tokens] which queries are there.
    """

    queries: Tensor
    keys: Tensor
    mask: Tensor
    real: Tensor


def prompts_and_responses(layout: Layout) -> tuple[Group, Group]:
    """A group for each row's prompt, which sees itself, and one for each response, which sees its prompt and itself."""
    rows, columns = layout.blocks.shape
    device = layout.blocks.device
    blocks = layout.blocks.cpu()
    prompts, responses, seen = [], [], []
    for row in range(rows):
        start, own = row * columns, blocks[row]
        prompt = start + (own == PROMPT).nonzero().flatten()
        prompts.append(prompt)
        for block in range(PROMPT + 1, int(own.max()) + 1):
            response = start + (own == block).nonzero().flatten()
            responses.append(response)
            seen.append(prompt)
    own_places, own_real = _padded(responses)
    seen_places, seen_real = _padded(seen)
    prompt_places, prompt_real = _padded(prompts)
    tokens = own_places.shape[1]
    mask = torch.cat([seen_real[:, None].expand(-1, tokens, -1), _causal(own_places, own_real)], dim=2)
    keys = torch.cat([seen_places, own_places], dim=1)
    groups = (
        Group(prompt_places, prompt_places, _causal(prompt_places, prompt_real)[:, None], prompt_real),
        Group(own_places, keys, mask[:, None], own_real),
    )
    first, second = (
        Group(one.queries.to(device), one.keys.to(device), one.mask.to(device), one.real.to(device)) for one in groups
    )
    return first, second


def _padded(places: list[Tensor]) -> tuple[Tensor, Tensor]:
    table = pad_sequence(places, batch_first=True, padding_value=-1)
    return table.clamp_min(0), table >= 0


def _causal(places: Tensor, real: Tensor) -> Tensor:
    """Each token sees itself and the real ones before it [groups, tokens, tokens]; no softmax is empty."""
    tokens = places.shape[1]
    earlier = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return (earlier & real[:, None]) | torch.eye(tokens, dtype=torch.bool)


_groups: ContextVar[tuple[Group, Group] | None] = ContextVar("groups", default=None)


@contextmanager
def behind_prompts(layout: Layout) -> Iterator[None]:
    """Inside, attention of this name goes by the layout; elsewhere it is plain scaled dot-product attention."""
    token = _groups.set(prompts_and_responses(layout))
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
        plain: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return plain
    rows, heads, columns, _ = query.shape
    states = [_by_token(each) for each in (query, key, value)]
    places, outputs = [], []
    for group in groups:
        own = [_taken(each, group.queries if number == 0 else group.keys) for number, each in enumerate(states)]
        output, _ = sdpa_attention_forward(module, *own, group.mask, **options)  # [groups, tokens, heads, width]
        outputs.append(output[group.real])
        places.append(group.queries[group.real])
    found = torch.cat(outputs)
    whole = found.new_zeros(rows * columns, heads, found.shape[-1]).index_copy(0, torch.cat(places), found)
    return whole.view(rows, columns, heads, -1), None


def _by_token(states: Tensor) -> Tensor:
    """[rows, heads, columns, width] -> [rows * columns, heads, width]."""
    return states.transpose(1, 2).flatten(0, 1)


def _taken(states: Tensor, places: Tensor) -> Tensor:
    """The states at places [groups, tokens] -> [groups, heads, tokens, width]; each may be taken several times."""
    taken = states.index_select(0, places.flatten())
    return taken.view(*places.shape, *states.shape[1:]).transpose(1, 2)


AttentionInterface.register(PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(PREFIX, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])

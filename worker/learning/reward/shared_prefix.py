"""How do several responses stand behind one prompt in one row, without seeing each other?

A row is the prompt followed by all responses. A token of a response sees the prompt and what stands before it in its
own response, and its position counts on from the prompt's end, as if its response were the only one. Every other
response is behind it or hidden from it, so each token's state is what it is in a row with one response.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from worker.learning.reward.encoding import EncodedSet

FLEX = "flex_attention"
PREFIX = "shared_prefix"
"""The names under which transformers knows the two attentions that pass over what is hidden."""
PADDING = -1
PROMPT = 0
FLEX_BLOCK = 128


@dataclass(frozen=True)
class Layout:
    """Rows of prompts with their responses, each field but `ends` [rows, columns].

    `texts` numbers the prompts, and `blocks` says what a token belongs to: its prompt (0), a response (1 and on), or
    padding (-1). `ends` [responses] points at the last token of every response in the rows laid end to end.
    """

    input_ids: Tensor
    position_ids: Tensor
    texts: Tensor
    blocks: Tensor
    ends: Tensor


def lay_out(sets: Sequence[EncodedSet], pad_token_id: int, device: torch.device) -> Layout:
    """One set a row, padded on the right."""
    return _layout([[each] for each in sets], max(each.tokens for each in sets), pad_token_id, device)


def pack(sets: Sequence[EncodedSet], pad_token_id: int, device: torch.device) -> Layout:
    """All sets in one row, padded to whole blocks: for attention that passes over what is masked."""
    columns = -(-sum(each.tokens for each in sets) // FLEX_BLOCK) * FLEX_BLOCK
    return _layout([sets], columns, pad_token_id, device)


def _layout(rows: Sequence[Sequence[EncodedSet]], columns: int, pad_token_id: int, device: torch.device) -> Layout:
    ids, positions, texts, blocks, ends = [], [], [], [], []
    number = 0
    for row, sets in enumerate(rows):
        own_ids: list[int] = []
        own_positions: list[int] = []
        own_texts: list[int] = []
        own_blocks: list[int] = []
        for each in sets:
            begin = len(each.prompt_ids)
            own_texts += [number] * each.tokens
            own_ids += chain(each.prompt_ids, *each.response_ids)
            own_positions += range(begin)
            own_blocks += [PROMPT] * begin
            at = row * columns + len(own_positions) - 1
            for block, response in enumerate(each.response_ids, start=1):
                own_positions += range(begin, begin + len(response))
                own_blocks += [block] * len(response)
                at += len(response)
                ends.append(at)
            number += 1
        room = columns - len(own_ids)
        ids.append(own_ids + [pad_token_id] * room)
        positions.append(own_positions + [0] * room)
        texts.append(own_texts + [PADDING] * room)
        blocks.append(own_blocks + [PADDING] * room)
    table = torch.tensor([ids, positions, texts, blocks], device=device)
    return Layout(table[0], table[1], table[2], table[3], torch.tensor(ends, device=device))


def sees(layout: Layout) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether, in a row, the token at one place sees the token at another: (row, head, place, other place) -> bool.

    Padding sees the padding before it, so that no softmax is empty.
    """
    texts, blocks = layout.texts, layout.blocks

    def visible(row: Tensor, _head: Tensor, place: Tensor, other: Tensor) -> Tensor:
        same_text = texts[row, place] == texts[row, other]
        in_reach = (blocks[row, other] == PROMPT) | (blocks[row, other] == blocks[row, place])
        return (place >= other) & same_text & in_reach

    return visible


def attention_mask(layout: Layout, attention: str, dtype: torch.dtype) -> Tensor | BlockMask:
    """What `sees` says, as the named attention of transformers wants it.

    Raises:
        ValueError: if that attention takes no mask of ours.
    """
    if attention == FLEX:
        return _block_mask(layout)
    if attention in {"sdpa", PREFIX}:  # the latter goes by it where little is hidden
        return dense_mask(layout)
    if attention == "eager":  # adds the mask to its logits: a boolean one would hide nothing
        mask = dense_mask(layout)
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    raise ValueError(f'attention "{attention}" takes no mask; load the model with attn_implementation="sdpa"')


def dense_mask(layout: Layout) -> Tensor:
    """True where a token sees another [rows, 1, columns, columns]."""
    rows, columns = layout.blocks.shape
    place = torch.arange(columns, device=layout.blocks.device)
    row = torch.arange(rows, device=layout.blocks.device)[:, None, None]
    return sees(layout)(row, row, place[None, :, None], place[None, None, :])[:, None]


def _block_mask(layout: Layout) -> BlockMask:
    rows, columns = layout.blocks.shape
    device = layout.blocks.device
    return create_block_mask(sees(layout), rows, None, columns, columns, device=device, BLOCK_SIZE=FLEX_BLOCK)


def hidden_keys(each: EncodedSet) -> float:
    """With how many tokens a mask has each multiplied in vain, on average: those of other responses, and later ones."""
    prompt = len(each.prompt_ids)
    seen = prompt**2 + sum(len(own) * (prompt + len(own)) for own in each.response_ids)
    return (each.tokens**2 - seen) / each.tokens


def split_by_cost(each: EncodedSet, linear: float, quadratic: float, longest: float) -> list[EncodedSet]:
    """Puts a set's responses, in their order, into the rows that cost least.

    A row of n tokens costs linear * n + quadratic * n^2. One row has the prompt once; but attention also multiplies
    what the mask hides, so many long responses behind a short prompt are cheaper in several rows.

    Args:
        each: the set to split.
        linear, quadratic: what a token and a pair of tokens cost, in the same unit.
        longest: no row has more tokens, unless one response does alone.
    """

    def cost(rows: list[EncodedSet]) -> float:
        return sum(linear * row.tokens + quadratic * row.tokens**2 for row in rows)

    responses = len(each.response_ids)
    counts = sorted({-(-responses // rows) for rows in range(1, responses + 1)})
    splits = [_chunks(each, count) for count in counts]
    allowed = [rows for rows in splits if max(row.tokens for row in rows) <= longest]
    return min(allowed or splits[:1], key=cost)


def _chunks(each: EncodedSet, count: int) -> list[EncodedSet]:
    starts = range(0, len(each.response_ids), count)
    return [EncodedSet(each.prompt_ids, each.response_ids[start : start + count]) for start in starts]

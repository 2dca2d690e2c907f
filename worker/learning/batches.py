"""How do token sequences of different lengths become tensors, with little padding?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class PaddedBatch:
    """Token sequences side by side, each field [rows, columns].

    `position_ids` count real tokens only, so a sequence has the same positions whichever side is
    padded and whatever stands beside it.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor


def pad(
    sequences: Sequence[Sequence[int]],
    pad_token_id: int,
    device: torch.device,
    side: Literal["left", "right"] = "right",
) -> PaddedBatch:
    """Pads token sequences to the longest of them."""
    columns = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), columns), pad_token_id, dtype=torch.long)
    mask = torch.zeros((len(sequences), columns), dtype=torch.long)
    for row, sequence in enumerate(sequences):
        span = slice(0, len(sequence)) if side == "right" else slice(columns - len(sequence), None)
        ids[row, span] = torch.tensor(sequence, dtype=torch.long)
        mask[row, span] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    return PaddedBatch(ids.to(device), mask.to(device), positions.to(device))


def token_budget(device: torch.device) -> int:
    """Tokens in a forward with gradients: on a CPU few enough to stay in its cache."""
    return 2_048 if device.type == "cpu" else 16_384


def prediction_budget(device: torch.device) -> int:
    """The same where every token of a response is predicted: a CPU's cache has to hold what predicts them, too."""
    return 1_024 if device.type == "cpu" else 16_384


def group_by_length(sizes: Sequence[int], budget: int, counts: Sequence[int] | None = None) -> list[list[int]]:
    """Splits items into micro-batches of similar length.

    Args:
        sizes: the longest sequence of each item, in tokens.
        budget: the most tokens, padding included, that a micro-batch may hold; an item that is
            larger by itself stands alone.
        counts: how many sequences each item brings (one where not given).

    Returns:
        Lists of indices, short items first. They depend on sizes and order alone.
    """
    groups: list[list[int]] = []
    rows = 0
    for index in sorted(range(len(sizes)), key=lambda item: sizes[item]):
        rows += 1 if counts is None else counts[index]
        if not groups or rows * sizes[index] > budget:
            groups.append([])
            rows = 1 if counts is None else counts[index]
        groups[-1].append(index)
    return groups

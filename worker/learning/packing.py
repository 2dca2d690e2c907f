"""How do sequences of different lengths share rows without seeing each other?

Position ids restart at every sequence, and transformers builds a block-diagonal causal mask from that, but only in a
forward without a cache: `use_cache=False` is what keeps neighbours apart (with a cache, attention leaks silently).
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""The target of a position that teaches nothing."""


@dataclass(frozen=True)
class LearningSequence:
    """Token ids of which those from `learn_from` on are learned, each from the ones before it."""

    ids: Sequence[int]
    learn_from: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.learn_from < len(self.ids):
            raise ValueError(
                f"a sequence of {len(self.ids)} tokens cannot be learned from token {self.learn_from} on:"
                " it needs a token to learn and one before it"
            )

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class PackedBatch:
    """Rows of packed sequences, each field [rows, columns].

    `targets` is the next token of the same sequence where that one is learned, else `IGNORED`.
    """

    input_ids: Tensor
    position_ids: Tensor
    targets: Tensor


def pack(lengths: Sequence[int], columns: int) -> list[list[int]]:
    """Puts items into as few rows of `columns` tokens as best-fit decreasing finds.

    Every item, the longest first, goes to the fullest row that has room for it. The number of
    rows depends on the lengths alone, not on their order.

    Returns:
        For each row the indices of its items.

    Raises:
        ValueError: if an item is longer than a row.
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (room, row), ascending
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if lengths[index] > columns:
            raise ValueError(f"a sequence of {lengths[index]} tokens does not fit a row of {columns}")
        place = bisect_left(rooms, (lengths[index], -1))
        if place == len(rooms):
            rows.append([])
            room, row = columns, len(rows) - 1
        else:
            room, row = rooms.pop(place)
        rows[row].append(index)
        insort(rooms, (room - lengths[index], row))
    return rows


def packed_batch(rows: Sequence[Sequence[LearningSequence]], columns: int, device: torch.device) -> PackedBatch:
    """Lays rows of sequences out as tensors; what is left of a row is a sequence of zeros that teaches nothing."""
    ids = torch.zeros((len(rows), columns), dtype=torch.long)
    positions = torch.zeros_like(ids)
    targets = torch.full_like(ids, IGNORED)
    for row, sequences in enumerate(rows):
        start = 0
        for sequence in sequences:
            end = start + len(sequence)
            ids[row, start:end] = torch.tensor(sequence.ids, dtype=torch.long)
            positions[row, start:end] = torch.arange(len(sequence))
            learned = start + sequence.learn_from
            targets[row, learned - 1 : end - 1] = ids[row, learned:end]
            start = end
        positions[row, start:] = torch.arange(columns - start)
    return PackedBatch(ids.to(device), positions.to(device), targets.to(device))

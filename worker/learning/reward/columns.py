"""What do orders and scores of many labels say, column by column? NumPy pairs up all orders of one size at once."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class OrderRow(NamedTuple):
    """What an order says for all of its pairs; of many orders of one size, each field is an array [orders, ...]."""

    label: Any
    output: Any
    first_rung: Any
    grade: Any
    weight: Any
    ranks: Any  # [responses], as are the next two
    places: Any
    turns: Any


class PairRow(NamedTuple):
    """Pairs, each field [pairs]."""

    label: np.ndarray
    output: np.ndarray
    rung: np.ndarray
    weight: np.ndarray
    first: np.ndarray
    second: np.ndarray
    shown: np.ndarray


class ScoreRow(NamedTuple):
    """A score; of many, each field is an array [scores]."""

    label: Any
    output: Any
    scored: Any
    weight: Any
    response: Any
    score: Any


def columns_of(rows: Sequence[tuple[Any, ...]]) -> list[np.ndarray]:
    """Each field of all rows."""
    return [np.array(column) for column in zip(*rows, strict=True)]


def pairs_of(orders: OrderRow) -> PairRow:
    """All pairs of orders with as many responses."""
    one, other = np.triu_indices(orders.ranks.shape[1], 1)  # the better response is named first: `one` is never worse
    each = [field[:, None] for field in (orders.label, orders.output, orders.first_rung, orders.grade, orders.weight)]
    label, output, first_rung, grade, weight = each
    table = np.broadcast_arrays(
        label,
        output,
        first_rung + grade * (orders.ranks[:, one] != orders.ranks[:, other]),
        weight,
        orders.places[:, one],
        orders.places[:, other],
        np.sign(orders.turns[:, other] - orders.turns[:, one]),
    )
    return PairRow(*(part.reshape(-1) for part in table))

"""When has a run collapsed, what is the score at equal KL, and how do figures become rows?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.report import MET, Series, result

Row = dict[str, Any]
Metrics = Mapping[str, float]

LEAST_ENTROPY = 0.1
"""Of the start's: below it a policy says nearly the same thing every time."""
LEAST_ENDED = 0.5
"""Of all responses."""
MOST_KL = 2.0
"""Times the target."""


def last_quarter(history: Sequence[Metrics], metric: str) -> float:
    """The mean over the last quarter of a run's rollouts."""
    count = max(1, len(history) // 4)
    return fmean(row[metric] for row in history[-count:])


def has_collapsed(history: Sequence[Metrics], kl_target: float) -> bool:
    """Whether a run went to ruin, by the last quarter of its rollouts.

    Its score is below that of the first rollout or no number, its entropy below a tenth of the first rollout's, fewer
    than half of its responses end, or its KL is beyond twice the target.
    """
    start = history[0]
    scores, entropy, ended, kl = (
        last_quarter(history, name) for name in ("objective/scores", "policy/entropy", "ended_rate", "objective/kl")
    )
    is_whole = (
        scores >= start["objective/scores"]
        and entropy >= LEAST_ENTROPY * start["policy/entropy"]
        and ended >= LEAST_ENDED
        and kl <= MOST_KL * kl_target
    )
    return not is_whole


@dataclass(frozen=True)
class Reached:
    """Where a policy came: nats a sequence from where it started, and the mean score of fresh answers."""

    kl: float
    score: float


def gains_at_equal_kl(
    ours: Sequence[Reached], others: Sequence[Reached], start: float, points: int = 5
) -> tuple[float, float]:
    """How much the score of either rose above `start`, at the same KL.

    The frontier of each is drawn straight through its policies and the start over the square root of KL, in which Gao
    et al. 2022 found scores to be smooth. Both are read at `points` places, from the greater of their least KLs to the
    lesser of their greatest; where that lies below, at that one alone.

    Raises:
        ValueError: if one of them went nowhere.
    """
    low = max(min(one.kl for one in side) for side in (ours, others))
    high = min(max(one.kl for one in side) for side in (ours, others))
    if high <= 0:
        raise ValueError(f"there is no score at a KL of {high:.2f} nats: a policy stayed where it started")
    low = min(max(low, 0.0), high)
    places = np.linspace(math.sqrt(low), math.sqrt(high), points)
    mine, theirs = (fmean(_frontier(side, start, places)) - start for side in (ours, others))
    return mine, theirs


def _frontier(reached: Sequence[Reached], start: float, places: np.ndarray) -> list[float]:
    ordered = sorted((Reached(0.0, start), *reached), key=lambda one: one.kl)
    roots = [math.sqrt(max(one.kl, 0.0)) for one in ordered]
    return [float(score) for score in np.interp(places, roots, [one.score for one in ordered])]


def row(
    case: str,
    metric: str,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    peer_name: str | None = None,
    *,
    goal: float | None = None,
    at_most: float | None = None,
) -> Row:
    """One line of the table: medians over runs. `goal` is for the ratio of ours to the peer's, `at_most` for ours."""
    own, other = median(ours), median(peer) if peer else None
    ratios = [mine / theirs for mine, theirs in zip(ours, peer, strict=False) if theirs]
    ratio = own / other if other else None
    met = None
    if at_most is not None:
        met = own <= at_most
    elif goal is not None:
        met = ratio is not None and ratio >= goal
    return result(
        case,
        metric,
        Series(own, ours).rounded(4),
        Series(other, peer).rounded(4),
        peer_name,
        Series(ratio, ratios).rounded(3),
        goal if at_most is None else at_most,
        met,
    )


def show(rows: Sequence[Row]) -> None:
    """The table."""
    print(f"\n{'case':44} {'metric':22} {'ours':>7} {'peer':>7} {'ratio':>6} {'spread':>15} {'goal':>5} met")
    for one in rows:
        peer, ratio, goal = (f"{one[key]:g}" if one[key] is not None else "" for key in ("peer", "ratio", "goal"))
        spread = "{:g} to {:g}".format(*one["spread"]) if one["spread"] else ""
        met = MET[one["met"]]
        beside = f"  beside {one['peer_name']}" if one["peer_name"] else ""
        print(
            f"{one['case']:44} {one['metric']:22} {one['ours']:>7g} {peer:>7} {ratio:>6} {spread:>15} {goal:>5}"
            f" {met:3}{beside}"
        )

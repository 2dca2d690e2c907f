"""How do figures become rows: ours beside another way, with both series, and what lies between the two?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.report import MET, Series, result
from worker.learning.evaluation import Estimate, bootstrap_mean
from worker.learning.reward.evaluation import Pairs, expected_calibration_error, negative_log_likelihoods

SEED = 1
Row = dict[str, Any]


@dataclass(frozen=True)
class Metric:
    """A figure of pairs, and of each pair alone where it is a mean over them."""

    name: str
    of: Callable[[Pairs], float]
    each: Callable[[Pairs], Tensor] | None
    high_is_good: bool


def _nll(pairs: Pairs) -> Tensor:
    return negative_log_likelihoods(pairs.probabilities, pairs.outcomes)


ACCURACY = Metric("accuracy", lambda pairs: float(pairs.right.mean()), lambda pairs: pairs.right, high_is_good=True)
NLL = Metric("nll", lambda pairs: float(_nll(pairs).mean()), _nll, high_is_good=False)
ECE = Metric(
    "ece",
    lambda pairs: expected_calibration_error(pairs.probabilities, pairs.outcomes),
    None,
    high_is_good=False,
)


def joined(parts: Sequence[Pairs], repeats: int = 1) -> Pairs:
    """The pairs of several folds, no two of which share a prompt; each fold may come several times in a row."""
    prompts, start = [], 0
    for place, part in enumerate(parts):
        prompts.append(part.prompts + start)
        if (place + 1) % repeats == 0:
            start += int(part.prompts.max()) + 1
    return Pairs(
        torch.cat([part.probabilities for part in parts]),
        torch.cat([part.outcomes for part in parts]),
        torch.cat(prompts),
    )


def averaged(members: Sequence[Pairs]) -> Pairs:
    """What an ensemble says of the pairs: the mean of its members' probabilities."""
    probabilities = torch.stack([own.probabilities for own in members]).mean(dim=0)
    return Pairs(probabilities, members[0].outcomes, members[0].prompts)


def row(
    case: str,
    metric: Metric,
    ours: Sequence[float],
    peer: Sequence[float] = (),
    peer_name: str | None = None,
    goal: float | None = None,
    value: float | None = None,
) -> Row:
    """One line of the table; `value` stands for the runs where it is not their mean. The ratio is better if higher."""
    measured = fmean(ours) if value is None else value
    better = zip(ours, peer, strict=False) if metric.high_is_good else zip(peer, ours, strict=False)
    ratios = [one / other for one, other in better if other]
    met = None
    if goal is not None:
        met = measured >= goal if metric.high_is_good else measured < goal
    return result(
        case,
        metric.name,
        Series(measured, ours).rounded(4),
        Series(fmean(peer) if peer else None, peer).rounded(4),
        peer_name,
        Series(fmean(ratios) if ratios else None, ratios).rounded(3),
        goal,
        met,
    )


def comparison(
    case: str, ours: Sequence[Pairs], others: Sequence[Pairs], peer_name: str, repeats: int = 1
) -> list[Row]:
    """All metrics of one way beside another on the same pairs, fold by fold, each with as many repeats in a row.

    `difference` is ours less the other's over all pairs, with a 95 % interval over prompts: it says whether the data
    can tell the two apart.
    """
    rows = []
    for metric in (ACCURACY, NLL, ECE):
        made = row(case, metric, [metric.of(fold) for fold in ours], [metric.of(fold) for fold in others], peer_name)
        if metric.each is not None:
            both, every = joined(ours, repeats), joined(others, repeats)
            gap = bootstrap_mean(metric.each(both) - metric.each(every), both.prompts, SEED)
            made["difference"] = [round(gap.value, 4), *ends(gap)]
        rows.append(made)
    return rows


def ends(estimate: Estimate) -> list[float | None]:
    """The interval; all of one prompt has none."""
    return [None if end is None else round(end, 4) for end in (estimate.low, estimate.high)]


def show(results: Sequence[Row]) -> None:
    """The table."""
    print(f"\n{'case':52} {'metric':9} {'ours':>7} {'peer':>7} {'goal':>5} met  difference, 95 %")
    for one in results:
        peer = f"{one['peer']:.4f}" if one["peer"] is not None else ""
        goal = f"{one['goal']:g}" if one["goal"] is not None else ""
        value, low, high = one.get("difference", (None, None, None))
        gap = "" if value is None else f"{value:+.4f}" + ("" if low is None else f" ({low:+.4f} to {high:+.4f})")
        beside = f"   beside {one['peer_name']}" if one["peer_name"] else ""
        met = MET[one["met"]]
        print(f"{one['case']:52} {one['metric']:9} {one['ours']:7.4f} {peer:>7} {goal:>5} {met:3}  {gap}{beside}")

"""How does a benchmark report? One row a case, as a table and as JSON in the form of the design's section 9."""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
MET = {True: "yes", False: "NO", None: ""}
"""How a table says whether a goal is reached."""


@dataclass(frozen=True)
class Series:
    """What single runs came to, and the one figure that stands for them."""

    figure: float | None
    runs: Sequence[float]

    def rounded(self, digits: int) -> "Series":
        """To so many decimals."""
        return self._each(lambda value: round(value, digits))

    def short(self) -> "Series":
        """With all digits that say anything."""
        return self._each(lambda value: float(f"{value:.3g}"))

    def _each(self, shorten: Callable[[float], float]) -> "Series":
        return Series(None if self.figure is None else shorten(self.figure), [shorten(run) for run in self.runs])


NOTHING = Series(None, ())


def result(
    case: str,
    metric: str,
    ours: Series,
    peer: Series = NOTHING,
    peer_name: str | None = None,
    ratio: Series = NOTHING,
    goal: float | None = None,
    met: bool | None = None,
) -> dict[str, Any]:
    """One row in the form of the design's section 9, its figures as they are."""
    return {
        "case": case,
        "metric": metric,
        "ours": ours.figure,
        "peer": peer.figure,
        "peer_name": peer_name,
        "ours_runs": list(ours.runs),
        "peer_runs": list(peer.runs),
        "ratio": ratio.figure,
        "spread": [min(ratio.runs), max(ratio.runs)] if ratio.runs else None,
        "goal": goal,
        "met": met,
    }


@dataclass(frozen=True)
class Row:
    """Ours beside a peer's in one case; higher is better, or where `lower` says so the reverse, and the ratio with it.

    `interval` is of the ratio, where it was estimated from more than the runs. `equal` says that the goal is reached
    by a ratio whose interval reaches it: ours need not be more, only not certainly less.
    """

    case: str
    metric: str
    ours_runs: Sequence[float]
    peer_runs: Sequence[float]
    peer_name: str
    goal: float | None = None
    interval: tuple[float, float] | None = None
    equal: bool = False
    lower: bool = False

    @property
    def ours(self) -> float:
        """The median."""
        return statistics.median(self.ours_runs)

    @property
    def peer(self) -> float:
        """The median."""
        return statistics.median(self.peer_runs)

    @property
    def ratio(self) -> float:
        """How many times better ours is."""
        return self._ratio(self.ours, self.peer)

    @property
    def spread(self) -> tuple[float, float]:
        """The interval, or the least and greatest ratio of runs that came after one another."""
        ratios = [self._ratio(own, other) for own, other in zip(self.ours_runs, self.peer_runs, strict=True)]
        return self.interval or (min(ratios), max(ratios))

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached, where there is one."""
        if self.goal is None:
            return None
        return (self.spread[1] if self.equal else self.ratio) >= self.goal

    def _ratio(self, ours: float, peer: float) -> float:
        return peer / ours if self.lower else ours / peer

    def as_json(self) -> dict[str, Any]:
        """The row as a report has it."""
        return result(
            self.case,
            self.metric,
            Series(self.ours, self.ours_runs).short(),
            Series(self.peer, self.peer_runs).short(),
            self.peer_name,
            Series(self.ratio, self.spread).short(),
            self.goal,
            self.met,
        )


def machine(**more: Any) -> dict[str, Any]:
    """Where it was measured, and how much else the machine had to do."""
    models = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **more,
    }


def commit() -> str:
    """What was measured."""
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip() or "unknown"


def write(file: Path, benchmark: str, measured_on: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Writes all rows with the machine, as `machine` has it, and the commit."""
    report = {"benchmark": benchmark, "machine": measured_on, "commit": commit(), "results": results}
    file.write_text(json.dumps(report, indent=2) + "\n")


def show(rows: Sequence[Row]) -> None:
    """Prints the table."""
    print(f"\n{'case':28} {'metric':20} {'ours':>8} {'peer':>8} {'ratio':>7} {'spread':>14} {'goal':>5}  met")
    for row in rows:
        shown = row.as_json()
        spread = "{:g} to {:g}".format(*shown["spread"])
        goal = "" if row.goal is None else f"{row.goal:g}"
        print(
            f"{row.case:28} {row.metric:20} {shown['ours']:>8g} {shown['peer']:>8g} {shown['ratio']:>7g}"
            f" {spread:>14} {goal:>5}  {MET[row.met]}"
        )

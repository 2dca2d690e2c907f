"""Which lines teach, which choose, and which measure? A prompt stands on one side alone."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.learning.corpus import is_held_out
from worker.learning.json_lines import Json, LineError
from worker.learning.records import Label
from worker.learning.reward.evaluation import prompt_key
from worker.learning.reward.files import labels_of, read_lines
from worker.learning.reward.lines import Line, parse_line
from worker.learning.reward.observations import teaches
from worker.learning.reward.scales import on_common_scales
from worker.learning.reward.shapes import BadLine

SIDES = ("train", "validation", "test")
HELD_OUT_SHARE = 0.1
FEWEST_PROMPTS = 20
"""Below this many nothing is held out unless asked for: it would measure little and teach less."""


@dataclass(frozen=True)
class Sides:
    """Lines to learn from, to choose the epoch and the calibration by, and to measure on; the latter may be empty."""

    train: list[Line]
    validation: list[Line]
    test: list[Line]
    skipped: list[LineError]

    @property
    def labels(self) -> tuple[list[Label], list[Label], list[Label]]:
        """The labels of each side that say anything, on scales that all of them share."""
        settled = on_common_scales([*self.train, *self.validation, *self.test])
        first, second = len(self.train), len(self.train) + len(self.validation)
        train, checked, test = (
            list(filter(teaches, labels_of(lines)))
            for lines in (settled[:first], settled[first:second], settled[second:])
        )
        return train, checked, test

    @property
    def shared_prompts(self) -> int:
        """How many prompts teach and are held out as well, which flatters the figures."""
        teaching, others = ({prompt_key(line.prompt) for line in lines} for lines in (self.train, self.held_out))
        return len(teaching & others)

    @property
    def held_out(self) -> list[Line]:
        """All that teaches nothing."""
        return [*self.validation, *self.test]


def read_sides(path: Path, validation: Path | None, share: float | None, only_good: bool = False) -> Sides:
    """Reads a file whose lines may name their `split`, and holds prompts out where nothing else does.

    Args:
        path: lines without a `split` teach.
        validation: a file of lines to choose by.
        share: of the prompts that teach, held out to choose by where no line and no file says which; None holds out a
            tenth where there are prompts enough.
        only_good: leave lines out that cannot be read.

    Raises:
        ValueError: if a line cannot be read or names an unknown split, no line is left to learn from, or a share is
            given though validation lines are.
    """
    skipped: list[LineError] | None = [] if only_good else None
    by_side = _by_side(read_lines(path, skipped, _parse_with_side))
    if validation is not None:
        by_side["validation"] += read_lines(validation, skipped)
    if share and by_side["validation"]:
        raise ValueError(
            "--held-out-share is for labels of which nothing is named to choose by: leave it out, since there are"
            f" {len(by_side['validation']):,} validation lines"
        )
    if validation is None and not by_side["validation"]:
        by_side["train"], by_side["validation"] = held_out(by_side["train"], _share(by_side["train"], share))
    if not by_side["train"]:
        raise ValueError(f'{path} has no line to learn from: all of them are held out or named by their "split"')
    return Sides(by_side["train"], by_side["validation"], by_side["test"], skipped or [])


def held_out(lines: Sequence[Line], share: float) -> tuple[list[Line], list[Line]]:
    """(to learn from, held out): a group's own hash decides, so it never changes sides as a file grows."""
    chosen = {group for group in {line.group for line in lines} if is_held_out(group, share)}
    return [line for line in lines if line.group not in chosen], [line for line in lines if line.group in chosen]


def _parse_with_side(row: Json) -> Line:
    line = parse_line(row)
    if line.split is not None and line.split not in SIDES:
        raise BadLine(f'"split" is {json.dumps(line.split)}, and known are {", ".join(SIDES)}')
    return line


def _by_side(lines: Sequence[Line]) -> dict[str, list[Line]]:
    sides: dict[str, list[Line]] = {side: [] for side in SIDES}
    for line in lines:
        sides[line.split or "train"].append(line)
    return sides


def _share(lines: Sequence[Line], share: float | None) -> float:
    if share is not None:
        return share
    return HELD_OUT_SHARE if len({line.group for line in lines}) >= FEWEST_PROMPTS else 0.0

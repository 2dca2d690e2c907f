"""How many grades could annotators give, and could they tie? What no line says alone, the whole file does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from worker.learning.records import Judgement, Scale
from worker.learning.reward.lines import Line
from worker.learning.reward.observations import OVERALL


def on_common_scales(lines: Sequence[Line], known: Mapping[str, Sequence[Scale]] | None = None) -> list[Line]:
    """The lines with their scales settled, as nobody can from a single line.

    Where lines do not say how many grades there were, the largest strength among them says it; ties of a pair stand on
    that scale too. Where no tie was given on a scale, it has none. A scale that is not among the `known` ones of its
    judgement becomes the smallest of them that has as many grades.
    """
    levels = _open_levels(lines)
    graded = [_graded(line, levels) for line in lines]
    with_ties = {
        (name, judgement.scale.levels)
        for line in graded
        for name, judgement in _judgements(line)
        if judgement.tied_pairs()
    }

    def settled(name: str, judgement: Judgement) -> Judgement:
        own = judgement.scale.levels
        scale = Scale(own, ties=(name, own) in with_ties)
        return replace(judgement, scale=_nearest(scale, (known or {}).get(name, ())))

    return [_with_judgements(line, settled) for line in graded]


def _open_levels(lines: Sequence[Line]) -> dict[str, int]:
    """The largest strength of each judgement among the lines that do not say their grades."""
    levels: dict[str, int] = {}
    for line in lines:
        for name, judgement in _judgements(line):
            if name in line.open_scales and judgement.strength is not None:
                levels[name] = max(levels.get(name, 1), judgement.strength)
    return levels


def _graded(line: Line, levels: Mapping[str, int]) -> Line:
    def graded(name: str, judgement: Judgement) -> Judgement:
        return replace(judgement, scale=Scale(levels.get(name, 1))) if name in line.open_scales else judgement

    return _with_judgements(line, graded) if line.open_scales else line


def _nearest(scale: Scale, known: Sequence[Scale]) -> Scale:
    fitting = [one for one in known if one.levels >= scale.levels and (one.ties or not scale.ties)]
    return min(fitting, key=lambda one: (one.levels, one.ties != scale.ties), default=scale)


def _judgements(line: Line) -> Iterator[tuple[str, Judgement]]:
    for label in line.labels:
        yield OVERALL, label.overall
        yield from label.criteria.items()


def _with_judgements(line: Line, change: Callable[[str, Judgement], Judgement]) -> Line:
    labels = tuple(
        replace(
            label,
            overall=change(OVERALL, label.overall),
            criteria={key: change(key, judgement) for key, judgement in label.criteria.items()},
        )
        for label in line.labels
    )
    return replace(line, labels=labels)

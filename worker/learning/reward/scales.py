"""How many grades could annotators give, and could they tie? What no line says alone, the whole file does."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.lines import Line
from worker.learning.reward.observations import OVERALL


@dataclass(frozen=True)
class Said:
    """A judgement of a label, by its name: `overall` or a criterion's."""

    name: str
    judgement: Judgement
    label: Label

    @property
    def is_tied_pair(self) -> bool:
        """Whether two responses are tied, and no others are in the order."""
        return len(self.judgement.groups) == 1 and len(self.judgement.ranked) == 2

    @property
    def could_tie(self) -> bool:
        """Whether an order was given that could have been a tie."""
        return bool(self.judgement.groups) and self.judgement.scale.ties and not self.label.implied

    @property
    def is_graded(self) -> bool:
        """Whether it can stand on a scale of several grades."""
        return self.judgement.strength is not None or self.is_tied_pair


def on_common_scales(lines: Sequence[Line], known: Mapping[str, Sequence[Scale]] | None = None) -> list[Line]:
    """The lines with their scales settled, as nobody can from a single line.

    Where lines do not say how many grades there were, the largest strength among them says it; ties of a pair stand on
    that scale too. Where they do not say whether responses could be tied, a scale has ties if any was given on it or
    another line says so; a correction could not have been one. A scale that is not among the `known` ones of its
    judgement becomes the smallest of them that can take it.
    """
    levels = _open_levels(lines)

    def graded(line: Line, said: Said) -> Judgement:
        is_open = said.name in line.open_levels and said.is_graded
        scale = replace(said.judgement.scale, levels=levels.get(said.name, 1))
        return replace(said.judgement, scale=scale) if is_open else said.judgement

    lines = [_changed(line, partial(graded, line)) for line in lines]
    with_ties = {
        (said.name, said.judgement.scale.levels)
        for line in lines
        for said in _all_said(line)
        if said.judgement.tied_pairs() or (said.name not in line.open_ties and said.could_tie)
    }

    def settled(line: Line, said: Said) -> Judgement:
        own = said.judgement.scale.levels
        ties = (said.name, own) in with_ties if said.name in line.open_ties else said.judgement.scale.ties
        scale = _nearest(said, Scale(own, ties and not said.label.implied), (known or {}).get(said.name, ()))
        return said.judgement if scale == said.judgement.scale else replace(said.judgement, scale=scale)

    return [_changed(line, partial(settled, line)) for line in lines]


def _open_levels(lines: Sequence[Line]) -> dict[str, int]:
    """The largest strength of each judgement among the lines that do not say their grades."""
    levels: dict[str, int] = {}
    for line in lines:
        for said in _all_said(line):
            if said.name in line.open_levels and said.judgement.strength is not None:
                levels[said.name] = max(levels.get(said.name, 1), said.judgement.strength)
    return levels


def _nearest(said: Said, scale: Scale, known: Sequence[Scale]) -> Scale:
    fitting = [
        one
        for one in known
        if one.levels >= scale.levels and (one.ties or not scale.ties) and (one.levels == 1 or said.is_graded)
    ]
    return min(fitting, key=lambda one: (one.levels, one.ties != scale.ties), default=scale)


def _all_said(line: Line) -> Iterator[Said]:
    for label in line.labels:
        yield Said(OVERALL, label.overall, label)
        for name, judgement in label.criteria.items():
            yield Said(name, judgement, label)


def _changed(line: Line, change: Callable[[Said], Judgement]) -> Line:
    judgements = [change(said) for said in _all_said(line)]
    if all(said.judgement == judgement for said, judgement in zip(_all_said(line), judgements, strict=True)):
        return line
    remaining = iter(judgements)
    labels = tuple(
        replace(label, overall=next(remaining), criteria={name: next(remaining) for name in label.criteria})
        for label in line.labels
    )
    return replace(line, labels=labels)

"""What does an answer teach a reward model? Orders, scores and corrections, each on the scale that it was given on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.answers import Kind
from app.domain.judgement import JudgementForm
from app.domain.snapshots import RankedSet
from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.lines import output_of
from worker.steps.inputs import as_messages

_CORRECTED = Scale(levels=1, ties=False)  # whoever corrects a response does not call the two equal


@dataclass(frozen=True)
class _Said:
    """What an answer says in one respect, of response ids."""

    groups: Sequence[Sequence[int]]
    strength: int | None
    scale: Scale
    scores: Mapping[int, float]

    @property
    def responses(self) -> set[int]:
        """Those of which it says anything."""
        return {id_ for group in self.groups for id_ in group} | set(self.scores)

    def judgement(self, ids: Sequence[int]) -> Judgement:
        """The same of places in `ids`."""
        place = {id_: number for number, id_ in enumerate(ids)}
        groups = tuple(tuple(sorted(place[id_] for id_ in group)) for group in self.groups)
        scores = tuple(self.scores.get(id_) for id_ in ids) if self.scores else ()
        return Judgement(groups, self.strength, self.scale, scores)


def as_labels(ranked: RankedSet, weight: float = 1.0) -> Iterator[Label]:
    """What an answer teaches: what it says of the responses shown, and each correction above what it corrects.

    Responses of which it says nothing are left out; an answer of flags and reasons alone gives no label.
    """
    prompt, annotator = as_messages(ranked.messages), str(ranked.annotator_id)
    count = len(ranked.responses)
    groups = [[ranked.responses[place][0] for place in group] for group in ranked.groups]
    overall = _said(ranked.form, ranked.form.overall, count, ranked.answers | {"groups": groups})
    given = ranked.answers.get("criteria", {})
    criteria = {
        output_of(asked.key): _said(ranked.form, asked.kind, count, given[asked.key])
        for asked in ranked.form.criteria
        if asked.key in given
    }
    judged = overall.responses.union(*(said.responses for said in criteria.values()))
    ids = [id_ for id_, _text in ranked.responses if id_ in judged]
    if ids:
        yield Label(
            prompt=prompt,
            responses=tuple(text for id_, text in ranked.responses if id_ in judged),
            overall=overall.judgement(ids),
            criteria={key: said.judgement(ids) for key, said in criteria.items()},
            annotator=annotator,
            shown=tuple(ids.index(id_) for id_ in ranked.shown_order if id_ in judged),
            weight=weight,
        )
    for (_better_id, better), (_worse_id, worse) in ranked.implied_pairs():
        order = Judgement(groups=((0,), (1,)), scale=_CORRECTED)
        yield Label(prompt, (better, worse), order, annotator=annotator, weight=weight, implied=True)


def _said(form: JudgementForm, kind: Kind, count: int, said: Mapping[str, Any]) -> _Said:
    """One respect of an answer about `count` responses, as it is stored."""
    return _Said(
        groups=said.get("groups", []),
        strength=said.get("strength"),
        scale=Scale(*form.scale(kind, count)),
        scores={int(id_): float(score) for id_, score in said.get("scores", {}).items()},
    )

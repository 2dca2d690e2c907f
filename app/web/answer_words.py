"""How is a stored answer read? Line by line in words, for lists of labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain.judgement import Criterion, JudgementForm
from app.language import gettext as _
from app.tables import LabelRevision
from app.web.answer_form import number
from app.web.questions import scale_words

Names = Mapping[int, str]


@dataclass(frozen=True)
class Line:
    """A part of an answer: an order of responses, their scores, words, or a text of the annotator's own."""

    name: str = ""  # what was asked; empty for the overall order
    groups: Sequence[Sequence[str]] = ()  # names of responses, the best group first
    words: str = ""
    scores: Sequence[tuple[str, str]] = ()  # names of responses with their scores
    text: str = ""


def answer_lines(revision: LabelRevision, asked: JudgementForm, names: Names | None = None) -> list[Line]:
    """What a revision says, as the form asks it. Its ranks must be loaded.

    Responses are called by their numbers in the order shown, or by `names`.
    """
    shown = revision.shown_order
    called = names or {id_: str(place) for place, id_ in enumerate(shown, start=1)}
    said = revision.answers
    lines = _overall(revision, asked, called)
    if "scores" in said:
        lines.append(Line(_("Score"), scores=_scores(said["scores"], shown, called)))
    for criterion in asked.criteria:
        if judged := said.get("criteria", {}).get(criterion.key):
            lines.append(_criterion(criterion, judged, asked, shown, called))
    lines += _flags(said.get("flags", {}), asked, called)
    for id_, correction in said.get("corrections", {}).items():
        name = _("Correction of response %(number)s", number=called[int(id_)])
        lines.append(Line(name, text=correction["text"]))
    if "written" in said:
        lines.append(Line(_("Written answer"), text=said["written"]["text"]))
    if "rationale" in said:
        lines.append(Line(_("Rationale"), text=said["rationale"]))
    return lines or [Line(words=_("nothing to say"))]


def _overall(revision: LabelRevision, asked: JudgementForm, called: Names) -> list[Line]:
    places: dict[int, list[int]] = {}
    for rank in revision.ranks:
        places.setdefault(rank.rank, []).append(rank.response_id)
    groups = [places[rank] for rank in sorted(places)]
    words = [_("all are bad")] if revision.answers.get("all_bad") else []
    if groups:
        words += _order_words(groups, revision.answers.get("strength"), asked, revision.shown_order, called)
    if not groups and not words:
        return []
    return [Line(groups=_called(groups, called), words=", ".join(words))]


def _order_words(
    groups: Sequence[Sequence[int]], strength: int | None, asked: JudgementForm, shown: Sequence[int], called: Names
) -> list[str]:
    """The grade of a pair, and who was left out of a ranking."""
    words = [] if strength is None else [scale_words(asked.pair.scale)[strength - 1]]
    placed = {id_ for group in groups for id_ in group}
    if left := sorted(called[id_] for id_ in shown if id_ not in placed):
        words.append(_("left out: %(numbers)s", numbers=", ".join(left)))
    return words


def _called(groups: Sequence[Sequence[int]], called: Names) -> list[list[str]]:
    return [sorted(called[id_] for id_ in group) for group in groups]


def _scores(scores: Mapping[str, float], shown: Sequence[int], called: Names) -> list[tuple[str, str]]:
    given = [(called[id_], number(scores[str(id_)])) for id_ in shown if str(id_) in scores]
    return sorted(given)


def _criterion(
    criterion: Criterion, judged: Mapping[str, Any], asked: JudgementForm, shown: Sequence[int], called: Names
) -> Line:
    if "scores" in judged:
        return Line(criterion.name, scores=_scores(judged["scores"], shown, called))
    words = _order_words(judged["groups"], judged.get("strength"), asked, shown, called)
    return Line(criterion.name, groups=_called(judged["groups"], called), words=", ".join(words))


def _flags(raised: Mapping[str, Any], asked: JudgementForm, called: Names) -> list[Line]:
    """One line a flag: of which responses it was raised, or that it was raised of the whole."""
    lines = []
    for flag in asked.flags:
        if said := raised.get(flag.key):
            of = "" if said is True else ", ".join(sorted(called[id_] for id_ in said))
            lines.append(Line(_("Flag"), words=f"{flag.name}: {of}" if of else flag.name))
    return lines

"""What did the desk's form say? Its fields as an answer, and an answer as its fields.

The fields: rank_<id> (a place), strength ("<better id>:<grade>" or "tie"), all_bad, score_<id>, the same of a criterion
behind criterion_<key>_, correction_<id>, written, flag_<key> or flag_<key>_<id>, rationale, seconds.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.datastructures import FormData

from app.domain.answers import Kind, plain
from app.domain.judgement import JudgementForm
from app.domain.queue import ShownResponse
from app.errors import Invalid, InvalidRanking
from app.language import gettext as _
from app.tables import LabelRevision

Groups = list[list[int]]

_OURS = re.compile(r"(rank|score|criterion|correction|flag)_.*|strength|all_bad|written|rationale", re.DOTALL)
_DAY = 86_400.0


async def _sent(request: Request) -> FormData:
    return await request.form()


SentForm = Annotated[FormData, Depends(_sent)]


def read_answer(
    asked: JudgementForm, shown: Sequence[ShownResponse], sent: Mapping[str, object]
) -> tuple[Groups, dict[str, Any]]:
    """The groups and answers that a filled form means, for `answers.check`.

    Empty fields and unchanged corrections say nothing. Where “all are bad” or a flag stands instead of an order, one
    that was only begun is left out. Raises InvalidRanking or Invalid for what cannot be read, and for filled fields
    that this comparison does not ask.
    """
    fields = _Fields(sent_fields(sent), [response.id for response in shown])
    flags = _flags(asked, fields)
    is_excused = any(flag.excuses and flag.key in flags for flag in asked.flags)
    all_bad = fields.take("all_bad") == "1"
    groups, strength = _order(asked, asked.overall, fields, "", is_optional=is_excused or all_bad)
    answers = {
        "strength": strength,
        "all_bad": all_bad,
        "scores": fields.scores("score_"),
        "criteria": _criteria(asked, fields, is_excused),
        "corrections": _corrections(shown, fields),
        "written": fields.take("written"),
        "flags": flags,
        "rationale": fields.take("rationale"),
    }
    if left := fields.left():
        raise Invalid(
            _(
                "This comparison does not ask for “%(field)s”. Load the page again and answer once more.",
                field=left[:60],
            )
        )
    return groups, {key: value for key, value in answers.items() if value}


def read_seconds(sent: Mapping[str, object]) -> float | None:
    """The time in front of the comparison that the page measured; None where it measured none."""
    try:
        seconds = float(str(sent.get("seconds", "")))
    except ValueError:
        return None
    return min(seconds, _DAY) if math.isfinite(seconds) and seconds > 0 else None


def sent_fields(sent: Mapping[str, object]) -> dict[str, str]:
    """The fields of the answer among those that were sent, as they were filled: a refused form is shown with them."""
    return {name: value for name, value in sent.items() if isinstance(value, str) and _OURS.fullmatch(name)}


def fields_of(revision: LabelRevision) -> dict[str, str]:
    """The fields that would say a stored answer. Its ranks must be loaded."""
    said = revision.answers
    places: dict[int, list[int]] = {}
    for rank in revision.ranks:
        places.setdefault(rank.rank, []).append(rank.response_id)
    groups = [places[rank] for rank in sorted(places)]
    fields = dict(_order_fields("", groups, said.get("strength"), len(revision.shown_order)))
    fields |= {f"score_{id_}": number(score) for id_, score in said.get("scores", {}).items()}
    for key, judged in said.get("criteria", {}).items():
        name = f"criterion_{key}_"
        fields |= _order_fields(name, judged.get("groups", []), judged.get("strength"), len(revision.shown_order))
        fields |= {f"{name}score_{id_}": number(score) for id_, score in judged.get("scores", {}).items()}
    fields |= {f"correction_{id_}": one["text"] for id_, one in said.get("corrections", {}).items()}
    for key, raised in said.get("flags", {}).items():
        fields |= {f"flag_{key}": "1"} if raised is True else {f"flag_{key}_{id_}": "1" for id_ in raised}
    if said.get("all_bad"):
        fields["all_bad"] = "1"
    if "written" in said:
        fields["written"] = said["written"]["text"]
    if "rationale" in said:
        fields["rationale"] = said["rationale"]
    return fields


def _order_fields(name: str, groups: Sequence[Sequence[int]], strength: int | None, shown: int) -> dict[str, str]:
    """Places, and of two responses also how a pair says it: the page takes what it asks."""
    fields = {f"{name}rank_{id_}": str(rank) for rank, group in enumerate(groups, start=1) for id_ in group}
    if strength is not None:
        fields[f"{name}strength"] = f"{groups[0][0]}:{strength}"
    elif shown == 2 and len(groups) == 1:
        fields[f"{name}strength"] = "tie"
    return fields


def number(score: float) -> str:
    """A score as it is written: a whole one without decimals."""
    return str(int(score)) if score == int(score) else str(score)


class _Fields:
    """The fields of a form, taken one after the other: in the end it tells what nobody asked for."""

    def __init__(self, fields: Mapping[str, str], ids: Sequence[int]) -> None:
        self._left = {name: value for name, value in fields.items() if value.strip()}
        self.ids = ids

    def take(self, name: str) -> str:
        """A field's text without space around it, empty where it was left out."""
        return self._left.pop(name, "").strip()

    def left(self) -> str | None:
        """A filled field that was not taken."""
        return next(iter(self._left), None)

    def of_responses(self, prefix: str) -> Iterator[tuple[int, str]]:
        """Response ids, in the order shown, with what was filled in beside them."""
        for id_ in self.ids:
            if said := self.take(f"{prefix}{id_}"):
                yield id_, said

    def scores(self, prefix: str) -> dict[int, float]:
        """Scores by response ids. Raises Invalid for what is no number."""
        return {id_: _score(said) for id_, said in self.of_responses(prefix)}

    def groups(self, prefix: str) -> Groups:
        """Responses with a place, the best group first. Equal places are ties; they need not be dense."""
        places: dict[int, list[int]] = {}
        for id_, place in self.of_responses(prefix):
            if not (place.isascii() and place.isdecimal() and len(place) < 4):
                raise InvalidRanking(_("Give every response a place: 1 for the best, equal numbers for ties."))
            places.setdefault(int(place), []).append(id_)
        return [places[place] for place in sorted(places)]


def _score(said: str) -> float:
    try:
        score = float(said.replace(",", "."))
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise Invalid(_("A score must be a number such as 4.2, not “%(said)s”.", said=said[:40]))
    return score


def _order(
    asked: JudgementForm, kind: Kind, fields: _Fields, name: str, *, is_optional: bool
) -> tuple[Groups, int | None]:
    """Groups and the strength of one question, overall or of a criterion."""
    groups = fields.groups(f"{name}rank_")
    side = fields.take(f"{name}strength")
    if asked.is_pair(kind, len(fields.ids)):
        return _pair(side, fields.ids)
    missing = len(fields.ids) - sum(map(len, groups))
    is_begun = missing > 0 and not (asked.ranking.partial and len(fields.ids) - missing >= 2)
    return [] if is_optional and is_begun else groups, None


def _pair(side: str, ids: Sequence[int]) -> tuple[Groups, int | None]:
    """What a scale says: nothing, "tie", or "<id of the better one>:<grade>"."""
    if not side:
        return [], None
    if side == "tie":
        return [list(ids)], None
    better, _colon, grade = side.partition(":")
    if better not in {str(id_) for id_ in ids} or not re.fullmatch("[1-9]", grade):
        raise InvalidRanking(_("Say which response is better, and how much, with one of the buttons of the scale."))
    return [[int(better)], [id_ for id_ in ids if str(id_) != better]], int(grade)


def _criteria(asked: JudgementForm, fields: _Fields, is_excused: bool) -> dict[str, dict[str, Any]]:
    judged: dict[str, dict[str, Any]] = {}
    for criterion in asked.criteria:
        name = f"criterion_{criterion.key}_"
        if criterion.kind == "score":
            said: dict[str, Any] = {"scores": fields.scores(f"{name}score_")}
        else:
            groups, strength = _order(asked, criterion.kind, fields, name, is_optional=is_excused)
            said = {"groups": groups, "strength": strength}
        if said := {key: value for key, value in said.items() if value}:
            judged[criterion.key] = said
    return judged


def _corrections(shown: Sequence[ShownResponse], fields: _Fields) -> dict[int, str]:
    own = {response.id: plain(response.text) for response in shown}
    return {id_: text for id_, text in fields.of_responses("correction_") if plain(text) != own[id_]}


def _flags(asked: JudgementForm, fields: _Fields) -> dict[str, Any]:
    raised: dict[str, Any] = {}
    for flag in asked.flags:
        if flag.of == "comparison":
            raised[flag.key] = fields.take(f"flag_{flag.key}") == "1"
        else:
            raised[flag.key] = [id_ for id_, _said in fields.of_responses(f"flag_{flag.key}_")]
    return {key: value for key, value in raised.items() if value}

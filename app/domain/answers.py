"""Does an answer follow its judgement form? It is checked part by part, and comes back in the shape that is stored."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from app.domain import texts
from app.domain.answer_parts import Part, Shown, is_whole, read_object, read_truth, refuse_keys
from app.domain.judgement import Criterion, Flag, JudgementForm, ScoreAsked
from app.domain.responses import LONGEST_TEXT
from app.errors import Invalid, InvalidRanking
from app.language import gettext as _
from app.language import grouped

LONGEST_RATIONALE = 20_000
LONGEST_ANSWERS = 1_000_000

Kind = Literal["ranking", "pair", "score", "none"]


@dataclass(frozen=True)
class CheckedAnswer:
    """An answer that follows its form.

    `ranks` gives response ids their places, 1 is best, dense, ties are equal; responses without a place are left out.
    `answers` is what else was said, as `label_revisions.answers` keeps it. The same answer is always equal to itself:
    what says nothing is left out, texts are trimmed, scores lie on their steps.
    """

    ranks: dict[int, int]
    answers: dict[str, Any]


def check(asked: JudgementForm, shown: Mapping[int, str], groups: object, answers: object) -> CheckedAnswer:
    """Check an answer against its form and the comparison's own responses (id -> text, in the order shown).

    `groups` and `answers` are JSON values as they came in; docs/formats.md says what they may hold. What was checked
    once passes again, and is the same.

    Raises:
        InvalidRanking: if groups, overall or of a criterion, are not what the form asks.
        Invalid: if anything else is not; `details["field"]` names the part.
    """
    if found := texts.flaw([groups, answers]):
        raise Invalid(_("The answer cannot be kept: %(reason)s.", reason=found))
    responses = Shown(shown)
    said = read_object(Part("answers", _("Answers")), answers)
    _refuse_unasked(asked, responses, said)
    flags = _flags(asked, responses, said.get("flags"))
    is_excused = any(flag.excuses and flag.key in flags for flag in asked.flags)
    all_bad = read_truth(Part("all_bad", _("All are bad")), said.get("all_bad"))
    order = _order(
        asked,
        asked.overall,
        responses,
        {"groups": groups, "strength": said.get("strength")},
        Part("", asked_name(asked.overall)),
        is_required=not (all_bad or is_excused),
    )
    kept = {
        "strength": order.get("strength"),
        "all_bad": all_bad,
        "scores": _overall_scores(asked, responses, said.get("scores"), is_excused),
        "criteria": _criteria(asked, responses, said.get("criteria"), is_excused),
        **_written(asked, responses, said, is_excused),
        "flags": flags,
        "rationale": _rationale(asked, said.get("rationale"), is_excused),
    }
    stored = {key: value for key, value in kept.items() if value}
    if len(texts.canonical(stored)) > LONGEST_ANSWERS:
        longest = grouped(LONGEST_ANSWERS)
        raise Invalid(_("The answers are longer than %(longest)s characters: shorten the texts.", longest=longest))
    ranks = {id_: rank for rank, group in enumerate(order.get("groups", []), start=1) for id_ in group}
    return CheckedAnswer(ranks, stored)


def without_response_ids(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored answers as `check` gives them: before its texts had become responses."""
    plain = dict(stored)
    if "written" in plain:
        plain["written"] = {"text": plain["written"]["text"]}
    if "corrections" in plain:
        plain["corrections"] = {id_: {"text": one["text"]} for id_, one in plain["corrections"].items()}
    return plain


def asked_name(kind: Kind) -> str:
    """What sentences call the overall judgement."""
    return _("Comparison") if kind == "pair" else _("Ranking")


def _refuse_unasked(asked: JudgementForm, shown: Shown, said: Mapping[str, object]) -> None:
    known = {
        "strength": asked.is_pair(asked.overall, shown.count),
        "all_bad": asked.all_bad,
        "scores": asked.score is not None,
        "criteria": bool(asked.criteria),
        "corrections": asked.correction != "no",
        "written": asked.correction != "no",
        "flags": bool(asked.flags),
        "rationale": asked.rationale != "no",
    }
    refuse_keys(Part("answers", _("Answers")), said, [key for key, is_asked in known.items() if is_asked])


def _order(
    asked: JudgementForm, kind: Kind, shown: Shown, said: Mapping[str, object], part: Part, *, is_required: bool
) -> dict[str, Any]:
    """`groups` and, of a pair that is no tie, `strength`; nothing where nothing was said."""
    within = f"{part.path}." if part.path else ""
    field, strength = Part(f"{within}groups", part.name), Part(f"{within}strength", part.name)
    groups = _groups(shown, said.get("groups"), field)
    if not (asked.is_ranked(kind, shown.count) or asked.is_pair(kind, shown.count)):
        if groups:
            raise field.refused(_("nothing is ranked here: leave the groups empty."), InvalidRanking)
        return {}
    if not groups:
        if said.get("strength") is not None:
            raise strength.refused(_("say which response is better, too."))
        if is_required:
            raise _missing(asked, kind, shown, shown.texts, field)
        return {}
    is_pair = asked.is_pair(kind, shown.count)
    missing = set(shown.texts) - {id_ for group in groups for id_ in group}
    is_enough = asked.ranking.partial and not is_pair and shown.count - len(missing) >= 2
    if missing and not is_enough:
        raise _missing(asked, kind, shown, missing, field)
    is_tied = any(len(group) > 1 for group in groups)
    if is_tied and not (asked.pair.ties if is_pair else asked.ranking.ties):
        raise field.refused(
            _("no two are equal on this scale: say which one is better.")
            if is_pair
            else _("this project asks for a ranking without ties: give every response its own place."),
            InvalidRanking,
        )
    if not is_pair:
        return {"groups": groups}
    return {"groups": groups, **_strength(asked.pair.levels, said.get("strength"), strength, is_tied=is_tied)}


def _groups(shown: Shown, said: object, part: Part) -> list[list[int]]:
    """Response ids, the best group first, each response at most once; sorted within a group. Raises InvalidRanking."""
    if said is None:
        return []
    if not isinstance(said, list | tuple):
        raise part.refused(_("groups must be a list of lists of response ids."), InvalidRanking)
    groups = [sorted(shown.ids(part, group, InvalidRanking)) for group in said]
    if not all(groups):
        raise part.refused(_("a group without responses has no place: leave it out."), InvalidRanking)
    placed = [id_ for group in groups for id_ in group]
    if len(set(placed)) < len(placed):
        raise part.refused(_("give every response one place; some are there twice."), InvalidRanking)
    return groups


def _missing(asked: JudgementForm, kind: Kind, shown: Shown, ids: Iterable[int], part: Part) -> Invalid:
    missing = sorted(ids)
    if asked.is_pair(kind, shown.count):
        sentence = _("say which response is better.")
    elif asked.ranking.partial:
        sentence = _("give at least two responses a place.")
    else:
        numbers = shown.numbers(missing)
        sentence = _("give every response a place; without one: %(numbers)s.", numbers=numbers)
    return part.refused(sentence, InvalidRanking, missing=missing)


def _strength(levels: int, said: object, part: Part, *, is_tied: bool) -> dict[str, int]:
    if is_tied:
        if said is not None:
            raise part.refused(_("neither response is better, so there is no strength: leave it out."))
        return {}
    if said is None and levels == 1:
        said = 1
    if not (is_whole(said) and 1 <= said <= levels):
        raise part.refused(_("say how much better, from 1 to %(levels)s.", levels=levels))
    return {"strength": said}


def _overall_scores(asked: JudgementForm, shown: Shown, said: object, is_excused: bool) -> dict[str, int | float]:
    part = Part("scores", _("Scores"))
    if asked.score is None:
        return {}
    return _scores(asked.score, shown, said, part, is_required=asked.score.required and not is_excused)


def _scores(asked: ScoreAsked, shown: Shown, said: object, part: Part, *, is_required: bool) -> dict[str, int | float]:
    given = {id_: _on_step(asked, shown, id_, value, part) for id_, value in shown.by_id(part, said).items()}
    if is_required and (missing := sorted(set(shown.texts) - set(given))):
        numbers = shown.numbers(missing)
        raise part.refused(_("score every response; without a score: %(numbers)s.", numbers=numbers), missing=missing)
    return {str(id_): score for id_, score in given.items()}


def _on_step(asked: ScoreAsked, shown: Shown, id_: int, value: object, part: Part) -> int | float:
    """The score on its step: what floating point adds or takes away, such as 0.1 + 0.2, is no other score."""
    refused = part.refused(
        _(
            "response %(number)s takes a number from %(lowest)s to %(highest)s in steps of %(step)s.",
            number=shown.numbers([id_]),
            lowest=f"{asked.lowest:g}",
            highest=f"{asked.highest:g}",
            step=f"{asked.step:g}",
        ),
        response_id=id_,
    )
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refused
    slack = asked.step / 1_000
    if not asked.lowest - slack <= value <= asked.highest + slack:
        raise refused
    # As decimals, as people write them: a step of 0.1 is a tenth.
    lowest, step, wanted = (Fraction(str(number)) for number in (asked.lowest, asked.step, value))
    nearest = lowest + round((wanted - lowest) / step) * step
    if abs(wanted - nearest) > step / 1_000 or nearest > Fraction(str(asked.highest)):
        raise refused
    return int(nearest) if nearest.denominator == 1 else float(nearest)


def _criteria(asked: JudgementForm, shown: Shown, said: object, is_excused: bool) -> dict[str, Any]:
    whole = Part("criteria", _("Criteria"))
    given = read_object(whole, said)
    refuse_keys(whole, given, [criterion.key for criterion in asked.criteria])
    judged = {
        criterion.key: _criterion(asked, criterion, shown, given.get(criterion.key), is_excused)
        for criterion in asked.criteria
    }
    return {key: value for key, value in judged.items() if value}


def _criterion(
    asked: JudgementForm, criterion: Criterion, shown: Shown, said: object, is_excused: bool
) -> dict[str, Any]:
    part = Part(f"criteria.{criterion.key}", criterion.name)
    given = read_object(part, said)
    is_required = criterion.required and not is_excused
    if criterion.kind == "score":
        refuse_keys(part, given, ["scores"])
        scale = ScoreAsked(lowest=1, highest=criterion.highest, step=1)
        field = Part(f"{part.path}.scores", part.name)
        scores = _scores(scale, shown, given.get("scores"), field, is_required=is_required)
        return {"scores": scores} if scores else {}
    is_pair = asked.is_pair(criterion.kind, shown.count)
    refuse_keys(part, given, ["groups", "strength"] if is_pair else ["groups"])
    return _order(asked, criterion.kind, shown, given, part, is_required=is_required)


def _written(asked: JudgementForm, shown: Shown, said: Mapping[str, object], is_excused: bool) -> dict[str, Any]:
    """`corrections` and `written`: texts that become responses."""
    part = Part("corrections", _("Corrections"))
    given = shown.by_id(part, said.get("corrections"))
    corrections = {}
    for id_, value in given.items():
        number = shown.numbers([id_])
        one = Part(f"corrections.{id_}", _("Correction of response %(number)s", number=number))
        corrections[str(id_)] = {"text": _response_text(value, one)}
        if corrections[str(id_)]["text"] == plain(shown.texts[id_]):
            raise one.refused(_("it says what the response says: change it, or leave it out."))
        _refuse_shown(shown, corrections[str(id_)]["text"], one)
    written = {}
    if (value := said.get("written")) is not None:
        one = Part("written", _("Written answer"))
        written = {"text": _response_text(value, one)}
        _refuse_shown(shown, written["text"], one)
    if asked.correction == "required" and not (is_excused or corrections or written):
        raise part.refused(_("correct at least one response, or write a better one."))
    return {"corrections": corrections, "written": written}


def _refuse_shown(shown: Shown, text: str, part: Part) -> None:
    """What is said of a response that is shown is said by its place: beside it, a text could say the opposite."""
    if text in {plain(one) for one in shown.texts.values()}:
        raise part.refused(_("one of the responses says exactly this: change it, or leave it out."))


def plain(text: str) -> str:
    """A text as a form's field sends it back: with Unix line ends, without space around it."""
    return texts.unix_lines(text).strip()


def _response_text(said: object, part: Part) -> str:
    """The text itself or an object with it. Its `response_id`, where a stored answer comes back, is found anew."""
    if isinstance(said, Mapping):
        given = read_object(part, said)
        refuse_keys(part, given, ["text", "response_id"])
        if given.get("response_id") is not None and not is_whole(given["response_id"]):
            raise part.refused(_("a response_id is a whole number: leave it out."))
        said = given.get("text")
    if not isinstance(said, str):
        raise part.refused(_("this must be a text."))
    text = texts.document(said, part.name, longest=LONGEST_TEXT)
    if not text:
        raise part.refused(_("it is empty: write something, or leave it out."))
    return text


def _flags(asked: JudgementForm, shown: Shown, said: object) -> dict[str, list[int] | bool]:
    whole = Part("flags", _("Flags"))
    given = read_object(whole, said)
    refuse_keys(whole, given, [flag.key for flag in asked.flags])
    raised = {flag.key: _flag(flag, shown, given[flag.key]) for flag in asked.flags if flag.key in given}
    return {key: value for key, value in raised.items() if value}


def _flag(flag: Flag, shown: Shown, said: object) -> list[int] | bool:
    part = Part(f"flags.{flag.key}", _(flag.name))
    if flag.of == "comparison":
        return read_truth(part, said)
    return [] if said is None else sorted(set(shown.ids(part, said)))


def _rationale(asked: JudgementForm, said: object, is_excused: bool) -> str:
    part = Part("rationale", _("Rationale"))
    if said is not None and not isinstance(said, str):
        raise part.refused(_("this must be a text."))
    text = texts.document(said or "", part.name, longest=LONGEST_RATIONALE)
    if not text and asked.rationale == "required" and not is_excused:
        raise part.refused(_("say why, in your own words."))
    return text

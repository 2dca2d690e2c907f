"""In which shape do labels leave? JSON lines that trainers read as they are, streamed from a snapshot."""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Literal

from sqlalchemy.orm import Session

from app.domain import snapshots
from app.domain.judgement import Kind
from app.domain.snapshots import RankedSet
from app.tables import Snapshot

Style = Literal["explicit", "conversational"]


class Format(StrEnum):
    """What a line of an export holds."""

    TRL = "trl"
    TRL_CONVERSATIONAL = "trl-conversational"
    RANKINGS = "rankings"


def lines(session: Session, snapshot: Snapshot, format_: Format) -> Iterator[str]:
    """The snapshot in that format, line by line. Raises Conflict if it holds a withdrawn label."""
    if format_ is Format.RANKINGS:
        return ranking_lines(session, snapshot)
    style: Style = "conversational" if format_ is Format.TRL_CONVERSATIONAL else "explicit"
    return trl_preference_lines(session, snapshot, style=style)


def trl_preference_lines(session: Session, snapshot: Snapshot, *, style: Style = "explicit") -> Iterator[str]:
    """TRL's preference format, one line for every ordered pair of every label; ties and unranked responses give none.

    A correction gives one pair more, preferred to what it corrects and marked `implied`; `strength` is 0 without a
    grade. `explicit` has prompt, chosen and rejected as text: a conversation's contents are joined by blank lines, as
    they are for models without a chat template. `conversational` has them as lists of messages. Beside them stand split
    and the ids that lead back to the label. Source: TRL's documentation, "Dataset formats", preference with an explicit
    prompt.

    Raises:
        Conflict: if the snapshot holds a withdrawn label.
    """
    snapshots.require_exportable(snapshot)
    return (_line(pair) for ranked in snapshots.each_ranking(session, snapshot) for pair in _pairs(ranked, style))


def ranking_lines(session: Session, snapshot: Snapshot) -> Iterator[str]:
    """Whole labels, one a line, also those without an order: docs/formats.md says what each key holds.

    Raises:
        Conflict: if the snapshot holds a withdrawn label.
    """
    snapshots.require_exportable(snapshot)
    return (_line(_ranking(ranked)) for ranked in snapshots.each_ranking(session, snapshot))


def _pairs(ranked: RankedSet, style: Style) -> Iterator[dict[str, Any]]:
    # Every line has every column, and never null: readers take the columns and their types from a file's first lines.
    said = {"strength": ranked.strength or 0, "implied": False}
    for better, worse in ranked.ordered_pairs():
        yield _pair(ranked, ranked.responses[better], ranked.responses[worse], style) | said
    for correction, corrected in ranked.implied_pairs():
        yield _pair(ranked, correction, corrected, style) | {"strength": 0, "implied": True}


def _pair(ranked: RankedSet, better: tuple[int, str], worse: tuple[int, str], style: Style) -> dict[str, Any]:
    (chosen_id, chosen), (rejected_id, rejected) = better, worse
    pair: dict[str, Any]
    if style == "conversational":
        pair = {"prompt": ranked.messages, "chosen": _said(chosen), "rejected": _said(rejected)}
    else:
        prompt = "\n\n".join(content_text(message) for message in ranked.messages)
        pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return pair | {
        "split": ranked.split.value,
        "prompt_id": ranked.prompt_id,
        "chosen_response_id": chosen_id,
        "rejected_response_id": rejected_id,
        "comparison_id": ranked.comparison_id,
        "revision_id": ranked.revision_id,
        "annotator_id": ranked.annotator_id,
    }


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def content_text(message: Mapping[str, Any]) -> str:
    """A message's text: its content, or the text among its content parts."""
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n\n".join(part["text"] for part in content if part["type"] == "text")


def _ranking(ranked: RankedSet) -> dict[str, Any]:
    ids = [id_ for id_, _text in ranked.responses]
    levels, ties = ranked.form.scale(ranked.form.overall, len(ids))
    return {
        "prompt": ranked.messages,
        "responses": [{"id": id_, "text": text} for id_, text in ranked.responses],
        "ranking": ranked.groups,
        "groups": [[ids[place] for place in group] for group in ranked.groups],
        "levels": levels,
        "ties": ties,
        "unranked": [ids[place] for place in ranked.unranked],
        "corrections": [
            {"corrects_id": ids[place], "response_id": id_, "text": text} for place, id_, text in ranked.corrections
        ],
        "split": ranked.split.value,
        "prompt_id": ranked.prompt_id,
        "comparison_id": ranked.comparison_id,
        "revision_id": ranked.revision_id,
        "annotator_id": ranked.annotator_id,
        "shown_order": ranked.shown_order,
        "answers": _answers(ranked, ids),
        "seconds": ranked.seconds,
    }


def _answers(ranked: RankedSet, ids: Sequence[int]) -> dict[str, Any]:
    """All that stands beside the order, but for the corrections, which have a column of their own."""
    said = {key: value for key, value in _by_place(ranked.answers, ids).items() if key != "corrections"}
    if "criteria" in said:
        kinds = {criterion.key: criterion.kind for criterion in ranked.form.criteria}
        said["criteria"] = {key: _criterion(ranked, kinds[key], own, ids) for key, own in said["criteria"].items()}
    return said


def _criterion(ranked: RankedSet, kind: Kind, judged: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    if kind == "score":
        return _by_place(judged, ids)
    levels, ties = ranked.form.scale(kind, len(ids))
    return {**judged, "levels": levels, "ties": ties}


def _by_place(judged: Mapping[str, Any], ids: Sequence[int]) -> dict[str, Any]:
    """Scores as lists in the order of the responses: with ids as keys, each line had columns of its own."""
    if "scores" not in judged:
        return dict(judged)
    return {**judged, "scores": [judged["scores"].get(str(id_)) for id_ in ids]}


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"

"""Does the command learn from an export what the loop learns from the database?"""

import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.domain import exports, labels, snapshots
from app.domain.exports import Format
from tests.factories_labelling import lease, make_desk, set_form
from tests.label_files import labels_in
from tests.whole_answers import make_whole_answers
from worker.learning.records import Label, Scale
from worker.learning.reward.observations import teaches
from worker.steps.taught import as_labels


def told(label: Label) -> tuple[object, ...]:
    """All but the weight, which an export does not hold, and the scale of what has no order."""
    criteria = {key: one for key, one in label.criteria.items() if one.groups}
    overall = label.overall if label.overall.groups else label.overall.scores
    return (label.prompt, label.responses, overall, criteria, label.shown, label.implied, label.annotator)


def test_an_export_of_rankings_says_what_the_loop_is_taught(session: Session, tmp_path: Path) -> None:
    place = make_whole_answers(session)
    snapshot = snapshots.take_snapshot(session, place.project.id)
    file = tmp_path / "rankings.jsonl"
    file.write_text("".join(exports.lines(session, snapshot, Format.RANKINGS)))
    read = [label for label in labels_in(file) if teaches(label)]
    taught = [
        label
        for ranked in snapshots.each_ranking(session, snapshot)
        for label in as_labels(ranked, ranked.believed)
        if teaches(label)
    ]
    assert len(read) > 1
    assert list(map(told, read)) == list(map(told, taught))


@pytest.mark.parametrize(("scale", "levels", "ties"), [("llama2", 3, True), ("anthropic", 4, False)])
def test_an_export_of_pairs_says_their_scale(
    session: Session, tmp_path: Path, scale: str, levels: int, ties: bool
) -> None:
    """Nobody gave the strongest grade or a tie, so the labels alone would show a smaller scale."""
    desk = make_desk(session, responses=2)
    asked = [{"key": kind, "name": kind, "kind": kind} for kind in ("pair", "score")]
    set_form(session, desk, overall="pair", pair={"scale": scale}, ranking={"ties": not ties}, criteria=asked)
    found = lease(session, desk)
    groups = [[id_] for id_ in found.shown_order]
    scores = {str(id_): 3 for id_ in found.shown_order}
    criteria = {"pair": {"groups": groups[::-1], "strength": 1}, "score": {"scores": scores}}
    answers = {"strength": 2, "criteria": criteria}
    labels.submit(session, found.id, found.annotator_id, groups, answers=answers)
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    (line,) = exports.lines(session, snapshot, Format.RANKINGS)
    row = json.loads(line)
    assert (row["levels"], row["ties"]) == (levels, ties)
    assert row["answers"]["criteria"]["score"] == {"scores": [3, 3]}
    file = tmp_path / "rankings.jsonl"
    file.write_text(line)
    (read,) = labels_in(file)
    (ranked,) = snapshots.rankings(session, snapshot)
    assert [told(read)] == list(map(told, as_labels(ranked)))
    assert (read.overall.strength, read.overall.scale) == (2, Scale(levels, ties))
    assert (read.criteria["pair"].strength, read.criteria["pair"].scale) == (1, Scale(levels, ties))


@pytest.mark.parametrize("style", [Format.TRL, Format.TRL_CONVERSATIONAL])
def test_exports_of_pairs_hold_the_same_pairs(session: Session, tmp_path: Path, style: Format) -> None:
    place = make_whole_answers(session)
    snapshot = snapshots.take_snapshot(session, place.project.id)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(exports.lines(session, snapshot, style)))
    rows = list(map(json.loads, file.read_text().splitlines()))
    read = labels_in(file)
    assert [label.implied for label in read] == [False, True]
    assert [label.annotator for label in read] == [str(row["annotator_id"]) for row in rows]
    assert all(label.overall.groups == ((0,), (1,)) for label in read)

"""Does the command learn from an export what the loop learns from the database?"""

import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.domain import exports, snapshots
from app.domain.exports import Format
from tests.whole_answers import make_whole_answers
from worker.learning.records import Label
from worker.learning.reward.files import read_labels
from worker.learning.reward.observations import teaches
from worker.steps.taught import as_labels


def told(label: Label) -> tuple[object, ...]:
    """All but the scale, whose ties a file shows and a form allows, and the weight, which an export does not hold."""
    criteria = {key: (one.groups, one.strength, one.scores) for key, one in label.criteria.items() if one.groups}
    overall = label.overall
    said = (overall.groups, overall.strength, overall.scores, criteria, label.shown, label.implied, label.annotator)
    return (label.prompt, label.responses, *said)


def test_an_export_of_rankings_says_what_the_loop_is_taught(session: Session, tmp_path: Path) -> None:
    place = make_whole_answers(session)
    snapshot = snapshots.take_snapshot(session, place.project.id)
    file = tmp_path / "rankings.jsonl"
    file.write_text("".join(exports.lines(session, snapshot, Format.RANKINGS)))
    read = [label for label in read_labels(file) if teaches(label)]
    taught = [
        label
        for ranked in snapshots.each_ranking(session, snapshot)
        for label in as_labels(ranked, ranked.believed)
        if teaches(label)
    ]
    assert len(read) > 1
    assert list(map(told, read)) == list(map(told, taught))


@pytest.mark.parametrize("style", [Format.TRL, Format.TRL_CONVERSATIONAL])
def test_exports_of_pairs_hold_the_same_pairs(session: Session, tmp_path: Path, style: Format) -> None:
    place = make_whole_answers(session)
    snapshot = snapshots.take_snapshot(session, place.project.id)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(exports.lines(session, snapshot, style)))
    rows = list(map(json.loads, file.read_text().splitlines()))
    read = read_labels(file)
    assert [label.implied for label in read] == [False, True]
    assert [label.annotator for label in read] == [str(row["annotator_id"]) for row in rows]
    assert all(label.overall.groups == ((0,), (1,)) for label in read)

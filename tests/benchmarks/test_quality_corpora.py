import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.quality.corpora import (
    FIRST,
    SECOND,
    TIE,
    ArgumentPair,
    folds,
    plain_pairs,
    read_answers,
    read_arguments,
    strict,
    with_ties,
)
from benchmarks.quality.figures import ACCURACY, ECE, comparison, joined, row
from worker.learning.records import Scale
from worker.learning.reward.evaluation import Pairs

pytestmark = pytest.mark.learning


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def arguments(tmp_path: Path) -> Path:
    """One topic with three arguments; the second has a character at which str.splitlines would split."""
    texts = {"arg1": "Yes.", "arg2": "No,\u2028never.", "arg3": "Why?"}
    given = {"topic": "t00", "debate_title": "Ban it", "stance": "No"}
    lines = [json.dumps(given | {"arg_id": key, "text": text}, ensure_ascii=False) for key, text in texts.items()]
    (tmp_path / "arguments.jsonl").write_text("\n".join(lines) + "\n")
    pairs = [("arg1_arg2", "a2", 1), ("arg1_arg3", "equal", 0), ("arg3_arg2", "", 0)]
    table = [
        dict(zip(("topic", "pair_id", "arg1", "arg2", "gold", "in_strict"), row, strict=True))
        for row in [("t00", pair, *pair.split("_"), gold, is_strict) for pair, gold, is_strict in pairs]
    ]
    write_table(tmp_path / "pairs.csv", table)
    votes = {"arg1_arg2": "a2 a2 a1", "arg1_arg3": "a1 a2", "arg3_arg2": "equal a1 equal"}
    judgments = [
        {"topic": "t00", "pair_id": pair, "worker": f"w{number}", "value": value}
        for pair, values in votes.items()
        for number, value in enumerate(values.split())
    ]
    write_table(tmp_path / "judgments.csv", judgments)
    return tmp_path


def test_pairs_are_read_with_their_gold_and_votes(arguments: Path) -> None:
    first, second, third = read_arguments(arguments)
    assert first.prompt == ({"role": "user", "content": "Ban it\nNo"},)
    assert first.arguments == ("Yes.", "No,\u2028never.")
    assert (first.gold, second.gold, third.gold) == (SECOND, TIE, ())
    assert [pair.is_strict for pair in (first, second, third)] == [True, False, False]
    assert first.votes == (("w0", SECOND), ("w1", SECOND), ("w2", FIRST))
    assert [label.annotator for label in third.vote_labels] == ["w0", "w1", "w2"]


def test_the_majority_is_a_tie_where_two_answers_have_as_many_votes(arguments: Path) -> None:
    assert [pair.majority for pair in read_arguments(arguments)] == [SECOND, TIE, TIE]


def test_clean_pairs_have_no_ties(arguments: Path) -> None:
    (label,) = strict(read_arguments(arguments))
    assert (label.overall.groups, label.overall.scale) == (SECOND, Scale(ties=False))


def test_every_debate_is_tested_once_and_stands_on_one_side() -> None:
    pairs = [
        ArgumentPair(f"debate {number}", ({"role": "user", "content": side},), ("a", "b"), FIRST, True, ())
        for number in range(10)
        for side in ("for", "against")
    ]
    tested: list[str] = []
    for fold in folds(pairs, 5):
        training, test = ({pair.debate for pair in side} for side in (fold.training, fold.test))
        assert (len(training), len(test), len(training | test)) == (8, 2, 10)
        assert len(fold.test) == 4
        for place, debate in enumerate(fold.kept_back):
            rest, kept_back = ({pair.debate for pair in side} for side in fold.without(place))
            assert (kept_back, rest) == ({debate}, training - {debate})
        tested += test
    assert sorted(tested) == sorted({pair.debate for pair in pairs})


def test_answers_are_read_in_five_degrees(tmp_path: Path) -> None:
    degrees = ("a-is-better", "b-is-slightly-better", "tie")
    rows = [
        {"prompt": "Hi", "completion_a": "a", "completion_b": "b", "evaluator": "r", "preference": degree}
        for degree in degrees
    ]
    (tmp_path / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    labels = read_answers(tmp_path)
    assert [(label.overall.groups, label.overall.strength) for label in labels] == [
        (FIRST, 2),
        (SECOND, 1),
        (TIE, None),
    ]
    assert [label.overall.strength for label in with_ties(labels)] == [None, None, None]
    assert [label.overall.groups for label in plain_pairs(labels)] == [FIRST, SECOND]


def pairs_of(probabilities: list[float]) -> Pairs:
    count = len(probabilities)
    return Pairs(torch.tensor(probabilities, dtype=torch.float64), torch.ones(count), torch.arange(count))


def test_repeats_of_a_fold_share_prompts_and_folds_do_not() -> None:
    part = pairs_of([0.9, 0.2])
    assert joined([part, part, part, part], repeats=2).prompts.tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_what_differs_everywhere_differs_surely() -> None:
    good, bad = pairs_of([0.9, 0.8, 0.6]), pairs_of([0.1, 0.2, 0.4])
    accuracy, nll, _ = comparison("case", [good], [bad], "the other")
    assert accuracy["difference"] == [1.0, 1.0, 1.0]
    assert nll["difference"][2] < 0


def test_goals_are_met_on_the_right_side() -> None:
    assert row("case", ACCURACY, [0.8, 0.86], goal=0.82)["met"] is True
    assert row("case", ACCURACY, [0.8, 0.82], goal=0.82)["met"] is False
    assert row("case", ECE, [0.05, 0.05], goal=0.04, value=0.03)["met"] is True
    assert row("case", ECE, [0.05, 0.05], [0.1, 0.1], "peer")["ratio"] == 2.0

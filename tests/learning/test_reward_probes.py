import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.agreement import ALL_AGREE, agreement_level, by_agreement, noise_ceiling
from worker.learning.reward.judged import JudgedPair, judged_pairs
from worker.learning.reward.probes import (
    FORMATS,
    borrowed_texts,
    format_probe,
    length_correlation,
    length_probe,
    longer_wins,
    position_probe,
    written_by_a_person_probe,
)

pytestmark = pytest.mark.learning

FIRST, SECOND, TIED = Judgement(((0,), (1,))), Judgement(((1,), (0,))), Judgement(((0, 1),))


def a_label(
    overall: Judgement,
    responses: Sequence[str] = ("a", "b"),
    prompt: str = "?",
    annotator: str | None = None,
    **more: Any,
) -> Label:
    return Label(({"role": "user", "content": prompt},), tuple(responses), overall, annotator=annotator, **more)


def judge(labels: Sequence[Label], scores: Sequence[Sequence[float]]) -> list[JudgedPair]:
    """By a model with these scores, and Bradley and Terry's probabilities."""
    return judged_pairs(labels, lambda label: [label.overall], [torch.tensor(own) for own in scores], torch.sigmoid)


def value(share: Any) -> float:
    if share["low"] is not None:  # None where all is of one prompt
        assert share["low"] <= share["value"] <= share["high"]
    return float(share["value"])


def test_pairs_of_a_ranking_and_a_grade() -> None:
    graded = Judgement(((1,), (0,)), 2, Scale(3))
    ranking = Judgement(((2,), (0, 1)))
    pairs = judge(
        [a_label(graded, prompt="p"), a_label(ranking, "abc", "q"), a_label(SECOND, prompt="p")],
        [[0.0, 1.0], [0.5, 0.5, 0.0], [0.0, 1.0]],
    )
    assert [(pair.texts, pair.grade, pair.levels, pair.prompt) for pair in pairs] == [
        (("b", "a"), 2, 3, 0),
        (("c", "a"), 1, 1, 1),
        (("c", "b"), 1, 1, 1),
        (("a", "b"), 0, 1, 1),
        (("b", "a"), 1, 1, 0),
    ]
    assert pairs[0].probability == pytest.approx(1 / (1 + math.exp(-1)))
    assert pairs[1].difference == -0.5
    assert pairs[0].turned.texts == ("a", "b")
    assert pairs[0].turned.probability == pytest.approx(1 - pairs[0].probability)


def votes(prompt: str, **answers: Judgement) -> list[Label]:
    return [a_label(answer, prompt=prompt, annotator=name) for name, answer in answers.items()]


def test_the_noise_ceiling_by_hand() -> None:
    """Three to one: a majority vote has 2 of 3 others with it, the lone one none. Two alike: 1 of 1, twice."""
    labels = [*votes("p", ada=FIRST, bob=FIRST, cyd=FIRST, dee=SECOND), *votes("q", ada=SECOND, bob=SECOND, cyd=TIED)]
    labels += votes("nobody else", ada=FIRST)
    ceiling = noise_ceiling(judge(labels, [[1.0, 0.0]] * len(labels)), 0)
    assert ceiling is not None
    assert value(ceiling["another_annotator"]) == pytest.approx((3 * 2 / 3 + 0 + 2 * 1) / 6)
    # The others of dee say otherwise, those of ada, bob and cyd agree 2 to 1; on q each other one agrees.
    assert value(ceiling["majority_of_others"]) == pytest.approx(5 / 6)
    # The model prefers the first everywhere: right about three of p.
    assert value(ceiling["model"]) == pytest.approx(3 / 6)
    assert noise_ceiling(judge(votes("p", ada=FIRST), [[1.0, 0.0]]), 0) is None


def test_an_even_split_of_the_others_is_half_right() -> None:
    labels = votes("p", ada=FIRST, bob=SECOND, cyd=FIRST)
    ceiling = noise_ceiling(judge(labels, [[1.0, 0.0]] * 3), 0)
    assert ceiling is not None
    assert value(ceiling["majority_of_others"]) == pytest.approx((0.5 + 0 + 0.5) / 3)


def test_the_same_texts_in_other_places_are_the_same_pair_and_a_person_votes_once() -> None:
    labels = [
        a_label(FIRST, ("a", "b"), annotator="ada"),
        a_label(SECOND, ("a", "b"), annotator="ada"),
        a_label(FIRST, ("b", "a"), annotator="bob"),
    ]
    ceiling = noise_ceiling(judge(labels, [[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]]), 0)
    assert ceiling is not None
    assert (value(ceiling["another_annotator"]), ceiling["another_annotator"]["count"]) == (1.0, 2)  # type: ignore[index]


def test_nobody_can_agree_on_the_order_of_one_text() -> None:
    labels = [a_label(FIRST, ("a", "a"), annotator=name) for name in ("ada", "bob")]
    assert noise_ceiling(judge(labels, [[0.0, 0.0]] * 2), 0) is None


def test_only_all_of_them_all_agree() -> None:
    assert [agreement_level(share) for share in (0.5, 0.75, 0.99, 1.0)] == [
        (0.0, 0.75),
        (0.75, 1.0),
        (0.75, 1.0),
        ALL_AGREE,
    ]


def test_figures_by_agreement() -> None:
    """Three of four, two of two, two of three (one tied them), and an even split that has no majority."""
    labels = [
        *votes("three of four", ada=FIRST, bob=FIRST, cyd=FIRST, dee=SECOND),
        *votes("all", ada=FIRST, bob=FIRST),
        *votes("with a tie", ada=SECOND, bob=SECOND, cyd=TIED),
        *votes("even", ada=FIRST, bob=SECOND),
    ]
    rows = by_agreement(judge(labels, [[1.0, 0.0]] * len(labels)), 0)
    assert [(row["low"], row["high"], row["n"], row["accuracy"]) for row in rows] == [
        (0.0, 0.75, 1, 0.0),
        (0.75, 1.0, 1, 1.0),
        (1.0, 1.0, 1, 1.0),
    ]


def test_the_position_probe() -> None:
    """Three of four chose what was shown first; the model is right about two of those, and about the other."""
    labels = [
        a_label(FIRST, prompt="1", shown=(0, 1)),
        a_label(FIRST, prompt="2", shown=(0, 1)),
        a_label(SECOND, prompt="3", shown=(1, 0)),
        a_label(SECOND, prompt="4", shown=(0, 1)),
        a_label(SECOND, prompt="5"),
    ]
    probe = position_probe(judge(labels, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), 0)
    assert value(probe["chosen_first"]) == 3 / 4
    assert value(probe["accuracy_first"]) == pytest.approx(2 / 3)
    assert value(probe["accuracy_last"]) == 1
    assert position_probe([], 0) == {"chosen_first": None, "accuracy_first": None, "accuracy_last": None}


def test_length_probes() -> None:
    labels = [
        a_label(FIRST, ("long one", "short"), "1"),
        a_label(FIRST, ("longer one", "short"), "2"),
        a_label(SECOND, ("long one", "short"), "3"),
        a_label(FIRST, ("alike", "equal"), "4"),
    ]
    pairs = judge(labels, [[2.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert value(longer_wins(pairs, len, 0)) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    probe = length_probe(pairs, 0)
    assert value(probe["chosen"]) == pytest.approx(2 / 3)
    assert value(probe["preferred"]) == 1
    assert (value(probe["accuracy_longer"]), value(probe["accuracy_shorter"])) == (1, 0)


def test_the_correlation_with_length_is_within_prompts() -> None:
    """Between prompts length and score rise together, within them they fall: numpy on what is left after centring."""
    labels = [a_label(FIRST, ("aaaa", "bb"), "1"), a_label(FIRST, ("c" * 40, "d" * 30), "2"), a_label(FIRST, "xy", "3")]
    scores = [[0.0, 1.0], [10.0, 15.0], [3.0, 3.0]]
    lengths = [1, -1, 5, -5, 0, 0]
    centred = [-0.5, 0.5, -2.5, 2.5, 0, 0]
    ours = length_correlation([*labels, labels[0]], [torch.tensor(own) for own in (*scores, scores[0])])
    assert ours == pytest.approx(np.corrcoef(lengths, centred)[0, 1])
    assert length_correlation(labels[2:], [torch.tensor(scores[2])]) is None
    assert length_correlation([], []) is None


@pytest.mark.parametrize(
    ("name", "having", "lacking"),
    [
        ("list", "so:\n- one\n- two", "a - b"),
        ("list", "1. one\n2. two", "in 1.5 hours"),
        ("heading", "## Why\nso", "#hashtag"),
        ("code", "```python\nx\n```", "`x`"),
        ("bold", "it is **so** good", "2 ** 3 ** 4"),
        ("table", "a | b\n--- | ---\n1 | 2", "a | b"),
        ("emoji", "good \U0001f600", "good :)"),
    ],
)
def test_formats_are_seen(name: str, having: str, lacking: str) -> None:
    assert FORMATS[name].search(having)
    assert not FORMATS[name].search(lacking)
    labels = [a_label(FIRST, (having, lacking), "1"), a_label(FIRST, (lacking, having), "2")]
    labels += [a_label(SECOND, (having, having), "3")]
    probe = format_probe(judge(labels, [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]), 0)
    assert list(probe) == [name]
    assert value(probe[name]["chosen"]) == 0.5
    assert value(probe[name]["preferred"]) == 1


def a_correction(number: int) -> Label:
    return a_label(FIRST, (f"fix {number}", f"draft {number}"), f"prompt {number}", implied=True)


def test_corrections_are_borrowed_by_the_next_prompt() -> None:
    borrowed = borrowed_texts([a_correction(0), a_label(FIRST), a_correction(1)])
    assert [one.prompt[0]["content"] for one in borrowed] == ["prompt 1", "prompt 0"]
    assert [one.responses for one in borrowed] == [("draft 1", "fix 0", "draft 0"), ("draft 0", "fix 1", "draft 1")]
    assert borrowed_texts([a_correction(0), a_correction(0)]) == []
    assert borrowed_texts([]) == []


@pytest.mark.parametrize(("model", "correction", "response"), [("writer", 1.0, 0.5), ("content", 0.0, 0.0)])
def test_who_wrote_a_text_shows_where_it_answers_nothing(model: str, correction: float, response: float) -> None:
    """One model prefers every text by a person; the other one those that answer their prompt, corrections most."""

    def score(prompt: str, text: str) -> float:
        if model == "writer":
            return float("fix" in text)
        return (2.0 + ("fix" in text)) * (text[-1] == prompt[-1])

    labels = [a_correction(number) for number in range(4)]
    implied = judge(labels, [[score(one.prompt[0]["content"], text) for text in one.responses] for one in labels])
    borrowed = [
        torch.tensor([score(one.prompt[0]["content"], text) for text in one.responses])
        for one in borrowed_texts(labels)
    ]
    probe = written_by_a_person_probe(implied, [], borrowed, 0)
    assert value(probe["accuracy"]) == 1
    assert value(probe["borrowed_correction"]) == correction
    assert value(probe["borrowed_response"]) == response
    assert probe["sureness_of_orders"] is None

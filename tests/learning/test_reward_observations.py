import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from random import Random
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.learning.answers import label, one_by_one
from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.likelihood import AnswerModel
from worker.learning.reward.observations import AnswerShape, Weighting, observe, shape_of, teaches

pytestmark = pytest.mark.learning

SEVEN = Scale(levels=3, ties=True)
ALIKE = Weighting()
PAIR = Judgement(((0,), (1,)))
TIE = math.log(2)
"""A cut: Rao and Kupper's theta is 2."""


def rao_kupper(better: float, worse: float, *, tied: bool) -> float:
    """The log-probability of an answer, by worths as in Rao and Kupper 1967 with theta 2, from two scores."""
    one, other = math.exp(better), math.exp(worse)
    win = one / (one + 2 * other)
    return math.log(1 - win - other / (other + 2 * one)) if tied else math.log(win)


def likelihoods(
    labels: Sequence[Label], scores: Sequence[Sequence[float]], weighting: Weighting = ALIKE
) -> list[float]:
    """Of every label, from scores [responses, outputs] laid end to end; cuts are TIE, TIE + 1, ...."""
    shape = shape_of(labels, annotators=False)
    answers = AnswerModel(shape)
    answers.thresholds.set_cuts([torch.arange(scale.levels) * 1.0 + TIE for _, scale in shape.ladders])
    observed = observe(labels, one_by_one(labels), shape, weighting)
    values: list[float] = answers.label_log_likelihoods(torch.tensor(scores), observed).tolist()
    return values


def test_all_pairs_of_a_ranking_with_ties_weigh_1_or_k_minus_1() -> None:
    labels, scores = [label(Judgement(((2,), (0, 3), (1,))))], [0.5, -1.0, 2.0, 0.3]
    pairs = [(2, 0), (2, 3), (2, 1), (0, 1), (3, 1)]
    total = sum(rao_kupper(scores[one], scores[other], tied=False) for one, other in pairs)
    total += rao_kupper(scores[0], scores[3], tied=True)
    columns = [[score] for score in scores]
    assert likelihoods(labels, columns) == pytest.approx([total / 6])
    assert likelihoods(labels, columns, Weighting("k-1")) == pytest.approx([total / 2])


def test_of_responses_without_a_place_nothing_is_said() -> None:
    [partial] = likelihoods([label(Judgement(((3,), (1,))), count=5)], [[9.0], [0.5], [9.0], [0.2], [9.0]])
    assert partial == pytest.approx(rao_kupper(0.2, 0.5, tied=False))


def test_a_strength_reads_its_own_interval() -> None:
    """P(grade 2 of 3) = sigma(d - t2) - sigma(d - t3), with thresholds log 2 + 0, 1, 2 here."""
    [got] = likelihoods([label(Judgement(((1,), (0,)), strength=2, scale=SEVEN))], [[0.1], [1.7]])
    below, above = (1 / (1 + math.exp(-(1.6 - TIE - step))) for step in (1, 2))
    assert got == pytest.approx(math.log(below - above), rel=1e-5)


def test_weights_multiply() -> None:
    labels = [label(PAIR), label(PAIR, weight=0.25), label(PAIR, weight=2, implied=True)]
    got = likelihoods(labels, [[0.5], [0.1]] * 3, Weighting(implied_weight=0.3))
    assert np.array(got) / got[0] == pytest.approx([1, 0.25, 0.6])


def test_a_criterion_that_nobody_answered_has_no_output() -> None:
    said = Judgement(((1,), (0,)))
    labels = [label(PAIR, honest=Judgement(), brief=Judgement(scores=(None, None))), label(PAIR, helpful=said)]
    shape = shape_of(labels, annotators=False)
    assert shape.outputs == ("overall", "helpful")
    assert set(shape.scales) == {"overall", "helpful"}
    assert len(observe(labels, one_by_one(labels), shape, Weighting()).output) == 3
    silent = Judgement(scores=(None, None))
    assert shape_of([label(silent, count=2, honest=silent)], annotators=False).overall_from == "orders"


def test_criteria_have_outputs_of_their_own_and_weigh_as_asked() -> None:
    labels = [label(PAIR, helpful=Judgement(((1,), (0,))), honest=Judgement(((0, 1),)))]
    assert shape_of(labels, annotators=False).outputs == ("overall", "helpful", "honest")
    scores = [[0.5, 0.2, -1.0], [0.1, 0.9, 0.3]]
    criteria = rao_kupper(0.9, 0.2, tied=False) + rao_kupper(-1.0, 0.3, tied=True)
    expected = rao_kupper(0.5, 0.1, tied=False) + 0.4 * criteria
    assert likelihoods(labels, scores, Weighting(criteria_weight=0.4)) == pytest.approx([expected])


def test_missing_scores_are_left_out_and_the_others_share_the_weight() -> None:
    judged = Judgement(((0,), (1,), (2,)), scores=(4.0, None, 1.0))
    labels = [label(judged)]
    observed = observe(labels, one_by_one(labels), shape_of(labels, annotators=False), Weighting("k-1", 1, 1, 0.3))
    assert observed.response.tolist() == [0, 2]
    assert observed.score.tolist() == pytest.approx([1, -1])  # (4 - 2.5) / 1.5 and (1 - 2.5) / 1.5
    assert (observed.score_weight * observed.label_weight[0]).tolist() == pytest.approx([0.15, 0.15])


def test_without_an_overall_order_the_scores_give_it() -> None:
    labels = [label(Judgement(scores=(1.0, None, 3.0, 1.0))), label(helpful=PAIR)]
    shape = shape_of(labels, annotators=False)
    observed = observe(labels, one_by_one(labels), shape, Weighting())
    assert shape.overall_from == "scores"
    overall = observed.output == 0
    pairs = set(zip(observed.first[overall].tolist(), observed.second[overall].tolist(), strict=True))
    assert pairs == {(2, 0), (2, 3), (0, 3)}
    assert sorted(observed.rung[overall].tolist()) == [0, 1, 1]


def test_without_any_overall_answer_each_criterion_counts_as_one() -> None:
    labels = [label(helpful=Judgement(((0,), (1,))), honest=Judgement(scores=(1.0, 2.0)))]
    shape = shape_of(labels, annotators=False)
    assert shape.overall_from == "criteria"
    observed = observe(labels, one_by_one(labels), shape, Weighting())
    overall = observed.output == 0
    assert observed.first[overall].tolist() == [0, 1]
    assert (observed.pair_weight * observed.label_weight)[overall].tolist() == [0.5, 0.5]


def test_one_overall_order_keeps_scores_to_their_own_output() -> None:
    labels = [label(PAIR), label(Judgement(scores=(1.0, 2.0)))]
    shape = shape_of(labels, annotators=False)
    assert (shape.overall_from, shape.outputs, shape.scored) == ("orders", ("overall", "score"), ("score",))
    assert observe(labels, one_by_one(labels), shape, Weighting()).pair_label.tolist() == [0]


def test_who_was_shown_first_is_known_pair_by_pair() -> None:
    labels = [label(Judgement(((0,), (1,), (2,))), shown=(2, 0, 1)), label(PAIR)]
    observed = observe(labels, one_by_one(labels), shape_of(labels, annotators=False), Weighting())
    seen = zip(observed.first.tolist(), observed.second.tolist(), observed.shown.tolist(), strict=True)
    assert set(seen) == {(0, 1, 1), (0, 2, -1), (1, 2, -1), (3, 4, 0)}


def test_the_most_frequent_scale_comes_first_and_shares_count_grades() -> None:
    strong, weak = (Judgement(((0,), (1,)), strength=grade, scale=SEVEN) for grade in (3, 1))
    shape = shape_of([label(strong), label(PAIR), label(weak), label(strong)], annotators=False)
    assert shape.scales == {"overall": (SEVEN, Scale())}
    assert shape.shares["overall"] == ((1 / 7, 2 / 7, 1 / 7, 3 / 7), (1 / 3, 2 / 3))


def test_annotators_are_named_only_where_their_noise_is_learned() -> None:
    labels = [label(PAIR, annotator="bob"), label(PAIR), label(PAIR, annotator="ann")]
    assert shape_of(labels, annotators=False).annotators == ()
    shape = shape_of(labels, annotators=True)
    assert shape.annotators == ("ann", "bob")
    unseen = [*labels, label(PAIR, annotator="eve")]
    assert observe(unseen, one_by_one(unseen), shape, Weighting()).annotator.tolist() == [1, 2, 0, 2]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[Label, list[float]]:
    count = draw(st.integers(2, 6))
    order = draw(st.permutations(range(count)))[: draw(st.integers(2, count))]
    ends = sorted(draw(st.sets(st.integers(1, len(order) - 1))))
    bounds = [0, *ends, len(order)]
    groups = tuple(tuple(order[low:high]) for low, high in pairwise(bounds))
    shown = tuple(draw(st.permutations(range(count))))
    weight = draw(st.sampled_from([0.5, 1.0, 3.0]))
    scores = draw(st.lists(st.floats(-5, 5), min_size=count, max_size=count))
    return label(
        Judgement(groups), count=count, annotator=draw(st.sampled_from("ab")), shown=shown, weight=weight
    ), scores


@settings(deadline=None, max_examples=40)  # the machine may be busy
@given(st.lists(rankings(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_neither_the_order_of_responses_nor_that_of_labels_matters(
    answered: list[tuple[Label, list[float]]], random: Random
) -> None:
    """Renames every label's responses, and turns the labels about."""
    renamed = []
    for one, scores in answered:
        new = list(range(len(scores)))
        random.shuffle(new)
        groups = tuple(tuple(new[old] for old in group) for group in one.overall.groups)
        moved = label(
            Judgement(groups),
            count=len(scores),
            annotator=one.annotator,
            weight=one.weight,
            shown=tuple(new[old] for old in one.shown),
        )
        renamed.append((moved, [scores[new.index(place)] for place in range(len(scores))]))
    turn = list(range(len(answered)))
    random.shuffle(turn)
    shape = shape_of([one for one, _ in answered], annotators=True)
    answers = AnswerModel(shape)
    torch.nn.init.constant_(answers.annotators.position_biases, 0.7)
    before, after = (
        answers.label_log_likelihoods(
            torch.tensor([score for _, scores in chosen for score in scores])[:, None],
            observe([one for one, _ in chosen], one_by_one([one for one, _ in chosen]), shape, Weighting("k-1")),
        )
        for chosen in (answered, [renamed[place] for place in turn])
    )
    torch.testing.assert_close(after, before[turn])


@settings(deadline=None, max_examples=40)  # the machine may be busy
@given(st.lists(rankings(), min_size=1, max_size=4), st.sampled_from(["1", "k-1"]))
def test_every_pair_is_weighed_as_a_plain_loop_weighs_it(
    answered: list[tuple[Label, list[float]]], set_weight: Literal["1", "k-1"]
) -> None:
    labels = [one for one, _ in answered]
    expected = []
    for one, scores in answered:
        place = {response: rank for rank, group in enumerate(one.overall.groups) for response in group}
        logs = []
        for better, worse in combinations(sorted(place, key=lambda response: place[response]), 2):
            logs.append(rao_kupper(scores[better], scores[worse], tied=place[better] == place[worse]))
        expected.append(one.weight * (1 if set_weight == "1" else len(place) - 1) * sum(logs) / len(logs))
    scores = [[score] for _, own in answered for score in own]
    assert likelihoods(labels, scores, Weighting(set_weight)) == pytest.approx(expected, rel=1e-4)


def test_responses_may_share_a_place() -> None:
    """Two labels of one prompt whose texts are encoded once."""
    labels = [label(PAIR), label(Judgement(((1,), (0,))))]
    observed = observe(labels, [(4, 2), (2, 0)], shape_of(labels, annotators=False), Weighting())
    assert (observed.first.tolist(), observed.second.tolist()) == ([4, 0], [2, 2])


def test_a_label_that_says_nothing_teaches_nothing_and_is_worth_nothing() -> None:
    silent = label(count=2, helpful=Judgement(scores=(None, None)))
    assert not teaches(silent)
    assert not teaches(label(PAIR, weight=0))
    assert all(map(teaches, [label(PAIR), label(Judgement(((0, 1),))), label(helpful=Judgement(scores=(1.0,)))]))
    assert likelihoods([silent, label(PAIR)], [[0.0, 0.0]] * 4)[0] == 0


@pytest.mark.parametrize(
    ("asked", "places", "reason"),
    [
        (label(PAIR), [(0,)], "label 0 has 2 responses and 1 places"),
        (label(Judgement(((0,), (1,)), strength=1, scale=SEVEN)), [(0, 1)], 'label 0 answers "overall" on Scale'),
        (label(PAIR, helpful=PAIR), [(0, 1)], 'label 0 answers "helpful" on Scale'),
        (label(Judgement(((0,), (1,)), scores=(1.0, 2.0))), [(0, 1)], 'label 0 has scores for "score"'),
    ],
)
def test_an_answer_that_the_shape_lacks_is_refused(asked: Label, places: list[tuple[int, ...]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        observe([asked], places, AnswerShape(), Weighting())


@pytest.mark.parametrize("name", ["overall", "score"])
def test_a_criterion_cannot_have_the_name_of_an_output_of_ours(name: str) -> None:
    judged = Label(label(PAIR).prompt, ("a", "b"), criteria={name: PAIR})
    with pytest.raises(ValueError, match=f'"{name}", an output of the reward model: rename it'):
        shape_of([judged], annotators=False)

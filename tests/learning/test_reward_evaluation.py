import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from worker.learning.evaluation import bootstrap_mean, bootstrap_ratio
from worker.learning.reward.evaluation import (
    Figures,
    Pairs,
    calibration_by_chance,
    calibration_interval,
    expected_calibration_error,
    figures,
    figures_with_curve,
    reliability,
    score_errors,
)

pytestmark = pytest.mark.learning


def pairs_of(probabilities: Sequence[float], outcomes: Sequence[int], prompts: Sequence[int] | None = None) -> Pairs:
    own = torch.arange(len(outcomes)) if prompts is None else torch.tensor(prompts)
    return Pairs(torch.tensor(probabilities, dtype=torch.float64), torch.tensor(outcomes), own)


FOUR = pairs_of([0.6, 0.3, 0.8, 0.1], [1, 1, 1, 0])
"""Confidences 0.6 right, 0.7 wrong, 0.8 right, 0.9 right."""


def measured(pairs: Pairs) -> Figures:
    return figures(pairs, 0)


def test_figures_of_four_pairs_by_hand() -> None:
    found = measured(FOUR)
    assert found["accuracy"] == pytest.approx(3 / 4)
    assert found["nll"] == pytest.approx(-(math.log(0.6) + math.log(0.3) + math.log(0.8) + math.log(0.9)) / 4)
    # Four bins of one pair each: |1 - 0.6|, |0 - 0.7|, |1 - 0.8|, |1 - 0.9|, each a quarter.
    assert found["ece"] == pytest.approx((0.4 + 0.7 + 0.2 + 0.1) / 4)
    assert found["n"] == 4
    low, high = found["accuracy_low"], found["accuracy_high"]
    assert low is not None
    assert high is not None
    assert 0 <= low < 0.75 < high <= 1


def test_calibration_error_of_two_bins_by_hand() -> None:
    """0.6 and 0.7, of which half is right, and 0.8 and 0.9, which both are: 0.15 off either way."""
    assert expected_calibration_error(FOUR.probabilities, FOUR.outcomes, bins=2) == pytest.approx(0.15)


def test_calibration_error_against_numpy() -> None:
    noise = np.random.default_rng(0)
    p, won = noise.random(1_003), noise.random(1_003) < 0.6
    confidence, right = np.maximum(p, 1 - p), (p > 0.5) == won
    bins = np.array_split(np.argsort(confidence), 15)
    expected = sum(len(own) / 1_003 * abs(right[own].mean() - confidence[own].mean()) for own in bins)
    assert expected_calibration_error(torch.tensor(p), torch.tensor(won)) == pytest.approx(expected)
    swapped = expected_calibration_error(1 - torch.tensor(p), 1 - torch.tensor(won).long())
    assert swapped == pytest.approx(expected)


def test_an_undecided_model_is_half_right() -> None:
    found = measured(pairs_of([0.5, 0.5, 0.5], [1, 1, 1]))
    assert found["accuracy"] == 0.5
    assert found["nll"] == pytest.approx(math.log(2))
    assert found["ece"] == 0


def test_a_sure_mistake_stays_finite() -> None:
    nll = measured(pairs_of([0.0], [1]))["nll"]
    assert nll is not None
    assert math.isfinite(nll)


def test_no_pair_gives_no_figure() -> None:
    found = measured(pairs_of([], []))
    assert found["n"] == 0
    assert {value for name, value in found.items() if name != "n"} == {None}


def test_figures_of_one_prompt_have_no_interval() -> None:
    one = Pairs(FOUR.probabilities, FOUR.outcomes, torch.full((4,), 7))
    alone = figures_with_curve(one, 0)
    ends = {name: value for name, value in alone.items() if name.endswith(("_low", "_high"))}
    assert set(ends) == {f"{name}_{end}" for name in ("accuracy", "nll", "ece") for end in ("low", "high")}
    assert set(ends.values()) == {None}
    assert {row[end] for row in alone["reliability"] for end in ("right_low", "right_high")} == {None}
    assert alone["ece"] == measured(FOUR)["ece"]
    assert alone["accuracy"] == pytest.approx(3 / 4)


def test_pairs_of_one_prompt_do_not_narrow_the_intervals() -> None:
    noise = torch.Generator().manual_seed(0)
    p, won = torch.rand(60, generator=noise), (torch.rand(60, generator=noise) < 0.6).long()
    once = measured(Pairs(p, won, torch.arange(60)))
    copied = measured(Pairs(p.repeat(20), won.repeat(20), torch.arange(60).repeat(20)))
    assert copied["n"] == 1_200
    for name in ("accuracy_low", "accuracy_high", "nll_low", "nll_high"):
        assert copied[name] == pytest.approx(once[name])


def test_the_mean_is_the_ratio_of_its_clusters_sums() -> None:
    values, clusters = torch.tensor([1.0, 0.0, 4.0, 2.0]), torch.tensor([7, 7, 3, 9])
    ratio = bootstrap_ratio(torch.tensor([4.0, 1.0, 2.0]), torch.tensor([1, 2, 1]), 5)
    assert bootstrap_mean(values, clusters, 5) == ratio
    assert ratio.value == pytest.approx(7 / 4)


def test_the_calibration_interval_holds_a_planted_error() -> None:
    """Sure of 0.8 and right in 0.7: an error of 0.1, known as well as a share of 3,000: +-1.96 sqrt(0.21 / 3000)."""
    right = (torch.rand(3_000, generator=torch.Generator().manual_seed(1)) < 0.7).long()
    pairs = Pairs(torch.full((3_000,), 0.8, dtype=torch.float64), right, torch.arange(3_000))
    low, high = calibration_interval(pairs, 0)
    assert low < 0.1 < high
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(0.21 / 3_000), rel=0.15)


def test_a_calibrated_model_errs_by_chance_alone() -> None:
    """Bins of 100 pairs of 0.8: the mean |error| of a normal of deviation sqrt(0.16 / 100) is sqrt(2 / pi) of it."""
    expected = math.sqrt(2 / math.pi) * math.sqrt(0.16 / 100)
    assert calibration_by_chance(torch.linspace(0.79, 0.81, 1_500), 0) == pytest.approx(expected, rel=0.05)


def test_tied_confidences_err_together_by_chance() -> None:
    """1,500 votes on one pair of 0.8 are one share, known to sqrt(0.16 / 1,500)."""
    expected = math.sqrt(2 / math.pi) * math.sqrt(0.16 / 1_500)
    assert calibration_by_chance(torch.full((1_500,), 0.8), 0) == pytest.approx(expected, rel=0.15)


def many_votes_on_one_pair(order: Sequence[int]) -> Pairs:
    """150 votes, 90 of them for what the model gives 0.689; each has a prompt of its own. Half are told turned."""
    right = torch.tensor([place < 90 for place in order])
    turned = torch.tensor([place % 2 for place in order])
    probabilities = torch.where(turned.bool(), 1 - torch.tensor(0.689).double(), 0.689)
    return Pairs(probabilities, (right != turned.bool()).long(), torch.tensor(order))


def test_calibration_does_not_depend_on_the_order_of_votes() -> None:
    shuffled = np.random.default_rng(0).permutation(150).tolist()
    for order in (list(range(150)), list(range(149, -1, -1)), shuffled):
        pairs = many_votes_on_one_pair(order)
        error = expected_calibration_error(pairs.probabilities, pairs.outcomes)
        assert error == pytest.approx(0.689 - 0.6)
        low, high = calibration_interval(pairs, 0)
        # All 150 votes say how well the share is known: 1.96 sqrt(0.24 / 150) either way.
        assert low == pytest.approx(0.089 - 0.078, abs=0.015)
        assert high == pytest.approx(0.089 + 0.078, abs=0.015)
        for row in reliability(pairs, 0):
            assert row["right"] == pytest.approx(0.6)
            assert row["right_low"] == pytest.approx(0.6 - 0.078, abs=0.015)
            assert row["right_high"] == pytest.approx(0.6 + 0.078, abs=0.015)
            assert row["count"] == 10


def test_ties_over_the_edge_of_a_bin_are_spread_by_hand() -> None:
    """Two bins of 0.6 0.7 | 0.7 0.8: half of the 0.7s is right, so both bins have a half of one there."""
    for middle in ([1, 0], [0, 1]):
        pairs = pairs_of([0.6, 0.7, 0.7, 0.8], [1, *middle, 1])
        error = expected_calibration_error(pairs.probabilities, pairs.outcomes, bins=2)
        assert error == pytest.approx((abs(1.5 - 1.3) + abs(1.5 - 1.5)) / 4)
        assert [row["right"] for row in reliability(pairs, 0, bins=2)] == [pytest.approx(0.75)] * 2


def test_reliability_rows_by_hand() -> None:
    rows = reliability(FOUR, 0, bins=2)
    first, second = rows
    assert (first["low"], first["high"], first["count"]) == (0.6, 0.7, 2)
    assert (first["probability"], first["right"]) == (pytest.approx(0.65), 0.5)
    assert (second["probability"], second["right"]) == (pytest.approx(0.85), 1.0)
    assert len(reliability(FOUR, 0)) == 4
    assert reliability(pairs_of([], []), 0) == []


def test_score_errors_against_scipy() -> None:
    predicted, given = [1.0, 2.0, 2.0, 5.0, 0.0], [1.0, 3.0, 2.0, 4.0, 1.0]
    errors = score_errors(torch.tensor(predicted), torch.tensor(given))
    assert errors["rmse"] == pytest.approx(math.sqrt((0 + 1 + 0 + 1 + 1) / 5))
    assert errors["rank_correlation"] == pytest.approx(stats.spearmanr(predicted, given).statistic)
    assert score_errors(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0]))["rank_correlation"] is None
    assert score_errors(torch.tensor([]), torch.tensor([]))["n"] == 0

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from worker.learning.policy.best_of_n import (
    against_best_of_n,
    best_of_n_kl,
    best_scores,
    chances_to_be_best,
)

pytestmark = pytest.mark.learning


def test_the_kl_is_that_of_the_greatest_of_uniform_numbers() -> None:
    """The greatest of n uniform numbers has the density n x^(n - 1): KL to the uniform, integrated by scipy."""
    for n in (1, 2, 4, 64):
        assert best_of_n_kl(n) == pytest.approx(-stats.beta(n, 1).entropy(), abs=1e-9)
    assert best_of_n_kl(64) == pytest.approx(3.17, abs=0.01)  # Stiennon et al. 2020 give about 3 nats for 64


def test_chances_are_those_of_counting_every_set() -> None:
    scores = [0.3, -1.0, 2.0, 0.9, 0.1]
    for n in range(1, 6):
        sets = list(itertools.combinations(range(5), n))
        best = [max(one, key=lambda place: scores[place]) for one in sets]
        counted = [best.count(place) / len(sets) for place in range(5)]
        assert chances_to_be_best(torch.tensor([scores]), n)[0].tolist() == pytest.approx(counted)


def test_the_best_of_k_is_estimated_without_bias() -> None:
    """The greatest of k uniform numbers is k / (k + 1) on the mean; 20,000 prompts of 6 draws."""
    noise = torch.tensor(np.random.default_rng(0).random((20_000, 6)))
    assert best_scores(noise, noise) == pytest.approx([k / (k + 1) for k in range(1, 7)], abs=4e-3)


def test_a_judge_who_disagrees_sees_the_best_get_worse() -> None:
    drawn = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 5.0]])
    assert best_scores(drawn, -drawn) == pytest.approx([-(2 + 4 / 3) / 2, -(8 / 3 + 10 / 3) / 2, -4.0])


def test_win_rates_against_every_possible_best() -> None:
    """By hand: of three drawn the best of two is 3 in two sets of three, and 2 in one."""
    own, drawn = torch.tensor([[2.5, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    against = against_best_of_n(own, drawn, drawn, 2, 0)
    assert against.winrate.value == pytest.approx(((1 / 3) + (1 / 3 + 0.5 * 2 / 3)) / 2)
    assert against.winrate.count == 2
    assert against.kl == pytest.approx(math.log(2) - 0.5)
    assert against.score == pytest.approx(2.75)
    assert [row.n for row in against.best] == [1, 2, 3]
    assert [row.kl for row in against.best] == pytest.approx([0.0, math.log(2) - 1 / 2, math.log(3) - 2 / 3])
    assert [row.score for row in against.best] == pytest.approx([2.0, 8 / 3, 3.0])


def test_a_policy_loses_against_the_best_of_n_of_itself_as_often_as_it_must() -> None:
    """A further draw is the greatest of n + 1 with chance 1 / (n + 1)."""
    noise = torch.tensor(np.random.default_rng(1).random((4_000, 8)))
    against = against_best_of_n(noise[:, :4], noise[:, 4:], noise[:, 4:], 4, 0)
    assert against.winrate.low < 1 / 5 < against.winrate.high
    assert against.winrate.high - against.winrate.low < 0.03


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(ValueError, match="the best of 4 cannot be told from 3 responses"):
        chances_to_be_best(torch.zeros(2, 3), 4)
    with pytest.raises(ValueError, match="do not fit each other"):
        against_best_of_n(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 4), 2, 0)

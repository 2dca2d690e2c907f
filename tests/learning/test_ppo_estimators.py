"""Do RLOO and GRPO what their papers say, and does every estimator learn?"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from tests.learning.ppo_runs import ENDED, QUICK, are_equal, count_good, improve, rollout_of, weights_of
from worker.learning.policy.actor import new_actor
from worker.learning.policy.estimators import estimate
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings
from worker.learning.records import Prompt, Sample

pytestmark = pytest.mark.learning

RLOO = replace(QUICK, estimator="rloo", group_size=3, batch_episodes=6, minibatches=1)
GRPO = replace(RLOO, estimator="grpo")
SCORES = [1.0, 3.0, 8.0, -1.0, 0.5, 0.0]  # two groups of three
SAMPLES = [
    Sample("x", tuple(range(5, 5 + length)), "ended", 0)  # of six different lengths
    for length in (4, 1, 2, 6, 3, 5)
]


def six() -> Rollout:
    return rollout_of(SAMPLES, SCORES, torch.zeros(6, 6))


def spread(scores: Sequence[float], lengths: Sequence[int]) -> Tensor:
    """Rewards [episodes, tokens] that sum up to the scores, a little of them on every token."""
    rewards = torch.zeros(6, 6)
    for row, (score, length) in enumerate(zip(scores, lengths, strict=True)):
        rewards[row, :length] = score / length
    return rewards


LENGTHS = [len(sample.token_ids) for sample in SAMPLES]


def test_rloo_is_the_reward_less_the_mean_of_the_others() -> None:
    """Ahmadian et al. 2024, equation 5, by hand for 1, 3, 8 and -1, 1/2, 0; on every token, and nowhere else.

    1 - (3 + 8)/2 = -4.5; 3 - (1 + 8)/2 = -1.5; 8 - (1 + 3)/2 = 6; -1 - 1/4 = -1.25; 1/2 + 1/2 = 1; 0 + 1/4 = 0.25.
    """
    own = estimate(six(), spread(SCORES, LENGTHS), RLOO)
    expected = [-4.5, -1.5, 6.0, -1.25, 1.0, 0.25]
    for row, (value, length) in enumerate(zip(expected, LENGTHS, strict=True)):
        assert own.advantages[row].tolist() == pytest.approx([value] * length + [0.0] * (6 - length), abs=1e-5)
    assert (own.returns == 0).all()


def test_grpo_is_the_z_score_within_the_group() -> None:
    """Shao et al. 2024, section 4.1.2: (r - mean(r)) / std(r). Their deviation is read as TRL's and OpenRLHF's
    trainers do, with Bessel's correction."""
    own = estimate(six(), spread(SCORES, LENGTHS), GRPO)
    expected = np.concatenate([stats.zscore(SCORES[:3], ddof=1), stats.zscore(SCORES[3:], ddof=1)])
    assert own.advantages[:, 0].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert (own.advantages[~six().mask] == 0).all()


def test_without_the_scale_grpo_only_takes_the_mean_off() -> None:
    """Liu et al. 2025 ("Dr. GRPO"): groups whose answers are alike do not weigh as much as the others."""
    own = estimate(six(), spread(SCORES, LENGTHS), replace(GRPO, grpo_scale=False))
    assert own.advantages[:, 0].tolist() == pytest.approx([-3, -1, 4, -1 + 1 / 6, 0.5 + 1 / 6, 1 / 6], abs=1e-5)


def test_the_price_of_leaving_is_a_part_of_what_is_compared() -> None:
    """With the KL in the reward, R is the score less beta times the sum of the log-ratios (Ahmadian et al., eq. 4)."""
    samples, settings = [ENDED] * 3, replace(RLOO, batch_episodes=3, episodes=3)
    rewards = torch.tensor([[0.1, 0.2, 1.0], [-0.1, 0.0, 0.5], [0.0, 0.0, 0.0]])
    own = estimate(rollout_of(samples, [0.0] * 3, torch.zeros(3, 3)), rewards, settings)
    totals = [1.3, 0.4, 0.0]
    expected = [totals[i] - (sum(totals) - totals[i]) / 2 for i in range(3)]
    assert own.advantages[:, 0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("settings", [RLOO, GRPO, replace(GRPO, grpo_scale=False)])
def test_a_group_of_equals_teaches_nothing(settings: PPOSettings) -> None:
    """Whatever they are equal to: the mean of three times 2.93875 is not 2.93875 in fp32."""
    ended = rollout_of([ENDED] * 6, SCORES, torch.zeros(6, 3))
    for value in (0.0, 0.1, 2.9387545585632324, 4.649277687072754, 1e4):
        rewards = torch.zeros(6, 3)
        rewards[:, -1] = torch.tensor([value] * 3 + [1.0, 2.0, 3.0])
        own = estimate(ended, rewards, settings)
        assert own.advantages[:3].abs().max() < 1e-6
        assert own.advantages[3:].abs().max() > 0.9


def test_whitened_rewards_do_not_change_who_was_better() -> None:
    own = estimate(six(), spread(SCORES, LENGTHS), replace(GRPO, whiten_rewards=True))
    assert own.advantages.isfinite().all()
    with_values = estimate(six(), spread(SCORES, LENGTHS), replace(QUICK, whiten_rewards=True))
    tokens = np.concatenate([[score / length] * length for score, length in zip(SCORES, LENGTHS, strict=True)])
    scaled = (tokens - tokens.mean()) / tokens.std() + tokens.mean()
    first = scaled[: LENGTHS[0]].sum()  # lambda = 1 and values of 0: the return is the sum of what follows
    assert float(with_values.returns[0, 0]) == pytest.approx(first, rel=1e-5)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_there_is_no_value_function(tiny_model: Any, estimator: Any) -> None:
    count = sum(1 for _ in tiny_model.parameters())
    actor = new_actor(tiny_model, deepcopy(tiny_model), None, replace(RLOO, estimator=estimator), 0)
    assert actor.value_parameters() == []
    assert len(actor.trained()) == len(actor.policy_parameters()) == count


@pytest.mark.parametrize("given", [{"group_size": 1}, {"group_size": 4}, {"value_warmup": 1}])
def test_groups_must_suit_the_estimator(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"group_size must be at least 2|no whole number of groups|no value function"):
        replace(RLOO, **given)


# On the tiny model.


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="gae"),
        pytest.param({"estimator": "rloo", "group_size": 4}, id="rloo"),
        pytest.param({"estimator": "grpo", "group_size": 4}, id="grpo"),
        pytest.param({"estimator": "grpo", "group_size": 4, "kl_in": "loss", "grpo_scale": False}, id="dr grpo"),
        pytest.param({"estimator": "rloo", "group_size": 4, "lora_rank": 8, "learning_rate": 1e-2}, id="adapters"),
    ],
)
def test_every_estimator_learns_a_planted_reward(tiny_model: Any, tiny_tokenizer: Any, given: dict[str, Any]) -> None:
    settings = replace(QUICK, episodes=384, minibatches=2, **({"learning_rate": 5e-3} | given))
    with torch.no_grad():  # adapters leave the output layer as it is: a random one hardly tells words apart
        tiny_model.get_output_embeddings().weight.mul_(10)
    rows = improve(tiny_model, tiny_tokenizer, settings).metrics
    scores = [row["objective/scores"] for row in rows]
    assert np.mean(scores[-2:]) > np.mean(scores[:2]) + 1
    assert 0 < rows[-1]["objective/kl"] < 20
    assert all(math.isfinite(value) for row in rows for value in row.values())
    has_values = any(name.startswith(("val/", "loss/value")) for name in rows[0])
    assert has_values == (settings.estimator == "gae")


def test_where_all_scores_are_equal_only_the_kl_moves_the_policy(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def the_same(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.full((len(responses),), 0.3)

    settings = replace(QUICK, episodes=64, estimator="grpo", group_size=4, kl_coefficient=0, missing_end_score=0)
    before = weights_of(tiny_model)
    [row] = improve(tiny_model, tiny_tokenizer, settings, reward=the_same).metrics
    assert are_equal(before, weights_of(tiny_model))
    assert row["loss/policy"] == 0


def test_the_price_in_the_loss_draws_the_policy_back(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def run(coefficient: float) -> float:
        settings = replace(
            QUICK, episodes=320, estimator="grpo", group_size=4, kl_in="loss", kl_coefficient=coefficient
        )
        rows = improve(deepcopy(tiny_model), tiny_tokenizer, settings, reward=count_good).metrics
        return rows[-1]["objective/kl"]

    assert run(5.0) < run(0.0) / 3

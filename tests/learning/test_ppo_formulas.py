"""Are the formulas those of the papers? Numbers worked out from the papers and the original code.

Where each point of a faithful PPO for language models is held:

| point | test |
|---|---|
| one forward for old, reference and new log-probabilities, first ratio 1 | `test_ppo_rollouts` |
| truncated before scoring, score on the end token, the price of no end | `test_ppo_rollouts`, here |
| -beta (log pi - log ref) with each token, the value from the state before it | here, `test_ppo_rollouts` |
| generalised advantages, gamma and lambda | here, `test_ppo_by_hand` |
| whitening over all tokens of the rollout, rewards without their mean | here, `test_ppo_by_hand` |
| both clipped losses, log-ratios held | here, `test_ppo_by_hand` |
| the mean over a step's tokens, whatever the micro-batches | `test_ppo_by_hand`, `test_ppo_steps` |
| epochs x minibatches steps, learning rate, Adam's epsilon, clipped gradients | `test_ppo_by_hand`, `test_ppo_steps` |
| adaptive KL a sequence, from where the run starts | here, `test_ppo_loop` |
| the value head begins at zero; value warm-up | `test_ppo_rollouts`, `test_ppo_steps` |
| early stop of an epoch, dropout off, seeds | `test_ppo_steps` |
| masked metrics | here, `test_ppo_by_hand` |
| RLOO and GRPO | `test_ppo_estimators` |
| KL budget, watched rewards, the price of length | `test_ppo_guards` |
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tests.learning.ppo_runs import CUT, ENDED, QUICK, rollout_of
from worker.learning.policy.estimators import generalised_advantages, whiten
from worker.learning.policy.kl import leaves_rollout, next_kl_coefficient, reference_kl
from worker.learning.policy.metrics import check_first_ratio, rollout_metrics, step_metrics
from worker.learning.policy.rewards import token_rewards
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import clipped_policy_loss, clipped_value_loss

pytestmark = pytest.mark.learning


# What a token is worth.


def test_the_score_stands_on_the_end_token_and_the_penalty_on_each() -> None:
    rollout = rollout_of([ENDED, CUT], [2.0, 2.0], torch.full((2, 4), 0.5))
    rewards = token_rewards(rollout, 0.1, 0.0, replace(QUICK, missing_end_score=1.5))
    assert rewards.tolist() == [
        pytest.approx([-0.05, -0.05, 2 - 0.05, 0.0]),
        pytest.approx([-0.05, -0.05, -0.05, 2 - 1.5 - 0.05]),
    ]


def test_a_cut_response_may_get_a_fixed_score_and_large_scores_are_clipped() -> None:
    """lm-human-preferences and its reproductions give -1 where there is no end; TRL subtracts."""
    rollout = rollout_of([ENDED, CUT], [20.0, 20.0], torch.zeros((2, 4)))
    settings = replace(QUICK, missing_end="replace", missing_end_score=-1.0, score_clip=5.0)
    assert token_rewards(rollout, 0.1, 0.0, settings).sum(dim=1).tolist() == [5.0, -1.0]
    unclipped = replace(QUICK, score_clip=None)
    assert token_rewards(rollout, 0.1, 0.0, unclipped).sum(dim=1).tolist() == [20.0, 19.0]


def test_the_price_in_the_loss_is_not_paid_again_with_the_rewards() -> None:
    rollout = rollout_of([ENDED], [2.0], torch.full((1, 3), 0.5))
    assert token_rewards(rollout, 0.1, 0.0, replace(QUICK, kl_in="loss")).tolist() == [[0.0, 0.0, 2.0]]


# How much better than expected.


def test_advantages_are_the_papers_double_sum() -> None:
    """Schulman et al. 2016, equation 16: A_t = sum over l of (gamma lambda)^l delta_{t+l}."""
    noise = np.random.default_rng(0)
    lengths, gamma, lam = [6, 3, 1], 0.9, 0.8
    rewards, values = np.zeros((3, 6)), np.zeros((3, 6))
    expected = np.zeros((3, 6))
    for row, length in enumerate(lengths):
        rewards[row, :length], values[row, :length] = noise.normal(size=(2, length))
        for t in range(length):
            for ahead in range(length - t):
                following = values[row, t + ahead + 1] if t + ahead + 1 < length else 0.0
                delta = rewards[row, t + ahead] + gamma * following - values[row, t + ahead]
                expected[row, t] += (gamma * lam) ** ahead * delta
    advantages, returns = generalised_advantages(torch.tensor(rewards), torch.tensor(values), gamma, lam)
    mask = np.arange(6) < np.array(lengths)[:, None]
    np.testing.assert_allclose(advantages.numpy()[mask], expected[mask])
    np.testing.assert_allclose(returns.numpy()[mask], (expected + values)[mask])


def test_with_lambda_one_returns_are_the_sums_of_future_rewards() -> None:
    _, returns = generalised_advantages(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.3, -5.0, 9.0]]), 1.0, 1.0)
    assert returns.tolist() == [pytest.approx([7.0, 6.0, 4.0])]


def test_with_lambda_zero_advantages_are_the_surprises_of_one_step() -> None:
    """Schulman et al. 2016, equation 17: r_t + gamma V_{t+1} - V_t."""
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.3, -5.0, 9.0]])
    advantages, _ = generalised_advantages(rewards, values, 0.5, 0.0)
    assert advantages.tolist() == [pytest.approx([1 - 2.5 - 0.3, 2 + 4.5 + 5.0, 4 - 9.0])]


def test_whitening_uses_the_biased_variance_of_real_tokens() -> None:
    """TensorFlow's `moments`, which the original uses, divides by n, as scipy's z-scores do with ddof=0."""
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 9.0, -99.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    expected = stats.zscore([1, 2, 3, 9], ddof=0)
    assert whiten(values, mask)[mask].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert whiten(values, mask)[~mask].tolist() == [0, 0]
    kept = whiten(values, mask, shift_mean=False)[mask]
    assert kept.tolist() == pytest.approx((expected + 3.75).tolist(), abs=1e-6)


@pytest.mark.parametrize("value", [0.7, 4.9117, 2.9387545585632324])
def test_whitening_what_is_all_the_same_gives_zeros(value: float) -> None:
    values, mask = torch.full((7, 143), value), torch.ones(7, 143, dtype=torch.bool)
    assert whiten(values, mask).abs().max() == 0
    assert whiten(values, mask, shift_mean=False)[mask].tolist() == pytest.approx([value] * 1001)


# What follows from it.


def test_the_clipped_policy_loss_by_hand() -> None:
    """Schulman et al. 2017, equation 7 with epsilon 0.2, for ratios 1.5 and 0.5 and advantages 1 and -1."""
    logprobs = torch.tensor([1.5, 1.5, 0.5, 0.5, 1.1]).log()
    losses = clipped_policy_loss(logprobs, torch.zeros(5), torch.tensor([1.0, -1.0, 1.0, -1.0, 2.0]), 0.2)
    assert losses.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8, -2.2])
    assert torch.isfinite(clipped_policy_loss(torch.tensor([500.0]), torch.zeros(1), torch.tensor([-1.0]), 0.2)).all()


def test_the_clipped_value_loss_by_hand() -> None:
    """V = 1, V_old = 0, clip 0.2: against R = 2 the clipped 0.2 is worse, against R = 0 the free 1 is."""
    losses = clipped_value_loss(torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([2.0, 0.0]), 0.2)
    assert losses.tolist() == pytest.approx([0.5 * 1.8**2, 0.5])


def test_what_is_clipped_teaches_nothing() -> None:
    """Beyond the clip and in the direction of gain the gradient is zero; back towards the rollout it is not."""
    logprobs = torch.tensor([1.5, 1.5, 0.5, 0.5]).log().requires_grad_()
    clipped_policy_loss(logprobs, torch.zeros(4), torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.2).sum().backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0])
    values = torch.tensor([1.0, 1.0]).requires_grad_()
    clipped_value_loss(values, torch.zeros(2), torch.tensor([2.0, 0.0]), 0.2).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0]


# How far from the reference, and from the rollout.


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (12.0, 0.15 * (1 + 0.2 * 512 / 10_000)),  # held at +20 %
        (1.0, 0.15 * (1 - 0.2 * 512 / 10_000)),  # held at -20 %
        (6.6, 0.15 * (1 + 0.1 * 512 / 10_000)),
        (6.0, 0.15),
    ],
)
def test_the_kl_coefficient_adapts_as_in_ziegler(kl: float, expected: float) -> None:
    """lm-human-preferences' `AdaptiveKLController` with its defaults: 0.15, target 6, horizon 10,000, 512 steps."""
    assert next_kl_coefficient(0.15, kl, 6.0, 512, 10_000) == pytest.approx(expected)


def test_the_kl_coefficient_cannot_turn_negative() -> None:
    assert next_kl_coefficient(0.15, 0.0, 6.0, 512, 0.2 * 512) == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match=r"kl_coefficient negative: it must be above 102\.4"):
        PPOSettings(batch_episodes=512, kl_horizon=0.2 * 512)


def test_kl_is_summed_over_a_sequence() -> None:
    assert rollout_of([ENDED, CUT], [0.0, 0.0], torch.full((2, 4), 0.5)).kl == pytest.approx((1.5 + 2.0) / 2)


def test_the_loss_for_leaving_the_reference_by_hand() -> None:
    """Shao et al. 2024, equation 4, at pi = 0.5 with ref = 0.25 and ref = 0.75: x - log x - 1 of 0.5 and of 1.5."""
    found = reference_kl(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log())
    assert found.tolist() == pytest.approx([0.5 + math.log(2) - 1, 1.5 - math.log(1.5) - 1])


def test_the_gradient_of_the_loss_for_leaving_agrees_with_finite_differences() -> None:
    logprobs = torch.tensor([-0.1, -1.0, -3.0, -6.0], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.5, -1.0, -0.2, -9.0], dtype=torch.float64)
    reference_kl(logprobs, reference).sum().backward()  # type: ignore[no-untyped-call]
    step = 1e-6
    slopes = (reference_kl(logprobs + step, reference) - reference_kl(logprobs - step, reference)) / (2 * step)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx(slopes.tolist(), rel=1e-6, abs=1e-9)
    assert logprobs.grad.tolist() == pytest.approx((1 - (reference - logprobs).exp()).tolist())


def test_a_rollout_is_left_where_kl_says_so() -> None:
    limited = replace(QUICK, epoch_kl_limit=0.1)
    assert [leaves_rollout(kl, limited) for kl in (0.0, 0.1, 0.11, math.inf)] == [False, False, True, True]
    assert not leaves_rollout(1e9, replace(QUICK, epoch_kl_limit=None))


# The figures.


def test_step_metrics_by_hand() -> None:
    """Ratios 1, 2 and 1/2; "Approximating KL divergence" (Schulman 2020): k1 = -log r, k2 = (log r)^2 / 2,
    k3 = r - 1 - log r, where r is new over old."""
    log_ratio = torch.tensor([1.0, 2.0, 0.5]).log()
    row = step_metrics(
        {
            "log_ratio": log_ratio,
            "policy_loss": torch.tensor([1.0, 2.0, 6.0]),
            "policy_clipped": torch.tensor([False, True, False]),
            "entropy": torch.tensor([0.5, 1.0, 3.0]),
            "value_loss": torch.tensor([0.0, 0.0, 3.0]),
            "value_clipped": torch.tensor([True, True, False]),
        }
    )
    log2 = math.log(2)
    assert row == pytest.approx(
        {
            "policy/policykl": 0.0,
            "policy/approxkl": log2**2 / 3,
            "policy/approxkl_k3": ((1 - log2) + (-0.5 + log2)) / 3,
            "policy/clipfrac": 1 / 3,
            "policy/ratio_mean": 3.5 / 3,
            "policy/ratio_max": 2.0,
            "policy/ratio_error": 1.0,
            "policy/ratio_error_mean": 0.5,
            "policy/entropy": 1.5,
            "loss/policy": 3.0,
            "loss/value": 1.0,
            "val/clipfrac": 2 / 3,
        },
        abs=1e-7,
    )


def test_ratios_out_of_all_bounds_are_still_numbers() -> None:
    tokens = {"policy_loss": torch.zeros(1), "policy_clipped": torch.zeros(1), "entropy": torch.zeros(1)}
    row = step_metrics({"log_ratio": torch.tensor([500.0]), **tokens})
    assert all(math.isfinite(value) for value in row.values())
    assert row["policy/ratio_max"] == pytest.approx(math.exp(20))


def test_explained_variance_by_hand() -> None:
    """Returns 1, 3, 5 (variance 8/3) and values 1, 3, 4, whose errors 0, 0, 1 have the variance 2/9."""
    rollout = rollout_of([ENDED], [0.0], torch.zeros((1, 3)))
    rollout = replace(rollout, outputs=replace(rollout.outputs, values=torch.tensor([[1.0, 3.0, 4.0]])))
    row = rollout_metrics(rollout, torch.zeros(1, 3), torch.tensor([[1.0, 3.0, 5.0]]))
    assert row["val/explained_variance"] == pytest.approx(1 - (2 / 9) / (8 / 3))


def test_where_there_is_nothing_to_explain_the_figures_are_still_numbers() -> None:
    """Equal returns have no variance. A figure that is no number could not be stored with the others."""
    rollout = rollout_of([ENDED], [0.0], torch.zeros((1, 3)))
    row = rollout_metrics(rollout, torch.zeros(1, 3), torch.zeros(1, 3))
    assert all(math.isfinite(value) for value in row.values())
    assert row["val/explained_variance"] == 0


def test_rollout_metrics_by_hand() -> None:
    rollout = rollout_of([ENDED, CUT], [1.0, 4.0], torch.full((2, 4), 0.5), watched={"gold": torch.tensor([3.0, 4.0])})
    settings = replace(QUICK, missing_end_score=1.0)
    row = rollout_metrics(rollout, token_rewards(rollout, 0.1, 0.0, settings), None)
    assert row == pytest.approx(
        {
            "objective/kl": 1.75,
            "objective/scores": 2.5,
            "objective/scores_std": 1.5,
            "objective/rlhf_reward": (1 - 0.15 + 4 - 1 - 0.2) / 2,
            "ended_rate": 0.5,
            "length": 3.5,
            "watched/gold": 3.5,
        }
    )


@pytest.mark.parametrize(
    ("largest", "mean", "is_bf16"),
    [(2e-3, 1e-6, False), (math.nan, math.nan, False), (0.3, 0.06, True), (math.nan, math.nan, True)],
)
def test_forward_passes_that_disagree_are_noticed(largest: float, mean: float, is_bf16: bool) -> None:
    with pytest.raises(RuntimeError, match="the two forward passes disagree"):
        check_first_ratio(largest, mean, is_bf16=is_bf16)


def test_bf16_may_round_single_tokens() -> None:
    check_first_ratio(0.2, 0.01, is_bf16=True)

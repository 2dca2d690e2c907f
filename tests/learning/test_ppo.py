import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from worker.learning.likelihood import Dialogue
from worker.learning.policy.actor import new_actor
from worker.learning.policy.estimators import generalised_advantages, whiten
from worker.learning.policy.kl import next_kl_coefficient
from worker.learning.policy.metrics import check_first_ratio, rollout_metrics
from worker.learning.policy.outputs import TokenOutputs
from worker.learning.policy.rewards import token_rewards
from worker.learning.policy.rollouts import Rollout, choose_prompts, scores_of
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import ImprovedPolicy, clipped_policy_loss, clipped_value_loss, improve_policy
from worker.learning.progress import Progress
from worker.learning.records import Message, Prompt, Sample
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning

PROMPTS: list[tuple[Message, ...]] = [
    ({"role": "user", "content": text},) for text in ("the cat", "a big old dog saw", "rain and sun", "small", "new")
]
QUICK = PPOSettings(
    episodes=256,
    batch_episodes=64,
    learning_rate=2e-3,
    kl_coefficient=0.02,
    kl_horizon=None,
    sampling=SamplingSettings(max_new_tokens=10),
    precision="fp32",
)


def count_good(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    return torch.tensor([float(response.split().count("good")) for response in responses])


def improve(model: Any, tokenizer: Any, settings: PPOSettings, seed: int = 0, **given: Any) -> ImprovedPolicy:
    arguments = {"reference": deepcopy(model), "reward": count_good} | given
    return improve_policy(model, tokenizer=tokenizer, prompts=PROMPTS, settings=settings, seed=seed, **arguments)


# The formulas, against numbers worked out from the papers and the original code.


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


def test_whitening_uses_the_biased_variance_of_real_tokens() -> None:
    """1, 2, 3, 4 have the mean 2.5 and the biased variance 1.25."""
    values = torch.tensor([[1.0, 2.0, 99.0], [3.0, 4.0, -99.0]])
    mask = torch.tensor([[True, True, False], [True, True, False]])
    expected = (np.array([1, 2, 3, 4]) - 2.5) / np.sqrt(1.25)
    assert whiten(values, mask)[mask].tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert whiten(values, mask)[~mask].tolist() == [0, 0]
    kept = whiten(values, mask, shift_mean=False)[mask]
    assert kept.tolist() == pytest.approx((expected + 2.5).tolist(), abs=1e-6)


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


def rollout_of(samples: Sequence[Sample], scores: Sequence[float], log_ratios: Tensor) -> Rollout:
    mask = torch.arange(log_ratios.shape[1]) < torch.tensor([[len(sample.token_ids)] for sample in samples])
    zeros = torch.zeros_like(log_ratios)
    outputs = TokenOutputs(log_ratios * mask, zeros, zeros, mask)
    dialogues = [Dialogue([5], sample.token_ids) for sample in samples]
    return Rollout(dialogues, list(samples), torch.tensor(scores), zeros, outputs)


ENDED = Sample("x", (5, 6, 1), "ended", 0)
CUT = Sample("x", (5, 6, 7, 8), "cut", 0)


def test_the_score_stands_on_the_end_token_and_the_penalty_on_each() -> None:
    rollout = rollout_of([ENDED, CUT], [2.0, 2.0], torch.full((2, 4), 0.5))
    rewards = token_rewards(rollout, 0.1, 0.0, replace(QUICK, missing_end_score=1.5))
    assert rewards.tolist() == [
        pytest.approx([-0.05, -0.05, 2 - 0.05, 0.0]),
        pytest.approx([-0.05, -0.05, -0.05, 2 - 1.5 - 0.05]),
    ]


def test_a_cut_response_may_get_a_fixed_score_and_large_scores_are_clipped() -> None:
    rollout = rollout_of([ENDED, CUT], [20.0, 20.0], torch.zeros((2, 4)))
    settings = replace(QUICK, missing_end="replace", missing_end_score=-1.0, score_clip=5.0)
    assert token_rewards(rollout, 0.1, 0.0, settings).sum(dim=1).tolist() == [5.0, -1.0]


def test_kl_is_summed_over_a_sequence() -> None:
    assert rollout_of([ENDED, CUT], [0.0, 0.0], torch.full((2, 4), 0.5)).kl == pytest.approx((1.5 + 2.0) / 2)


def test_explained_variance_by_hand() -> None:
    """Returns 1, 3, 5 (variance 8/3) and values 1, 3, 4, whose errors 0, 0, 1 have the variance 2/9."""
    rollout = rollout_of([ENDED], [0.0], torch.zeros((1, 3)))
    rollout = replace(rollout, outputs=replace(rollout.outputs, values=torch.tensor([[1.0, 3.0, 4.0]])))
    row = rollout_metrics(rollout, torch.zeros(1, 3), torch.tensor([[1.0, 3.0, 5.0]]))
    assert row["val/explained_variance"] == pytest.approx(1 - (2 / 9) / (8 / 3))


def test_every_pass_asks_every_prompt_once() -> None:
    steps = [choose_prompts(6, 4, 0, step) for step in range(3)]
    asked = [prompt for step in steps for prompt in step]
    assert sorted(asked[:6]) == sorted(asked[6:]) == list(range(6))
    assert asked[:6] != asked[6:]
    assert steps == [choose_prompts(6, 4, 0, step) for step in range(3)]


# The loop, on a tiny model.


def test_values_start_at_zero_and_outputs_are_masked(tiny_model: Any) -> None:
    policy = new_actor(tiny_model, deepcopy(tiny_model), None, QUICK, 0)
    outputs = policy([Dialogue([3, 4], [5, 1]), Dialogue([3], [6, 7, 8, 1])], 1.0, "fp32")
    assert outputs.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert outputs.values.abs().max() == 0
    assert (outputs.logprobs[outputs.mask] < 0).all()
    assert (outputs.logprobs[~outputs.mask] == 0).all()
    uniform = np.log(19)  # a random model is close to the uniform distribution over its 19 words
    assert outputs.entropies[outputs.mask].tolist() == pytest.approx([uniform] * 6, abs=0.1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_first_ratio_is_one(tiny_model: Any, tiny_tokenizer: Any, precision: Any) -> None:
    """At the sampling temperature, whatever the micro-batches; from one rollout and one step."""
    settings = replace(
        QUICK,
        episodes=64,
        epochs=1,
        sampling=SamplingSettings(temperature=0.7, max_new_tokens=10),
        micro_batch_tokens=40,
        precision=precision,
    )
    [row] = improve(tiny_model, tiny_tokenizer, settings).metrics
    assert row["policy/ratio_error"] < (1e-5 if precision == "fp32" else 1e-2)
    assert row["objective/kl"] == pytest.approx(0, abs=1e-5)


def test_it_makes_exactly_the_promised_optimiser_steps(tiny_model: Any, tiny_tokenizer: Any) -> None:
    steps: list[float] = []
    handle = register_optimizer_step_post_hook(lambda optimiser, *_: steps.append(optimiser.param_groups[0]["lr"]))
    try:
        improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=200, batch_episodes=50, epochs=3, minibatches=2))
    finally:
        handle.remove()
    assert len(steps) == 4 * 3 * 2
    assert steps[::6] == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3])


def test_micro_batches_do_not_change_a_step(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """The loss is the mean over the step's tokens, not a mean of means."""
    other = deepcopy(tiny_model)
    settings = replace(QUICK, episodes=64, epochs=1)
    improve(tiny_model, tiny_tokenizer, replace(settings, micro_batch_tokens=1))
    improve(other, tiny_tokenizer, replace(settings, micro_batch_tokens=100_000))
    for one, two in zip(tiny_model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(one, two, atol=2e-5)


def test_a_planted_reward_rises_while_kl_stays_bounded(tiny_model: Any, tiny_tokenizer: Any) -> None:
    rows = improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=1_280)).metrics
    scores = [row["objective/scores"] for row in rows]
    assert np.mean(scores[-3:]) > np.mean(scores[:3]) + 1
    assert 0 < rows[-1]["objective/kl"] < 15


def test_the_price_of_not_ending_teaches_to_end(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def nothing(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.zeros(len(responses))

    settings = replace(QUICK, episodes=960, missing_end_score=3.0)
    rows = improve(tiny_model, tiny_tokenizer, settings, reward=nothing).metrics
    assert rows[0]["ended_rate"] < 0.7
    assert rows[-1]["ended_rate"] > 0.85


def test_a_strong_penalty_holds_the_policy_at_its_reference(tiny_model: Any, tiny_tokenizer: Any) -> None:
    free = improve(deepcopy(tiny_model), tiny_tokenizer, replace(QUICK, episodes=640)).metrics[-1]
    held = improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=640, kl_coefficient=2.0)).metrics[-1]
    assert held["objective/kl"] < free["objective/kl"] / 4


def test_a_second_round_starts_from_its_own_kl(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """A policy far from version 0 is not pulled back: with the target counted from the start beta falls."""
    version_0 = deepcopy(tiny_model)
    improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=640, kl_coefficient=0.0))
    adaptive = replace(QUICK, kl_horizon=1_000, kl_target=1.0, kl_coefficient=0.01, learning_rate=1e-4)
    rows = improve(tiny_model, tiny_tokenizer, adaptive, reference=version_0).metrics
    assert rows[0]["objective/kl"] > 2
    assert rows[1]["objective/kl_coef"] < rows[0]["objective/kl_coef"]
    assert rows[-1]["objective/kl"] > 0.8 * rows[0]["objective/kl"]


def test_the_same_seed_trains_the_same_policy(tiny_model: Any, tiny_tokenizer: Any) -> None:
    other, third = deepcopy(tiny_model), deepcopy(tiny_model)
    first = improve(tiny_model, tiny_tokenizer, QUICK, seed=1)
    again = improve(other, tiny_tokenizer, QUICK, seed=1)
    improve(third, tiny_tokenizer, QUICK, seed=2)
    timed = ("seconds/", "floor/", "episodes_per_second")
    untimed = [{key: row[key] for key in row if not key.startswith(timed)} for row in first.metrics]
    assert untimed == [{key: row[key] for key in untimed[0]} for row in again.metrics]
    assert all(torch.equal(one, two) for one, two in zip(tiny_model.parameters(), other.parameters(), strict=True))
    assert not torch.equal(next(tiny_model.parameters()), next(third.parameters()))


def test_every_rollout_is_reported_with_the_usual_names(tiny_model: Any, tiny_tokenizer: Any) -> None:
    seen: list[Progress] = []
    result = improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=130), report=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 2), (2, 2)]
    assert [progress.metrics for progress in seen] == result.metrics
    usual = """objective/kl objective/kl_coef objective/scores objective/rlhf_reward policy/approxkl policy/clipfrac
        policy/entropy policy/ratio_max val/explained_variance val/clipfrac loss/policy loss/value grad_norm
        ended_rate length learning_rate seconds/sample seconds/score seconds/evaluate seconds/learn"""
    assert set(usual.split()) <= set(seen[0].metrics)


def test_dropout_is_off(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """With attention dropout of 0.1 on, the first ratios would be far from 1."""
    assert tiny_model.config.attention_dropout == 0.1
    tiny_model.train()
    [row] = improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=64, epochs=1)).metrics
    assert row["policy/ratio_error"] < 1e-5


@pytest.mark.parametrize(
    ("largest", "mean", "is_bf16"),
    [(2e-3, 1e-6, False), (math.nan, math.nan, False), (0.3, 0.06, True), (math.nan, math.nan, True)],
)
def test_forward_passes_that_disagree_are_noticed(largest: float, mean: float, is_bf16: bool) -> None:
    with pytest.raises(RuntimeError, match="the two forward passes disagree"):
        check_first_ratio(largest, mean, is_bf16=is_bf16)


def test_bf16_may_round_single_tokens() -> None:
    check_first_ratio(0.2, 0.01, is_bf16=True)


def test_the_policy_cannot_be_its_own_reference(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="must be a copy"):
        improve(tiny_model, tiny_tokenizer, QUICK, reference=tiny_model)


def test_a_reward_of_the_wrong_shape_is_refused() -> None:
    def one_number(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.zeros(1)

    with pytest.raises(ValueError, match="gave scores of shape"):
        scores_of(one_number, PROMPTS[:2], [ENDED, CUT])


def test_a_score_that_is_no_number_is_refused_with_its_response() -> None:
    def undefined(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.tensor([1.0, math.nan])

    with pytest.raises(ValueError, match="nan for this response: 'x'"):
        scores_of(undefined, PROMPTS[:2], [ENDED, CUT])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"sampling": SamplingSettings(top_p=0.9)}, "top_p = 1"),
        ({"sampling": SamplingSettings(temperature=0)}, "temperature above 0"),
        ({"episodes": 10}, "do not fill a rollout"),
        ({"minibatches": 100}, "do not fill 100 minibatches"),
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(QUICK, **bad)

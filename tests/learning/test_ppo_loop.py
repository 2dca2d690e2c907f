"""Does a policy get better, stay near its reference, and say how it goes?"""

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.learning.ppo_runs import PROMPTS, QUICK, improve, nothing
from worker.learning.progress import Progress
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning


def test_the_price_of_not_ending_teaches_to_end(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Nothing else is to be gained here."""
    settings = replace(QUICK, episodes=640, learning_rate=5e-3, missing_end_score=3.0)
    rows = improve(tiny_model, tiny_tokenizer, settings, reward=nothing).metrics
    assert rows[0]["ended_rate"] < 0.7
    assert rows[-1]["ended_rate"] > 0.85


def test_a_strong_penalty_holds_the_policy_at_its_reference(tiny_model: Any, tiny_tokenizer: Any) -> None:
    settings = replace(QUICK, episodes=320, learning_rate=5e-3)
    free = improve(deepcopy(tiny_model), tiny_tokenizer, settings).metrics[-1]
    held = improve(tiny_model, tiny_tokenizer, replace(settings, kl_coefficient=2.0)).metrics[-1]
    assert held["objective/kl"] < free["objective/kl"] / 4


def test_a_second_round_starts_from_its_own_kl(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """A policy far from version 0 is not pulled back: with the target counted from the start beta falls."""
    version_0 = deepcopy(tiny_model)
    improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=384, learning_rate=5e-3, kl_coefficient=0.0))
    adaptive = replace(QUICK, kl_horizon=1_000, kl_target=1.0, kl_coefficient=0.01, learning_rate=1e-4)
    rows = improve(tiny_model, tiny_tokenizer, adaptive, reference=version_0).metrics
    assert rows[0]["objective/kl"] > 2
    assert rows[1]["objective/kl_coef"] < rows[0]["objective/kl_coef"]
    assert rows[-1]["objective/kl"] > 0.8 * rows[0]["objective/kl"]


def test_the_adaptive_price_follows_every_rollouts_kl(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """beta_{n+1} = beta_n (1 + clip(KL / (start + target) - 1, -0.2, 0.2) n / horizon), Ziegler et al. 2019."""
    settings = replace(QUICK, episodes=320, kl_horizon=100, kl_target=0.05, kl_coefficient=0.1, learning_rate=5e-3)
    rows = improve(tiny_model, tiny_tokenizer, settings).metrics
    target = max(rows[0]["objective/kl"], 0.0) + 0.05
    beta = 0.1
    for row in rows:
        assert row["objective/kl_coef"] == pytest.approx(beta)
        beta *= 1 + float(np.clip(row["objective/kl"] / target - 1, -0.2, 0.2)) * 64 / 100
    assert rows[-1]["objective/kl_coef"] > rows[0]["objective/kl_coef"], "the policy was too far for most of the time"


def test_every_rollout_is_reported_with_the_usual_names(tiny_model: Any, tiny_tokenizer: Any) -> None:
    seen: list[Progress] = []
    result = improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=130), report=seen.append)
    assert [(progress.done, progress.total) for progress in seen] == [(1, 2), (2, 2)]
    assert [progress.metrics for progress in seen] == result.metrics
    usual = """objective/kl objective/kl_coef objective/scores objective/scores_std objective/rlhf_reward
        objective/length_price policy/approxkl policy/clipfrac policy/entropy policy/ratio_max policy/steps
        val/explained_variance val/clipfrac loss/policy loss/value grad_norm ended_rate length learning_rate
        seconds/sample seconds/score seconds/evaluate seconds/learn seconds/left tokens/sample floor/learn
        episodes_per_second"""
    assert set(usual.split()) <= set(seen[0].metrics)
    assert result.policy is not None
    assert result.ended == "done"


def test_a_report_that_raises_ends_the_run(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def abort(_: Progress) -> None:
        raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        improve(tiny_model, tiny_tokenizer, QUICK, report=abort)


def test_the_policy_cannot_be_its_own_reference(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="must be a copy"):
        improve(tiny_model, tiny_tokenizer, QUICK, reference=tiny_model)


def test_without_prompts_there_is_nothing_to_learn(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="there are no prompts to answer"):
        improve(tiny_model, tiny_tokenizer, QUICK, prompts=[])


@pytest.mark.parametrize(("text", "reason"), [("", "the prompt has no token"), ("cat " * 60, "do not fit")])
def test_every_prompt_is_looked_at_before_anything_is_learned(
    tiny_model: Any, tiny_tokenizer: Any, text: str, reason: str
) -> None:
    """Not in the middle of the run, when its turn comes."""
    prompts = [*PROMPTS, ({"role": "user", "content": text},)]
    with pytest.raises(ValueError, match=reason):
        improve(tiny_model, tiny_tokenizer, replace(QUICK, episodes=1, batch_episodes=1), prompts=prompts)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"sampling": SamplingSettings(top_p=0.9)}, "top_p = 1"),
        ({"sampling": SamplingSettings(temperature=0)}, "temperature above 0"),
        ({"episodes": 10}, "do not fill a rollout"),
        ({"minibatches": 100}, "do not fill 100 minibatches"),
        ({"group_size": 5}, "no whole number of groups of 5"),
        ({"group_size": 0}, "group_size must be at least 1, not 0"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"lora_rank": 0}, "lora_rank must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, not nan"),
        ({"kl_target": 0.0}, "kl_target must be a number above 0"),
        ({"epoch_kl_limit": 0.0}, "epoch_kl_limit must be a number above 0"),
        ({"kl_coefficient": -0.1}, "kl_coefficient must be a number that is not negative"),
        ({"gae_lambda": 1.5}, r"gae_lambda must lie between 0 and 1, not be 1\.5"),
        ({"value_warmup": 4}, "value_warmup 4 leaves the policy none of 4 rollouts"),
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        replace(QUICK, **bad)

"""Are there as many optimiser steps as promised, each on the mean over its tokens, and none too far?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tests.learning.ppo_runs import QUICK, are_equal, count_good, improve, weights_of
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings
from worker.learning.records import Prompt
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning

SMALL = replace(QUICK, episodes=48, batch_episodes=24, epochs=1)
TIMED = ("seconds/", "floor/", "episodes_per_second")


@contextmanager
def looking_at_steps() -> Iterator[list[dict[str, float]]]:
    """Collects learning rates and the norm of the gradients of every optimiser step, whoever makes it."""
    seen: list[dict[str, float]] = []

    def look(optimiser: Any, *_: object) -> None:
        gradients = [
            parameter.grad.flatten()
            for group in optimiser.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        rates = {f"rate {place}": group["lr"] for place, group in enumerate(optimiser.param_groups)}
        seen.append({"norm": float(torch.cat(gradients).norm()), **rates})

    handle = register_optimizer_step_pre_hook(look)
    try:
        yield seen
    finally:
        handle.remove()


@pytest.mark.parametrize(("epochs", "minibatches"), [(3, 2), (1, 5), (2, 1)])
def test_it_makes_exactly_the_promised_optimiser_steps(
    tiny_model: Any, tiny_tokenizer: Any, epochs: int, minibatches: int
) -> None:
    """Epochs x minibatches a rollout, also where micro-batches cut them up, and for minibatches of unequal size."""
    settings = replace(QUICK, episodes=50, batch_episodes=12, epochs=epochs, minibatches=minibatches)
    with looking_at_steps() as steps:
        rows = improve(tiny_model, tiny_tokenizer, replace(settings, micro_batch_tokens=30)).metrics
    turn = epochs * minibatches
    assert len(steps) == 4 * turn
    assert [row["policy/steps"] for row in rows] == [turn] * 4
    assert [step["rate 0"] for step in steps[::turn]] == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3])
    assert [row["learning_rate"] for row in rows] == pytest.approx([2e-3, 1.5e-3, 1e-3, 0.5e-3])


def test_the_value_function_may_have_a_learning_rate_of_its_own(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with looking_at_steps() as steps:
        improve(tiny_model, tiny_tokenizer, replace(SMALL, critic_learning_rate=1e-4))
    assert [[step["rate 0"], step["rate 1"]] for step in steps] == [
        pytest.approx([2e-3, 1e-4]),
        pytest.approx([1e-3, 0.5e-4]),
    ]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="gae"),
        pytest.param({"estimator": "grpo", "group_size": 4, "kl_in": "loss"}, id="grpo"),
    ],
)
def test_micro_batches_do_not_change_a_step(tiny_model: Any, tiny_tokenizer: Any, given: dict[str, Any]) -> None:
    """The loss, and every figure, is the mean over the step's real tokens: no mean of means, and no padding in it."""
    settings = replace(QUICK, episodes=64, epochs=2, minibatches=2, **given)
    alone, together = deepcopy(tiny_model), deepcopy(tiny_model)
    with looking_at_steps() as steps:
        [one] = improve(alone, tiny_tokenizer, replace(settings, micro_batch_tokens=1)).metrics
        [other] = improve(together, tiny_tokenizer, replace(settings, micro_batch_tokens=100_000)).metrics
    norms = [step["norm"] for step in steps]
    assert norms[:4] == pytest.approx(norms[4:], rel=1e-3)
    figures = [name for name in one if not name.startswith(TIMED)]
    assert {name: one[name] for name in figures} == pytest.approx(
        {name: other[name] for name in figures}, rel=1e-3, abs=1e-5
    )
    vector = torch.nn.utils.parameters_to_vector
    start, first, second = (vector(model.parameters()).detach() for model in (tiny_model, alone, together))
    assert (first - second).norm() < 1e-2 * (first - start).norm()


def test_long_gradients_are_scaled_down(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with looking_at_steps() as steps:
        [row] = improve(tiny_model, tiny_tokenizer, replace(SMALL, episodes=24, max_grad_norm=0.01)).metrics
    assert [step["norm"] for step in steps] == pytest.approx([0.01], rel=1e-3)
    assert row["grad_norm"] > 0.1, "what is reported is the norm before"


def test_gradients_that_overflow_end_the_run_with_advice(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """The weights are those of the last good step: nothing that is no number gets into them."""

    def huge(prompts: Sequence[Prompt], responses: Sequence[str]) -> torch.Tensor:
        return 1e30 * count_good(prompts, responses)

    before = weights_of(tiny_model)
    settings = replace(SMALL, estimator="rloo", group_size=2, score_clip=None)
    with pytest.raises(RuntimeError, match=r"the gradients overflow in rollout 0: .* Lower learning_rate"):
        improve(tiny_model, tiny_tokenizer, settings, reward=huge)
    assert are_equal(before, weights_of(tiny_model))


def test_a_policy_that_has_come_apart_ends_the_run_with_advice(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Weights that are no numbers are told as such, whatever limits there are, and by no figure that is none."""

    def spoil(rollout: Rollout, step: int) -> None:
        with torch.no_grad():
            tiny_model.get_output_embeddings().weight.fill_(float("nan"))

    seen: list[object] = []
    with pytest.raises(RuntimeError, match="the gradients overflow in rollout 0: the policy has come apart"):
        improve(tiny_model, tiny_tokenizer, replace(SMALL, epoch_kl_limit=0.1), keep=spoil, report=seen.append)
    assert seen == []


# The early stop.


def test_a_rollout_that_the_policy_leaves_is_learned_from_no_more(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """The step that was found too far is not made, nor with the next rollout's: one step each is left, to the bit."""
    other, free = deepcopy(tiny_model), deepcopy(tiny_model)
    strict = replace(QUICK, episodes=128, epochs=4, learning_rate=1e-2, epoch_kl_limit=1e-4)
    rows = improve(tiny_model, tiny_tokenizer, strict).metrics
    once = improve(other, tiny_tokenizer, replace(strict, epochs=1)).metrics
    all_the_way = improve(free, tiny_tokenizer, replace(strict, epoch_kl_limit=None)).metrics
    assert [row["policy/steps"] for row in rows] == [1, 1]
    assert [row["policy/steps"] for row in all_the_way] == [4, 4]
    assert are_equal(weights_of(tiny_model), weights_of(other))
    assert not are_equal(weights_of(tiny_model), weights_of(free))
    assert all(row["policy/approxkl"] > 1e-4 for row in rows), "the figure that ended it is in the row"
    assert [row["grad_norm"] for row in rows] == [row["grad_norm"] for row in once], "of the steps that were made"


# Value warm-up.


def longer_prompts(prompts: Sequence[Prompt], responses: Sequence[str]) -> torch.Tensor:
    """A score that the prompt gives away, so that a value function can foresee it."""
    return torch.tensor([1.0 if len(prompt[0]["content"].split()) > 1 else -1.0 for prompt in prompts])


@pytest.mark.parametrize(
    ("given", "least"),
    [
        pytest.param({}, 0.1, id="shared"),
        pytest.param({"critic": "separate"}, 0.8, id="separate"),
        pytest.param({"critic": "separate", "lora_rank": 4, "lora_alpha": 8.0}, 0.8, id="adapters"),
    ],
)
def test_values_learn_first_while_the_policy_stays_to_the_bit(
    tiny_model: Any, tiny_tokenizer: Any, given: dict[str, Any], least: float
) -> None:
    """How much of the returns they explain: nothing at the start, much after two rollouts, by a head alone some."""
    settings = replace(QUICK, episodes=3 * 64, epochs=8, value_warmup=2, critic_learning_rate=1e-2, **given)
    settings = replace(settings, value_clip_range=5.0, missing_end_score=0, kl_horizon=1_000)
    reference = None if settings.lora_rank is not None else deepcopy(tiny_model)
    weights: list[list[torch.Tensor]] = []
    rows = improve(
        tiny_model,
        tiny_tokenizer,
        settings,
        reference=reference,
        reward=longer_prompts,
        report=lambda _: weights.append(policy_weights(tiny_model)),
    ).metrics
    assert are_equal(weights[0], weights[1])
    assert not are_equal(weights[1], weights[2])
    assert [abs(row["objective/kl"]) < 1e-4 for row in rows] == [True] * 3  # the last was written before it learned
    assert [row["objective/kl_coef"] for row in rows] == [settings.kl_coefficient] * 3, "nobody left yet"
    explained = [row["val/explained_variance"] for row in rows]
    assert explained[0] == pytest.approx(0, abs=1e-6)
    assert explained[2] > least


def policy_weights(model: Any) -> list[torch.Tensor]:
    """Copies of all that makes up the policy; a critic's adapters on the same weights are none of it."""
    return [parameter.detach().clone() for name, parameter in model.named_parameters() if ".critic." not in name]


# What must not matter, and what must.


def test_dropout_is_off(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """With attention dropout of 0.1 on, the first ratios would be far from 1."""
    assert tiny_model.config.attention_dropout == 0.1
    tiny_model.train()
    reference = deepcopy(tiny_model).train()
    [row] = improve(tiny_model, tiny_tokenizer, replace(SMALL, episodes=24), reference=reference).metrics
    assert row["policy/ratio_error"] < 1e-5
    assert row["objective/kl"] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(replace(SMALL, minibatches=2), id="gae"),
        pytest.param(replace(SMALL, estimator="rloo", group_size=2, lora_rank=2), id="rloo, adapters"),
    ],
)
def test_the_same_seed_trains_the_same_policy(tiny_model: Any, tiny_tokenizer: Any, settings: PPOSettings) -> None:
    """Whatever noise others drew meanwhile."""
    models = [deepcopy(tiny_model) for _ in range(3)]
    reference = deepcopy(tiny_model)
    rows = []
    for number, (model, seed) in enumerate(zip(models, (1, 1, 2), strict=True)):
        torch.manual_seed(number)
        rows.append(improve(model, tiny_tokenizer, settings, seed, reference=reference).metrics)
    untimed = [[{key: row[key] for key in row if not key.startswith(TIMED)} for row in run] for run in rows]
    assert untimed[0] == untimed[1]
    assert untimed[0] != untimed[2]
    first, again, other = (weights_of(model) for model in models)
    assert are_equal(first, again)
    assert not are_equal(first, other)


def test_every_pass_over_a_rollout_is_shuffled_anew(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Two passes in two minibatches: four gradients, none like another."""
    settings = replace(SMALL, episodes=24, epochs=2, minibatches=2, learning_rate=1e-12, max_grad_norm=1e6)
    with looking_at_steps() as steps:
        improve(tiny_model, tiny_tokenizer, settings)
    norms = sorted(step["norm"] for step in steps)
    assert all(later > 1.001 * earlier for earlier, later in pairwise(norms))


def test_the_optimiser_is_adam_with_the_originals_epsilon(tiny_model: Any, tiny_tokenizer: Any) -> None:
    found: list[dict[str, Any]] = []
    handle = register_optimizer_step_post_hook(lambda optimiser, *_: found.append(dict(optimiser.param_groups[0])))
    try:
        improve(tiny_model, tiny_tokenizer, replace(SMALL, episodes=24))
    finally:
        handle.remove()
    assert (found[0]["eps"], found[0]["betas"], found[0]["weight_decay"]) == (1e-5, (0.9, 0.999), 0.0)


def test_a_temperature_changes_what_is_learned_from(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Colder sampling, lower entropy: figures are of the distribution that was sampled."""
    hot, cold = (
        improve(
            deepcopy(tiny_model),
            tiny_tokenizer,
            replace(SMALL, episodes=24, sampling=SamplingSettings(temperature=temperature, max_new_tokens=10)),
        ).metrics[0]["policy/entropy"]
        for temperature in (1.0, 0.1)
    )
    assert hot == pytest.approx(np.log(19), abs=0.1)
    assert cold < hot - 0.3

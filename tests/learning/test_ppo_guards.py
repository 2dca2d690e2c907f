"""Does a run end where it should, with the policy that it should, and does length have its price?"""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learning.ppo_runs import CUT, ENDED, QUICK, are_equal, count_good, improve, nothing, rollout_of, weights_of
from worker.learning.policy.guards import Guards
from worker.learning.policy.rewards import effective_scores, length_prices
from worker.learning.policy.rollouts import Rollout
from worker.learning.ppo import ImprovedPolicy
from worker.learning.progress import Progress
from worker.learning.records import Prompt

pytestmark = pytest.mark.learning

FAST = replace(QUICK, episodes=20 * 32, batch_episodes=32, learning_rate=5e-3, kl_coefficient=0.0)
WEIGHTS = {"w": torch.zeros(2)}


def at_kl(kl: float, *watched: float) -> Rollout:
    """A rollout of one or two tokens a response whose KL is this; scores of a reward that watches, if given."""
    given = {"watched": {"gold": torch.tensor(watched)}} if watched else {}
    return rollout_of([ENDED, ENDED], [0.0, 0.0], torch.tensor([[kl, 0.0, 0.0]] * 2), **given)


class Kept:
    """The rollouts of a run, each with the policy that wrote it and that policy's reference-free KL."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rollouts: list[Rollout] = []
        self.weights: list[list[Tensor]] = []

    def __call__(self, rollout: Rollout, step: int) -> None:
        assert step == len(self.rollouts)
        self.rollouts.append(rollout)
        self.weights.append(weights_of(self.model))


def guarded(model: Any, tokenizer: Any, kept: Kept, **given: Any) -> ImprovedPolicy:
    settings = {name: given.pop(name) for name in ("kl_budget", "watch_patience", "episodes") if name in given}
    return improve(model, tokenizer, replace(FAST, **settings), keep=kept, **given)


# The KL budget.


@pytest.mark.parametrize("adapters", [{}, {"lora_rank": 4}])
def test_beyond_the_budget_the_run_ends_with_the_last_policy_within(
    tiny_model: Any, tiny_tokenizer: Any, adapters: dict[str, Any]
) -> None:
    """To the bit the policy that wrote the last rollout within; merged, where there are adapters."""
    kept = Kept(tiny_model)
    reports: list[Progress] = []
    settings = replace(FAST, kl_budget=1.0, learning_rate=1e-3, **adapters)
    with torch.no_grad():
        tiny_model.get_output_embeddings().weight.mul_(10)
    unlike = deepcopy(tiny_model) if not adapters else None
    result = improve(tiny_model, tiny_tokenizer, settings, reference=unlike, keep=kept, report=reports.append)
    assert result.ended == "kl_budget"
    kls = [rollout.kl for rollout in kept.rollouts]
    within = [number for number, kl in enumerate(kls) if kl <= max(kls[0], 0.0) + 1.0]
    assert within == list(range(len(kls) - 1)), "one rollout beyond, and it was the last"
    assert 2 <= len(within) < settings.rollouts
    assert len(result.metrics) == len(reports) == len(within)
    if adapters:  # the plain policy gives what its adapted form gave
        last = kept.rollouts[-2]
        table = last.outputs.logprobs[0][last.mask[0]]
        assert logprobs_of(result.policy, last, 0).tolist() == pytest.approx(table.tolist(), abs=1e-4)
    else:
        assert are_equal(weights_of(result.policy), kept.weights[-2])
        assert not are_equal(weights_of(result.policy), kept.weights[-1])


def logprobs_of(policy: Any, rollout: Rollout, row: int) -> Tensor:
    dialogue = rollout.dialogues[row]
    with torch.no_grad():
        logits: Tensor = policy(input_ids=torch.tensor([[*dialogue.prompt_ids, *dialogue.response_ids]])).logits[0]
    logs = logits[len(dialogue.prompt_ids) - 1 : -1].log_softmax(dim=-1)
    return logs[torch.arange(len(dialogue.response_ids)), torch.tensor(dialogue.response_ids)]


def test_the_last_policy_is_looked_at_too(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """A single rollout, and what was learned from it goes too far: the run gives back what it began with."""
    kept = Kept(tiny_model)
    result = guarded(tiny_model, tiny_tokenizer, kept, episodes=32, kl_budget=0.01)
    assert (result.ended, len(result.metrics)) == ("kl_budget", 1)
    assert len(kept.rollouts) == 2
    assert are_equal(weights_of(result.policy), kept.weights[0])


def test_the_budget_counts_from_where_the_run_starts() -> None:
    settings, guards = replace(QUICK, kl_budget=1.0), Guards()
    assert guards.judge(at_kl(8.0), WEIGHTS, settings) is None
    assert guards.judge(at_kl(9.0), WEIGHTS, settings) is None
    assert guards.judge(at_kl(9.1), WEIGHTS, settings) == "kl_budget"


def test_a_start_below_zero_is_noise_and_widens_nothing() -> None:
    guards = Guards()
    guards.judge(at_kl(-0.5), WEIGHTS, replace(QUICK, kl_budget=1.0))
    assert guards.kl_start == 0


# Rewards that watch.


def test_the_run_ends_with_the_policy_that_the_watching_reward_liked_best(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """The reward that is climbed counts a word that the watching one dislikes: it was right at the start."""

    def dislikes(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return -count_good(prompts, responses)

    kept = Kept(tiny_model)
    result = guarded(tiny_model, tiny_tokenizer, kept, watch_patience=2, watched={"gold": dislikes})
    assert result.ended == "watched"
    means = [float(rollout.watched["gold"].mean()) for rollout in kept.rollouts]
    best = means.index(max(means))
    assert len(means) < FAST.rollouts
    assert len(means) >= best + 3
    assert are_equal(weights_of(result.policy), kept.weights[best])
    assert not are_equal(weights_of(result.policy), kept.weights[-1])
    assert [row["watched/gold"] for row in result.metrics] == pytest.approx(means[:-1])


def test_patience_counts_rollouts_in_a_row_that_are_certainly_worse() -> None:
    """Of scores s +- 1 the mean has the standard error 1 / sqrt(2); worse by less than that is no matter."""
    settings, guards = replace(QUICK, watch_patience=2), Guards()
    error = 1 / math.sqrt(2)

    def judged(score: float) -> str | None:
        return guards.judge(at_kl(0.0, score - 1, score + 1), WEIGHTS, settings)

    assert judged(5.0) is None
    assert judged(5.0 - 2 * error) is None
    assert guards.below == 1
    assert judged(5.0 - 0.9 * error) is None
    assert guards.below == 0, "a rollout that is hardly worse begins the count anew"
    assert judged(5.0 - 1.1 * error) is None
    assert judged(5.0 - 1.1 * error) == "watched"


def test_a_run_that_is_done_keeps_its_last_policy(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Also where a guard remembers another one: it was not certainly better for so long."""

    def dislikes(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return -count_good(prompts, responses)

    kept = Kept(tiny_model)
    given: dict[str, Any] = {"watch_patience": 50, "kl_budget": 1e3, "watched": {"gold": dislikes}}
    result = guarded(tiny_model, tiny_tokenizer, kept, episodes=96, **given)
    assert result.ended == "done"
    assert len(kept.rollouts) == 4, "three to learn from and one to look at the last policy"
    assert are_equal(weights_of(result.policy), kept.weights[-1])


def test_patience_needs_somebody_who_watches(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="watch_patience needs a watched reward"):
        improve(tiny_model, tiny_tokenizer, replace(QUICK, watch_patience=1))


def test_without_guards_nothing_is_copied_and_nothing_more_is_sampled(tiny_model: Any, tiny_tokenizer: Any) -> None:
    guards = Guards()
    for kl in (1.0, 1e6):
        assert guards.judge(at_kl(kl, 1.0, 2.0), WEIGHTS, QUICK) is None
    assert (guards.within, guards.best) == ({}, {})
    asked: list[int] = []

    def counting(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        asked.append(len(responses))
        return count_good(prompts, responses)

    result = improve(tiny_model, tiny_tokenizer, replace(FAST, episodes=64), reward=counting)
    assert (asked, result.ended) == ([32, 32], "done")


def test_copies_of_the_guards_are_copies() -> None:
    weights, guards = {"w": torch.zeros(2)}, Guards()
    guards.judge(at_kl(0.0, 1.0, 1.0), weights, replace(QUICK, kl_budget=1.0, watch_patience=1))
    weights["w"] += 7
    guards.go_back("kl_budget", weights)
    assert weights["w"].tolist() == [0, 0]
    weights["w"] += 7
    guards.go_back("watched", weights)
    assert weights["w"].tolist() == [0, 0]


# The price of length.


def test_only_tokens_beyond_the_target_have_a_price() -> None:
    rollout = rollout_of([ENDED, CUT], [2.0, 2.0], torch.zeros((2, 4)))  # of 3 and 4 tokens
    assert length_prices(rollout, 3.5, 0.2).tolist() == pytest.approx([0.0, 0.1])
    assert length_prices(rollout, 1.0, 0.2).tolist() == pytest.approx([0.4, 0.6])
    scores = effective_scores(rollout, 1.0, replace(QUICK, length_penalty=0.2, score_clip=1.5, missing_end_score=0.5))
    assert scores.tolist() == pytest.approx([1.5 - 0.4, 1.5 - 0.5 - 0.6])


@pytest.mark.parametrize(
    ("reward", "penalty"), [pytest.param(nothing, 0.5, id="alone"), pytest.param(count_good, 1.5, id="against a score")]
)
def test_a_price_of_length_makes_responses_shorter(
    tiny_model: Any, tiny_tokenizer: Any, reward: Callable[..., Tensor], penalty: float
) -> None:
    settings = replace(QUICK, episodes=512, learning_rate=5e-3, missing_end_score=0, length_target=2.0)
    rows = improve(tiny_model, tiny_tokenizer, replace(settings, length_penalty=penalty), reward=reward).metrics
    assert rows[0]["length"] > 6
    assert rows[-1]["length"] < rows[0]["length"] - 2
    assert 0 < rows[-1]["objective/length_price"] < rows[0]["objective/length_price"]


def test_where_no_target_is_named_the_first_rollouts_mean_length_is_it(tiny_model: Any, tiny_tokenizer: Any) -> None:
    kept = Kept(tiny_model)
    settings = replace(FAST, episodes=96, length_penalty=0.5)
    rows = improve(tiny_model, tiny_tokenizer, settings, keep=kept).metrics
    lengths = [[len(sample.token_ids) for sample in rollout.samples] for rollout in kept.rollouts]
    target = sum(lengths[0]) / len(lengths[0])
    expected = [sum(0.5 * max(0.0, length - target) for length in own) / len(own) for own in lengths]
    assert [row["objective/length_price"] for row in rows] == pytest.approx(expected)
    assert expected[0] > 0

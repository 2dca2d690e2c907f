"""Does a run of PPO that was killed go on as if it never had been?"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.killed import Killed, killed_at
from tests.learning.ppo_runs import PROMPTS, QUICK, are_equal, count_good, improve, weights_of
from worker.learning.policy.rollouts import Rollout
from worker.learning.ppo import ImprovedPolicy
from worker.learning.progress import Progress
from worker.learning.records import Prompt

pytestmark = pytest.mark.learning

SETTINGS = replace(QUICK, episodes=80, batch_episodes=16, epochs=2, minibatches=2, checkpoint_seconds=0.0)
MEASURED = ("seconds/", "floor/", "episodes_per_second")


def count_words(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    return torch.tensor([-float(len(response.split())) for response in responses])


def learned(improved: ImprovedPolicy) -> list[dict[str, float]]:
    """The metrics that do not depend on how fast the machine is."""
    return [{name: value for name, value in row.items() if not name.startswith(MEASURED)} for row in improved.metrics]


@pytest.mark.parametrize(
    "choice",
    [
        {"kl_horizon": 100.0},
        {"lora_rank": 2, "critic": "separate", "critic_learning_rate": 1e-3, "value_warmup": 2, "length_penalty": 0.1},
        {"estimator": "grpo", "group_size": 4, "kl_in": "loss", "whiten_rewards": True, "kl_horizon": 100.0},
        {"kl_budget": 50.0, "watch_patience": 9},
    ],
    ids=["shared", "adapters", "grpo", "guarded"],
)
def test_a_killed_run_goes_on_to_the_same_bits(
    choice: dict[str, Any], tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """Killed after the first rollout, after the third, and when all is done but the result."""
    settings = replace(SETTINGS, **choice)
    start = deepcopy(tiny_model)

    def run(model: Any, **more: Any) -> ImprovedPolicy:
        return improve(model, tiny_tokenizer, settings, watched={"brief": count_words}, **more)

    whole = run(tiny_model)
    for step in (1, 3, 5):
        with pytest.raises(Killed):
            run(deepcopy(start), report=killed_at(step), checkpoints=tmp_path)
    resumed = run(deepcopy(start), checkpoints=tmp_path)
    assert learned(resumed) == learned(whole)
    assert resumed.ended == whole.ended == "done"
    assert are_equal(weights_of(resumed.policy), weights_of(whole.policy))
    assert not are_equal(weights_of(resumed.policy), weights_of(start))


@pytest.mark.parametrize(("choice", "ended"), [({"kl_budget": 0.5}, "kl_budget"), ({"watch_patience": 2}, "watched")])
def test_what_the_guards_remember_is_kept(
    choice: dict[str, Any], ended: str, tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """The policy that a run goes back to may be older than the checkpoint."""
    settings = replace(SETTINGS, episodes=640, learning_rate=5e-3, kl_coefficient=0.0, **choice)
    start, watched = deepcopy(tiny_model), {"brief": count_words}
    whole = improve(tiny_model, tiny_tokenizer, settings, watched=watched)
    assert whole.ended == ended
    for step in (1, len(whole.metrics)):
        with pytest.raises(Killed):
            improve(
                deepcopy(start), tiny_tokenizer, settings, watched=watched, report=killed_at(step), checkpoints=tmp_path
            )
    resumed = improve(deepcopy(start), tiny_tokenizer, settings, watched=watched, checkpoints=tmp_path)
    assert (resumed.ended, learned(resumed)) == (ended, learned(whole))
    assert are_equal(weights_of(resumed.policy), weights_of(whole.policy))


def test_answers_of_the_rollout_in_which_a_run_was_killed_are_not_sampled_again(
    tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    asked: list[int] = []

    def counted(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        asked.append(len(responses))
        return count_good(prompts, responses) / 3

    def stop_at_third(_rollout: Rollout, step: int) -> None:
        if step == 2:
            raise Killed

    start = deepcopy(tiny_model)
    whole = improve(tiny_model, tiny_tokenizer, SETTINGS, reward=counted)
    assert asked == [16] * 5
    asked.clear()
    for _ in range(2):
        with pytest.raises(Killed):
            improve(deepcopy(start), tiny_tokenizer, SETTINGS, reward=counted, keep=stop_at_third, checkpoints=tmp_path)
        assert asked == [16] * 3
    resumed = improve(deepcopy(start), tiny_tokenizer, SETTINGS, reward=counted, checkpoints=tmp_path)
    assert asked == [16] * 5
    assert are_equal(weights_of(resumed.policy), weights_of(whole.policy))


def test_a_run_that_goes_on_says_where_it_stands(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    start, seen = deepcopy(tiny_model), []
    with pytest.raises(Killed):
        improve(tiny_model, tiny_tokenizer, SETTINGS, report=killed_at(2), checkpoints=tmp_path)

    def report(progress: Progress) -> None:
        seen.append((progress.done, progress.total, progress.metrics["objective/scores"]))

    rows = improve(start, tiny_tokenizer, SETTINGS, report=report, checkpoints=tmp_path).metrics
    assert seen == [(done, 5, rows[done - 1]["objective/scores"]) for done in (2, 3, 4, 5)]


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"prompts": PROMPTS[:4]}, {"settings": replace(SETTINGS, kl_target=5.0)}, {"reference": "other"}],
    ids=["seed", "prompts", "settings", "reference"],
)
def test_checkpoints_of_another_run_are_refused(
    change: dict[str, Any], tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    start = deepcopy(tiny_model)
    with pytest.raises(Killed):
        improve(tiny_model, tiny_tokenizer, SETTINGS, report=killed_at(1), checkpoints=tmp_path)
    if "reference" in change:
        other = deepcopy(start)
        torch.nn.init.normal_(other.get_input_embeddings().weight, generator=torch.Generator().manual_seed(0))
        change = {"reference": other}
    with pytest.raises(ValueError, match=r"belong to another run \(other settings, seed, prompts or models\)"):
        improve(start, tiny_tokenizer, change.pop("settings", SETTINGS), checkpoints=tmp_path, **change)


def test_what_only_bounds_time_and_memory_may_change(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    start = deepcopy(tiny_model)
    with pytest.raises(Killed):
        improve(tiny_model, tiny_tokenizer, SETTINGS, report=killed_at(1), checkpoints=tmp_path)
    other = replace(SETTINGS, micro_batch_tokens=64, checkpoint_seconds=1e9)
    assert len(improve(start, tiny_tokenizer, other, checkpoints=tmp_path).metrics) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]  # the last one is always written

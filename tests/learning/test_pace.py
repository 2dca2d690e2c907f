from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from worker.learning.pace import Pace, Weights, matmul_rate, weights_of

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")


class Stopwatch:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_phase_has_its_seconds_its_tokens_and_its_share_of_the_floor() -> None:
    clock = Stopwatch()
    pace = Pace(Weights(trunk=1_000, head=500), CPU, "fp32", episodes=30, total=4, clock=clock)
    clock.now += 2
    pace.lap("sample", tokens=40, passes=1, predicted=10)
    clock.now += 1
    pace.lap("score", tokens=7)
    clock.now += 3
    pace.lap("learn", tokens=20, passes=3, predicted=20)
    row = pace.metrics()
    rate = matmul_rate(CPU, False)
    assert row["seconds/sample"] == 2
    assert row["tokens/sample"] == 40
    assert row["floor/sample"] == pytest.approx(2 * (40 * 1_000 + 10 * 500) / rate / 2)
    assert row["floor/learn"] == pytest.approx(6 * (20 * 1_000 + 20 * 500) / rate / 3)
    assert row["tokens/score"] == 7
    assert "floor/score" not in row, "another model's work has no floor here"
    assert row["episodes_per_second"] == 30 / 6
    assert row["seconds/left"] == 3 * 6


def test_what_is_done_between_two_rollouts_is_no_part_of_either() -> None:
    clock = Stopwatch()
    pace = Pace(Weights(10, 10), CPU, "fp32", episodes=1, total=2, clock=clock)
    clock.now += 7
    pace.begin()
    clock.now += 2
    pace.lap("sample", tokens=5)
    assert pace.metrics()["seconds/sample"] == 2


def test_laps_of_one_phase_add_up_and_rollouts_do_not() -> None:
    clock = Stopwatch()
    pace = Pace(Weights(10, 10), CPU, "fp32", episodes=1, total=10, clock=clock)
    for seconds in (1, 2):
        clock.now += seconds
        pace.lap("sample", tokens=5)
    assert pace.metrics() == {
        "seconds/sample": 3,
        "tokens/sample": 10,
        "episodes_per_second": 1 / 3,
        "seconds/left": 9 * 3,
    }
    clock.now += 5
    pace.lap("learn", tokens=2)
    row = pace.metrics()
    assert row["seconds/learn"] == 5
    assert "seconds/sample" not in row
    assert row["seconds/left"] == 8 * (3 + 5) / 2


def test_the_end_is_estimated_from_recent_rollouts_and_by_what_an_earlier_process_did() -> None:
    clock = Stopwatch()
    pace = Pace(Weights(10, 10), CPU, "fp32", episodes=1, total=40, done=20, clock=clock)
    for seconds in (900, *[2] * 10):
        clock.now += seconds
        pace.lap("learn", tokens=1)
        row = pace.metrics()
    assert row["seconds/left"] == (40 - 20 - 11) * 2


def test_weights_that_multiply_are_counted_by_hand(tiny_model: Any) -> None:
    """A layer: queries and output 32 x 32, keys and values 32 x 16 each, three of the feed-forward's 32 x 64."""
    layer = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64
    assert weights_of(tiny_model) == Weights(trunk=2 * layer, head=32 * 19)
    tied = LlamaForCausalLM(LlamaConfig(**tiny_model.config.to_diff_dict() | {"tie_word_embeddings": True}))
    assert weights_of(tied) == weights_of(tiny_model)


def test_of_experts_only_those_asked_count() -> None:
    """Two of eight experts; attention 4 x 16 x 16, the router 16 x 8."""
    config = MixtralConfig(
        vocab_size=10,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
    )
    assert weights_of(MixtralForCausalLM(config)).trunk == 4 * 16 * 16 + 16 * 8 + 2 * 3 * 16 * 32


def test_the_rate_is_measured_once_and_is_one_that_processors_have() -> None:
    assert 1e9 < matmul_rate(CPU, False) < 1e15
    assert matmul_rate(CPU, False) == matmul_rate(CPU, False)

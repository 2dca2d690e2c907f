"""Is what a policy wrote scored as it stands, and read in one way only?"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.learning.ppo_runs import CUT, ENDED, PROMPTS, QUICK, count_good, improve
from worker.learning.likelihood import Dialogue
from worker.learning.policy.actor import new_actor
from worker.learning.policy.rollouts import Rollout, choose_prompts, scores_of
from worker.learning.records import Prompt
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning

COOL = SamplingSettings(temperature=0.7, max_new_tokens=10)


def classifier_like(model: Any) -> Any:
    torch.manual_seed(1)
    return LlamaForSequenceClassification(LlamaConfig(**(model.config.to_dict() | {"num_labels": 1}))).eval()


# One forward pass for old, reference and new log-probabilities.


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({}, id="shared"),
        pytest.param({"critic": "separate"}, id="separate"),
        pytest.param({"lora_rank": 4}, id="shared, adapters"),
        pytest.param({"critic": "separate", "lora_rank": 4}, id="separate, adapters"),
        pytest.param({"group_size": 4}, id="groups"),
        pytest.param({"group_size": 4, "estimator": "rloo"}, id="rloo"),
        pytest.param({"group_size": 4, "estimator": "grpo", "kl_in": "loss", "lora_rank": 4}, id="grpo, adapters"),
    ],
)
def test_the_first_ratio_is_one(tiny_model: Any, tiny_tokenizer: Any, given: dict[str, Any]) -> None:
    """At the sampling temperature, whatever the micro-batches; also once the policy has learned and moved away."""
    settings = replace(QUICK, episodes=96, batch_episodes=32, epochs=2, minibatches=4, sampling=COOL)
    settings = replace(settings, micro_batch_tokens=40, **given)
    separate = {"critic": classifier_like(tiny_model)} if "critic" in given and "lora_rank" not in given else {}
    if "lora_rank" in given:
        separate["reference"] = None
    rows = improve(tiny_model, tiny_tokenizer, settings, **separate).metrics
    assert [row["policy/ratio_error"] < 1e-5 for row in rows] == [True] * 3
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-5)
    assert abs(rows[2]["objective/kl"]) > 1e-3
    assert all(row["policy/ratio_max"] > 1.001 for row in rows)  # it did move


def test_in_bf16_the_first_ratios_are_near_one(tiny_model: Any, tiny_tokenizer: Any) -> None:
    settings = replace(QUICK, episodes=64, epochs=1, sampling=COOL, micro_batch_tokens=40, precision="bf16")
    [row] = improve(tiny_model, tiny_tokenizer, settings).metrics
    assert row["policy/ratio_error"] < 1e-2
    assert row["objective/kl"] == pytest.approx(0, abs=1e-5)


def test_log_probabilities_are_the_models_own_at_the_temperature(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Each response read by itself, without padding, through the model's whole forward."""
    reference = deepcopy(tiny_model)
    with torch.no_grad():
        reference.get_input_embeddings().weight.mul_(1.5)
    policy, kept = deepcopy(tiny_model), []
    settings = replace(QUICK, episodes=64, epochs=1, sampling=COOL)
    improve(tiny_model, tiny_tokenizer, settings, reference=reference, keep=lambda rollout, _: kept.append(rollout))
    [rollout] = kept
    assert len({len(sample.token_ids) for sample in rollout.samples}) > 3, "responses of several lengths"
    tables = {policy: rollout.outputs.logprobs, reference: rollout.reference_logprobs}
    for row, dialogue in enumerate(rollout.dialogues):
        for model, table in tables.items():
            with torch.no_grad():
                ids = torch.tensor([[*dialogue.prompt_ids, *dialogue.response_ids]])
                logs = (model(input_ids=ids).logits[0] / 0.7).log_softmax(dim=-1)
            expected = [
                float(logs[len(dialogue.prompt_ids) - 1 + t, token]) for t, token in enumerate(dialogue.response_ids)
            ]
            assert table[row, : len(expected)].tolist() == pytest.approx(expected, abs=1e-5)
            assert (table[row, len(expected) :] == 0).all()
            assert rollout.mask[row].sum() == len(expected)


def test_values_start_at_zero_and_outputs_are_masked(tiny_model: Any) -> None:
    policy = new_actor(tiny_model, deepcopy(tiny_model), None, QUICK, 0)
    outputs = policy([Dialogue([3, 4], [5, 1]), Dialogue([3], [6, 7, 8, 1])], 1.0, "fp32")
    assert outputs.mask.tolist() == [[True, True, False, False], [True] * 4]
    assert outputs.values.abs().max() == 0
    assert (outputs.logprobs[outputs.mask] < 0).all()
    assert (outputs.logprobs[~outputs.mask] == 0).all()
    uniform = np.log(19)  # a random model is close to the uniform distribution over its 19 words
    assert outputs.entropies[outputs.mask].tolist() == pytest.approx([uniform] * 6, abs=0.1)


def test_a_value_is_read_before_its_token(tiny_model: Any) -> None:
    """Another token changes the values after it, not its own."""
    actor = new_actor(tiny_model, deepcopy(tiny_model), None, QUICK, 0)
    assert actor.value_head is not None
    torch.nn.init.normal_(actor.value_head.weight, generator=torch.Generator().manual_seed(0))
    [one, other] = actor([Dialogue([3, 4], [5, 6, 7]), Dialogue([3, 4], [5, 8, 7])], 1.0, "fp32").values.tolist()
    assert one[:2] == pytest.approx(other[:2], abs=1e-6)
    assert abs(one[2] - other[2]) > 1e-4


# What is scored.


class Seen:
    """A reward that remembers what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.responses: list[str] = []

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        self.prompts += prompts
        self.responses += responses
        return torch.arange(len(responses)).float()


def test_a_response_is_cut_off_behind_its_first_end_before_it_is_scored(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Any of the model's end tokens ends it, so a word may be one; then it has no price to pay for going on."""
    word = tiny_tokenizer.convert_tokens_to_ids("cat")
    tiny_model.generation_config.eos_token_id = [tiny_tokenizer.eos_token_id, word]
    reward, kept = Seen(), []
    settings = replace(QUICK, episodes=64, epochs=1)
    improve(tiny_model, tiny_tokenizer, settings, reward=reward, keep=lambda rollout, _: kept.append(rollout))
    [rollout] = kept
    ends = {tiny_tokenizer.eos_token_id, word}
    reasons = set()
    for place, (sample, text) in enumerate(zip(rollout.samples, reward.responses, strict=True)):
        *before, last = sample.token_ids
        assert ends.isdisjoint(before)
        assert text == tiny_tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        assert sample.finish_reason == ("ended" if last in ends else "cut")
        assert last in ends or len(sample.token_ids) == 10
        assert rollout.scores[place] == place
        reasons.add((sample.finish_reason, last == word))
    assert reasons == {("cut", False), ("ended", False), ("ended", True)}


def test_the_responses_to_a_prompt_stand_side_by_side(tiny_model: Any, tiny_tokenizer: Any) -> None:
    reward, kept = Seen(), []
    settings = replace(QUICK, episodes=48, batch_episodes=24, epochs=1, group_size=4)
    improve(tiny_model, tiny_tokenizer, settings, reward=reward, keep=lambda rollout, _: kept.append(rollout))
    asked = [PROMPTS.index(tuple(prompt)) for prompt in reward.prompts]
    groups = [asked[first : first + 4] for first in range(0, 48, 4)]
    assert all(len(set(group)) == 1 for group in groups)
    assert sorted(group[0] for group in groups[:5]) == list(range(5))
    texts = [sample.text for sample in kept[0].samples[:4]]
    assert len(set(texts)) > 1, "the same answer four times"


def test_every_pass_asks_every_prompt_once() -> None:
    steps = [choose_prompts(6, 4, 0, step) for step in range(3)]
    asked = [prompt for step in steps for prompt in step]
    assert sorted(asked[:6]) == sorted(asked[6:]) == list(range(6))
    assert asked[:6] != asked[6:]
    assert steps == [choose_prompts(6, 4, 0, step) for step in range(3)]
    assert choose_prompts(1, 3, 0, 0) == [0, 0, 0]


def test_a_reward_of_the_wrong_shape_is_refused() -> None:
    def one_number(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.zeros(1)

    with pytest.raises(ValueError, match="gave scores of shape"):
        scores_of(one_number, PROMPTS[:2], [ENDED, CUT])


@pytest.mark.parametrize("scores", [[1.0, 2.0], np.array([1, 2]), torch.tensor([1, 2], dtype=torch.bfloat16)])
def test_scores_may_be_any_numbers(scores: Any) -> None:
    found = scores_of(lambda _prompts, _responses: scores, PROMPTS[:2], [ENDED, CUT])
    assert (found.tolist(), found.dtype) == ([1.0, 2.0], torch.float32)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused_with_its_response(wrong: float) -> None:
    def undefined(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        return torch.tensor([1.0, wrong])

    with pytest.raises(ValueError, match=f"{wrong} for this response: 'x'"):
        scores_of(undefined, PROMPTS[:2], [ENDED, CUT])


def test_whatever_watches_is_scored_on_the_same_responses(tiny_model: Any, tiny_tokenizer: Any) -> None:
    kept: list[Rollout] = []
    settings = replace(QUICK, episodes=64, epochs=1)
    watched = {"goods": count_good, "order": Seen()}
    result = improve(
        tiny_model, tiny_tokenizer, settings, watched=watched, keep=lambda rollout, _: kept.append(rollout)
    )
    assert torch.equal(kept[0].watched["goods"], kept[0].scores)
    assert result.metrics[0]["watched/order"] == pytest.approx(31.5)

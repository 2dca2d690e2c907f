"""Does transformers' continuous batching, behind our settings, write what our loop writes?"""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from transformers import MambaConfig, MambaForCausalLM, MistralConfig, MistralForCausalLM

from worker.learning.continuous_batching import CannotBatch, write_continuously
from worker.learning.records import Message
from worker.learning.sampling import SamplingSettings, sample_responses

pytestmark = pytest.mark.learning

TEXTS = ["the cat", "a big old dog saw the sun and", "rain", "the small cat ran and", "the cat"]
PROMPTS: list[tuple[Message, ...]] = [({"role": "user", "content": text},) for text in TEXTS]
GREEDY = SamplingSettings(temperature=0, max_new_tokens=12)
CONTINUOUS = SamplingSettings(max_new_tokens=12, engine="continuous")


def test_without_noise_both_engines_write_the_same(tiny_model: Any, tiny_tokenizer: Any) -> None:
    loop = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 2, replace(GREEDY, engine="loop"), 5)
    continuous = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 2, replace(GREEDY, engine="continuous"), 5)
    assert [[one.token_ids for one in own] for own in continuous] == [[one.token_ids for one in own] for own in loop]
    assert [[one.text for one in own] for own in continuous] == [[one.text for one in own] for own in loop]
    assert all(len(one.token_ids) == 12 for own in loop for one in own)


def test_both_engines_end_alike(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """At either of two end tokens: the usual one, and one that the model writes in the middle."""
    [[longest]] = sample_responses(tiny_model, tiny_tokenizer, PROMPTS[:1], 1, GREEDY, 5)
    tiny_model.generation_config.eos_token_id = [1, longest.token_ids[6]]
    loop = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, replace(GREEDY, engine="loop"), 5)
    continuous = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, replace(GREEDY, engine="continuous"), 5)
    assert [own[0].token_ids for own in continuous] == [own[0].token_ids for own in loop]
    assert [own[0].finish_reason for own in continuous] == [own[0].finish_reason for own in loop]
    assert loop[0][0].finish_reason == "ended"


def test_a_sliding_window_slides_in_both(tiny_tokenizer: Any) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=4,
        bos_token_id=None,
        eos_token_id=1,
    )
    model: Any = MistralForCausalLM(config).eval()
    loop = sample_responses(model, tiny_tokenizer, PROMPTS, 1, replace(GREEDY, engine="loop"), 5)
    continuous = sample_responses(model, tiny_tokenizer, PROMPTS, 1, replace(GREEDY, engine="continuous"), 5)
    assert [[one.token_ids for one in own] for own in continuous] == [[one.token_ids for one in own] for own in loop]


def test_first_tokens_follow_the_models_probabilities(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Also those of responses that share the reading of a prompt; at temperature 2, and with the seed that is named."""
    settings = SamplingSettings(temperature=2.0, max_new_tokens=1, engine="continuous")
    [samples] = sample_responses(tiny_model, tiny_tokenizer, PROMPTS[:1], 600, settings, 3)
    with torch.no_grad():
        logits = tiny_model(**tiny_tokenizer(TEXTS[0], return_tensors="pt")).logits[0, -1].double()
    expected = (logits / 2).softmax(dim=-1).numpy()
    counts = np.bincount([one.token_ids[0] for one in samples], minlength=len(expected))
    assert scipy.stats.chisquare(counts, expected * 600).pvalue > 0.001


def test_one_seed_for_all_which_every_sample_names(tiny_model: Any, tiny_tokenizer: Any) -> None:
    drawn = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, CONTINUOUS, 5)
    assert drawn == sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, CONTINUOUS, 5)
    assert drawn != sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, CONTINUOUS, 6)
    assert len({one.seed for own in drawn for one in own}) == 1
    assert len({one.token_ids for own in drawn for one in own}) > 5


def test_it_leaves_model_and_noise_as_they_were(tiny_model: Any, tiny_tokenizer: Any) -> None:
    before, attention = torch.get_rng_state(), tiny_model.config._attn_implementation
    weights = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 2, replace(CONTINUOUS, precision="bf16"), 5)
    assert torch.equal(before, torch.get_rng_state())
    assert tiny_model.config._attn_implementation == attention
    assert all(torch.equal(value, weights[name]) for name, value in tiny_model.state_dict().items())


def test_it_follows_the_live_weights(tiny_model: Any, tiny_tokenizer: Any) -> None:
    settings = replace(GREEDY, engine="continuous")
    before = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, settings, 5)
    with torch.no_grad():
        tiny_model.lm_head.weight.copy_(tiny_model.lm_head.weight.flip(0))
    after = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, settings, 5)
    loop = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, replace(GREEDY, engine="loop"), 5)
    assert before != after
    assert [own[0].token_ids for own in after] == [own[0].token_ids for own in loop]


def test_what_cannot_be_batched_goes_to_the_loop_and_says_so(
    tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    config = MambaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, num_hidden_layers=2, bos_token_id=1, eos_token_id=1
    )
    model: Any = MambaForCausalLM(config).eval()
    with caplog.at_level(logging.WARNING):
        drawn = sample_responses(model, tiny_tokenizer, PROMPTS, 2, CONTINUOUS, 5)
    assert "continuous batching cannot be used, so the loop samples" in caplog.text
    assert drawn == sample_responses(model, tiny_tokenizer, PROMPTS, 2, replace(CONTINUOUS, engine="loop"), 5)
    with pytest.raises(CannotBatch, match="linear_attention"):
        write_continuously(model, [[2, 3]], 1, frozenset({1}), 1.0, 1.0, 4, 1_000, "fp32", 1, lambda _done: None)


def test_it_reports_and_a_report_may_abort(tiny_model: Any, tiny_tokenizer: Any) -> None:
    told: list[int] = []
    sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 2, CONTINUOUS, 0, lambda progress: told.append(progress.done))
    assert told == list(range(1, 11))

    def abort(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 2, CONTINUOUS, 0, abort)
    assert sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, CONTINUOUS, 0)

from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from worker.learning.records import Message
from worker.learning.sampling import (
    SamplingSettings,
    draw_tokens,
    end_token_ids,
    sample_responses,
    truncate_after_end,
)

pytestmark = pytest.mark.learning


def prompt(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


PROMPTS = [prompt("the cat"), prompt("a big old dog saw the sun and"), prompt("rain"), prompt("the small cat ran and")]
SETTINGS = SamplingSettings(max_new_tokens=12)
EXAMPLE = torch.tensor([[0.2, 0.5, 0.3]]).log()  # laid side by side from token 0: 0.2 | 0.7 | 1


def test_a_token_is_drawn_where_the_cumulative_distribution_reaches_the_number() -> None:
    drawn = [int(draw_tokens(EXAMPLE, torch.tensor([u]), 1.0, 1.0)) for u in (0.0, 0.19, 0.21, 0.69, 0.71, 0.999)]
    assert drawn == [0, 0, 1, 1, 2, 2]


def test_top_p_keeps_the_fewest_likeliest_tokens_that_reach_it() -> None:
    """With p = 0.6 tokens 1 and 2 stay, at 0.5 / 0.8 = 0.625 and 0.375."""
    drawn = [int(draw_tokens(EXAMPLE, torch.tensor([u]), 1.0, 0.6)) for u in (0.0, 0.62, 0.63, 0.999)]
    assert drawn == [1, 1, 2, 2]
    assert int(draw_tokens(EXAMPLE, torch.tensor([0.999]), 1.0, 0.4)) == 1


def test_temperature_zero_takes_the_likeliest_token() -> None:
    assert int(draw_tokens(EXAMPLE, torch.tensor([0.999]), 0.0, 1.0)) == 1


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_draws_follow_the_tempered_softmax(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(size=8)
    numbers = np.random.default_rng(1).random(20_000)
    drawn = draw_tokens(torch.tensor(logits).expand(20_000, 8), torch.tensor(numbers), temperature, 1.0)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    counts = np.bincount(drawn.numpy(), minlength=8)
    assert scipy.stats.chisquare(counts, expected * 20_000).pvalue > 0.001


def test_the_same_seed_writes_the_same_and_another_seed_does_not(tiny_model: Any, tiny_tokenizer: Any) -> None:
    first = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, SETTINGS, 5)
    assert first == sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, SETTINGS, 5)
    assert first != sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 3, SETTINGS, 6)
    assert [len(samples) for samples in first] == [3, 3, 3, 3]
    assert len({sample.seed for samples in first for sample in samples}) == 12


def test_a_response_does_not_depend_on_its_batch(tiny_model: Any, tiny_tokenizer: Any) -> None:
    together = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 4, SETTINGS, 5)
    alone = SamplingSettings(max_new_tokens=12, batch_tokens=1)
    assert together == sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 4, alone, 5)


def test_without_noise_it_writes_what_transformers_generates(tiny_model: Any, tiny_tokenizer: Any) -> None:
    greedy = SamplingSettings(temperature=0, max_new_tokens=12)
    ours = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, greedy, 0)
    for messages, [sample] in zip(PROMPTS, ours, strict=True):
        ids = tiny_tokenizer(messages[0]["content"], return_tensors="pt")
        theirs = tiny_model.generate(**ids, do_sample=False, max_new_tokens=12)[0, ids["input_ids"].shape[1] :]
        assert list(sample.token_ids) == theirs.tolist()


def test_samples_say_how_they_finished(tiny_model: Any, tiny_tokenizer: Any) -> None:
    drawn = sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 20, SETTINGS, 1)
    samples = [sample for of_prompt in drawn for sample in of_prompt]
    ended = [sample for sample in samples if sample.finish_reason == "ended"]
    cut = [sample for sample in samples if sample.finish_reason == "cut"]
    assert len(ended) > 5
    assert len(cut) > 5
    assert all(sample.token_ids[-1] == 1 and 1 not in sample.token_ids[:-1] for sample in ended)
    assert all(len(sample.token_ids) == 12 and 1 not in sample.token_ids for sample in cut)
    assert not any("<eos>" in sample.text or "<pad>" in sample.text for sample in samples)
    assert all(sample.text == tiny_tokenizer.decode(sample.token_ids, skip_special_tokens=True) for sample in samples)


def test_responses_stop_after_the_first_end_token() -> None:
    assert truncate_after_end([5, 6, 1, 7, 1], frozenset({1})) == [5, 6, 1]
    assert truncate_after_end([5, 6], frozenset({1})) == [5, 6]


def test_the_models_own_end_tokens_count_too(tiny_model: Any, tiny_tokenizer: Any) -> None:
    tiny_model.generation_config.eos_token_id = [1, 7]
    assert end_token_ids(tiny_model, tiny_tokenizer) == {1, 7}


def test_a_prompt_that_leaves_no_room_is_refused(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(ValueError, match="do not fit the model's 64 positions"):
        sample_responses(tiny_model, tiny_tokenizer, [prompt("the " * 60)], 1, SETTINGS, 0)


@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}])
def test_impossible_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        SamplingSettings(**bad)  # type: ignore[arg-type]


def test_it_reports_and_a_report_may_abort(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def abort(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_responses(tiny_model, tiny_tokenizer, PROMPTS, 1, SETTINGS, 0, abort)

from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, GPT2Config, GraniteConfig

from worker.learning.evaluation import (
    Estimate,
    bootstrap_ratio,
    distinct_n,
    ended_rate,
    implicit_preference,
    length_ratio,
    sequence_kl,
    win_rate,
)
from worker.learning.likelihood import Dialogue, response_logprobs
from worker.learning.records import Message, Sample
from worker.learning.sampling import SamplingSettings, sample_responses

pytestmark = pytest.mark.learning


def test_win_rate_counts_ties_half() -> None:
    ours = torch.tensor([[1.0, 2.0], [0.0, 5.0]])
    theirs = torch.tensor([[0.0, 2.0], [1.0, 4.0]])
    estimate = win_rate(ours, theirs, 0)
    assert estimate.value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert estimate.count == 4


def test_the_interval_of_independent_pairs_is_the_binomial_one() -> None:
    """The normal interval of a proportion has half-width 1.96 sqrt(p q / n)."""
    won = torch.tensor(np.random.default_rng(0).random(800) < 0.7).double()[:, None]
    estimate = win_rate(won, torch.full_like(won, 0.5), 0)
    half = 1.96 * (estimate.value * (1 - estimate.value) / 800) ** 0.5
    assert estimate.high - estimate.low == pytest.approx(2 * half, rel=0.1)
    assert estimate.low < estimate.value < estimate.high


def test_pairs_of_one_prompt_do_not_narrow_the_interval() -> None:
    won = torch.tensor(np.random.default_rng(0).random(100) < 0.7).double()[:, None]
    once = win_rate(won, torch.full_like(won, 0.5), 0)
    copied = win_rate(won.expand(100, 50), torch.full((100, 50), 0.5), 0)
    assert copied.count == 5_000
    assert copied.high - copied.low == pytest.approx(once.high - once.low)


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="no pair was counted"):
        bootstrap_ratio(torch.zeros(3), torch.zeros(3), 0)


def test_tables_of_different_shape_are_an_error() -> None:
    with pytest.raises(ValueError, match="one shape"):
        win_rate(torch.zeros(2, 3), torch.zeros(3, 2), 0)


def test_distinct_n_is_the_share_of_new_n_grams() -> None:
    """ "a b a b" has the bigrams ab, ba, ab and "a b" another ab: 2 different ones of 4."""
    assert distinct_n(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct_n(["a b a b", "a b"], 1) == pytest.approx(2 / 6)
    assert distinct_n(["word"], 2) == 0


def test_rates_and_lengths() -> None:
    short, long = Sample("a", (5, 1), "ended", 0), Sample("b c d", (5, 6, 7, 8), "cut", 0)
    assert ended_rate([short, long]) == 0.5
    assert length_ratio([long], [short, short]) == 2


def test_logprobs_are_the_models_own(tiny_model: Any) -> None:
    """Against one plain forward per dialogue, the log-softmax taken by numpy."""
    dialogues = [Dialogue([3, 4, 5], [6, 7, 1]), Dialogue([8], [9, 1]), Dialogue([3, 9, 10, 11], [12, 13, 14, 15])]
    for dialogue, ours in zip(dialogues, response_logprobs(tiny_model, dialogues, 0.7, "fp32"), strict=True):
        ids = [*dialogue.prompt_ids, *dialogue.response_ids]
        with torch.no_grad():
            logits = tiny_model(torch.tensor([ids])).logits[0].double().numpy() / 0.7
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        start = len(dialogue.prompt_ids)
        expected = [logs[place - 1, ids[place]] for place in range(start, len(ids))]
        assert ours.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(final_logit_softcapping=0.5, num_key_value_heads=2, head_dim=8),
        GraniteConfig(logits_scaling=8.0, num_key_value_heads=2),
        CohereConfig(logit_scale=0.0625, num_key_value_heads=2),
        GPT2Config(n_positions=32),
    ],
    ids=lambda config: config.model_type,
)
def test_every_family_keeps_its_own_logits(config: Any) -> None:
    config.update(
        {
            "vocab_size": 40,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 1,
        }
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.get_output_embeddings().parameters():
        torch.nn.init.normal_(parameter)  # logits large enough for scale and cap to show
    ids = [3, 9, 4, 7, 2]
    [ours] = response_logprobs(model, [Dialogue(ids[:2], ids[2:])], precision="fp32")
    with torch.no_grad():
        logs = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    assert ours.tolist() == pytest.approx([float(logs[place - 1, ids[place]]) for place in (2, 3, 4)], abs=1e-5)


def test_the_kl_of_samples_is_the_kl_of_the_distributions(tiny_model: Any, tiny_tokenizer: Any) -> None:
    """Responses of one token: KL = sum p log(p / q) over the vocabulary, which can be summed in full."""
    prompt: tuple[Message, ...] = ({"role": "user", "content": "the cat"},)
    ids = tiny_tokenizer("the cat")["input_ids"]
    vocabulary = [Dialogue(ids, [token]) for token in range(19)]
    p = torch.cat(response_logprobs(tiny_model, vocabulary, precision="fp32"))
    drawn = sample_responses(tiny_model, tiny_tokenizer, [prompt], 4_000, SamplingSettings(max_new_tokens=1), 0)
    dialogues = [Dialogue(ids, sample.token_ids) for sample in drawn[0]]
    own = response_logprobs(tiny_model, dialogues, precision="fp32")
    with torch.no_grad():
        tiny_model.lm_head.weight.mul_(torch.linspace(-8, 8, 19)[:, None])
    q = torch.cat(response_logprobs(tiny_model, vocabulary, precision="fp32"))
    estimates = sequence_kl(own, response_logprobs(tiny_model, dialogues, precision="fp32"))
    exact = float((p.exp() * (p - q)).sum())
    error = float(estimates.std()) / 4_000**0.5
    assert exact > 10 * error
    assert float(estimates.mean()) == pytest.approx(exact, abs=4 * error)


def test_one_prompt_alone_has_no_interval() -> None:
    """30 pairs of one prompt do not say how another prompt would come out; nor do prompts without any pair."""
    won = win_rate(torch.ones(1, 30), torch.zeros(1, 30), 0)
    assert won == Estimate(1.0, None, None, 30)
    assert bootstrap_ratio(torch.tensor([2.0, 0.0]), torch.tensor([3, 0]), 0) == Estimate(2 / 3, None, None, 3)
    moved = implicit_preference(torch.ones(2), torch.zeros(2), torch.zeros(2).long(), 0)
    assert moved == Estimate(1.0, None, None, 2)


def test_a_policy_prefers_what_it_moved_towards() -> None:
    """Of four pairs two went up for the better response, one for the worse, one for both alike."""
    better, worse = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([-0.5, -2.0, 3.0, 0.0])
    found = implicit_preference(better, worse, torch.tensor([0, 0, 1, 1]), 0)
    assert (found.value, found.count) == (0.625, 4)
    assert (found.low, found.high) == (0.25, 1.0)  # of two clusters one or the other may be drawn twice

"""Does everything that runs differently on a GPU give what it gives on a CPU? Skipped where there is none."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from tests.learning.ppo_runs import PROMPTS, QUICK, improve
from worker.learning.likelihood import Dialogue, ResponseStates, predictions, response_logprobs, response_states
from worker.learning.pace import matmul_rate
from worker.learning.progress import Progress
from worker.learning.sampling import SamplingSettings, sample_responses
from worker.learning.trunk import way_of

pytestmark = [
    pytest.mark.learning,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

DIALOGUES = [
    Dialogue(prompt, response)
    for prompt, responses in {
        (3, 4, 5, 6, 7): ([8, 9, 1], [1], [10, 11, 12, 13, 1], [8, 8, 8, 8]),
        (9, 9): ([14, 15, 1],),
        tuple(range(3, 18)): ([5, 1], [4, 4, 4, 1]),
    }.items()
    for response in responses
]


def llama(attention: str = "sdpa", vocabulary: int = 64) -> PreTrainedModel:
    """Random, with heads as wide as the kernels of attention want them."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.1,
        eos_token_id=1,
        bos_token_id=None,
    )
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.eval()


def gradients(model: PreTrainedModel, dialogues: Sequence[Dialogue]) -> dict[str, torch.Tensor]:
    """On the CPU, of a sum over tokens that weighs each differently, by parameter."""
    logprobs, _ = predictions(model, response_states(model, dialogues, "fp32"), 0.7)
    (logprobs.cpu() * torch.linspace(-1, 1, len(logprobs))).sum().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.cpu() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_packed_dialogues_are_what_a_cpu_gives_one_by_one(attention: str) -> None:
    there, here = llama(attention).to("cuda"), llama()
    # Flex attention packs; where it works, a model that came with scaled dot-product attention is packed too.
    assert way_of(there.base_model).attention == ("eager" if attention == "eager" else "flex_attention")
    packed = torch.cat(response_logprobs(there, DIALOGUES, 0.7, "fp32"))
    alone = torch.cat([row for one in DIALOGUES for row in response_logprobs(here, [one], 0.7, "fp32")])
    torch.testing.assert_close(packed, alone, rtol=1e-3, atol=1e-3)
    wanted = gradients(here, DIALOGUES)
    for name, gradient in gradients(there, DIALOGUES).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-2, atol=1e-2 * float(wanted[name].abs().max()))


def test_logits_of_many_tokens_are_never_held_at_once() -> None:
    """16,384 tokens of a vocabulary of 32,768 are 2.1 GB of logits, and learning would hold three times that."""
    model = llama(vocabulary=32_768).to("cuda")
    hidden = torch.randn(16_384, 256, device="cuda", requires_grad=True)
    targets = torch.randint(32_768, (16_384,), device="cuda")
    states = ResponseStates(hidden, targets, torch.ones(1, 16_384, dtype=torch.bool, device="cuda"))
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    logprobs, _ = predictions(model, states, 1.0)
    logprobs.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.cuda.max_memory_allocated() - before < 2.1e9
    with torch.no_grad():
        plain = (model.get_output_embeddings()(hidden[:100])).log_softmax(-1)[torch.arange(100), targets[:100]]
    torch.testing.assert_close(logprobs[:100], plain, rtol=1e-4, atol=1e-4)


def test_both_engines_write_what_transformers_generates(tiny_tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    model = llama().to("cuda")
    greedy = SamplingSettings(temperature=0, max_new_tokens=12, precision="fp32")
    for engine in ("loop", "continuous"):
        ours = sample_responses(model, tiny_tokenizer, PROMPTS, 1, replace(greedy, engine=engine), 0)
        for messages, [sample] in zip(PROMPTS, ours, strict=True):
            ids = tiny_tokenizer(messages[0]["content"], return_tensors="pt").to("cuda")
            theirs = model.generate(**ids, do_sample=False, max_new_tokens=12, eos_token_id=1, pad_token_id=0)
            assert list(sample.token_ids) == theirs[0, ids["input_ids"].shape[1] :].tolist(), engine
    assert "the loop samples" not in caplog.text


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("choice", [{}, {"estimator": "grpo", "group_size": 4}, {"lora_rank": 2}], ids=str)
def test_the_first_ratio_is_one(choice: dict[str, Any], precision: Any, tiny_model: Any, tiny_tokenizer: Any) -> None:
    settings = replace(QUICK, episodes=64, epochs=1, precision=precision, micro_batch_tokens=100, **choice)
    [row] = improve(tiny_model.to("cuda"), tiny_tokenizer, settings).metrics
    if precision == "fp32":
        assert row["policy/ratio_error"] < 1e-3
    assert row["policy/ratio_error_mean"] < (1e-4 if precision == "fp32" else 0.05)
    assert 0 < row["floor/learn"] < 1
    assert matmul_rate(torch.device("cuda", 0), True) > 1e12


def test_a_run_that_was_stopped_goes_on(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    """To rounding: kernels that add up in any order do not give the same bits twice."""
    sampling = SamplingSettings(max_new_tokens=10, engine="loop")
    settings = replace(QUICK, episodes=192, learning_rate=1e-4, sampling=sampling, checkpoint_seconds=0.0)
    models = [deepcopy(tiny_model).to("cuda") for _ in range(3)]

    def stop_at(step: int) -> Callable[[Progress], None]:
        def report(progress: Progress) -> None:
            if progress.done == step:
                raise KeyboardInterrupt

        return report

    undisturbed = improve(models[0], tiny_tokenizer, settings)
    with pytest.raises(KeyboardInterrupt):
        improve(models[1], tiny_tokenizer, settings, checkpoints=tmp_path, report=stop_at(2))
    seen: list[Progress] = []
    resumed = improve(models[2], tiny_tokenizer, settings, checkpoints=tmp_path, report=seen.append)
    assert 1 not in [progress.done for progress in seen], "it began anew"
    for one, other in zip(undisturbed.policy.parameters(), resumed.policy.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.learning.tiny_models import END, GROUPED, JAMBA, OLD, PLAIN, VOCABULARY, language_model
from worker.learning import likelihood
from worker.learning.likelihood import (
    Dialogue,
    log_probabilities,
    logits_from,
    micro_batches,
    predictions,
    response_logprobs,
    response_states,
)
from worker.learning.reward.backbone import recomputed_layers
from worker.learning.trunk import Way, way_of

pytestmark = pytest.mark.learning

FAMILIES = {
    "Llama": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Mistral": GROUPED | {"sliding_window": 80},
    "Gemma2": GROUPED | {"head_dim": 8, "sliding_window": 80, "final_logit_softcapping": 5.0},
    "Granite": GROUPED | {"logits_scaling": 4.0},
    "Cohere": GROUPED | {"logit_scale": 0.25},
    "Mixtral": GROUPED | {"num_local_experts": 4},
    "Phi": PLAIN,  # its output layer has a bias
    "GPT2": OLD,
    "GPTNeoX": PLAIN,
    "OPT": PLAIN | {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
NOT_SHARING = {
    "Bloom": OLD,  # ALiBi: distances are counted in the row
    "Jamba": JAMBA,  # a state that runs through the row
}


def tiny(family: str, **more: Any) -> PreTrainedModel:
    return language_model(family, FAMILIES.get(family) or NOT_SHARING[family], **more)


def some_dialogues(seed: int = 0, prompts: int = 5, longest: int = 9, at_most: int = 6) -> list[Dialogue]:
    """Prompts with one or several responses, among them of a single token, in no order."""
    draw = random.Random(seed)

    def text(least: int) -> list[int]:
        return draw.choices(range(3, VOCABULARY), k=draw.randint(least, longest))

    asked = [text(2) for _ in range(prompts)]
    found = [Dialogue(prompt, [*text(0), END]) for prompt in asked for _ in range(draw.randint(1, at_most))]
    return draw.sample(found, len(found))


def one_by_one(model: PreTrainedModel, dialogues: Sequence[Dialogue], temperature: float) -> Tensor:
    """Log-probabilities by the plain use of transformers: a call for each dialogue, nothing padded or shared."""
    parts = []
    for dialogue in dialogues:
        ids = torch.tensor([[*dialogue.prompt_ids, *dialogue.response_ids]])
        logs = (model(ids, use_cache=False).logits[0].float() / temperature).log_softmax(-1)
        places = torch.arange(len(dialogue.prompt_ids) - 1, len(dialogue) - 1)
        parts.append(logs[places, list(dialogue.response_ids)])
    return torch.cat(parts)


def ours(model: PreTrainedModel, dialogues: Sequence[Dialogue], temperature: float) -> Tensor:
    return predictions(model, response_states(model, dialogues, "fp32"), temperature)[0]


def gradients(model: PreTrainedModel, logprobs: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Of a sum over tokens that weighs each differently, by parameter."""
    model.zero_grad()
    values = logprobs()
    torch.manual_seed(1)
    (values * torch.randn(values.shape)).sum().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_exact(model: PreTrainedModel, dialogues: Sequence[Dialogue], temperature: float = 0.7) -> None:
    """Log-probabilities and the gradients of all parameters are those of one dialogue a call."""
    with torch.no_grad():
        expected = one_by_one(model, dialogues, temperature)
        torch.testing.assert_close(ours(model, dialogues, temperature), expected, rtol=1e-4, atol=1e-5)
    wanted = gradients(model, lambda: one_by_one(model, dialogues, temperature))
    own = gradients(model, lambda: ours(model, dialogues, temperature))
    scale = max(float(gradient.abs().max()) for gradient in wanted.values())
    assert own.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


def with_least_hidden(model: PreTrainedModel, least: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """From how many hidden keys on attention passes over them: 0 always, infinity never."""
    monkeypatch.setattr("worker.learning.trunk.LEAST_HIDDEN", least)
    assert way_of(model.base_model).least_hidden == least


# What the formulas give.


def test_log_probabilities_and_entropies_by_hand() -> None:
    logits = np.random.default_rng(0).normal(scale=4, size=(5, 7))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = [3, 0, 6, 2, 2]
    logprobs, entropies = log_probabilities(torch.tensor(logits, dtype=torch.float32), torch.tensor(targets))
    np.testing.assert_allclose(logprobs, np.log(probabilities[range(5), targets]), atol=1e-6)
    np.testing.assert_allclose(entropies, -(probabilities * np.log(probabilities)).sum(axis=1), atol=1e-6)
    assert not entropies.requires_grad


def test_gradients_are_those_of_finite_differences() -> None:
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([5, 0, 3, 3])
    assert torch.autograd.gradcheck(lambda given: log_probabilities(given, targets)[0], logits)


def test_large_logits_stay_finite() -> None:
    logprobs, entropies = log_probabilities(torch.tensor([[1e4, -1e4, 0.0]]), torch.tensor([1]))
    assert logprobs.tolist() == [-2e4]
    assert entropies.tolist() == pytest.approx([0.0])


@pytest.mark.parametrize("family", ["Gemma2", "Granite", "Cohere", "Phi", "Llama"])
def test_logits_are_scaled_and_capped_as_the_family_does(family: str) -> None:
    model, ids = tiny(family), torch.tensor([[5, 6, 7]])
    if (bias := model.get_output_embeddings().bias) is not None:
        torch.nn.init.normal_(bias)
    with torch.no_grad():
        hidden = model.base_model(ids, use_cache=False).last_hidden_state[0]
        wanted = model(ids, use_cache=False).logits[0]
        torch.testing.assert_close(logits_from(model, hidden), wanted)
        torch.testing.assert_close(logits_from(model, hidden, 0.7), wanted / 0.7)


@pytest.mark.parametrize("family", ["Llama", "Gemma2"])
def test_a_few_tokens_at_a_time_give_what_all_at_once_give(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dialogues, asked = tiny(family), some_dialogues(), list[int]()
    whole = gradients(model, lambda: ours(model, dialogues, 0.7))
    expected = predictions(model, response_states(model, dialogues, "fp32"), 0.7)
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", 5 * VOCABULARY)
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: asked.append(len(inputs[0])))
    for one, other in zip(predictions(model, response_states(model, dialogues, "fp32"), 0.7), expected, strict=True):
        torch.testing.assert_close(one, other)
    for name, gradient in gradients(model, lambda: ours(model, dialogues, 0.7)).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    assert max(asked) == 5
    assert sum(asked) == 3 * len(expected[0]), "once, and once more with its backward pass"


# Whatever stands together in a pass.


@pytest.mark.parametrize("least_hidden", [0.0, float("inf")], ids=["passed over", "masked"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_that_is_read_once_changes_nothing(
    family: str, least_hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny(family)
    with_least_hidden(model, least_hidden, monkeypatch)
    # Gemma 2 caps its attention, which only the eager one does.
    assert way_of(model.base_model).attention == ("eager" if family == "Gemma2" else "shared_prefix")
    assert_exact(model, some_dialogues())


@pytest.mark.parametrize("family", NOT_SHARING)
def test_a_family_that_cannot_share_stays_exact(family: str) -> None:
    model = tiny(family)
    assert not way_of(model.base_model).attention
    assert_exact(model, some_dialogues())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_attention_path_is_exact(attention: str) -> None:
    model = tiny("Llama", attn_implementation=attention)
    assert way_of(model.base_model).attention in {"shared_prefix", "eager"}
    assert_exact(model, some_dialogues(1))
    assert model.config._attn_implementation == attention, "sampling would be told to attend in another way"


def test_flex_attention_packs_all_dialogues_into_one_row() -> None:
    model = tiny("Llama", attn_implementation="flex_attention").requires_grad_(False)  # a CPU has no backward pass
    dialogues, rows = some_dialogues(2), list[int]()
    with torch.compiler.set_stance("force_eager"), torch.no_grad():  # compiling takes a minute
        assert way_of(model.base_model).attention == "flex_attention"
        model.model.embed_tokens.register_forward_hook(lambda _, __, output: rows.append(len(output)))
        packed = ours(model, dialogues, 0.7)
        torch.testing.assert_close(packed, one_by_one(tiny("Llama"), dialogues, 0.7), rtol=1e-4, atol=1e-5)
    assert rows == [1]


def test_flex_attention_leaves_a_dialogue_beyond_the_window_to_the_model() -> None:
    model = tiny("Mistral", attn_implementation="flex_attention").requires_grad_(False)
    dialogues = [Dialogue([3] * 90, [4, 5, END]), Dialogue([6, 7], [8, END])]
    with torch.compiler.set_stance("force_eager"), torch.no_grad():
        assert way_of(model.base_model).attention == "flex_attention"
        own = ours(model, dialogues, 0.7)
        torch.testing.assert_close(own, one_by_one(tiny("Mistral"), dialogues, 0.7), rtol=1e-4, atol=1e-5)


def test_adapters_learn_the_same() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    wanted = LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=4, init_lora_weights=False)
    model = inject_adapter_in_model(wanted, tiny("Llama"))
    assert way_of(model.base_model).cuts_last_mlp
    assert_exact(model, some_dialogues(3))


def test_layers_that_are_computed_again_learn_the_same() -> None:
    model = tiny("Llama")
    with recomputed_layers(model):
        assert way_of(model.base_model) == Way()
        assert_exact(model, some_dialogues(4))


def test_beyond_a_window_nothing_is_shared() -> None:
    """The mask over several responses takes the place of the window's own."""
    assert_exact(tiny("Mistral"), some_dialogues(5, prompts=2, longest=90))


def test_in_bf16_a_prompt_that_is_read_once_changes_no_more_than_rounding_does() -> None:
    model, dialogues = tiny("Llama"), some_dialogues(6)
    with torch.no_grad():
        exact = one_by_one(model, dialogues, 1.0)
        rounded = torch.cat(response_logprobs(model, dialogues, 1.0, "bf16"))
        alone = torch.cat([torch.cat(response_logprobs(model, [one], 1.0, "bf16")) for one in dialogues])
    assert 0 < (rounded - exact).abs().mean() < 2 * (alone - exact).abs().mean()


def test_every_prompt_is_read_once_and_the_last_layer_where_it_counts() -> None:
    model, tokens = tiny("Llama"), list[int]()
    way_of(model.base_model)
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[:2].numel()))
    prompt = [3, 4, 5, 6]
    response_states(model, [Dialogue(prompt, [7, 8, END]), Dialogue(prompt, [9, END]), Dialogue(prompt, [END])], "fp32")
    assert tokens == [4 + 2 + 1, 1 + 2 + 1], "of a last token nothing is read, and all first ones follow the same state"


def test_a_last_layer_that_mixes_tokens_is_left_whole() -> None:
    model = tiny("Llama")
    model.model.layers[-1].mlp.register_forward_hook(lambda _, __, output: output.cumsum(dim=1))
    assert not way_of(model.base_model).cuts_last_mlp
    alone = [Dialogue([3, 4, 5], [6, 7, END])]
    torch.testing.assert_close(ours(model, alone, 1.0), one_by_one(model, alone, 1.0))


def test_log_probabilities_come_in_the_order_of_the_dialogues() -> None:
    model, dialogues = tiny("Llama"), some_dialogues(7)
    found = response_logprobs(model, dialogues, 0.7, "fp32", batch_tokens=40)
    assert [len(row) for row in found] == [len(dialogue.response_ids) for dialogue in dialogues]
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(found), one_by_one(model, dialogues, 0.7), rtol=1e-4, atol=1e-5)


# Micro-batches.


@pytest.mark.parametrize("budget", [1, 20, 60, 10_000])
def test_every_dialogue_is_in_one_micro_batch(budget: int) -> None:
    model, dialogues = tiny("Llama"), some_dialogues(8, prompts=12)
    groups = micro_batches(model, dialogues, budget)
    assert sorted(index for group in groups for index in group) == list(range(len(dialogues)))
    assert groups == micro_batches(model, dialogues, budget)
    for group in groups:
        alone = sum(len(dialogues[index]) for index in group)
        assert len(group) == 1 or alone <= budget * len(group), "one row each would not fit"


def test_the_responses_to_a_prompt_stand_together() -> None:
    """Four prompts of 50 tokens with four responses of 3: a row of 58 read tokens each, two of them in 120."""
    prompts = [[3 + number] * 50 for number in range(4)]
    dialogues = [Dialogue(prompt, [5, 6, END]) for _ in range(4) for prompt in prompts]
    groups = micro_batches(tiny("Llama"), dialogues, 120)
    assert [sorted(index % 4 for index in group) for group in groups] == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]


def test_gradients_add_up_however_dialogues_are_split() -> None:
    model, dialogues = tiny("Llama"), some_dialogues(9)

    def summed(budget: int) -> Callable[[], Tensor]:
        groups = micro_batches(model, dialogues, budget)
        return lambda: torch.stack([ours(model, [dialogues[one] for one in own], 1.0).sum() for own in groups]).sum()

    whole = gradients(model, summed(10_000))
    for name, gradient in gradients(model, summed(30)).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-3, atol=1e-4)

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from tests.learning.actors import DIALOGUES, LORA, actor_of, disturb, outputs, snapshot, taken
from worker.learning.likelihood import response_logprobs
from worker.learning.models import save_model
from worker.learning.policy.actor import new_actor
from worker.learning.ppo import improve_policy
from worker.learning.records import Prompt
from worker.learning.sampling import SamplingSettings, sample_responses

pytestmark = pytest.mark.learning


# Adapters.


def test_the_reference_is_the_base_to_the_bit_whatever_the_adapters_learned(tiny_model: Any) -> None:
    base = snapshot(tiny_model)
    before = response_logprobs(tiny_model, DIALOGUES, precision="fp32")
    actor = actor_of(tiny_model, replace(LORA, critic="separate"))
    disturb(actor.trained().values())
    assert not torch.equal(response_logprobs(tiny_model, DIALOGUES, precision="fp32")[0], before[0])
    for reference, own in zip(actor.reference_logprobs(DIALOGUES, 1.0, "fp32"), before, strict=True):
        assert torch.equal(reference, own)
    trained = {id(weight) for weight in actor.trained().values()}
    frozen = {
        name.replace(".base_layer", ""): weight
        for name, weight in tiny_model.named_parameters()
        if id(weight) not in trained
    }
    assert frozen.keys() == base.keys()
    assert all(torch.equal(weight, base[name]) for name, weight in frozen.items())


def test_a_reference_that_is_given_is_used_beside_adapters_too(tiny_model: Any) -> None:
    other = deepcopy(tiny_model)
    disturb(other.parameters())
    actor = actor_of(tiny_model, LORA, reference=other)
    expected = response_logprobs(other, DIALOGUES, precision="fp32")
    assert all(map(torch.equal, actor.reference_logprobs(DIALOGUES, 1.0, "fp32"), expected))
    assert not any(weight is mine for weight in other.parameters() for mine in actor.parameters())


def test_a_second_adapter_reads_values_that_the_policys_own_does_not_change(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, replace(LORA, critic="separate"))
    disturb(actor.value_parameters())
    values = outputs(actor).values
    disturb(actor.policy_parameters())
    new = outputs(actor)
    assert torch.equal(new.values, values)
    disturb(actor.value_parameters())
    later = outputs(actor)
    assert torch.equal(later.logprobs, new.logprobs)
    assert not torch.equal(later.values, values)


def test_adapters_stand_on_every_linear_layer_but_the_output(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, LORA)
    assert len(actor.policy_parameters()) == 2 * 7 * 2  # A and B for seven matrices in each of two layers
    assert not [name for name in actor.trained() if "lm_head" in name or "embed" in name]


def test_the_reference_takes_no_weights_of_its_own(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, LORA)
    adapted = sum(weight.numel() for weight in actor.trained().values())
    [reference] = actor._reference
    assert reference is not tiny_model
    assert taken(actor, reference) == taken(reference) + adapted


def test_adapters_are_the_same_from_the_same_seed(tiny_model: Any) -> None:
    first, second, other = (new_actor(deepcopy(tiny_model), None, None, LORA, seed).trained() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# Merging.


def tied_llama() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True)).eval()


def gpt2() -> Any:
    """Its layers are of another kind than nn.Linear, and its embeddings are tied."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=32, n_layer=2, n_head=4, n_positions=32)).eval()


@pytest.fixture(params=["untied", "tied", "gpt2"])
def any_model(request: pytest.FixtureRequest, tiny_model: Any) -> Any:
    return {"untied": lambda: tiny_model, "tied": tied_llama, "gpt2": gpt2}[request.param]()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_merging_leaves_a_plain_model_that_says_the_same(
    any_model: Any, critic: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    names, kind = set(any_model.state_dict()), str(any_model)
    embeddings = any_model.get_input_embeddings().weight.clone()
    actor = actor_of(any_model, replace(LORA, critic=critic))
    disturb(actor.trained().values())
    adapted = response_logprobs(any_model, DIALOGUES, precision="fp32")
    merged = actor.merge()
    assert merged is any_model
    assert set(merged.state_dict()) == names
    assert str(merged) == kind
    assert torch.equal(merged.get_input_embeddings().weight, embeddings)
    assert all(weight.requires_grad for weight in merged.parameters())
    save_model(merged, tiny_tokenizer, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    for model in (merged, loaded):
        for own, expected in zip(response_logprobs(model, DIALOGUES, precision="fp32"), adapted, strict=True):
            assert torch.allclose(own, expected, atol=1e-4)
    again = actor_of(merged, LORA)
    assert torch.allclose(outputs(again).logprobs[0], adapted[0], atol=1e-4)


def test_in_bf16_the_frozen_weights_take_half_the_memory_and_nothing_else_changes(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    halved = replace(
        LORA, critic="separate", precision="bf16", sampling=SamplingSettings(max_new_tokens=4, precision="bf16")
    )
    whole = replace(halved, sampling=SamplingSettings(max_new_tokens=4, precision="fp32"))
    small, large = (actor_of(deepcopy(tiny_model), settings) for settings in (halved, whole))
    for actor in (small, large):
        disturb(actor.trained().values())
    linear = tiny_model.model.layers[0].mlp.up_proj.weight
    assert small.language_model.model.layers[0].mlp.up_proj.weight.nbytes == linear.nbytes / 2
    assert {weight.dtype for weight in small.trained().values()} == {torch.float32}
    ours, theirs = (actor(DIALOGUES, 1.0, "bf16") for actor in (small, large))
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.values, theirs.values)
    prompt: Prompt = ({"role": "user", "content": "the cat"},)
    drawn = [
        sample_responses(actor.language_model, tiny_tokenizer, [prompt], 3, halved.sampling, seed=1)
        for actor in (small, large)
    ]
    assert drawn[0] == drawn[1]
    merged = small.merge()
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    expected = large.merge().model.layers[0].mlp.up_proj.weight
    assert torch.allclose(merged.model.layers[0].mlp.up_proj.weight, expected, atol=2**-8 * linear.abs().max().item())


# In a run.


@pytest.mark.parametrize(
    "variant",
    [{}, {"critic": "separate"}, {"estimator": "rloo", "group_size": 4}],
    ids=["shared", "separate", "none"],
)
def test_adapters_learn_a_planted_reward(tiny_model: Any, tiny_tokenizer: Any, variant: dict[str, Any]) -> None:
    """Nothing but adapters moves, and what is left in the end is a plain model that does it."""
    config = deepcopy(tiny_model.config)
    config.initializer_range = 0.15  # else the output layer, which is frozen too, tells no word from another
    torch.manual_seed(0)
    policy: Any = LlamaForCausalLM(config).eval()
    before = snapshot(policy)
    prompts: list[Prompt] = [({"role": "user", "content": text},) for text in ("the cat", "rain and sun", "small")]

    def count_good(prompts: Any, responses: Any) -> Tensor:
        return torch.tensor([float(response.split().count("good")) for response in responses])

    settings = replace(
        LORA,
        lora_alpha=32.0,
        episodes=320,
        batch_episodes=64,
        learning_rate=1e-2,
        kl_coefficient=0.02,
        sampling=SamplingSettings(max_new_tokens=10),
        **variant,
    )
    improved = improve_policy(policy, None, tiny_tokenizer, count_good, prompts, settings, seed=0)
    scores = [row["objective/scores"] for row in improved.metrics]
    assert scores[-1] > scores[0] + 1
    assert improved.policy is policy
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert policy.state_dict().keys() == before.keys()

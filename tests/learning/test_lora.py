from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from worker.learning.lora import Adapters
from worker.learning.low_rank import LARGEST_RANK, low_rank_difference

pytestmark = pytest.mark.learning

WIDTH = 2 * LARGEST_RANK
IDS = torch.tensor([[3, 4, 5, 6]])


def llama() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaModel(LlamaConfig(vocab_size=19, **sizes)).eval()


def gpt2() -> Any:
    """Its weights lie the other way."""
    torch.manual_seed(0)
    return GPT2Model(GPT2Config(vocab_size=19, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=16)).eval()


@pytest.fixture(params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest) -> Any:
    return {"llama": llama, "gpt2": gpt2}[request.param]()


def learned(base: Any, rank: int = 5) -> Any:
    """A copy that was changed by adapters, which were merged."""
    model = deepcopy(base)
    adapters = Adapters(model)
    adapters.add("own", rank, 2.0 * rank, seed=0)
    generator = torch.Generator().manual_seed(1)
    for weight in of_adapter(model, "own"):
        torch.nn.init.normal_(weight, std=0.05, generator=generator)
    adapters.merge("own")
    return model


def of_adapter(model: Any, adapter: str) -> list[torch.nn.Parameter]:
    return [weight for name, weight in model.named_parameters() if f".{adapter}." in name]


def read(model: Any) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model(IDS, use_cache=False).last_hidden_state
    return states


def test_adapters_are_found_again_in_merged_weights(base: Any) -> None:
    tuned = learned(base)
    found = low_rank_difference(base, tuned, seed=0)
    assert found
    assert {b.shape[1] for b, _ in found.values()} == {a.shape[0] for _, a in found.values()} == {5}
    adapters = Adapters(base)
    before = read(base)
    adapters.add("other", 2, 4.0, seed=0)
    assert torch.equal(read(base), before)
    adapters.add_fixed("tuned", found)
    assert torch.allclose(read(base), read(tuned), atol=1e-4)
    assert not torch.allclose(before, read(tuned), atol=1e-2)
    assert not any(weight.requires_grad for weight in of_adapter(base, "tuned"))
    assert all(weight.requires_grad for weight in of_adapter(base, "other"))


def test_the_same_model_differs_in_nothing(base: Any) -> None:
    assert low_rank_difference(base, deepcopy(base), seed=0) == {}


def test_models_that_differ_in_more_than_a_few_ranks_are_not_taken_for_adapted_ones(base: Any) -> None:
    assert low_rank_difference(base, learned(base, LARGEST_RANK + 1), seed=0) is None


def test_models_that_differ_outside_their_linear_layers_are_not_taken_for_adapted_ones(base: Any) -> None:
    tuned = learned(base)
    with torch.no_grad():
        tuned.get_input_embeddings().weight[3, 0] += 1e-3
    assert low_rank_difference(base, tuned, seed=0) is None


def test_weights_that_were_rounded_since_are_not_taken_for_adapted_ones(base: Any) -> None:
    assert low_rank_difference(base, learned(base).bfloat16(), seed=0) is None


def test_models_of_another_size_or_family_are_not_taken_for_adapted_ones() -> None:
    wider = LlamaModel(LlamaConfig(**{**llama().config.to_dict(), "intermediate_size": WIDTH + 1}))
    assert low_rank_difference(llama(), wider, seed=0) is None
    assert low_rank_difference(llama(), gpt2(), seed=0) is None


def test_the_search_for_adapters_leaves_other_noise_alone() -> None:
    """Its own noise is of its seed; whoever draws afterwards draws what they would have drawn."""
    base = llama()
    tuned = learned(base)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = low_rank_difference(base, tuned, seed=0)
    assert torch.equal(torch.rand(3), expected)
    second = low_rank_difference(base, tuned, seed=0)
    assert first
    assert second
    assert all(torch.equal(b, second[name][0]) and torch.equal(a, second[name][1]) for name, (b, a) in first.items())

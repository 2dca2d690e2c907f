import math
import random
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tests.learning.tiny_models import BEGIN, END, GROUPED, JAMBA, OLD, PAD, PLAIN, TOKENS, VOCABULARY, classifier
from worker.learning.batches import token_budget
from worker.learning.models import Precision
from worker.learning.reward.backbone import output_layer, recomputed_layers
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.forward import Forward
from worker.learning.reward.shared_prefix import attention_mask, lay_out

pytestmark = pytest.mark.learning

TOKENIZER = SimpleNamespace(pad_token_id=PAD, eos_token_id=END, sep_token_id=None)
CPU = torch.device("cpu")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LINEAR_HEADS = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
SHARING = {
    "Llama": GROUPED,
    "Qwen2": GROUPED,
    "Qwen3": GROUPED | {"head_dim": 8},
    "Mistral": GROUPED | {"sliding_window": 40},
    "Gemma2": GROUPED | {"head_dim": 8, "sliding_window": 40},
    "Gemma3Text": GROUPED | {"head_dim": 8, "sliding_window": 40},
    "Mixtral": GROUPED | {"num_local_experts": 4},
    "Phi3": GROUPED,
    "GPT2": OLD,
    "GPTJ": OLD | {"rotary_dim": 4},
    "GPTNeoX": PLAIN,
    "GPTNeo": {
        **{name: value for name, value in PLAIN.items() if name != "num_hidden_layers"},
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 40,
    },
    "OPT": PLAIN | {"ffn_dim": 64, "word_embed_proj_dim": 32},
}
NOT_SHARING = {
    "Bloom": OLD,  # ALiBi: distances are counted in the row
    "Mpt": TOKENS | {"d_model": 32, "n_layers": 2, "n_heads": 4},
    "Jamba": JAMBA,  # a state that runs through the row
    "Qwen3Next": GROUPED
    | EXPERTS
    | LINEAR_HEADS
    | {"num_hidden_layers": 4, "head_dim": 8, "shared_expert_intermediate_size": 16},
    "Bert": PLAIN,
    "Roberta": PLAIN,
    "DebertaV2": PLAIN | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "ModernBert": PLAIN | {"num_hidden_layers": 3, "local_attention": 8, "cls_token_id": BEGIN, "sep_token_id": END},
    "Electra": PLAIN | {"embedding_size": 16},
}


PAIR = EncodedSet((3, 4, 5), ((6, END),))


def llama(attention: str = "sdpa") -> PreTrainedModel:
    return classifier("Llama", GROUPED, attn_implementation=attention)


def some_sets(seed: int = 0, count: int = 4, longest: int = 9) -> list[EncodedSet]:
    draw = random.Random(seed)

    def text(least: int) -> tuple[int, ...]:
        return tuple(draw.choices(range(3, VOCABULARY), k=draw.randint(least, longest)))

    return [EncodedSet(text(3), tuple((*text(1), END) for _ in range(draw.choice([1, 2, 4, 9])))) for _ in range(count)]


def one_by_one(model: PreTrainedModel, sets: Sequence[EncodedSet]) -> Tensor:
    """The features by the plain use of transformers: a call for each text, nothing padded, masked or shared."""
    read: list[Tensor] = []
    hook = output_layer(model).register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    options = {"use_cache": False} if "Qwen3Next" in type(model).__name__ else {}
    for each in sets:
        for response in each.response_ids:
            model(torch.tensor([each.prompt_ids + response]), **options)
    hook.remove()
    return torch.cat([own[:, -1] if own.ndim == 3 else own for own in read])


def gradients(model: PreTrainedModel, features: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Of a sum over features that weighs each differently, by parameter."""
    model.zero_grad()
    values = features()
    torch.manual_seed(1)
    (values * torch.randn(values.shape)).sum().backward()  # type: ignore[no-untyped-call]
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def assert_exact(forward: Forward, sets: Sequence[EncodedSet]) -> None:
    """Features and the gradients of all parameters are those of one text a call."""
    torch.testing.assert_close(forward.features(sets), one_by_one(forward.model, sets), rtol=1e-4, atol=1e-5)
    own = gradients(forward.model, lambda: forward.features(sets))
    expected = gradients(forward.model, lambda: one_by_one(forward.model, sets))
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    assert own.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(own[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("least_hidden", [0.0, math.inf], ids=["passed over", "masked"])
@pytest.mark.parametrize("family", SHARING)
def test_a_shared_prompt_changes_nothing(family: str, least_hidden: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.learning.reward.forward.LEAST_HIDDEN", least_hidden)
    forward = Forward(classifier(family, SHARING[family]), TOKENIZER, "fp32")
    assert forward.shares, forward.reason
    assert_exact(forward, some_sets())


@pytest.mark.parametrize("family", NOT_SHARING)
def test_a_backbone_that_cannot_share_says_so_and_stays_exact(family: str) -> None:
    forward = Forward(classifier(family, NOT_SHARING[family]), TOKENIZER, "fp32")
    assert not forward.shares
    assert family in forward.reason
    assert_exact(forward, some_sets())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_attention_path_is_exact(attention: str) -> None:
    forward = Forward(llama(attention), TOKENIZER, "fp32")
    assert forward.shares, forward.reason
    assert_exact(forward, some_sets(seed=1))


def test_a_set_larger_than_a_forward_is_read_in_several() -> None:
    draw = random.Random(0)
    texts = [tuple(draw.choices(range(3, VOCABULARY), k=tokens)) for tokens in (200, 5, 90, 200, 7, *[120] * 15)]
    large = EncodedSet((5, 6, 7), tuple((*text, END) for text in texts))
    assert large.tokens > token_budget(CPU)
    assert_exact(Forward(classifier("Bert", PLAIN), TOKENIZER, "fp32"), [large])


def test_flex_attention_packs_all_sets_into_one_row() -> None:
    model = llama("flex_attention").requires_grad_(False)  # on a CPU it has no backward pass
    sets = some_sets(seed=2)
    with torch.compiler.set_stance("force_eager"):  # compiling takes a minute
        forward = Forward(model, TOKENIZER, "fp32")
        assert forward.shares, forward.reason
        features = forward.features(sets)
    torch.testing.assert_close(features, one_by_one(llama(), sets), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_every_attention_path_is_exact_on_a_gpu(attention: str) -> None:
    model = llama(attention).to("cuda")
    forward = Forward(model, TOKENIZER, "fp32")
    assert forward.shares, forward.reason
    sets = some_sets(seed=3)
    own = gradients(model, lambda: forward.features(sets).cpu())
    features = forward.features(sets).detach().cpu()
    plain = llama()
    torch.testing.assert_close(features, one_by_one(plain, sets), rtol=1e-3, atol=1e-3)
    for name, gradient in gradients(plain, lambda: one_by_one(plain, sets)).items():
        torch.testing.assert_close(own[name].cpu(), gradient, rtol=1e-2, atol=1e-2 * float(gradient.abs().max()))


@pytest.mark.parametrize("least_hidden", [0.0, math.inf], ids=["passed over", "masked"])
def test_in_bf16_a_shared_prompt_changes_no_more_than_rounding_does(
    least_hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.learning.reward.forward.LEAST_HIDDEN", least_hidden)
    """bf16 has 8 bits: a hundredth of the largest feature is about two units in the last place."""
    model, sets = llama(), some_sets(seed=4)
    with torch.no_grad():
        exact = one_by_one(model, sets)
        rounded = {way: Forward(model, TOKENIZER, way).features(sets) for way in PRECISIONS}
    torch.testing.assert_close(rounded["fp32"], exact, rtol=1e-4, atol=1e-5)
    assert 0 < (rounded["bf16"] - exact).square().mean().sqrt() < 0.01 * exact.abs().max()


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Bert"])
def test_company_order_and_padding_change_nothing(family: str) -> None:
    forward = Forward(classifier(family, SHARING.get(family) or NOT_SHARING[family]), TOKENIZER, "fp32")
    sets = some_sets(seed=5)
    with torch.no_grad():
        alone = [forward.features([each]) for each in sets]
        torch.testing.assert_close(forward.features(sets), torch.cat(alone), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            forward.features(sets[::-1]), torch.cat(alone[::-1]), rtol=1e-4, atol=1e-5, msg="order of sets"
        )
        turned = [EncodedSet(each.prompt_ids, each.response_ids[::-1]) for each in sets]
        torch.testing.assert_close(
            forward.features(turned), torch.cat([own.flip(0) for own in alone]), rtol=1e-4, atol=1e-5
        )


def test_responses_are_told_apart() -> None:
    """What all of the above would not see: features that do not depend on the text."""
    features = Forward(llama(), TOKENIZER, "fp32").features(some_sets(seed=6))
    distances = torch.cdist(features, features) + torch.eye(len(features))
    assert distances.min() > 0.01


@pytest.mark.parametrize("family", ["Mistral", "Gemma3Text", "GPTNeo"])
def test_beyond_the_window_nothing_is_shared(family: str) -> None:
    """The mask over several responses takes the place of the window's own, so a text longer than it needs its own."""
    forward = Forward(classifier(family, SHARING[family]), TOKENIZER, "fp32")
    assert_exact(forward, some_sets(seed=7, count=2, longest=45))


def test_no_row_is_longer_than_the_positions_of_a_model() -> None:
    forward = Forward(classifier("GPT2", OLD | {"n_positions": 24}), TOKENIZER, "fp32")
    assert_exact(forward, some_sets(seed=8))
    assert max(row.tokens for each in some_sets(seed=8) for row in forward._rows(each)) <= 24


def test_no_forward_has_a_cache() -> None:
    """With one, transformers forgets which tokens of a row belong together unless the mask says so itself."""
    model, seen = llama(), list[Any]()
    model.model.register_forward_pre_hook(lambda _, __, named: seen.append(named["use_cache"]), with_kwargs=True)
    forward = Forward(model, TOKENIZER, "fp32")
    forward.features([EncodedSet((3, 4), ((5, END), (6, 7, END))), EncodedSet((8,), ((9, END),))])
    assert len(seen) >= 4
    assert not any(seen)


def test_positions_alone_leak_with_a_cache_and_our_mask_does_not() -> None:
    """The trap itself: two texts in a row, told apart by positions, see each other once there is a cache."""
    model = llama()
    first, second = torch.tensor([[3, 4, 5, 6]]), torch.tensor([[7, 8, 9]])
    row = torch.cat([first, second], dim=1)
    positions = torch.cat([torch.arange(4), torch.arange(3)])[None]
    with torch.no_grad():
        alone = model.model(second, use_cache=False).last_hidden_state
        leaking = model.model(row, position_ids=positions, use_cache=True).last_hidden_state[:, 4:]
        layout = lay_out([EncodedSet((), ((3, 4, 5, 6), (7, 8, 9)))], PAD, CPU)
        for cache in (False, True):
            mask = attention_mask(layout, "sdpa", torch.float32)
            masked = model.model(layout.input_ids, mask, layout.position_ids, use_cache=cache).last_hidden_state
            torch.testing.assert_close(masked[:, 4:], alone, rtol=1e-4, atol=1e-5)
    assert (leaking - alone).abs().max() > 0.1


def test_an_eager_mask_that_hides_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eager attention adds its mask: 1 and 0 where it expects 0 and minus infinity let all through."""
    monkeypatch.setattr(
        "worker.learning.reward.forward.attention_mask", lambda layout, _, dtype: attention_mask(layout, "sdpa", dtype)
    )
    forward = Forward(llama("eager"), TOKENIZER, "fp32")
    assert forward.reason == "LlamaForSequenceClassification does not keep several responses in one row apart"
    assert_exact(forward, some_sets(seed=9))


def test_low_rank_adapters_learn_the_same_through_both_ways() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    config = LoraConfig(target_modules=["q_proj", "v_proj", "down_proj"], r=4, init_lora_weights=False)
    model = inject_adapter_in_model(config, llama())
    forward = Forward(model, TOKENIZER, "fp32")
    assert forward.shares, forward.reason
    assert_exact(forward, some_sets(seed=10))
    assert any("lora" in name for name, weight in model.named_parameters() if weight.grad is not None)


def test_a_forward_is_made_before_or_after_the_adapters() -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = llama()
    forward = Forward(model, TOKENIZER, "fp32")
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], init_lora_weights=False), model)
    assert_exact(forward, some_sets(seed=11))


@pytest.mark.parametrize("least_hidden", [0.0, math.inf], ids=["passed over", "masked"])
@pytest.mark.parametrize("layers", [1, 3])
def test_layers_may_be_computed_again_in_the_backward_pass(
    layers: int, least_hidden: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.learning.reward.forward.LEAST_HIDDEN", least_hidden)
    forward = Forward(classifier("Llama", GROUPED | {"num_hidden_layers": layers}), TOKENIZER, "fp32")
    with recomputed_layers(forward.model):
        assert_exact(forward, some_sets(seed=13))


def nine_responses() -> tuple[Forward, list[EncodedSet]]:
    """Nine responses of 100 tokens in one row, and a model of four layers that has room for it."""
    draw = random.Random(0)
    texts = [tuple(draw.choices(range(3, VOCABULARY), k=100)) for _ in range(9)]
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "max_position_embeddings": 1_024}
    return Forward(classifier("Llama", PLAIN | sizes), TOKENIZER, "fp32"), [EncodedSet((3, 4, 5), tuple(texts))]


def test_what_is_hidden_is_passed_over_when_layers_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the first three of four layers attends twice as much, and not to all responses at once."""
    forward, sets = nine_responses()
    multiplied: list[int] = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, key: Tensor, *rest: Any, **options: Any) -> Tensor:
        multiplied.append(query.shape[:3].numel() * key.shape[2])
        return attend(query, key, *rest, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    gradients(forward.model, lambda: forward.features(sets))
    kept = sum(multiplied)
    multiplied.clear()
    with recomputed_layers(forward.model):
        gradients(forward.model, lambda: forward.features(sets))
    assert sum(multiplied) == kept * 7 / 4


def test_computing_again_keeps_little_and_takes_little_longer() -> None:
    """By the mask it took three times as long. The clock is the processor's, the best of five in turn."""
    forward, sets = nine_responses()

    def kept_and_seconds() -> tuple[int, float]:
        kept: dict[int, int] = {}

        def pack(saved: Tensor) -> Tensor:
            kept[saved.untyped_storage().data_ptr()] = saved.untyped_storage().nbytes()
            return saved

        begin = time.process_time()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            features = forward.features(sets)
        features.sum().backward()  # type: ignore[no-untyped-call]
        return sum(kept.values()), time.process_time() - begin

    plain, again = [], []
    for _ in range(5):
        plain.append(kept_and_seconds())
        with recomputed_layers(forward.model):
            again.append(kept_and_seconds())
    assert min(again)[0] < 0.5 * min(plain)[0]
    assert min(seconds for _, seconds in again) < 2.2 * min(seconds for _, seconds in plain)


def test_the_last_layer_is_run_where_it_is_read() -> None:
    model, tokens = llama(), list[int]()
    forward = Forward(model, TOKENIZER, "fp32")
    for layer in model.model.layers:
        layer.mlp.up_proj.register_forward_pre_hook(lambda _, inputs: tokens.append(inputs[0].shape[:2].numel()))
    forward.features([EncodedSet((3, 4, 5), ((6, END), (7, 8, END)))])
    assert tokens == [3 + 2 + 3, 2]


def test_a_last_layer_that_mixes_tokens_is_left_whole() -> None:
    model = llama()
    mlp = model.model.layers[-1].mlp
    mlp.register_forward_hook(lambda _, __, output: output.cumsum(dim=1))
    forward = Forward(model, TOKENIZER, "fp32")
    assert forward._last_mlp is None
    torch.testing.assert_close(forward._apart([PAIR]), one_by_one(model, [PAIR]))


def test_gradients_add_up_however_sets_are_split() -> None:
    forward, sets = Forward(llama(), TOKENIZER, "fp32"), some_sets(seed=12, count=6)
    groups = forward.micro_batches(sets, 60)
    assert sorted(index for group in groups for index in group) == list(range(6))
    assert len(groups) > 1
    whole = gradients(forward.model, lambda: forward.features(sets).sum(dim=0, keepdim=True))
    split = gradients(
        forward.model,
        lambda: torch.stack([forward.features([sets[index] for index in own]).sum(0) for own in groups]).sum(0)[None],
    )
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-4)

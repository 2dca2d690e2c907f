import random
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from worker.learning.batches import token_budget
from worker.learning.reward.backbone import output_layer
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.forward import Forward

pytestmark = pytest.mark.learning

PAD, END, VOCABULARY = 0, 1, 64
TOKENIZER = SimpleNamespace(pad_token_id=PAD, eos_token_id=END, sep_token_id=None)
CPU = torch.device("cpu")

PLAIN = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": END,
    "num_labels": 1,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}
OLD = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256} | {
    "pad_token_id": PAD,
    "bos_token_id": 2,
    "eos_token_id": END,
    "num_labels": 1,
}
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
    "Mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "num_labels": 1, "pad_token_id": PAD},
    "Jamba": GROUPED  # a state that runs through the row
    | {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4, "mamba_dt_rank": 4},
    "Qwen3Next": GROUPED
    | EXPERTS
    | LINEAR_HEADS
    | {"num_hidden_layers": 4, "head_dim": 8, "shared_expert_intermediate_size": 16},
    "Bert": PLAIN,
    "Roberta": PLAIN,
    "DebertaV2": PLAIN | {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]},
    "ModernBert": PLAIN | {"num_hidden_layers": 3, "local_attention": 8, "cls_token_id": 2, "sep_token_id": END},
    "Electra": PLAIN | {"embedding_size": 16},
}


def tiny(family: str, settings: dict[str, Any], **more: Any) -> PreTrainedModel:
    """A small random classifier; the larger weights make every path through it matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings, initializer_range=0.2)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_config(config, **more)
    return model.eval()


def llama(attention: str = "sdpa") -> PreTrainedModel:
    return tiny("Llama", GROUPED, attn_implementation=attention)


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


@pytest.mark.parametrize("family", SHARING)
def test_a_shared_prompt_changes_nothing(family: str) -> None:
    forward = Forward(tiny(family, SHARING[family]), TOKENIZER, "fp32")
    assert forward.shares, forward.reason
    assert_exact(forward, some_sets())


@pytest.mark.parametrize("family", NOT_SHARING)
def test_a_backbone_that_cannot_share_says_so_and_stays_exact(family: str) -> None:
    forward = Forward(tiny(family, NOT_SHARING[family]), TOKENIZER, "fp32")
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
    assert_exact(Forward(tiny("Bert", PLAIN), TOKENIZER, "fp32"), [large])

"""Does our loop write exactly what each row would write alone, whatever the model keeps of its past?"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DynamicCache,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)
from transformers.cache_utils import DynamicLayer

from worker.learning.decoding import Request, RoomyLayer, write_responses
from worker.learning.sampling import draw_tokens, truncate_after_end

pytestmark = pytest.mark.learning

VOCABULARY = 40
END = 1
ROOM = 24
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": 0,
}
ENDS = {"bos_token_id": END, "eos_token_id": END, "pad_token_id": 0}


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def sliding() -> Any:
    """Every layer sees 5 tokens: fewer than the prompts have, and far fewer than the responses."""
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=5))


def half_sliding() -> Any:
    return Gemma3ForCausalLM(
        Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"])
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, **ENDS))


def bloom() -> Any:
    """It has no positions: what is nearer weighs more."""
    return BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **ENDS))


def mamba() -> Any:
    """It keeps a state, not keys and values, and calls its cache by another name."""
    return MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, **ENDS))


def hybrid() -> Any:
    """A layer of linear attention and one of the ordinary kind."""
    linear = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8}
    return Qwen3NextForCausalLM(
        Qwen3NextConfig(
            **SMALL,
            **linear,
            linear_value_head_dim=8,
            head_dim=8,
            layer_types=["linear_attention", "full_attention"],
            num_experts=2,
            num_experts_per_tok=1,
            moe_intermediate_size=16,
            shared_expert_intermediate_size=16,
        )
    )


def rwkv() -> Any:
    """It has no cache of transformers' kind at all."""
    return RwkvForCausalLM(
        RwkvConfig(vocab_size=VOCABULARY, hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, **ENDS)
    )


MODELS = [llama, sliding, half_sliding, gpt2, bloom, mamba, hybrid, rwkv]


def made(kind: Any) -> Any:
    torch.manual_seed(0)
    return kind().eval()


def requests(copies: int = 3) -> list[Request]:
    """Prompts of 2 to 11 tokens, some of one length, each to be continued several times."""
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(2, VOCABULARY, (size,), generator=generator).tolist() for size in (11, 3, 6, 6, 2)]
    noise = torch.rand(len(prompts) * copies, ROOM, generator=generator, dtype=torch.float64)
    return [Request(prompts[row // copies], own) for row, own in enumerate(noise)]


def alone(model: Any, request: Request, draw: Any) -> list[int]:
    """What a row writes by itself: without padding and without a cache, the whole sequence anew for every token."""
    ids = list(request.prompt_ids)
    for number in request.noise:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[:, -1]
        ids.append(int(draw(logits, number[None])))
    return truncate_after_end(ids[len(request.prompt_ids) :], frozenset({END}))


def written(model: Any, asked: Sequence[Request], draw: Any, batch_tokens: int = 100_000) -> list[list[int]]:
    write_responses(model, asked, draw, frozenset({END}), batch_tokens, "fp32", lambda _done: None)
    return [request.token_ids for request in asked]


def drawing(logits: Tensor, uniform: Tensor) -> Tensor:
    """Noise, and an end about every twelfth token."""
    logits = logits.clone()
    logits[:, END] = logits.logsumexp(dim=-1) - 2.4
    return draw_tokens(logits, uniform, 1.0, 1.0)


@pytest.mark.parametrize("kind", MODELS)
def test_every_row_writes_what_it_would_write_alone(kind: Any) -> None:
    model = made(kind)
    asked = requests()
    ours = written(model, asked, drawing)
    assert ours == [alone(model, request, drawing) for request in requests()]
    assert len({len(ids) for ids in ours}) > 4


@pytest.mark.parametrize("kind", [llama, sliding, mamba])
def test_batches_of_any_size_write_the_same(kind: Any) -> None:
    model = made(kind)
    one_by_one = written(model, requests(), drawing, batch_tokens=1)
    assert one_by_one == written(model, requests(), drawing, batch_tokens=4 * (11 + ROOM))
    assert one_by_one == written(model, requests(), drawing)


@pytest.mark.parametrize("kind", [llama, half_sliding, hybrid])
def test_without_noise_it_writes_what_transformers_generates(kind: Any) -> None:
    model = made(kind)
    greedy = partial(draw_tokens, temperature=0.0, top_p=1.0)
    for request, ours in zip(requests(1), written(model, requests(1), greedy), strict=True):
        ids = torch.tensor([request.prompt_ids])
        theirs = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=ROOM)
        assert ours == theirs[0, ids.shape[1] :].tolist()


def test_a_prompt_is_read_once_for_all_its_responses() -> None:
    model = made(llama)
    read: list[tuple[int, ...]] = []
    model.model.embed_tokens.register_forward_hook(lambda _module, ids, _output: read.append(tuple(ids[0].shape)))
    written(model, requests(copies=4), drawing)
    assert read[0] == (5, 11)
    assert read[1][0] > 5


def test_rows_that_have_ended_are_not_read_on() -> None:
    model = made(llama)
    rows: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda _module, ids, _output: rows.append(len(ids[0])))
    lengths = [len(ids) for ids in written(model, requests(), drawing)]
    still_going = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert rows[1:] == still_going


def test_it_tells_how_many_are_done_and_what_that_raises_ends_it() -> None:
    model = made(llama)
    told: list[int] = []
    write_responses(model, requests(), drawing, frozenset({END}), 200, "fp32", told.append)
    assert told[-1] == 15
    assert told == sorted(told)
    assert len(told) > 2

    def stop(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_responses(model, requests(), drawing, frozenset({END}), 200, "fp32", stop)


def test_in_bf16_the_cache_is_in_bf16_and_nothing_else_changes() -> None:
    """Autocast rounds keys and values at every step; they are rounded once here, so the logits are the same bits."""
    model = made(llama)
    ids = torch.randint(2, VOCABULARY, (3, 9), generator=torch.Generator().manual_seed(1))
    found = []
    for layers in (DynamicLayer, RoomyLayer):
        cache = DynamicCache(config=model.config)
        cache.layers = [layers(), layers()]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            parts = [
                model(input_ids=part, past_key_values=cache).logits for part in (ids[:, :6], ids[:, 6:7], ids[:, 7:])
            ]
        found.append(torch.cat(parts, dim=1))
    assert cache.layers[0].keys.dtype == torch.bfloat16
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


# The cache layer beside transformers' own


def states(rows: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, tokens, 4, generator=generator), torch.randn(rows, 2, tokens, 6, generator=generator)


def test_the_cache_layer_holds_what_transformers_layer_holds() -> None:
    """Through growth beyond its room several times, rows that leave, and rows that are taken several times."""
    ours, theirs = RoomyLayer(), DynamicLayer()
    rows = 3
    changes = {2: [0, 0, 1, 2, 2, 2, 1], 90: [6, 1, 2, 3], 170: [0, 3, 2], 400: [2, 0]}
    for step in range(500):
        new = states(rows, 5 if step == 0 else 1, step)
        for mine, expected in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(mine, expected)
        if step in changes:
            chosen = torch.tensor(changes[step])
            rows = len(chosen)
            ours.batch_select_indices(chosen)
            theirs.batch_select_indices(chosen)
        assert ours.get_seq_length() == theirs.get_seq_length() == step + 5
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        assert torch.equal(ours.keys, theirs.keys)


def test_the_cache_layer_takes_new_room_seldom() -> None:
    layer, places = RoomyLayer(), set()
    for step in range(1_000):
        keys, _values = layer.update(*states(2, 1, step))
        places.add(keys.data_ptr())
    assert len(places) < 8
    layer.batch_select_indices(torch.tensor([1]))
    assert layer.keys.data_ptr() in places

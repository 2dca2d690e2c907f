"""How does a GPU write many responses? By transformers' continuous batching, on the live weights.

It keeps the cache in pages and fills a place as soon as a response has ended; on CUDA it replays graphs and prepares a
batch while the last one runs. Our own loop (decoding.py) is faster on a CPU.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.generation.continuous_batching.utils import WorkloadHints

from worker.learning.models import Precision, computes_in_bf16

PAGE_TOKENS = 32
"""Tokens of a page of the cache on a CPU; on CUDA transformers chooses."""
POLL_SECONDS = 1.0


class CannotBatch(RuntimeError):
    """Continuous batching does not work for this model, or not on this machine."""


def write_continuously(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    n: int,
    ends: frozenset[int],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    batch_tokens: int,
    precision: Precision,
    seed: int,
    written: Callable[[int], None],
) -> list[list[list[int]]]:
    """Writes `n` responses to each prompt, each up to and including its first end token.

    All noise comes from one generator that the whole call shares: a response cannot have a seed of its own, and
    depends on what else is asked for. Weights in fp32 are copied to bf16 where `precision` says so, since the pages
    of the cache have the weights' precision.

    Args:
        batch_tokens: the most tokens in the cache on a CPU; on CUDA it takes what memory is free.
        written: told how many responses are done; what it raises ends the writing.

    Returns:
        For each prompt, in order, the token ids of its responses.

    Raises:
        CannotBatch: if transformers cannot batch this model so; nothing is lost but time.
    """
    copies = n if temperature > 0 else 1  # without noise they are all the same
    sizes = WorkloadHints(max(map(len, prompts)), max_new_tokens, len(prompts) * copies)
    config = _config(model, sizes, batch_tokens, seed)
    drawing = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0}
    generation = GenerationConfig(
        **(drawing if temperature > 0 else {"do_sample": False}),
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=0,
        num_return_sequences=copies,
    )
    found: dict[str, list[int]] = {}
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), _manager(model, precision, generation, config, sizes) as manager:
        names = manager.add_requests([list(prompt) for prompt in prompts], max_new_tokens)
        while len(found) < sizes.num_requests:
            result = manager.get_result(timeout=POLL_SECONDS)
            if result is None and not manager.is_running():
                raise CannotBatch(str(manager.background_thread_status.fatal_error))
            if result is not None and result.error is not None:
                raise CannotBatch(result.error)
            if result is not None and result.is_finished():
                found[result.request_id] = result.generated_tokens
                written(len(found) * n // copies)
    forked = [[name, *(f"{name}__child#{child}" for child in range(copies - 1))] for name in names]
    return [[list(found[name]) for name in own] * (n // copies) for own in forked]


def _config(model: PreTrainedModel, sizes: WorkloadHints, batch_tokens: int, seed: int) -> ContinuousBatchingConfig:
    """On CUDA what transformers infers from the memory, with graphs; else a cache of `batch_tokens`."""
    if model.device.type == "cuda":
        return ContinuousBatchingConfig(seed=seed, use_cuda_graph=True, use_async_batching=True)
    pages = math.ceil((sizes.max_prompt_length + sizes.max_generated_length) / PAGE_TOKENS) + 1
    fitting = max(1, batch_tokens // (pages * PAGE_TOKENS))
    return ContinuousBatchingConfig(
        seed=seed,
        page_size=PAGE_TOKENS,
        num_blocks=2 * pages * min(fitting, sizes.num_requests),  # two kinds of layers at most take turns
        max_batch_tokens=max(batch_tokens // 8, sizes.max_prompt_length),
    )


@contextmanager
def _manager(
    model: PreTrainedModel,
    precision: Precision,
    generation: GenerationConfig,
    config: ContinuousBatchingConfig,
    sizes: WorkloadHints,
) -> Iterator[Any]:
    """A running manager; its memory is free again afterwards, and the model is as it was."""
    attention = model.config._attn_implementation
    manager = None
    try:
        in_bf16 = model.dtype == torch.float32 and computes_in_bf16(model.device, precision)
        weights = copy.deepcopy(model).to(torch.bfloat16) if in_bf16 else model
        manager = weights.init_continuous_batching(generation, config, sizes)
        manager.warmup()
        manager.start()
    except Exception as error:  # whatever the model or the machine lacks, it shows here
        if manager is not None:
            manager.destroy()
        model.set_attn_implementation(attention)
        raise CannotBatch(f"{type(error).__name__}: {error}") from error
    try:
        yield manager
    finally:
        manager.stop(block=True, hard_stop=True)
        manager.destroy()

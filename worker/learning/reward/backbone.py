"""Which pretrained model does a reward model stand on? Any classifier with one output, causal or encoder."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging

from worker.learning.models import load_tokenizer
from worker.learning.seeds import derive_seed, generator_for


def load_backbone(source: str, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A pretrained model, causal or encoder, with a fresh head: w from N(0, 1/(d + 1)), b = 0.

    As in lm-human-preferences, where 1/sqrt(d + 1) is the deviation; Stiennon et al. 2020 print the same figure as the
    variance. Dropout is off for good, also while fitting.

    Raises:
        ValueError: if there is no such model.
    """
    with torch.random.fork_rng():  # the library draws what a checkpoint lacks, such as RoBERTa's layer below the head
        torch.manual_seed(derive_seed(seed, "missing weights"))
        model = load_classifier(source)
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(len(tokenizer))
    # The score is read at the last token that is not this one, so it must not be the end token.
    model.config.pad_token_id = model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    head = output_layer(model)
    noise = torch.randn(head.weight.shape, generator=generator_for(seed, "reward head"))
    with torch.no_grad():
        head.weight.copy_(noise / math.sqrt(head.in_features + 1))
        if head.bias is not None:
            head.bias.zero_()
    return model


def load_classifier(source: str) -> PreTrainedModel:
    """A sequence classifier with one output by hub name or folder, its weights in fp32, in eval mode.

    Raises:
        ValueError: if there is no such model, or none of the trunk's weights are there.
    """
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # a pretrained model never has the head, which the library warns of at length
    try:
        model, told = AutoModelForSequenceClassification.from_pretrained(
            source, num_labels=1, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(f'no reward model can be loaded from "{source}" (in safetensors): {error}') from error
    finally:
        logging.set_verbosity(before)
    trunk = {f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_parameters()}
    if trunk <= set(told["missing_keys"]):
        raise ValueError(f'"{source}" has no weights for {type(model).__name__}: its config.json names another model')
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_reward_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """A tokenizer for scoring, padding on the right. An encoder's marks a text by [CLS] and [SEP] and needs no end.

    Raises:
        ValueError: if there is no tokenizer.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f'no tokenizer can be loaded from "{source}": {error}') from error
    if None in {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}:
        tokenizer = load_tokenizer(source)
    tokenizer.padding_side = "right"  # every architecture counts positions there as it does without padding
    return tokenizer


def output_layer(model: PreTrainedModel) -> nn.Linear:
    """The layer that gives the score: the last linear layer with one output."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer.out_features == 1]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no output layer with one score")
    return layers[-1]


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Those above the trunk: the output layer's, and an encoder's pooler and dense layer below it."""
    pooler = getattr(model.base_model, "pooler", None)
    pooled = list(pooler.parameters()) if isinstance(pooler, nn.Module) else []
    trunk = {id(parameter) for parameter in model.base_model.parameters()} - {id(parameter) for parameter in pooled}
    return [parameter for parameter in model.parameters() if id(parameter) not in trunk]


def longest_text(model: PreTrainedModel, max_tokens: int) -> int:
    """How many tokens the model can read, `max_tokens` at most."""
    for name, layer in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            return min(max_tokens, layer.num_embeddings - layer.padding_idx - 1)  # RoBERTa counts from there on
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0
    return min(max_tokens, room) if room > 0 else max_tokens  # XLNet has -1, for no limit


def last_mlp(model: PreTrainedModel) -> nn.Module | None:
    """What follows attention in the last layer, where it is a module by its usual name."""
    found = [layer for name, layer in model.named_modules() if name.endswith(".mlp")]
    return found[-1] if found else None


class Recomputed:
    """A layer's forward that keeps its inputs alone: the backward pass computes all else again, in the same context.

    So what a context variable said of the row, it says again, also in the thread of its own that a GPU's backward has.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """As the layer's own forward."""
        run = copy_context().run
        return checkpoint(run, self._forward, *inputs, use_reentrant=False, preserve_rng_state=False, **options)


@contextmanager
def recomputed_layers(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the backward pass computes the layers' activations again instead of keeping them.

    Chen et al. 2016, "Training deep nets with sublinear memory cost". The layer of the last feed-forward part keeps
    its own: they are needed first of all, so that nothing is freed by then, and hooks that a forward sets there
    (`forward.only_at`) would be gone. The library's own switch works in train mode alone, where dropout is on.

    Raises:
        ValueError: if the model has no layers that can be computed again.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(f"{type(model).__name__} cannot recompute its layers: set gradient_checkpointing to false")
    last = last_mlp(model)
    chosen = [layer for layer in layers if not any(part is last for part in layer.modules())]
    for layer in chosen:
        layer.forward = Recomputed(layer.forward)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward


def is_recomputed(model: PreTrainedModel) -> bool:
    """Whether this is inside `recomputed_layers` of the model."""
    return any(isinstance(vars(layer).get("forward"), Recomputed) for layer in model.modules())

"""Where do models and tokenizers come from, how is a prompt encoded, and how are they saved?"""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.checkpoints import written_aside
from worker.learning.records import Message

Precision = Literal["auto", "fp32", "bf16"]

PAD_TOKEN = "<|pad|>"  # noqa: S105
HUB_SECONDS = 10.0
"""How long the hub may take to say whether it has a model."""


def pick_device(name: str = "auto") -> torch.device:
    """The device to learn on: "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: if the device is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'there is no device "{name}": use auto, cpu, cuda or cuda:0') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'there is no device "{name}": this machine has {torch.cuda.device_count()} CUDA devices')
    return device


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """The precision of forward passes; weights and losses stay in fp32."""
    return torch.autocast(device.type, torch.bfloat16) if computes_in_bf16(device, precision) else nullcontext()


def computes_in_bf16(device: torch.device, precision: Precision = "auto") -> bool:
    """Whether forward passes run in bf16.

    "auto" is bf16 where the hardware multiplies it: CUDA, and CPUs with avx512_bf16 or AMX.
    """
    return precision == "bf16" or (precision == "auto" and _multiplies_bf16(device))


def check_source(source: str) -> None:
    """Whether there can be a model to load, before anything else is done: a folder, or a hub name.

    The hub is asked once, and only for what was never loaded from it; the libraries ask it for a minute.

    Raises:
        ValueError: if there is none, or the hub cannot be asked.
    """
    if Path(source).is_dir():
        return
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(f'there is no model in "{source}": it is no folder here. Check the path')
    try:
        if try_to_load_from_cache(source, "config.json") is None:
            get_hf_file_metadata(hf_hub_url(source, "config.json"), timeout=HUB_SECONDS)
    except EntryNotFoundError:
        return  # adapters have no config.json
    except (RepositoryNotFoundError, HFValidationError) as error:
        reason = "nor is it the name of a public model on the Hugging Face hub. Check it, or log in by `hf auth login`"
        raise ValueError(f'there is no model "{source}": it is no folder here, {reason}') from error
    except Exception as error:  # the errors of whichever HTTP library the hub's library uses
        reason = f"and the Hugging Face hub cannot be asked for it: {error}"
        raise ValueError(f'there is no model "{source}": it is no folder here, {reason}') from error


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """A tokenizer by hub name or folder, padding on the left, with a pad token of its own.

    A pad token that is also the end token makes a model that never learns to end, or reads scores
    at the wrong place; so one that is missing or equal is replaced by `<|pad|>`.

    Raises:
        ValueError: if there is no tokenizer, or it has no end token.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f'no tokenizer can be loaded from "{source}": {error}') from error
    if tokenizer.eos_token_id is None:
        raise ValueError(f'the tokenizer of "{source}" has no end token (eos_token): responses would never end')
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    tokenizer.padding_side = "left"
    return tokenizer


def load_language_model(source: str, device: torch.device | None = None) -> PreTrainedModel:
    """A causal language model by hub name or folder, its weights in fp32.

    It is in eval mode and stays there, also while learning: that is how dropout is off
    everywhere. Where the tokenizer had to be given a pad token, the embeddings have room for it.

    Raises:
        ValueError: if there is no such model.
    """
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, use_safetensors=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ValueError(f'no language model can be loaded from "{source}" (in safetensors): {error}') from error
    tokenizer = load_tokenizer(source)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model.to(device or pick_device()).eval()


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The token ids after which the response begins; no end token.

    A tokenizer with a chat template lays the conversation out and opens the answer; without one
    the contents are joined by blank lines.

    Raises:
        ValueError: if there is no message, or the template refuses them.
    """
    if not messages:
        raise ValueError("a prompt needs at least one message")
    if tokenizer.chat_template is None:
        text = "\n\n".join(message["content"] for message in messages)
        ids: list[int] = tokenizer(text)["input_ids"]
        while ids and ids[-1] == tokenizer.eos_token_id:
            ids.pop()
        return ids
    try:
        return list(
            tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=True, return_dict=False)
        )
    except Exception as error:  # jinja2's errors, which templates also raise on purpose
        raise ValueError(f"the tokenizer's chat template refuses this prompt: {error}") from error


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    dtype: torch.dtype = torch.float32,
    files: Mapping[str, str] | None = None,
) -> None:
    """Writes model and tokenizer in the Hugging Face layout, weights as safetensors, all or nothing.

    `dtype` is that of the written weights; the model in memory stays as it is. `files` are texts to stand beside them,
    by name.
    """
    written = model if dtype == model.dtype else copy.deepcopy(model).to(dtype)
    with written_aside(folder) as aside:
        written.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for name, text in (files or {}).items():
            (aside / name).write_text(text, encoding="utf-8")


def count_parameters(model: PreTrainedModel) -> int:
    """The number of trained numbers, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _multiplies_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

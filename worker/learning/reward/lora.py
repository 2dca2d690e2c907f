"""How is a large model fitted by few weights? Low-rank adapters beside its layers, merged before it is saved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.learning.reward.backbone import head_parameters
from worker.learning.seeds import derive_seed


@contextmanager
def low_rank_adapters(model: PreTrainedModel, rank: int, alpha: float, seed: int) -> Iterator[None]:
    """Inside, only adapters on every linear layer of the trunk are learned, and the head; at the end they are merged.

    Hu et al. 2021, "LoRA: low-rank adaptation of large language models", equation 3: W + (alpha / rank) B A, where A is
    random and B is 0 at the start, so that the model begins as it was. On all linear layers, as in Dettmers et al. 2023
    ("QLoRA", section 4). What is left is the plain model with W changed; a block that raises leaves the adapters in.
    """
    from peft import LoraConfig, LoraModel  # importing it takes seconds

    head = head_parameters(model)
    kept = {id(parameter) for parameter in head}
    targets = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and id(layer.weight) not in kept
    ]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "adapters"))
        adapted = LoraModel(model, config, "default")
    for parameter in head:
        parameter.requires_grad_(True)
    yield
    adapted.merge_and_unload()
    model.requires_grad_(True)

"""How do several models stand on the same frozen weights, and take little room there?"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from worker.learning.low_rank import linear_layers


def twin(model: PreTrainedModel) -> PreTrainedModel:
    """A second model of the same tensors: what changes the modules of one leaves the other alone."""
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})


def share_layers(model: PreTrainedModel, base: PreTrainedModel, names: Iterable[str]) -> None:
    """Puts the weights of `base` in the place of a model's own, in the linear layers of these names."""
    for name in names:
        model.get_submodule(name).weight = base.get_submodule(name).weight


def hold_in_bf16(model: PreTrainedModel) -> None:
    """Rounds the weights of all linear layers but adapters' to bf16. Forward passes in fp32 and in bf16 both go on.

    A pass in bf16 gives what it gave, since every product rounds them to that. GPT-2's layers stay as they are.
    """
    for name, layer in linear_layers(model).items():
        if type(layer) is nn.Linear and "lora_" not in name:
            layer.__class__ = _HeldInBf16
            layer.to(torch.bfloat16)


def release(layer: nn.Module) -> None:
    """Makes a layer that was held in bf16 an ordinary one, for weights in fp32."""
    if isinstance(layer, _HeldInBf16):
        layer.__class__ = nn.Linear  # type: ignore[assignment]
        layer.float()


class _HeldInBf16(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the library's name
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return functional.linear(input, self.weight.to(input.dtype), bias)

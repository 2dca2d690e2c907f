"""How is a large model changed by few weights? Low-rank adapters beside the linear layers of a frozen model."""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.learning.frozen import release
from worker.learning.low_rank import Matrices, linear_layers
from worker.learning.seeds import derive_seed


class Adapters:
    """Adapters by name on the linear layers of a model, which is changed in place and whose own weights are frozen.

    Hu et al. 2021, "LoRA: low-rank adaptation of large language models", equation 3: W + (alpha / rank) B A.
    """

    def __init__(self, model: PreTrainedModel, kept: Iterable[nn.Parameter] = ()) -> None:
        """`kept` are weights that stay without adapters, such as the output layer's."""
        spared = {id(parameter) for parameter in kept}
        layers = linear_layers(model)
        self.model = model
        self._targets = [name for name, layer in layers.items() if id(layer.weight) not in spared]
        self._lies_other_way = any(isinstance(layer, Conv1D) for layer in layers.values())  # GPT-2's weights do
        self._fixed: list[str] = []
        self._layers: dict[str, Any] = {}
        self._tuner: Any = None

    def add(self, name: str, rank: int, alpha: float, seed: int) -> None:
        """An adapter to be learned, on every layer, as in Dettmers et al. 2023 ("QLoRA", section 4).

        A is random and B is 0 at the start, so that the model begins as it was.
        """
        self._inject(name, rank, alpha, self._targets, seed)

    @torch.no_grad()
    def add_fixed(self, name: str, matrices: Matrices) -> None:
        """An adapter that is not learned, on the layers that `matrices` name, one at least."""
        rank = max(b.shape[1] for b, _ in matrices.values())
        self._fixed.append(name)
        self._inject(name, rank, float(rank), matrices.keys(), seed=0)
        for key, (b, a) in matrices.items():
            layer = self._layers[key]
            for weight, matrix in ((layer.lora_B[name].weight, b), (layer.lora_A[name].weight, a)):
                weight.zero_()
                weight[: matrix.shape[0], : matrix.shape[1]] = matrix

    @torch.no_grad()
    def merge(self, name: str) -> None:
        """Adds an adapter to the weights and takes all off: what is left is the plain model with W changed.

        W is a new tensor: another model that stands on the frozen one stays as it is.
        """
        for layer in self._layers.values():
            own = layer.get_base_layer()
            own.weight = nn.Parameter(own.weight + layer.get_delta_weight(name))
            release(own)
        self._tuner.unload()
        self.model.requires_grad_(True)

    def _inject(self, name: str, rank: int, alpha: float, targets: Collection[str], seed: int) -> None:
        from peft import LoraConfig, LoraModel  # importing the library takes seconds
        from peft.tuners.lora import LoraLayer

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets),
            lora_dropout=0.0,
            fan_in_fan_out=self._lies_other_way,
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "adapters"))
            if self._tuner is None:
                self._tuner = LoraModel(self.model, config, name)
            else:
                self._tuner.peft_config[name] = config
                self._tuner.inject_adapter(self.model, name)
        self._layers = {key: layer for key, layer in self.model.named_modules() if isinstance(layer, LoraLayer)}
        for layer in self._layers.values():
            layer.set_adapter(list(self._tuner.peft_config))
            layer.set_requires_grad(self._fixed, False)

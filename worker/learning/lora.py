"""How is a large model changed by few weights? Low-rank adapters beside the linear layers of a frozen model."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.learning.seeds import derive_seed


class Adapters:
    """Adapters by name on every linear layer of a model, which is changed in place and whose own weights are frozen.

    Hu et al. 2021, "LoRA: low-rank adaptation of large language models", equation 3: W + (alpha / rank) B A, where A is
    random and B is 0 at the start, so that the model begins as it was. On all linear layers, as in Dettmers et al. 2023
    ("QLoRA", section 4). The first name is in use from the start.

    Args:
        model: what to adapt.
        names: of the adapters.
        rank, alpha: of each.
        seed: of the random A.
        kept: weights that stay without adapters, such as the output layer's.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        names: Sequence[str],
        rank: int,
        alpha: float,
        seed: int,
        kept: Iterable[nn.Parameter] = (),
    ) -> None:
        from peft import LoraConfig, LoraModel  # importing it takes seconds
        from peft.tuners.lora import LoraLayer

        spared = {id(parameter) for parameter in kept}
        targets = [
            name
            for name, layer in model.named_modules()
            if isinstance(layer, nn.Linear | Conv1D) and id(layer.weight) not in spared
        ]
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=targets,
            lora_dropout=0.0,
            fan_in_fan_out=isinstance(model.get_submodule(targets[0]), Conv1D),  # GPT-2's layers lie the other way
        )
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "adapters"))
            self._tuner = LoraModel(model, dict.fromkeys(names, config), names[0])
            for name in names[1:]:
                self._tuner.inject_adapter(model, name)
        self.model = model
        self.names = list(names)
        self._dtype = model.dtype
        self._layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
        self._used: Sequence[str] = names[:1]
        self._use(self._used)

    @contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """Inside, the model computes with these adapters alone; with none it is the frozen model, to the bit."""
        before = self._used
        self._use(names)
        try:
            yield
        finally:
            self._use(before)

    def parameters(self, name: str) -> list[nn.Parameter]:
        """The weights of an adapter."""
        ends = tuple(f"{matrix}.{name}.weight" for matrix in ("lora_A", "lora_B"))
        return [parameter for key, parameter in self.model.named_parameters() if key.endswith(ends)]

    def hold_frozen_in(self, dtype: torch.dtype) -> None:
        """Holds the adapted layers' own weights in another precision; the adapters stay as they are."""
        for layer in self._layers:
            layer.get_base_layer().to(dtype)

    def merge(self, name: str) -> None:
        """Adds an adapter to the weights and takes all adapters off: what is left is the plain model with W changed."""
        self.hold_frozen_in(self._dtype)
        self._tuner.merge_and_unload(adapter_names=[name])
        self.model.requires_grad_(True)

    def _use(self, names: Sequence[str]) -> None:
        for layer in self._layers:
            layer.set_adapter(list(names))
            layer.set_requires_grad(self.names)  # the library freezes those not in use, whose gradients would be lost
        self._used = names

"""How is a large model changed by few weights? Low-rank adapters beside the linear layers of a frozen model."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from worker.learning.seeds import derive_seed

Matrices = Mapping[str, tuple[Tensor, Tensor]]
"""By layer, B [out, rank] and A [rank, in]."""

LARGEST_RANK = 64
"""Of a difference that is looked for: with a higher rank, adapters hold little less than the layers themselves."""
ROUNDING = 1e-5
"""Of a layer's norm, what may be left of a difference: a merged fp32 weight is off by less, a bf16 one by more."""


class Adapters:
    """Adapters by name on the linear layers of a model, which is changed in place and whose own weights are frozen.

    Hu et al. 2021, "LoRA: low-rank adaptation of large language models", equation 3: W + (alpha / rank) B A.
    """

    def __init__(self, model: PreTrainedModel, kept: Iterable[nn.Parameter] = ()) -> None:
        """`kept` are weights that stay without adapters, such as the output layer's."""
        spared = {id(parameter) for parameter in kept}
        self.model = model
        layers = _linear_layers(model)
        self._targets = [name for name, layer in layers.items() if id(layer.weight) not in spared]
        self._lies_other_way = any(isinstance(layer, Conv1D) for layer in layers.values())  # GPT-2's weights do
        self._dtype = model.dtype
        self._learned: list[str] = []
        self._fixed: list[str] = []
        self._used: Sequence[str] = ()
        self._layers: dict[str, Any] = {}
        self._tuner: Any = None

    def add(self, name: str, rank: int, alpha: float, seed: int) -> None:
        """An adapter to be learned, on every layer, as in Dettmers et al. 2023 ("QLoRA", section 4).

        A is random and B is 0 at the start, so that the model begins as it was. The first one is in use from then on.
        """
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "adapters"))
            self._inject(name, rank, alpha, self._targets)
        self._learned.append(name)
        self._use(self._used or [name])

    @torch.no_grad()
    def add_fixed(self, name: str, matrices: Matrices) -> None:
        """An adapter that is not learned, in use only when it is asked for."""
        rank = max(matrix.shape[1] for matrix, _ in matrices.values())
        self._inject(name, rank, float(rank), matrices.keys())
        for key, (b, a) in matrices.items():
            layer = self._layers[key]
            for weight, matrix in ((layer.lora_B[name].weight, b), (layer.lora_A[name].weight, a)):
                weight.zero_()
                weight[: matrix.shape[0], : matrix.shape[1]] = matrix
        self._fixed.append(name)
        self._use(self._used)

    @property
    def names(self) -> list[str]:
        """Of all adapters."""
        return self._learned + self._fixed

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
        for layer in self._layers.values():
            layer.get_base_layer().to(dtype)

    def merge(self, name: str) -> None:
        """Adds an adapter to the weights and takes all adapters off: what is left is the plain model with W changed."""
        self.hold_frozen_in(self._dtype)
        self._tuner.merge_and_unload(adapter_names=[name])
        self.model.requires_grad_(True)

    def _inject(self, name: str, rank: int, alpha: float, targets: Collection[str]) -> None:
        from peft import LoraConfig, LoraModel  # importing the library takes seconds
        from peft.tuners.lora import LoraLayer

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(targets),
            lora_dropout=0.0,
            fan_in_fan_out=self._lies_other_way,
        )
        if self._tuner is None:
            self._tuner = LoraModel(self.model, config, name)
        else:
            self._tuner.peft_config[name] = config
            self._tuner.inject_adapter(self.model, name)
        self._layers = {key: layer for key, layer in self.model.named_modules() if isinstance(layer, LoraLayer)}

    def _use(self, names: Sequence[str]) -> None:
        for layer in self._layers.values():
            layer.set_adapter(list(names))
            # The library freezes what is not in use: gradients of an earlier forward would be lost.
            layer.set_requires_grad(self._learned)
            layer.set_requires_grad(self._fixed, False)
        self._used = names


@torch.no_grad()
def low_rank_difference(base: PreTrainedModel, tuned: PreTrainedModel, seed: int) -> Matrices | None:
    """B and A of each linear layer in which `tuned` is `base` plus B A; None where they differ in anything more.

    Of a model that was fitted by adapters, this finds them again in its merged weights (randomised singular value
    decomposition, Halko et al. 2011).
    """
    theirs = dict(tuned.named_parameters())
    layers = _linear_layers(base)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name, own in base.named_parameters():
        other = theirs.pop(name, None)
        if other is None or other.shape != own.shape:
            return None
        other = other.to(own)
        key = name.removesuffix(".weight")
        if torch.equal(other, own):
            continue
        factors = _factors(other - own, ROUNDING * float(other.norm()), seed) if key in layers else None
        if factors is None:
            return None
        b, a = factors
        found[key] = (a.T, b.T) if isinstance(layers[key], Conv1D) else (b, a)
    return None if theirs else found


def _factors(difference: Tensor, tolerance: float, seed: int) -> tuple[Tensor, Tensor] | None:
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "factors"))
        u, s, v = torch.svd_lowrank(difference, q=min(LARGEST_RANK, *difference.shape))
    if float((difference - (u * s) @ v.T).norm()) > tolerance:
        return None
    rank = max(int((s > tolerance / 10).sum()), 1)
    return (u * s)[:, :rank], v.T[:rank]


def _linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)}

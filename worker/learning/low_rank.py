"""By how little do two models differ? The low-rank matrices between their linear layers, where that is all."""

from collections.abc import Mapping

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


@torch.no_grad()
def low_rank_difference(base: PreTrainedModel, tuned: PreTrainedModel, seed: int) -> Matrices | None:
    """B and A of each linear layer in which `tuned` is `base` plus B A; None where they differ in anything more.

    Of a model that was fitted by adapters, this finds them again in its merged weights (randomised singular value
    decomposition, Halko et al. 2011).
    """
    theirs = dict(tuned.named_parameters())
    layers = linear_layers(base)
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


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """All linear layers of a model, by name."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | Conv1D)}

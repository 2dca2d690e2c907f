"""How is a large reward model fitted by few weights? By adapters and its head, merged before it is saved."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel

from worker.learning.lora import Adapters
from worker.learning.reward.backbone import head_parameters


@contextmanager
def low_rank_adapters(model: PreTrainedModel, rank: int, alpha: float, seed: int) -> Iterator[None]:
    """Inside, only adapters on every linear layer of the trunk are learned, and the head; at the end they are merged.

    What is left is the plain model with its weights changed; a block that raises leaves the adapters in.
    """
    head = head_parameters(model)
    adapters = Adapters(model, kept=head)
    adapters.add("default", rank, alpha, seed)
    for parameter in head:
        parameter.requires_grad_(True)
    yield
    adapters.merge("default")

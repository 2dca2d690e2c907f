"""Which share of the work is this process's? Processes that torchrun started, each with the whole model.

Every process goes through the same code. Where a list of work is long it takes its share of it and gathers what came
out, so that all of them know the whole rollout and decide alike; gradients are summed before each step, so that all
make the same one. In a process of its own every function here gives back what it was given.

A process that fails leaves the others waiting for it: torchrun ends them, and where nobody does, what they wait for
fails too, at once where the connection breaks and after `PATIENCE` where it does not.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, zip_longest
from typing import TypeVar

import torch
from torch import distributed, nn

from worker.learning.models import pick_device

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""The longest that a process waits for the others: more than the slowest part of any rollout takes."""
SUMMED_AT_ONCE = 16 * 2**20
"""Numbers in one sum of gradients: few enough that the copy does not matter beside the gradients."""

_MISSING = object()


@contextmanager
def joined(name: str = "auto") -> Iterator[torch.device]:
    """Meets the other processes of this torchrun and gives the device to learn on; alone it gives that alone.

    Sums go over NCCL between CUDA devices and over gloo between CPUs; all else goes over gloo.

    Args:
        name: as for `pick_device`; under torchrun "auto" and "cuda" are the device of the process's own rank.

    Raises:
        ValueError: if the device is not there, or all processes would share one.
    """
    if not distributed.is_torchelastic_launched():
        yield pick_device(name)
        return
    device = _own_device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    yield device
    # Only after a good end: where this process fails, to take leave could mean to wait for the others.
    distributed.destroy_process_group()


def is_first() -> bool:
    """Whether this is the process that writes files and speaks to the person: just one is."""
    return _rank() == 0


def process_count() -> int:
    """How many processes share the work."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def shared_out(items: Sequence[T]) -> list[T]:
    """The share of this process, dealt like cards: of items sorted by length everybody gets as many long ones."""
    return list(items[_rank() :: process_count()])


def gathered(own: Sequence[T]) -> list[T]:
    """What all processes made of their shares, in the order of the items that were shared out.

    Args:
        own: what can be pickled, one for each item of this process's share; tensors on the CPU.
    """
    shares: list[Sequence[T]] = [own]
    if distributed.is_initialized():
        shares = [()] * process_count()
        distributed.all_gather_object(shares, list(own))
    dealt = chain.from_iterable(zip_longest(*shares, fillvalue=_MISSING))
    return [item for item in dealt if item is not _MISSING]  # type: ignore[misc]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Puts the sum over all processes in the place of each gradient, to the same bits everywhere.

    Args:
        parameters: the same everywhere, in one order; one without a gradient in this process counts as zeros.
    """
    if not distributed.is_initialized():
        return
    for bucket in _buckets(parameters):
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        sizes = [parameter.numel() for parameter in bucket]
        for parameter, total in zip(bucket, torch.split(flat, sizes), strict=True):
            parameter.grad = total.view_as(parameter)


def check_alike(what: str, value: object) -> None:
    """Waits for all processes and compares something that each worked out for itself.

    Raises:
        ValueError: if it is not the same everywhere.
    """
    if any(other != value for other in gathered([value])):
        raise ValueError(
            f"{what} is not the same in all processes: give all of them the same command, the same files and a folder"
            " that all of them see"
        )


def _own_device(name: str) -> torch.device:
    wanted = pick_device(name)
    if wanted.type != "cuda":
        return wanted
    if wanted.index is not None and int(os.environ["LOCAL_WORLD_SIZE"]) > 1:
        raise ValueError(f"all processes would share {name}: say cuda, and each takes the device of its own number")
    return pick_device(f"cuda:{os.environ['LOCAL_RANK']}") if wanted.index is None else wanted


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    numbers = 0
    for parameter in parameters:
        if bucket and numbers + parameter.numel() > SUMMED_AT_ONCE:
            yield bucket
            bucket, numbers = [], 0
        bucket.append(parameter)
        numbers += parameter.numel()
    if bucket:
        yield bucket

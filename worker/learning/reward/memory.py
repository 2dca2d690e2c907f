"""What does learning do when memory runs out? It goes on in smaller pieces."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

NO_ROOM = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What errors say that are not PyTorch's own: the CPU's allocator, the driver's, and the libraries' for products."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_pieces(
    items: Sequence[Item],
    budget: int,
    split: Callable[[Sequence[Item], int], list[list[Item]]],
    tokens: Callable[[Sequence[Item]], int],
    work: Callable[[list[Item]], Result],
    device: torch.device,
) -> Iterator[tuple[list[Item], Result]]:
    """The pieces of all items with their results; smaller ones from where memory ran out.

    Args:
        budget: the most tokens of a piece, to begin with.
        split: items and a budget to pieces.
        tokens: how many a piece has.
        work: what is to be done with a piece.

    Raises:
        ValueError: if memory does not hold the smallest piece.
    """
    waiting = split(items, budget)
    while waiting:
        piece = waiting[0]
        try:
            result = work(piece)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            budget = halved(budget, tokens(piece))
            waiting = split([item for each in waiting for item in each], budget)
            if piece in waiting:
                raise no_room(device) from error
        else:
            yield piece, result
            waiting = waiting[1:]
            continue
        free_memory(device)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor found no room, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in NO_ROOM)


def halved(budget: int, tokens: int) -> int:
    """The next budget, after so many tokens found no room."""
    return max(1, min(budget, tokens) // 2)


def free_memory(device: torch.device) -> None:
    """Gives back what the allocator kept for later, so that pieces of another size find room."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def no_room(device: torch.device) -> ValueError:
    """What to say when the smallest possible piece does not fit."""
    return ValueError(
        f"the memory of {device} does not hold one label's responses: lower max_tokens, or switch"
        " gradient_checkpointing or lora_rank on, or take a smaller backbone"
    )


@contextmanager
def room_for_weights(device: torch.device) -> Iterator[None]:
    """Says what to do where memory runs out for what learning keeps of each weight, which no smaller piece changes.

    Raises:
        ValueError: if memory runs out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        raise ValueError(
            f"the memory of {device} does not hold the weights with their gradients and Adam's two moments: set"
            " lora_rank, or take a smaller backbone"
        ) from error

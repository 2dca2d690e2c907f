"""What does learning do when memory runs out? It goes on with smaller micro-batches."""

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a tensor found no room, on a GPU or on a CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


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

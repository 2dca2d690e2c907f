"""What does a policy say about the tokens of responses?"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class TokenOutputs:
    """Of each response token, all [rows, tokens]; zero where masked out, values also without a value function."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor
    mask: Tensor

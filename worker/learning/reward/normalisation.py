"""What do a score's zero and unit mean? Version 0's mean, and its deviation within a prompt."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Normalisation:
    """The scale of the scores: version 0 has mean 0 and a deviation of 1 within a prompt.

    Preferences fix only differences of scores within a prompt, so the unit comes from stored samples of version 0:
    score = gain * raw + offset. `gain` is already inside the saved head.
    """

    gain: float = 1.0
    offset: float = 0.0
    prompts: int = 0
    samples: int = 0


def gain_and_offset(scores: Sequence[Tensor]) -> tuple[float, float]:
    """The gain and offset for which gain * s + offset has mean 0 and a deviation of 1 within prompts.

    The pooled deviation is sqrt(sum (s - mean of its prompt)^2 / sum (n - 1)).

    Args:
        scores: the scores [samples] of each prompt.

    Raises:
        ValueError: if the scores do not differ within any prompt.
    """
    squares = sum(float((own - own.mean()).square().sum()) for own in scores)
    freedom = sum(len(own) - 1 for own in scores)
    if freedom == 0 or squares == 0:
        raise ValueError(
            "the scores do not differ within any prompt: normalising needs a prompt with two different responses, and"
            " where there are some, the fit went astray: lower learning_rate"
        )
    gain = math.sqrt(freedom / squares)
    mean = sum(float(own.mean()) for own in scores) / len(scores)
    return gain, -gain * mean

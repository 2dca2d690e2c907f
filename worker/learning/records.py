"""What goes into learning and what comes out of it: messages, rankings and samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt = Sequence[Message]


@dataclass(frozen=True)
class Ranking:
    """One annotator's order of the responses to one prompt.

    `groups` holds indices into `responses`, the best group first; responses in one group are tied.
    `weight` says how much this ranking counts beside the others (1 for an ordinary one). `implied`: nobody
    ordered the two; the first was written to correct the second.

    Raises:
        ValueError: if there are fewer than two responses, if the groups are not a partition of the
            responses, or if the weight is negative or not finite.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    weight: float = 1.0
    implied: bool = False

    def __post_init__(self) -> None:
        count = len(self.responses)
        if count < 2:
            raise ValueError(f"a ranking needs at least two responses, this one has {count}")
        if any(len(group) == 0 for group in self.groups):
            raise ValueError(f"every group needs at least one response: {self.groups}")
        ranked = sorted(chain.from_iterable(self.groups))
        if ranked != list(range(count)):
            raise ValueError(f"the groups {self.groups} must name each of the responses 0 to {count - 1} once")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"a weight must be finite and not negative, not {self.weight}")

    def ordered_pairs(self) -> list[tuple[int, int]]:
        """All (better, worse) pairs of response indices; ties give none."""
        return [(better, worse) for above, below in combinations(self.groups, 2) for better in above for worse in below]


@dataclass(frozen=True)
class Sample:
    """One response that a policy wrote.

    `token_ids` are the sampled tokens, the end token included where the policy gave one
    ("ended"); "cut" means that the length limit came first. `seed` is the sample's own: the same
    model, prompt, settings and seed write it again.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["ended", "cut"]
    seed: int

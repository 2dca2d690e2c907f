"""What goes into learning and what comes out of it: messages, labels and samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


Prompt = Sequence[Message]


@dataclass(frozen=True)
class Scale:
    """Which answers a pair of responses could be given: grades 1 (the least) to `levels` to either side, and a tie."""

    levels: int = 1
    ties: bool = True

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"a scale needs at least one grade to each side, not {self.levels}")


@dataclass(frozen=True)
class Judgement:
    """What a label says of its responses in one respect: overall, or by a criterion.

    `groups` holds indices into the responses, the best group first; responses in one group are tied, and of those
    left out nothing is said. `strength` grades the better one of two on the `scale`. `scores` has a number or None
    for every response, or is empty.
    """

    groups: tuple[tuple[int, ...], ...] = ()
    strength: int | None = None
    scale: Scale = Scale()
    scores: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        ranked = self.ranked
        if any(len(group) == 0 for group in self.groups):
            raise ValueError(f"every group needs at least one response: {self.groups}")
        if len(set(ranked)) != len(ranked):
            raise ValueError(f"the groups {self.groups} must name each response once at most")
        if len(ranked) == 1:
            raise ValueError("an order needs at least two responses, this one has 1")
        if not self.scale.ties and any(len(group) > 1 for group in self.groups):
            raise ValueError(f"the groups {self.groups} have a tie, and their scale has none")
        self._check_strength()
        if any(score is not None and not math.isfinite(score) for score in self.scores):
            raise ValueError(f"a score must be finite: {self.scores}")

    def _check_strength(self) -> None:
        is_pair = len(self.groups) == 2 and len(self.ranked) == 2
        if self.strength is None:
            if is_pair and self.scale.levels > 1:
                raise ValueError(f"a pair on a scale of {self.scale.levels} grades needs a strength")
        elif not is_pair:
            raise ValueError(f"a strength says how much better one of two is, and the groups are {self.groups}")
        elif not 1 <= self.strength <= self.scale.levels:
            raise ValueError(f"a strength must lie between 1 and {self.scale.levels}, not be {self.strength}")
        if len(self.ranked) > 2 and self.scale.levels > 1:
            raise ValueError("only a pair is graded: a ranking of more responses has one level")

    @property
    def ranked(self) -> tuple[int, ...]:
        """The responses that have a place, the best first."""
        return tuple(index for group in self.groups for index in group)

    def ordered_pairs(self) -> list[tuple[int, int]]:
        """All (better, worse) pairs of response indices; ties give none."""
        return [(better, worse) for above, below in combinations(self.groups, 2) for better in above for worse in below]

    def tied_pairs(self) -> list[tuple[int, int]]:
        """All pairs of response indices that share a group."""
        return [pair for group in self.groups for pair in combinations(group, 2)]


@dataclass(frozen=True)
class Label:
    """One annotator's answer about the responses to one prompt.

    `shown` lists the responses in the order in which they were shown, empty where that is not known. `weight` says how
    much this label counts beside the others (1 for an ordinary one). `implied`: nobody ordered the two; the first
    was written to correct the second.

    Raises:
        ValueError: if a judgement names a response that is not there, if `shown` is not an order of the responses, or
            if the weight is negative or not finite.
    """

    prompt: tuple[Message, ...]
    responses: tuple[str, ...]
    overall: Judgement = Judgement()
    criteria: Mapping[str, Judgement] = field(default_factory=dict)
    annotator: str | None = None
    shown: tuple[int, ...] = ()
    weight: float = 1.0
    implied: bool = False

    def __post_init__(self) -> None:
        count = len(self.responses)
        if count < 1:
            raise ValueError("a label needs at least one response")
        for judgement in (self.overall, *self.criteria.values()):
            if any(not 0 <= index < count for index in judgement.ranked):
                raise ValueError(f"the groups {judgement.groups} must name the responses 0 to {count - 1}")
            if judgement.scores and len(judgement.scores) != count:
                raise ValueError(f"{len(judgement.scores)} scores do not match {count} responses")
        if self.shown and sorted(self.shown) != list(range(count)):
            raise ValueError(f"the order shown {self.shown} must name each of the responses 0 to {count - 1} once")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"a weight must be finite and not negative, not {self.weight}")


@dataclass(frozen=True)
class Sample:
    """One response that a policy wrote.

    `token_ids` are the sampled tokens, the end token included where the policy gave one
    ("ended"); "cut" means that the length limit came first. `seed` is the sample's own: the same
    model, prompt, settings and seed write it again. Where many are drawn from one stream of noise (continuous
    batching, a server) it is that stream's.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["ended", "cut"]
    seed: int

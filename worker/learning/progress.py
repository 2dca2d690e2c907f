"""How does learning say how far it is? Through a callback, which may raise to stop it."""

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a phase of learning is.

    `metrics` are this step's figures under the field's usual names ("loss", "kl", "learning_rate").
    """

    phase: str
    done: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


Report = Callable[[Progress], None]
"""Called after every step, from the thread that learns. What it raises ends the learning."""


def silent(progress: Progress) -> None:
    """Reports nothing."""

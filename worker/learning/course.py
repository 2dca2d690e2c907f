"""Where does a learning stand, and how does it go on after a kill, to the same bits?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from worker.learning.checkpoints import load_state, optimiser_tensors, restore_optimiser, save_state


@dataclass
class Course:
    """All that changes while weights are learned, besides the weights and the optimisers."""

    step: int = 0
    losses: list[float] = field(default_factory=list)  # of this epoch's steps
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    micro_batch_tokens: int | None = None
    """What memory held, where it ran out once; None: what the settings say."""

    def close_epoch(self, weights: Mapping[str, Tensor], measured: Mapping[str, float], by: str) -> None:
        """Writes the epoch's row and keeps its weights if no earlier ones were better.

        Args:
            weights: as they are now, by name; kept as copies on the CPU.
            measured: further figures of the epoch.
            by: the one of them that is to be low; where it was not measured, the last epoch's weights are kept.
        """
        row = {"epoch": float(len(self.history) + 1), "loss": sum(self.losses) / len(self.losses), **measured}
        earlier = [one[by] for one in self.history if by in one]
        if not earlier or row[by] < min(earlier):
            self.best_epoch = int(row["epoch"])
            self.best_weights = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}
        self.history.append(row)
        self.losses = []


def save_course(
    folder: Path,
    course: Course,
    weights: Mapping[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    fingerprint: str,
) -> None:
    """Writes everything that going on needs; `fingerprint` says which learning it belongs to."""
    current = {f"weights.{name}": value for name, value in weights.items()}
    best = {f"best.{name}": value for name, value in course.best_weights.items()}
    remembered = {
        f"optimiser.{index}.{name}": value
        for index, optimiser in enumerate(optimisers)
        for name, value in optimiser_tensors(optimiser).items()
    }
    facts = {
        "fingerprint": fingerprint,
        "losses": course.losses,
        "history": course.history,
        "best_epoch": course.best_epoch,
        "micro_batch_tokens": course.micro_batch_tokens,
    }
    save_state(folder, course.step, {**current, **best, **remembered}, facts)


def resume_course(
    folder: Path | None,
    weights: Mapping[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    fingerprint: str,
) -> Course:
    """Puts the newest state in `folder` back into weights and optimisers; a new course where there is none.

    Raises:
        ValueError: if the state belongs to another learning.
    """
    state = load_state(folder) if folder is not None else None
    if state is None:
        return Course()
    tensors, facts = state
    if facts["fingerprint"] != fingerprint:
        raise ValueError(
            f"the checkpoints in {folder} belong to another training (other settings, seed or data):"
            " give the same ones to go on, or another folder to start anew"
        )
    put_weights(weights, named_tensors(tensors, "weights."))
    for index, optimiser in enumerate(optimisers):
        restore_optimiser(optimiser, named_tensors(tensors, f"optimiser.{index}."))
    return Course(
        facts["step"],
        facts["losses"],
        facts["history"],
        facts["best_epoch"],
        named_tensors(tensors, "best."),
        facts["micro_batch_tokens"],
    )


@torch.no_grad()
def put_weights(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrites named weights in place."""
    for name, weight in weights.items():
        weight.copy_(values[name])


def rate_at(step: int, total: int, warmup_share: float) -> float:
    """The share of the highest learning rate: climbs linearly over the warm-up, then falls linearly to 0 at the end."""
    warmup = max(1, round(warmup_share * total))
    return min((step + 1) / warmup, (total - step) / max(1, total - warmup), 1.0)


def named_tensors(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    """Those whose names start so, without that start."""
    return {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}

"""Where does a run of PPO stand, and how does it go on after a kill, to the same bits?"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.learning.checkpoints import (
    load_state,
    optimiser_tensors,
    restore_optimiser,
    save_state,
    state_folder,
    write_whole,
)
from worker.learning.course import named_tensors, put_weights
from worker.learning.policy.devices import check_alike, gathered, is_first
from worker.learning.policy.guards import Guards
from worker.learning.policy.rollouts import Answers
from worker.learning.policy.settings import PPOSettings
from worker.learning.records import Prompt, Sample

ANSWERS = "answers.json"
FIRST_NUMBERS = 8
NOT_COMPARED = {"checkpoint_seconds", "micro_batch_tokens"}
"""Settings that may change when a run goes on: they bound time and memory alone."""

Weights = Mapping[str, nn.Parameter]


@dataclass
class PPOCourse:
    """All that changes while PPO runs, beside the weights. There is no generator: noise comes from (seed, step)."""

    optimiser: torch.optim.Optimizer
    kl_coefficient: float
    length_target: float | None
    guards: Guards = field(default_factory=Guards)
    step: int = 0
    """Rollouts learned from; it says which prompts are next, too."""
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The folder that a run is kept in, if it is; under torchrun the first process alone writes there.

    Beside the newest state stand the answers of the rollout that follows it, once they are there: they are most of a
    rollout's time, so a run that goes on need not sample and score them again.
    """

    def __init__(self, folder: Path | None, weights: Weights, fingerprint: str, seconds: float) -> None:
        """Names the run.

        Args:
            folder: for the states; None keeps nothing.
            weights: all that learning changes, by name.
            fingerprint: says which run it is.
            seconds: between two states.
        """
        self._folder, self._weights = folder, weights
        self._fingerprint, self._seconds = fingerprint, seconds
        self._saved_step: int | None = None
        self._saved_at = time.monotonic()

    def resume(self, course: PPOCourse) -> None:
        """Puts the newest state in the folder back into the course and the weights; does nothing where there is none.

        Raises:
            ValueError: if the state belongs to another run, or not all processes see the same one.
        """
        found = load_state(self._folder) if self._folder is not None else None
        if found is not None:
            self._restore(course, *found)
        check_alike("where the run stands", (course.step, self._fingerprint))

    def save(self, course: PPOCourse, *, is_last: bool) -> None:
        """Writes the state if it is time to."""
        if self._folder is None or not is_first():
            return
        if not is_last and time.monotonic() - self._saved_at < self._seconds:
            return
        guards = course.guards
        tensors: dict[str, Tensor] = {f"weights.{name}": value for name, value in self._weights.items()}
        tensors |= {f"optimiser.{name}": value for name, value in optimiser_tensors(course.optimiser).items()}
        tensors |= {f"within.{name}": value for name, value in guards.within.items()}
        tensors |= {f"best.{name}": value for name, value in guards.best.items()}
        facts = {
            "fingerprint": self._fingerprint,
            "kl_coefficient": course.kl_coefficient,
            "length_target": course.length_target,
            "kl_start": guards.kl_start,
            "best_score": guards.best_score,
            "below": guards.below,
            "history": course.history,
        }
        save_state(self._folder, course.step, tensors, facts)
        self._saved_step, self._saved_at = course.step, time.monotonic()

    def keep(self, answers: Answers, step: int) -> None:
        """Writes the answers of the rollout that follows the newest state, and no other's."""
        if self._folder is None or not is_first() or step != self._saved_step:
            return
        told = {
            "samples": [asdict(sample) for sample in answers.samples],
            "scores": answers.scores.tolist(),
            "watched": {name: scores.tolist() for name, scores in answers.watched.items()},
        }
        write_whole(state_folder(self._folder, step) / ANSWERS, json.dumps(told))

    def kept(self, step: int) -> Answers | None:
        """The answers of this rollout, if they were kept; the first process reads them for all."""
        return gathered([self._read(step) if is_first() else None])[0]

    def _read(self, step: int) -> Answers | None:
        if self._folder is None or step != self._saved_step:
            return None
        try:
            told = json.loads((state_folder(self._folder, step) / ANSWERS).read_text())
        except FileNotFoundError:
            return None
        samples = [Sample(**{**sample, "token_ids": tuple(sample["token_ids"])}) for sample in told["samples"]]
        watched = {name: torch.tensor(scores) for name, scores in told["watched"].items()}
        return Answers(samples, torch.tensor(told["scores"]), watched)

    def _restore(self, course: PPOCourse, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        if facts["fingerprint"] != self._fingerprint:
            raise ValueError(
                f"the checkpoints in {self._folder} belong to another run (other settings, seed, prompts or models):"
                " give the same ones to go on, or another folder to start anew"
            )
        put_weights(self._weights, named_tensors(tensors, "weights."))
        restore_optimiser(course.optimiser, named_tensors(tensors, "optimiser."), complete=False)
        course.guards = Guards(
            kl_start=facts["kl_start"],
            within=named_tensors(tensors, "within."),
            best=named_tensors(tensors, "best."),
            best_score=facts["best_score"],
            below=facts["below"],
        )
        course.kl_coefficient, course.length_target = facts["kl_coefficient"], facts["length_target"]
        course.step, course.history = facts["step"], facts["history"]
        self._saved_step = course.step


def fingerprint_of(
    settings: PPOSettings, seed: int, prompts: Sequence[Prompt], models: Mapping[str, nn.Module | None]
) -> str:
    """What a checkpoint must agree with to be continued: settings, seed, prompts, and the models as they begin."""
    compared = {name: value for name, value in asdict(settings).items() if name not in NOT_COMPARED}
    total = hashlib.sha256(json.dumps([compared, seed, [list(prompt) for prompt in prompts]]).encode())
    for name, model in models.items():
        total.update(f"{name} {first_numbers(model) if model is not None else None}".encode())
    return total.hexdigest()


def first_numbers(model: nn.Module) -> str:
    """A hash of each tensor's shape and first numbers, which tell a model from another of the same shape."""
    total = hashlib.sha256()
    for name, parameter in model.named_parameters():
        first = parameter.detach().flatten()[:FIRST_NUMBERS].tolist()
        total.update(f"{name} {list(parameter.shape)} {first}".encode())
    return total.hexdigest()

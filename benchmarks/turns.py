"""How do two trainers take turns at the same work? What each is told, and what it answers after every turn.

Lines of JSON: the first on stdin says what to do, each later one asks for one turn: a stretch of steps, or a rollout. A
line on stdout tells what that took. This much of the benchmarks runs in the peers' environments too.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

Result = TypeVar("Result")


@dataclass(frozen=True)
class Work:
    """What both are to do."""

    policy: str
    """A folder; the policy starts from it, and it is the reference."""
    reward: str
    """A folder with a sequence classifier of one output."""
    prompts: list[str]
    estimator: Literal["gae", "grpo"]
    precision: Literal["fp32", "bf16"]
    device: Literal["cpu", "cuda"]
    rollouts: int
    episodes: int
    """In each rollout."""
    group: int
    """Responses to a prompt."""
    epochs: int
    """Over each rollout, an optimiser step each."""
    new_tokens: int
    """The most in a response."""
    peer_rows: int
    """Episodes in the peer's micro-batches; ours sizes its own."""
    critic: Literal["shared", "separate"]
    """Ours: where its values come from."""
    engine: Literal["auto", "loop"]
    """That ours samples with."""
    seed: int
    kl_coefficient: float = 0.05
    learning_rate: float = 3e-6
    adam_epsilon: float = 1e-5
    gae_lambda: float = 0.95

    def __str__(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class Stretch:
    """What one rollout, and learning from it, took."""

    seconds: float
    phases: dict[str, float]
    """Seconds that went to sampling ("sample"), to the reward model ("score"), to the other passes without gradients
    ("evaluate"); the rest is learning."""
    tokens: int
    """Of all responses."""
    steps: int
    """That optimisers made."""
    memory: float
    """The most MB so far beyond the libraries: of the process, or of the GPU."""

    @property
    def by_phase(self) -> dict[str, float]:
        """Seconds of every phase; "learn" is what is left."""
        return {**self.phases, "learn": self.seconds - sum(self.phases.values())}


class Turns:
    """One trainer's side: it works while the other one waits."""

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)  # what a trainer prints is no answer
        self.began = 0.0

    def begin(self) -> None:
        """Waits to be asked for a turn."""
        if not sys.stdin.readline():
            raise SystemExit
        self.began = time.perf_counter()

    def end(self) -> None:
        """Tells how long the turn took."""
        self.tell({"seconds": time.perf_counter() - self.began})

    def tell(self, answer: dict[str, Any]) -> None:
        """Answers who asked."""
        print(json.dumps(answer), file=self._answers)


class RolloutTurns(Turns):
    """Each turn is a rollout and learning from it; `phases`, `tokens` and `steps` are of the one that goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.phases: dict[str, float] = {}
        self.tokens = 0
        self.steps = 0
        self.work = Work(**json.loads(sys.stdin.readline()))
        self.libraries = _process_mb("VmRSS")
        register_optimizer_step_post_hook(self._count_step)

    def begin(self) -> None:
        super().begin()
        self.phases, self.tokens, self.steps = {}, 0, 0

    def end(self) -> None:
        """Tells all that the rollout took."""
        self._synchronise()
        seconds = time.perf_counter() - self.began
        on_cuda = self.work.device == "cuda"
        memory = torch.cuda.max_memory_allocated() / 1e6 if on_cuda else _process_mb("VmHWM") - self.libraries
        self.tell(asdict(Stretch(seconds, self.phases, self.tokens, self.steps, memory)))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books what is done inside."""
        self._synchronise()
        began = time.perf_counter()
        yield
        self._synchronise()
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - began

    def timed(self, name: str, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, its time booked."""

        def run(*args: Any, **named: Any) -> Result:
            with self.phase(name):
                return function(*args, **named)

        return run

    def _count_step(self, *_: Any) -> None:
        self.steps += 1

    def _synchronise(self) -> None:
        if self.work.device == "cuda":
            torch.cuda.synchronize()


def _process_mb(name: Literal["VmRSS", "VmHWM"]) -> float:
    """Memory that the process has, or had at the most."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1e3

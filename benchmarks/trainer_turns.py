"""How does a trainer of TRL's take its turns? This much of the benchmarks runs in TRL's own environments alone."""

from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback

from benchmarks.turns import Turns


class TurnsCallback(TrainerCallback):
    """A turn ends with each of the steps that `stops` names, and the training with the last."""

    def __init__(self, turns: Turns, stops: Sequence[int]) -> None:
        self.turns = turns
        self.stops = stops

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.turns.begin()

    def on_step_end(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
        if state.global_step not in self.stops:
            return
        self.turns.end()
        if state.global_step < self.stops[-1]:
            self.turns.begin()

"""What is to be read of a run of PPO while it goes on and after it, and does a run go on as it began?"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from worker.learning.checkpoints import remove_states, write_whole
from worker.learning.models import save_model
from worker.learning.policy.course import NOT_COMPARED
from worker.learning.policy.devices import is_first
from worker.learning.policy.rollouts import Rollout
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import ImprovedPolicy
from worker.learning.progress import Progress, Report

FACTS = "ppo.json"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
PACKAGES = ("prefloop", "torch", "transformers")
NUMBER = "rollout"
EACH = 2
"""Samples of a rollout that are written down because they scored highest, because lowest, and of the others."""

Row = Mapping[str, Any]


class RunRecord:
    """The folder beside the result in which a run stands while it goes on; the first process alone writes there."""

    def __init__(self, folder: Path, facts: Row, settings: PPOSettings) -> None:
        """Says which run this is, and compares it with the one that stands there, if one has come to a checkpoint.

        Raises:
            ValueError: if another run stands there, naming what differs.
        """
        versions = {package: version(package) for package in PACKAGES}
        self._folder = folder
        self._facts = {**facts, "settings": asdict(settings), "versions": versions}
        self._is_begun = False
        self._metrics, self._samples = LineFile(folder / METRICS), LineFile(folder / SAMPLES)
        if any(folder.glob("step-*")) and (folder / FACTS).exists():
            self._compare(json.loads((folder / FACTS).read_text(encoding="utf-8")))

    def _compare(self, before: Row) -> None:
        then, now = _flat(before), _flat(json.loads(_shown(self._facts)))
        left_out = {f"settings.{name}" for name in NOT_COMPARED} | {f"versions.{package}" for package in PACKAGES}
        names = [name for name in {**then, **now} if name not in left_out and then.get(name) != now.get(name)]
        if names:
            told = ", ".join(f"{name} was {then.get(name)} and is {now.get(name)}" for name in names)
            raise ValueError(
                f"{self._folder} holds another run, which did not come to its end: {told}. Give the same as then to"
                " go on with it; name another --out, or remove that folder, to start anew"
            )

    def reporting(self, report: Report) -> Report:
        """Reports, and writes every rollout's metrics down."""

        def both(progress: Progress) -> None:
            if is_first() and progress.metrics:
                self._metrics.put(progress.done, [progress.metrics])
            report(progress)

        return both

    def keep(self, rollout: Rollout, step: int) -> None:
        """Writes down some samples of a rollout."""
        if not is_first():
            return
        if not self._is_begun:  # what is refused before the first rollout leaves nothing behind
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / FACTS, _shown(self._facts))
            self._is_begun = True
        self._samples.put(step + 1, samples_to_read(rollout))

    def finish(self, out: Path, improved: ImprovedPolicy, tokenizer: PreTrainedTokenizerBase) -> None:
        """Writes the policy with all that is to be read of the run, and removes what stood of the run in its folder."""
        facts = {**self._facts, "ended": improved.ended, "history": [_finite(row) for row in improved.metrics]}
        files = {
            FACTS: _shown(facts),
            METRICS: "".join(_line(number, row) for number, row in enumerate(improved.metrics, start=1)),
            SAMPLES: self._samples.read(),
        }
        save_model(improved.policy, tokenizer, out, files=files)
        for name in (FACTS, METRICS, SAMPLES):
            (self._folder / name).unlink(missing_ok=True)
        remove_states(self._folder)


def samples_to_read(rollout: Rollout) -> list[dict[str, Any]]:
    """The samples that scored highest and lowest, and some of the others: there a person sees what pays."""
    ranked = rollout.scores.argsort(descending=True, stable=True).tolist()
    why = dict.fromkeys(ranked[:EACH], "highest") | dict.fromkeys(ranked[EACH:][-EACH:], "lowest")
    others = [episode for episode in range(len(ranked)) if episode not in why]
    why |= dict.fromkeys(others[:EACH], "any")
    kl = rollout.log_ratios.sum(dim=1).tolist()
    return [
        {
            "picked": reason,
            "score": float(rollout.scores[episode]),
            **{f"watched/{name}": float(scores[episode]) for name, scores in rollout.watched.items()},
            "kl": kl[episode],
            "tokens": len(rollout.samples[episode].token_ids),
            "finish_reason": rollout.samples[episode].finish_reason,
            "prompt": rollout.asked[episode],
            "response": rollout.samples[episode].text,
        }
        for episode, reason in why.items()
    ]


class LineFile:
    """JSON Lines that grow with a run. A rollout that is made again takes the place of what stood there of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._goes_on = False

    def put(self, rollout: int, rows: Iterable[Row]) -> None:
        """Adds the rows of a rollout behind those of the earlier ones."""
        new = [_line(rollout, row) for row in rows]
        if self._goes_on:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(new)
        else:
            write_whole(self._path, "".join([*self._before(rollout), *new]))
            self._goes_on = True

    def read(self) -> str:
        """All that stands there."""
        return self._path.read_text(encoding="utf-8") if self._path.exists() else ""

    def _before(self, rollout: int) -> list[str]:
        """The lines before a rollout; a kill may have cut the last one."""
        whole = [line for line in self.read().splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in whole if json.loads(line)[NUMBER] < rollout]


def _line(rollout: int, row: Row) -> str:
    return json.dumps({NUMBER: rollout, **_finite(row)}, ensure_ascii=False) + "\n"


def _shown(facts: Row) -> str:
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def _finite(row: Row) -> dict[str, Any]:
    """JSON knows no NaN, such as the explained variance of returns that are all the same."""
    return {name: None if isinstance(one, float) and not math.isfinite(one) else one for name, one in row.items()}


def _flat(values: Row, start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{start}{name}.") if isinstance(value, dict) else {f"{start}{name}": value}
    return flat

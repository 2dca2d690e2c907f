"""How does the demo turn the loop? It watches over REST, and lets the annotators label whenever it is time."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo.annotators import Annotator, label_all
from demo.processes import Processes

_LOOK_EVERY = 1.0  # seconds
_TRIGGER_MAY_TAKE = 20.0  # seconds after the last label
_LIVE = {"waiting", "running"}
_STEPS = {
    "sample_responses": "the policy writes",
    "fit_reward_model": "the reward model is fitted",
    "improve_policy": "PPO improves the policy",
    "evaluate_policy": "the new policy is measured",
}


class LoopFailed(RuntimeError):
    """A round ended without a verdict; the message says how."""


class Api:
    """The project's REST interface, for an admin's token."""

    def __init__(self, base_url: str, slug: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=f"{base_url}/api/v1/projects/{slug}/", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )

    def get(self, path: str, **parameters: str | int) -> dict[str, Any]:
        """A JSON answer."""
        answer: dict[str, Any] = self._client.get(path, params=parameters).raise_for_status().json()
        return answer

    def post(self, path: str) -> dict[str, Any]:
        """A JSON answer to a post without a body."""
        answer: dict[str, Any] = self._client.post(path).raise_for_status().json()
        return answer

    def lines(self, path: str, **parameters: str | int) -> list[str]:
        """The lines of an export."""
        text = self._client.get(path, params=parameters).raise_for_status().text
        # JSON may hold Unicode's other line breaks inside its texts: only "\n" ends a line.
        return [line for line in text.split("\n") if line]

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def bars(console: Console) -> Progress:
    """The progress display of the demo."""
    return Progress(
        TextColumn("{task.description:<44}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[phase]}"),
        console=console,
    )


@dataclass
class Loop:
    """Turns a project's loop until enough rounds have ended and the next one has put fresh samples into the queue."""

    api: Api
    annotators: Sequence[Annotator]
    processes: Processes
    progress: Progress
    stop: Event = field(default_factory=Event)
    _bars: dict[object, TaskID] = field(default_factory=dict)
    _finished: set[TaskID] = field(default_factory=set)

    def turn(self, rounds: int) -> None:
        """Label round after round; return when round `rounds` + 1 waits for labels.

        Raises:
            LoopFailed: a round failed.
            ProcessEnded: the server or a worker died.
        """
        labelled: dict[int, float] = {}  # when, by the round's number
        while True:
            self.processes.check()
            newest = self._look()
            if newest is not None and newest["state"] == "labelling":
                number: int = newest["number"]
                if number > rounds:
                    return
                if number not in labelled:
                    self._label(number)
                    labelled[number] = time.monotonic()
                elif time.monotonic() - labelled[number] > _TRIGGER_MAY_TAKE:
                    self._fire(number)
            time.sleep(_LOOK_EVERY)

    def _fire(self, number: int) -> None:
        """Go on with what was labelled: a policy that repeats itself gives fewer comparisons than the trigger wants."""
        with suppress(httpx.HTTPStatusError):  # the trigger was quicker
            self.api.post(f"rounds/{number}/fire")

    def _look(self) -> dict[str, Any] | None:
        """Draw the bars as they stand now; return the newest round."""
        rounds = sorted(self.api.get("rounds")["items"], key=lambda round_: round_["number"])
        numbers = {round_["id"]: round_["number"] for round_ in rounds}
        for run in sorted(self.api.get("runs")["items"], key=lambda run: run["id"]):
            self._draw_run(numbers.get(run["round_id"], 0), run)
        for round_ in rounds:
            if round_["state"] in {"failed", "cancelled"}:
                why = round_["failure"] or "no reason is given"
                raise LoopFailed(f"Round {round_['number']} ended {round_['state']}: {why}")
        return rounds[-1] if rounds else None

    def _draw_run(self, number: int, run: dict[str, Any]) -> None:
        bar = self._bar(run["id"], f"round {number}: {_STEPS[run['step']]}")
        if run["state"] == "done":
            self._finish(bar, run["total"] or 1)
        elif run["total"]:
            self.progress.update(bar, total=run["total"], completed=run["done"], phase=run["phase"])

    def _finish(self, bar: TaskID, total: int) -> None:
        """Fill a bar; where bars cannot be drawn, say that this is done."""
        if bar in self._finished:
            return
        self._finished.add(bar)
        self.progress.update(bar, total=total, completed=total, phase="")
        if not self.progress.console.is_terminal:
            task = next(task for task in self.progress.tasks if task.id == bar)
            self.progress.console.print(f"{task.description}: done after {task.elapsed or 0:.0f} s")

    def _bar(self, key: object, description: str) -> TaskID:
        if key not in self._bars:
            self._bars[key] = self.progress.add_task(description, total=None, phase="")
        return self._bars[key]

    def _label(self, number: int) -> None:
        waiting = sum(comparison["openings"] for comparison in all_comparisons(self.api, progress="untouched"))
        bar = self._bar(("labels", number), f"round {number}: {len(self.annotators)} annotators label")
        self.progress.update(bar, total=waiting, completed=0)
        advance: Callable[[], None] = lambda: self.progress.advance(bar)  # noqa: E731
        self._finish(bar, label_all(self.annotators, self.stop, advance))


def all_comparisons(api: Api, **filters: str | int) -> list[dict[str, Any]]:
    """All open comparisons that the filters let through, page after page."""
    found: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = api.get("comparisons", state="open", after=after, limit=1000, **filters)
        found += page["items"]
        after = page["next_after"]
    return found

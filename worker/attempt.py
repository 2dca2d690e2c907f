"""Which run is this process executing? Its attempt, its device, and how its progress reaches the database."""

import time
from dataclasses import dataclass, field, replace

import torch

from app.database import transaction
from app.domain import runs
from worker.learning.progress import Progress, Report

_EVERY = 0.5  # seconds between two reports to the database


@dataclass
class Attempt:
    """One attempt of a run."""

    run_id: int
    number: int
    device: torch.device
    _points: dict[int, dict[str, float]] = field(default_factory=dict)
    _latest: Progress | None = None
    _told_at: float = 0.0

    def named(self, phase: str) -> Report:
        """A report for learning functions, under the name that people see."""
        return lambda progress: self.report(replace(progress, phase=phase))

    def report(self, progress: Progress) -> None:
        """Pass progress on, some twice a second; raises StaleAttempt when the work should stop."""
        if self._latest is not None and self._latest.phase != progress.phase:
            self.flush()
        self._latest = progress
        if progress.metrics:
            self._points[progress.done] = progress.metrics
        if time.monotonic() - self._told_at >= _EVERY:
            self.flush()

    def flush(self) -> None:
        """Store what has not been told yet."""
        if self._latest is None:
            return
        with transaction() as session:
            runs.report(
                session,
                self.run_id,
                self.number,
                phase=self._latest.phase,
                done=self._latest.done,
                total=self._latest.total,
                points=self._points,
            )
        self._points = {}
        self._latest = None
        self._told_at = time.monotonic()

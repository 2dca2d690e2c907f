"""What stands in for `kill -9` where a test and what it kills share a process?"""

from collections.abc import Callable

from worker.learning.progress import Progress


class Killed(Exception):
    """As if the process had ended: nothing catches it."""


def killed_at(step: int, phase: str | None = None) -> Callable[[Progress], None]:
    """Ends what reports its progress at a step, of any phase or of one."""

    def report(progress: Progress) -> None:
        if progress.done == step and phase in {None, progress.phase}:
            raise Killed

    return report

"""Who watches a step? The worker: it claims the run, executes it in a child process, and ends the child in time."""

import logging
import signal
import subprocess
from collections.abc import Callable

from app import children
from app.database import transaction
from app.domain import rounds, runs
from app.errors import StaleAttempt

logger = logging.getLogger(__name__)

_LOOK_EVERY = 0.5  # seconds


def execute_run(run_id: int, should_stop: Callable[[], bool]) -> None:
    """Execute a run's step in a child process, where a crash or an empty memory harms nobody else.

    The child is ended when the run is cancelled or given to another worker, and when this worker stops; then the run
    goes back to the queue.
    """
    try:
        with transaction() as session:
            attempt = runs.claim(session, run_id)
    except StaleAttempt as error:
        logger.info("%s", error)
        return
    child = children.start("worker.step", str(run_id), str(attempt))
    try:
        stops = _watch(child, run_id, attempt, should_stop)
    finally:
        children.end(child)
    with transaction() as session:
        if stops:
            runs.hand_back(session, run_id, attempt)
        elif child.returncode != 0 and runs.is_current(session, run_id, attempt):
            rounds.fail_step(session, run_id, attempt, _in_words(child.returncode), may_pass=True)


def _watch(child: subprocess.Popen[bytes], run_id: int, attempt: int, should_stop: Callable[[], bool]) -> bool:
    """Wait for the child's end, or for a reason to end it; return whether this worker has to stop."""
    while True:
        try:
            child.wait(_LOOK_EVERY)
        except subprocess.TimeoutExpired:
            if should_stop():
                return True
            with transaction() as session:
                if not runs.is_current(session, run_id, attempt):
                    return False
        else:
            return False


def _in_words(returncode: int) -> str:
    if returncode < 0:
        name = signal.Signals(-returncode).name
        return f"The process ended by {name}; the system does that when memory runs out."
    return f"The process ended with code {returncode} and left no message; the worker's log has more."

"""How is a worker started? `python -m worker --queue learn|light|all`, one process a queue."""

import os
import signal
import sys

import click
from sqlalchemy import text

from app import children
from app.config import settings
from app.database import transaction
from app.jobs import LEARN, LIGHT
from worker.log import begin_logging

_LONGEST_SILENCE = 60  # seconds after which `--check` takes a worker for dead


@click.command()
@click.option("--queue", type=click.Choice([LEARN, LIGHT, "all"]), default="all", show_default=True)
@click.option("--check", is_flag=True, help="Start nothing: end with code 0 if a worker is alive, else with 1.")
def main(queue: str, check: bool) -> None:
    """Take jobs until told to stop: learning steps from `learn`, periodic work from `light`."""
    if check:
        sys.exit(0 if _is_alive() else 1)
    if queue == "all":
        sys.exit(_run_both())
    children.when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    _run(queue)


def _run(queue: str) -> None:
    from worker.app import create_app

    begin_logging()
    heartbeat = settings().heartbeat_seconds
    create_app().run_worker(
        queues=[queue],
        name=queue,
        concurrency=1,
        fetch_job_polling_interval=min(heartbeat, 5.0),
        shutdown_graceful_timeout=0.5,  # a step takes hours: it goes back to the queue
        delete_jobs="always",  # what became of a run stands in its row
        update_heartbeat_interval=heartbeat,
        stalled_worker_timeout=3 * heartbeat,
    )


def _run_both() -> int:
    """Both queues, each in a process of its own; when one ends, so does the other."""
    children.exit_on_signals()
    both = [children.start("worker", "--queue", queue) for queue in (LEARN, LIGHT)]
    try:
        return children.wait_for_first(both)
    finally:
        children.end(*both)


def _is_alive() -> bool:
    """Whether any worker on this database has shown a sign of life lately."""
    query = text(
        "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => :silence)"
    )
    with transaction() as session:
        return bool(session.scalar(query, {"silence": _LONGEST_SILENCE}))


if __name__ == "__main__":
    main()

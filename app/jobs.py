"""Which jobs does the worker take? Their names and arguments: the web defers them without importing the worker."""

from contextlib import suppress

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued
from sqlalchemy.orm import Session

LEARN = "learn"  # learning steps: one at a time a device
LIGHT = "light"  # periodic work: blocked by nothing
RUN_STEP = "run_step"


def defer_run(session: Session, run_id: int) -> None:
    """Queue the job that executes a run, on the caller's own connection: it exists only if the caller commits.

    A run that is queued already is not queued twice.
    """
    with suppress(AlreadyEnqueued), session.begin_nested():
        # Asked for inside: only then is there a savepoint on it to go back to.
        connection = session.connection().connection.driver_connection
        task = _app().configure_task(RUN_STEP, queue=LEARN, queueing_lock=f"run:{run_id}", connection=connection)
        task.defer(run_id=run_id)


def _app() -> App:
    # Only a name for tasks: every defer brings its own connection.
    return App(connector=PsycopgConnector())

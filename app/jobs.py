"""Which jobs does the worker take? Their names and arguments: the web defers them without importing the worker."""

from procrastinate import App, PsycopgConnector
from sqlalchemy.orm import Session

LEARN = "learn"  # learning steps: one at a time a device
LIGHT = "light"  # periodic work: blocked by nothing
RUN_STEP = "run_step"


def defer_run(session: Session, run_id: int) -> None:
    """Queue the job that executes a run, on the caller's own connection: it exists only if the caller commits."""
    connection = session.connection().connection.driver_connection
    _app().configure_task(
        RUN_STEP,
        queue=LEARN,
        lock=None,
        queueing_lock=f"run:{run_id}",
        connection=connection,
    ).defer(run_id=run_id)


def _app() -> App:
    # Only a name for tasks: every defer brings its own connection.
    return App(connector=PsycopgConnector())

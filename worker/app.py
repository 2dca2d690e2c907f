"""Which jobs does a worker take? A run's step, and the periodic look at what time has brought."""

import asyncio
import logging

from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.jobs import Status

from app.config import settings
from app.database import database_url, transaction
from app.domain import drafts, queue, rounds, runs
from app.errors import PrefloopError
from app.jobs import LEARN, LIGHT, RUN_STEP
from worker.supervision import execute_run

logger = logging.getLogger(__name__)

_MISSED_HEARTBEATS = 3  # until a worker is taken for gone


def create_app() -> App:
    """The procrastinate app on this process's database."""
    app = App(connector=PsycopgConnector(conninfo=database_url().replace("+psycopg", "", 1)))

    @app.task(name=RUN_STEP, queue=LEARN, pass_context=True)
    def run_step(context: JobContext, run_id: int) -> None:
        execute_run(run_id, context.should_abort)

    seconds = max(1, round(settings().heartbeat_seconds))

    @app.periodic(cron=f"* * * * * */{seconds}")
    @app.task(name="tick", queue=LIGHT, queueing_lock="tick", pass_context=True)
    async def tick(context: JobContext, timestamp: int) -> None:  # noqa: ARG001 - procrastinate passes it
        await drop_stalled_jobs(context.app)
        await asyncio.to_thread(tick_all)

    return app


async def drop_stalled_jobs(app: App) -> None:
    """Remove the jobs of workers that are gone; their runs are queued anew by `tick_all`."""
    silence = _MISSED_HEARTBEATS * settings().heartbeat_seconds
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=silence):
        logger.warning("the worker of %s is gone", job.call_string)
        await app.job_manager.finish_job(job, Status.FAILED, delete_job=True)


def tick_all() -> None:
    """What time brings: leases and drafts run out, lost runs are queued again, every project's loop is looked at.

    Each in a transaction of its own: none holds comparisons while it waits for a round, or the other way about.
    """
    with transaction() as session:
        queue.expire_leases(session)
        drafts.purge(session)
    with transaction() as session:
        for run_id in runs.requeue_lost(session):
            logger.warning("run %s had lost its job and is queued again", run_id)
        project_ids = rounds.projects_to_tick(session)
    for project_id in project_ids:
        try:
            with transaction() as session:
                rounds.tick(session, project_id)
        except PrefloopError as error:
            logger.warning("project %s: %s", project_id, error)
        except Exception:
            logger.exception("project %s could not be looked at; the others go on", project_id)

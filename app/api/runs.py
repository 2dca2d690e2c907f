"""What does the worker do, and how far is it? Runs with their progress and curves."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.access import AdminProject, Database
from app.api.shapes import Id, Limit, PathId, Shown
from app.domain import runs
from app.tables import RunState, Step

router = APIRouter(tags=["the loop"])


class RunShown(Shown):
    """One execution of a worker step."""

    id: int
    round_id: int
    step: Step
    state: RunState
    attempt: int = Field(description="Grows whenever it is begun anew.")
    phase: str
    done: int
    total: int = Field(description="0: not known yet.")
    error: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class MetricShown(Shown):
    """A point of a run's curves."""

    phase: str
    step: int
    values: dict[str, Any]


class RunInFull(RunShown):
    """A run with its settings, log and curves."""

    settings: dict[str, Any]
    log: str
    metrics: list[MetricShown]


class Runs(Shown):
    """Runs, the newest first."""

    items: list[RunShown]


@router.get("/projects/{project}/runs")
def list_runs(
    session: Database,
    project: AdminProject,
    round_id: Id | None = None,
    before: Annotated[Id | None, Query(description="Only older runs than this one.")] = None,
    limit: Limit = 50,
) -> Runs:
    """All runs, or those of one round."""
    rows = runs.list_runs(session, project.id, round_id=round_id, before_id=before, limit=limit)
    return Runs(items=[RunShown.of(row) for row in rows])


@router.get("/projects/{project}/runs/{run_id}")
def get_run(session: Database, project: AdminProject, run_id: PathId) -> RunInFull:
    """One run with everything it has said."""
    run = runs.get_run(session, project.id, run_id)
    metrics = [MetricShown.of(row) for row in runs.metrics(session, run.id)]
    return RunInFull(**RunShown.of(run).model_dump(), settings=run.settings, log=run.log, metrics=metrics)

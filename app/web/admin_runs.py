"""What is the worker doing right now? A run: its bar, its curves, its log and its error."""

import math
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.domain import runs
from app.language import gettext as _
from app.language import ngettext
from app.tables import Round, Run, RunMetric, RunState
from app.web.admin_page import admin_page
from app.web.numbers import Id
from app.web.session import Database, ProjectAdmin

router = APIRouter()
_LAST = 12


@router.get("/runs/{run_id}")
def run_page(request: Request, session: Database, project: ProjectAdmin, run_id: Id) -> HTMLResponse:
    """One run. While it is going on, htmx asks again every second for the block `progress`."""
    run = runs.get_run(session, project.id, run_id)
    points = runs.last_metrics(session, run.id, each=_LAST)
    return admin_page(
        request,
        project,
        "run.html",
        "progress",
        section="rounds",
        run=run,
        round=session.get_one(Round, run.round_id),
        is_going_on=run.state in {RunState.WAITING, RunState.RUNNING},
        tables=_tables(points),
        left=_left(run, points),
    )


@router.get("/runs/{run_id}/points")
def points(session: Database, project: ProjectAdmin, run_id: Id, after: Id = 0) -> dict[str, Any]:
    """The points of a run's curves that came after the one with id `after`, for drawing."""
    run = runs.get_run(session, project.id, run_id)
    return {
        "attempt": run.attempt,
        "going_on": run.state in {RunState.WAITING, RunState.RUNNING},
        "points": [
            {"id": point.id, "phase": _(point.phase), "step": point.step, "values": point.values}
            for point in runs.metrics(session, run.id, after_id=after)
        ],
    }


def _left(run: Run, points: list[RunMetric]) -> str | None:
    """When the phase of a run will end, by its newest point, in words. None where it does not say."""
    own = [point for point in points if point.phase == run.phase and point.values.get("seconds/left") is not None]
    if run.state is not RunState.RUNNING or not own:
        return None
    passed = (datetime.now(UTC) - own[-1].created_at).total_seconds()
    minutes = math.ceil(max(0.0, own[-1].values["seconds/left"] - passed) / 60)
    if minutes < 1:
        return _("about to end")
    if minutes < 120:
        return ngettext("about %(num)s minute left", "about %(num)s minutes left", minutes)
    return ngettext("about %(num)s hour left", "about %(num)s hours left", round(minutes / 60))


def _tables(points: list[RunMetric]) -> list[tuple[str, list[str], list[RunMetric]]]:
    """For each phase its metrics' names and its last points, newest first."""
    phases: dict[str, list[RunMetric]] = {}
    for point in points:
        phases.setdefault(point.phase, []).append(point)
    return [
        (phase, list(dict.fromkeys(name for point in own for name in point.values)), own[::-1])
        for phase, own in phases.items()
    ]

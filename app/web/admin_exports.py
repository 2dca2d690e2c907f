"""How do the labels leave? Snapshots, and their export as JSONL that trainers read as it is."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.database import reading
from app.domain import exports, labels, snapshots
from app.domain.exports import Format
from app.errors import PrefloopError
from app.tables import Project, Snapshot
from app.web.admin_page import admin_page
from app.web.numbers import Id
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


@router.get("/exports")
def exports_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """The project's snapshots, newest first."""
    return _page(request, session, project)


@router.post("/exports")
def take(request: Request, session: Database, project: ProjectAdmin, person: SignedIn) -> Response:
    """Freeze the labels as they are now."""
    try:
        with session.begin_nested():
            snapshots.take_snapshot(session, project.id, by=person)
    except PrefloopError as error:
        return _page(request, session, project, status_code=error.status, error=str(error))
    return redirect(f"/projects/{project.slug}/admin/exports?saved=1")


@router.get("/exports/{number}/{format_}.jsonl")
def download(session: Database, project: ProjectAdmin, number: Id, format_: Format) -> StreamingResponse:
    """A snapshot as JSONL, streamed."""
    snapshot = snapshots.get_snapshot(session, project.id, number)
    snapshots.require_exportable(snapshot)
    return StreamingResponse(
        _lines(snapshot.id, format_),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{project.slug}-{number}-{format_}.jsonl"'},
    )


def _lines(snapshot_id: int, format_: Format) -> Iterator[str]:
    # The request's own session is closed by the time this runs.
    with reading() as session:
        yield from exports.lines(session, session.get_one(Snapshot, snapshot_id), format_)


def _page(request: Request, session: Session, project: Project, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "exports.html",
        section="exports",
        status_code=status_code,
        snapshots=snapshots.list_snapshots(session, project.id),
        new_labels=labels.new_labels_since_snapshot(session, project.id),
        formats=Format,
        **told,
    )

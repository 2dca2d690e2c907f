"""What leaves? Snapshots and their exports, in formats that trainers read as they are."""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, status
from fastapi.responses import StreamingResponse
from pydantic import Field

from app.api.access import AdminProject, Caller, Database
from app.api.shapes import PathId, Shown
from app.database import reading
from app.domain import exports, snapshots
from app.domain.exports import Format
from app.tables import Snapshot

router = APIRouter(tags=["snapshots"])

_PIECE = 64_000  # characters


class SnapshotShown(Shown):
    """A frozen set of label revisions."""

    number: int
    content_hash: str = Field(description="sha256 over the pinned revisions and what they say.")
    labels_count: int
    tainted_at: datetime | None = Field(description="A label in it was withdrawn: it is no longer exported.")
    created_at: datetime


class Snapshots(Shown):
    """All snapshots of a project, by number."""

    items: list[SnapshotShown]


@router.post("/projects/{project}/snapshots", status_code=status.HTTP_201_CREATED)
def take_snapshot(session: Database, project: AdminProject, person: Caller) -> SnapshotShown:
    """Freeze the newest revision of every valid training label. Nothing new since the last one: the last one again."""
    return SnapshotShown.of(snapshots.take_snapshot(session, project.id, by=person))


@router.get("/projects/{project}/snapshots")
def list_snapshots(session: Database, project: AdminProject) -> Snapshots:
    """All snapshots."""
    return Snapshots(items=[SnapshotShown.of(row) for row in snapshots.list_snapshots(session, project.id)])


@router.get("/projects/{project}/snapshots/{number}")
def get_snapshot(session: Database, project: AdminProject, number: PathId) -> SnapshotShown:
    """One snapshot, by number."""
    return SnapshotShown.of(snapshots.get_snapshot(session, project.id, number))


@router.get(
    "/projects/{project}/snapshots/{number}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}, "description": "One JSON object a line."}},
)
def export_snapshot(
    session: Database,
    project: AdminProject,
    number: PathId,
    format_: Annotated[
        Format,
        Query(
            alias="format",
            description="`trl`: prompt, chosen, rejected as text. `trl-conversational`: the same as messages. "
            "`rankings`: prompt, responses and whole rankings.",
        ),
    ] = Format.TRL,
) -> StreamingResponse:
    """The snapshot as JSONL: for `datasets.load_dataset("json", ...)`, TRL's trainers, or one's own code."""
    snapshot = snapshots.get_snapshot(session, project.id, number)
    snapshots.require_exportable(snapshot)
    return StreamingResponse(
        _chunks(snapshot.id, format_),
        media_type="application/jsonl",
        headers={"Content-Disposition": f'attachment; filename="{project.slug}-{number}-{format_}.jsonl"'},
    )


def _chunks(snapshot_id: int, format_: Format) -> Iterator[str]:
    """The export in pieces of whole lines, which cost less to send than single lines."""
    # The request's own session is closed by the time this runs.
    with reading() as session:
        piece: list[str] = []
        size = 0
        for line in exports.lines(session, session.get_one(Snapshot, snapshot_id), format_):
            piece.append(line)
            size += len(line)
            if size >= _PIECE:
                yield "".join(piece)
                piece, size = [], 0
        yield "".join(piece)

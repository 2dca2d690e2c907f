"""What comes in by file? Upload or paste JSON Lines, look at what was understood, take all, some or nothing."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.config import settings
from app.database import transaction
from app.domain import imports
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Import, ImportState, Project
from app.web.admin_page import admin_page
from app.web.body_limit import largest_upload
from app.web.numbers import Id
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn, administered_project


class UploadRoute(APIRoute):
    """Looks at who sends an upload before any of it is read, and lets a pasted text be as long as a file."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler behind a check of the sender."""
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            await run_in_threadpool(_require_admin, request)
            await request.form(max_part_size=largest_upload())  # kept on the request, where FastAPI finds it parsed
            return await handle(request)

        return handle_bounded


router = APIRouter()
uploads = APIRouter(route_class=UploadRoute)


@router.get("/import")
def import_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """The upload form and what was uploaded before."""
    return _page(request, session, project)


@uploads.post("/import")
def upload(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    file: Annotated[UploadFile | None, File()] = None,
    pasted: Annotated[str, Form()] = "",
) -> Response:
    """Read a file or a pasted text and keep it for its preview."""
    try:
        name, content = _content(file, pasted)
        kept = imports.preview_import(session, project, name, content, person)
    except (Invalid, Conflict) as error:
        return _page(request, session, project, status_code=error.status, error=str(error), pasted=pasted)
    return redirect(f"/projects/{project.slug}/admin/import/{kept.id}")


@router.get("/import/{import_id}")
def preview_page(request: Request, session: Database, project: ProjectAdmin, import_id: Id) -> HTMLResponse:
    """What an upload holds, its errors by line, and the decision."""
    return _preview(request, project, imports.get_import(session, project.id, import_id))


@router.post("/import/{import_id}")
def decide(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    import_id: Id,
    act: Annotated[Literal["all", "good", "discard"], Form()],
) -> Response:
    """Take everything, take only the good rows, or throw the upload away."""
    kept = imports.get_import(session, project.id, import_id)
    try:
        with session.begin_nested():
            if act == "discard":
                imports.discard_import(session, kept, person)
            else:
                imports.take_import(session, kept, only_good_rows=act == "good", by=person)
    except (Invalid, Conflict) as error:
        return _preview(request, project, kept, status_code=error.status, error=str(error))
    return redirect(f"/projects/{project.slug}/admin/import/{import_id}")


def _content(file: UploadFile | None, pasted: str) -> tuple[str, bytes]:
    if file is not None and file.filename:
        return file.filename, file.file.read()
    if pasted.strip():
        return "pasted.jsonl", pasted.encode(errors="surrogatepass")
    raise Invalid(_("Choose a file or paste some lines."))


def _require_admin(request: Request) -> None:
    """Nobody else's upload is read at all."""
    with transaction() as session:
        administered_project(request, session)


def _page(request: Request, session: Session, project: Project, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "import.html",
        section="import",
        status_code=status_code,
        imports=imports.list_imports(session, project.id),
        largest_mb=settings().max_upload_mb,
        **told,
    )


def _preview(request: Request, project: Project, kept: Import, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "import_preview.html",
        section="import",
        status_code=status_code,
        upload=kept,
        is_open=kept.state is ImportState.PREVIEWED,
        **told,
    )

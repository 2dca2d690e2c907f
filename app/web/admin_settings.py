"""How does the project work? Its settings, pause and archive."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from app.domain import projects
from app.domain.settings import parse_settings
from app.errors import Conflict, Invalid
from app.tables import Project, ProjectState
from app.web import settings_form
from app.web.admin_page import SentForm, admin_page
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


@router.get("/settings")
def settings_page(request: Request, project: ProjectAdmin) -> HTMLResponse:
    """The settings as they are."""
    return _page(request, project)


@router.post("/settings")
def save(request: Request, session: Database, project: ProjectAdmin, person: SignedIn, form: SentForm) -> Response:
    """Store the settings; a live round keeps those that it started with."""
    data = settings_form.read_form(form)
    try:
        with session.begin_nested():
            projects.update_settings(session, project, parse_settings(data), person)
    except (Invalid, Conflict) as error:
        return _page(request, project, data=data, status_code=error.status, refusal=error)
    return redirect(f"/projects/{project.slug}/admin/settings?saved=1")


@router.post("/state")
def set_state(
    session: Database, project: ProjectAdmin, person: SignedIn, state: Annotated[ProjectState, Form()]
) -> Response:
    """Pause, archive or reopen the project."""
    projects.set_state(session, project, state, person)
    return redirect(f"/projects/{project.slug}/admin/settings?saved=1")


def _page(
    request: Request,
    project: Project,
    *,
    data: dict[str, Any] | None = None,
    refusal: Invalid | Conflict | None = None,
    status_code: int = 200,
) -> HTMLResponse:
    errors = settings_form.errors_of(refusal)
    return admin_page(
        request,
        project,
        "settings.html",
        section="settings",
        status_code=status_code,
        fieldsets=settings_form.fieldsets(data or project.settings, errors.by_field),
        errors=errors,
        states=ProjectState,
    )

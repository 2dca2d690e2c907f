"""What are annotators told, and what do they agree to? Guidelines with worked examples, and the consent text."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response

from app.domain import projects
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Project
from app.web.admin_page import admin_page
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()

Text = Annotated[str, Form()]


@router.get("/guidelines")
def guidelines_page(request: Request, project: ProjectAdmin) -> HTMLResponse:
    """The texts as they are."""
    version = project.current_version
    return _page(request, project, version.guidelines if version else "", version.consent_text if version else "")


@router.post("/guidelines/preview")
def preview(request: Request, project: ProjectAdmin, guidelines: Text = "", consent_text: Text = "") -> HTMLResponse:
    """The texts as annotators would see them; nothing is saved."""
    return _page(request, project, guidelines, consent_text)


@router.post("/guidelines")
def save(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    guidelines: Text = "",
    consent_text: Text = "",
    version: Annotated[str, Form()] = "",
) -> Response:
    """Store the next version of the texts."""
    try:
        require_seen(project, version)
        with session.begin_nested():
            projects.change_version(session, project, guidelines=guidelines, consent_text=consent_text, by=person)
    except (Invalid, Conflict) as error:
        return _page(request, project, guidelines, consent_text, refusal=error)
    return redirect(f"/projects/{project.slug}/admin/guidelines?saved=1")


def require_seen(project: Project, version: str) -> None:
    """Raise Conflict where the form was opened under an earlier version than the current one; "" is any version."""
    current = project.current_version
    if version and current is not None and version != str(current.number):
        raise Conflict(
            _(
                "Somebody has saved version %(number)s meanwhile. What you wrote is still here: look at theirs in "
                "another window, then save again to replace it.",
                number=current.number,
            )
        )


def _page(
    request: Request,
    project: Project,
    guidelines: str,
    consent_text: str,
    refusal: Invalid | Conflict | None = None,
) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "guidelines.html",
        "shown",
        section="guidelines",
        status_code=refusal.status if refusal else 200,
        version=project.current_version,
        guidelines=guidelines,
        consent_text=consent_text,
        error=str(refusal) if refusal else None,
    )

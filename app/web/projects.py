"""How does a project begin? The form for a new one."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.domain import projects
from app.domain.ready_made import PLAIN, READY_MADE, in_this_language, ready_made
from app.domain.settings import parse_settings
from app.errors import Conflict, Invalid, NotAllowed
from app.language import gettext as _
from app.tables import Person
from app.web import settings_form
from app.web.admin_page import SentForm
from app.web.pages import page, redirect
from app.web.session import Database, SignedIn

router = APIRouter()


@router.get("/projects/new")
def new_page(request: Request, person: SignedIn) -> HTMLResponse:
    """An empty form."""
    return _page(request, person, sent={})


@router.post("/projects/new")
def create(request: Request, session: Database, person: SignedIn, form: SentForm) -> Response:
    """Create the project and go on to its first import."""
    _require_owner(person)
    data = settings_form.read_form(form)
    try:
        with session.begin_nested():
            project = projects.create_project(
                session,
                name=str(form.get("name", "")),
                by=person,
                slug=str(form.get("slug", "")).strip() or None,
                guidelines=str(form.get("guidelines", "")),
                consent_text=str(form.get("consent_text", "")),
                settings=parse_settings(data),
                judgement_form=_judgement_form(form),
            )
    except (Invalid, Conflict) as error:
        return _page(request, person, sent=form, data=data, refusal=error)
    return redirect(f"/projects/{project.slug}/admin/import")


def _judgement_form(form: Mapping[str, str]) -> dict[str, Any]:
    """The ready-made form that was chosen. Raises Invalid for one that is not there."""
    chosen = ready_made(form.get("judgement_form", PLAIN))
    if chosen is None:
        raise Invalid(_("There is no such judgement form: choose one of the list."))
    return in_this_language(chosen.form).model_dump(mode="json")


def _require_owner(person: Person) -> None:
    if not person.is_owner:
        raise NotAllowed(_("Only owners may create projects. Ask one of them, or for an invite that makes you one."))


def _page(
    request: Request,
    person: Person,
    *,
    sent: Any,
    data: dict[str, Any] | None = None,
    refusal: Invalid | Conflict | None = None,
) -> HTMLResponse:
    _require_owner(person)
    errors = settings_form.errors_of(refusal)
    answer = page(
        request,
        "admin/new_project.html",
        None,
        sent=sent,
        ready_made=READY_MADE,
        fieldsets=settings_form.fieldsets(data or {}, errors.by_field),
        errors=errors,
    )
    answer.status_code = refusal.status if refusal else 200
    return answer

"""What are annotators asked? The judgement form's editor, a preview that takes answers, and what a label would say."""

import json
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from app.domain import answers, projects
from app.domain.form_change import standing
from app.domain.judgement import USUAL_FLAGS, JudgementForm, parse_form
from app.domain.ready_made import READY_MADE, in_this_language, ready_made
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Project
from app.web.admin_guidelines import require_seen
from app.web.admin_page import SentForm, admin_page
from app.web.answer_form import read_answer, sent_fields
from app.web.judgement_fields import (
    Fields,
    change_rows,
    errors_by_field,
    fields_of,
    form_data,
    rows,
    without_blanks,
)
from app.web.pages import page, redirect
from app.web.sample import MADE_UP, NEWEST, Sample, newest_comparison, sample_of
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


@router.get("/form")
def form_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """The form as annotators answer it now."""
    return _editor(request, session, project, fields_of(_current(project)))


@router.post("/form")
def change(request: Request, session: Database, project: ProjectAdmin, person: SignedIn, sent: SentForm) -> Response:
    """Save the form as the next version; or, where `act` says so, change its rows or begin anew, and show it again."""
    act = sent.get("act", "save")
    if act.startswith("begin."):
        return _editor(request, session, project, fields_of(_begun(project, act)), go_on_at=act)
    if act != "save":
        fields, go_on_at = change_rows(sent, act)
        return _editor(request, session, project, fields, go_on_at=go_on_at)
    fields = without_blanks(sent)
    try:
        asked = parse_form(form_data(fields))
        require_seen(project, sent.get("version", ""))
        with session.begin_nested():
            projects.change_version(session, project, judgement_form=asked.model_dump(mode="json"), by=person)
    except (Invalid, Conflict) as error:
        return _editor(request, session, project, fields, refusal=error)
    return redirect(f"/projects/{project.slug}/admin/form?saved=1")


def _current(project: Project) -> JudgementForm:
    version = project.current_version
    return parse_form(version.judgement_form) if version else JudgementForm()


def _begun(project: Project, act: str) -> JudgementForm:
    """The ready-made form that `act` names, its names in the admin's language; else the project's own."""
    begun = ready_made(act.removeprefix("begin."))
    return _current(project) if begun is None else in_this_language(begun.form)


def _editor(
    request: Request,
    session: Session,
    project: Project,
    fields: Fields,
    *,
    refusal: Invalid | Conflict | None = None,
    go_on_at: str = "",
) -> HTMLResponse:
    beside, above = errors_by_field(refusal, fields)
    newest = newest_comparison(session, project.id)
    return admin_page(
        request,
        project,
        "form.html",
        "editor",
        section="form",
        status_code=refusal.status if refusal else 200,
        version=project.current_version,
        fields=fields,
        criteria=rows(fields, "criteria"),
        flags=rows(fields, "flags"),
        beside=beside,
        above=above,
        go_on_at=go_on_at,
        usual_flags=USUAL_FLAGS,
        ready_made=READY_MADE,
        standing=standing(session, project.id),
        newest=newest,
        sample_name=fields.get("sample", NEWEST if newest else "3"),
        made_up=MADE_UP,
    )


@router.get("/form/preview")
def preview_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """The desk as annotators see it now, before a sample."""
    return _preview(request, session, project, form_data(fields_of(_current(project))), NEWEST)


@router.post("/form/preview")
def preview(request: Request, session: Database, project: ProjectAdmin, sent: SentForm) -> HTMLResponse:
    """The desk as the sent form would make it; where it would not work, why."""
    return _preview(request, session, project, form_data(sent), sent.get("sample", NEWEST))


@router.post("/form/answer")
def answer(request: Request, session: Database, project: ProjectAdmin, sent: SentForm) -> HTMLResponse:
    """What a label would say, had an annotator filled in the preview like this; or why it would not be taken."""
    return _preview(request, session, project, _asked(sent), sent.get("sample", NEWEST), answered=sent)


def _asked(sent: Mapping[str, str]) -> dict[str, Any]:
    """The judgement form that the preview carries along. Raises Invalid for what is none."""
    try:
        asked = json.loads(sent.get("asked", ""))
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict):
        raise Invalid(_("The preview has lost its form. Open the page again."))
    return asked


def _preview(
    request: Request,
    session: Session,
    project: Project,
    data: dict[str, Any],
    sample_name: str,
    answered: Mapping[str, str] | None = None,
) -> HTMLResponse:
    """A page of its own, which the editor's page shows in a frame: there the desk's styles and keys are its own."""
    context: dict[str, Any] = {"asked": None, "said": None, "refusal": None, "filled": sent_fields(answered or {})}
    try:
        asked = parse_form(data)
        sample = sample_of(newest_comparison(session, project.id), project, asked, sample_name)
        context |= {"asked": asked, "sample": sample, "view": sample.view, "asked_json": asked.model_dump_json()}
        if answered is not None:
            context["said"] = _said(asked, sample, answered)
    except Invalid as error:
        context["refusal"] = str(error)
    shown = page(request, "admin/form_preview.html", "preview", project=project, **context)
    shown.status_code = 422 if context["refusal"] else 200
    return shown


def _said(asked: JudgementForm, sample: Sample, sent: Mapping[str, str]) -> str:
    """The answer as it would be stored. Raises Invalid where it would be refused."""
    groups, said = read_answer(asked, sample.view.responses, sent)
    checked = answers.check(asked, sample.texts, groups, said)
    places: dict[int, list[int]] = {}
    for id_, rank in checked.ranks.items():
        places.setdefault(rank, []).append(id_)
    stored = {"groups": [places[rank] for rank in sorted(places)], "answers": checked.answers}
    return _laid_out(stored)


def _laid_out(value: object, indent: int = 0) -> str:
    """JSON to be read: the outer objects with a line for each key, what is inside them on one line."""
    if not isinstance(value, dict) or not value or indent > 2:
        return json.dumps(value, ensure_ascii=False)
    inner = " " * (indent + 2)
    lines = [f"{inner}{json.dumps(key)}: {_laid_out(item, indent + 2)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + "\n" + " " * indent + "}"

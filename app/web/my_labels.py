"""What did I say? An annotator's own labels, to look at and to change at any time."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.domain import drafts, labels, projects, queue
from app.domain.judgement import parse_form
from app.domain.progress import progress
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Label, Membership, Project
from app.web.answer_form import SentForm, fields_of, read_answer, read_seconds, sent_fields
from app.web.numbers import Id
from app.web.pages import page, redirect
from app.web.session import Database, Member, MemberProject

router = APIRouter(prefix="/projects/{slug}/labels")

PAGE_ROWS = 20


@router.get("")
def my_labels(
    request: Request,
    session: Database,
    project: MemberProject,
    member: Member,
    before: Id | None = None,
    saved: Id | None = None,
) -> Response:
    """One's labels, newest first."""
    rows = labels.my_labels(session, project.id, member.id, before, PAGE_ROWS + 1)
    return page(
        request,
        "desk/labels.html",
        project=project,
        member=member,
        labels=rows[:PAGE_ROWS],
        more=rows[PAGE_ROWS - 1].id if len(rows) > PAGE_ROWS else None,
        before=before,
        saved=saved,
        progress=progress(session, project.id, member.id),
        forms=projects.forms_by_version(session, project.id),
    )


@router.get("/{label_id}")
def edit_page(request: Request, session: Database, project: MemberProject, member: Member, label_id: Id) -> Response:
    """One's label on the desk, as it stands, or as it was being changed."""
    label = labels.get_label(session, project.id, label_id, member.id)
    if label.withdrawn_at is not None:
        raise Conflict(_("This label was withdrawn and cannot be changed."))
    return _show(request, session, project, member, label)


def _show(
    request: Request,
    session: Session,
    project: Project,
    member: Membership,
    label: Label,
    *,
    status: int = 200,
    **context: object,
) -> Response:
    view = queue.view(session, queue.get_assignment(session, label.assignment_id, member.id))
    revision = label.revisions[-1]
    draft = drafts.read(session, label.assignment_id, revision.number)
    shown = {
        "view": view,
        "asked": parse_form(view.project_version.judgement_form),
        "filled": drafts.filled(draft) if draft else fields_of(revision),
        "draft": draft,
        "error": None,
    }
    answer = page(request, "desk/label.html", "desk", project=project, member=member, label=label, **(shown | context))
    answer.status_code = status
    return answer


@router.post("/{label_id}")
def edit(
    request: Request, session: Database, project: MemberProject, member: Member, label_id: Id, form: SentForm
) -> Response:
    """Change one's answer; the earlier one stays as a revision."""
    assignment_id = labels.get_label(session, project.id, label_id, member.id).assignment_id
    view = queue.view(session, queue.get_assignment(session, assignment_id, member.id))
    try:
        groups, answers = read_answer(parse_form(view.project_version.judgement_form), view.responses, form)
        labels.revise(session, label_id, member.id, groups, answers=answers, seconds=read_seconds(form))
    except Invalid as error:
        label = labels.get_label(session, project.id, label_id, member.id)
        told = {"filled": sent_fields(form), "error": str(error)}
        return _show(request, session, project, member, label, status=error.status, **told)
    drafts.drop(session, assignment_id)
    return redirect(f"/projects/{project.slug}/labels?saved={label_id}")

"""What did I say? An annotator's own labels, to look at and to change at any time."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.domain import labels, queue
from app.domain.progress import progress
from app.errors import Invalid
from app.tables import Label, Membership, Project
from app.web.numbers import Id
from app.web.pages import page, redirect
from app.web.ranking_form import SentForm, places_of, read_groups, read_places, read_seconds
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
    )


@router.get("/{label_id}")
def edit_page(request: Request, session: Database, project: MemberProject, member: Member, label_id: Id) -> Response:
    """One's label on the desk, as it stands."""
    label = labels.get_label(session, project.id, label_id, member.id)
    return _show(request, session, project, member, label, places=places_of(label.revisions[-1].ranks))


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
    assignment = queue.get_assignment(session, label.assignment_id, member.id)
    answer = page(
        request,
        "desk/label.html",
        "desk",
        project=project,
        member=member,
        label=label,
        view=queue.view(session, assignment),
        **{"error": None, **context},
    )
    answer.status_code = status
    return answer


@router.post("/{label_id}")
def edit(
    request: Request, session: Database, project: MemberProject, member: Member, label_id: Id, form: SentForm
) -> Response:
    """Change one's answer; the earlier one stays as a revision."""
    try:
        labels.revise(session, label_id, member.id, read_groups(form), seconds=read_seconds(form))
    except Invalid as error:
        label = labels.get_label(session, project.id, label_id, member.id)
        return _show(request, session, project, member, label, status=422, places=read_places(form), error=str(error))
    return redirect(f"/projects/{project.slug}/labels?saved={label_id}")

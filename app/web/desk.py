"""How does an annotator work? The desk: one comparison after the other, ranked, skipped or kept alive."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy.orm import Session

from app.domain import consent, labels, queue
from app.domain.progress import progress
from app.errors import Conflict, ConsentNeeded, Invalid
from app.tables import Assignment, Membership, Project
from app.web.numbers import Id
from app.web.pages import page, redirect
from app.web.ranking_form import SentForm, read_groups, read_places, read_seconds
from app.web.session import Database, Member, MemberProject

router = APIRouter(prefix="/projects/{slug}")

SKIP_REASONS = (
    "I cannot judge this",
    "The responses are all alike",
    "All responses are unusable",
    "The prompt makes no sense",
    "It is harmful or upsetting",
)


@router.get("/desk")
def desk(request: Request, session: Database, project: MemberProject, member: Member, kept: str = "") -> Response:
    """The annotator's live comparison or the next one; where there is none, why."""
    try:
        found = queue.next_assignment(session, project.id, member.id)
    except ConsentNeeded:
        return redirect(f"/projects/{project.slug}/consent")
    if isinstance(found, queue.EmptyQueue):
        return _page(request, session, project, member, empty=found, kept=kept)
    return _show(request, session, project, member, found, kept=kept)


def _show(
    request: Request, session: Session, project: Project, member: Membership, assignment: Assignment, **context: object
) -> Response:
    view = queue.view(session, assignment)
    return _page(request, session, project, member, view=view, skip_reasons=SKIP_REASONS, **context)


def _page(request: Request, session: Session, project: Project, member: Membership, **context: object) -> Response:
    last = labels.my_labels(session, project.id, member.id, limit=1)
    context = {"places": {}, "error": None, "last_label": last[0] if last else None} | context
    return page(
        request,
        "desk/desk.html",
        "desk",
        project=project,
        member=member,
        progress=progress(session, project.id, member.id),
        **context,
    )


@router.post("/assignments/{assignment_id}/label")
def label(
    request: Request, session: Database, project: MemberProject, member: Member, assignment_id: Id, form: SentForm
) -> Response:
    """Answer an assignment and go on to the next."""
    assignment = queue.get_assignment(session, assignment_id, member.id)
    try:
        taken = labels.submit(session, assignment_id, member.id, read_groups(form), seconds=read_seconds(form))
    except Invalid as error:
        answer = _show(request, session, project, member, assignment, places=read_places(form), error=str(error))
        answer.status_code = error.status
        return answer
    return redirect(f"/projects/{project.slug}/desk{'?kept=surplus' if taken.surplus else ''}")


@router.post("/assignments/{assignment_id}/skip")
def skip(
    session: Database,
    project: MemberProject,
    member: Member,
    assignment_id: Id,
    reason: Annotated[str, Form()] = "",
    note: Annotated[str, Form()] = "",
) -> Response:
    """Hand an assignment back and go on to the next."""
    why = ": ".join(part.strip() for part in (reason, note) if part.strip())
    queue.skip(session, assignment_id, member.id, why)
    return redirect(f"/projects/{project.slug}/desk")


@router.post("/assignments/{assignment_id}/heartbeat")
def heartbeat(session: Database, project: MemberProject, member: Member, assignment_id: Id) -> Response:
    """The annotator is still at it: the lease begins anew. For the page's script, which wants the seconds left."""
    queue.heartbeat(session, assignment_id, member.id)
    view = queue.view(session, queue.get_assignment(session, assignment_id, member.id))
    return JSONResponse({"project": project.slug, "seconds_left": view.seconds_left})


@router.get("/guidelines")
def guidelines(request: Request, project: MemberProject, member: Member) -> Response:
    """The project's guidelines on a page of their own."""
    return page(request, "desk/guidelines.html", project=project, member=member, version=project.current_version)


@router.get("/consent")
def consent_page(request: Request, session: Database, project: MemberProject, member: Member) -> Response:
    """What annotators agree to before they label."""
    version = project.current_version
    assert version is not None
    if not version.consent_text:
        return redirect(f"/projects/{project.slug}/desk")
    given = consent.is_given(session, member.id, version)
    return page(request, "desk/consent.html", project=project, member=member, version=version, is_given=given)


@router.post("/consent")
def accept_consent(
    session: Database, project: MemberProject, member: Member, version_id: Annotated[Id, Form()]
) -> Response:
    """Accept the text that was read, unless a new one has come meanwhile."""
    version = project.current_version
    if version is None or version.id != version_id:
        raise Conflict("The text has changed meanwhile. Open the page again and read it once more.")
    consent.accept(session, member.id, version)
    return redirect(f"/projects/{project.slug}/desk")

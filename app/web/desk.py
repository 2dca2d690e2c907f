"""How does an annotator work? The desk: one comparison after the other, judged, skipped or kept alive."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import consent, drafts, labels, queue
from app.domain.consistency import shown_consistency
from app.domain.empty_queue import EmptyQueue
from app.domain.judgement import parse_form
from app.domain.progress import last_label, progress
from app.errors import Conflict, ConsentNeeded, Invalid, ReadingNeeded
from app.language import gettext as _
from app.language import mark
from app.tables import Assignment, AssignmentState, Label, Membership, Project
from app.web.answer_form import SentForm, read_answer, read_seconds, sent_fields
from app.web.json_body import SentObject
from app.web.numbers import Id
from app.web.pages import page, redirect, wants_json
from app.web.session import Database, Member, MemberProject

router = APIRouter(prefix="/projects/{slug}")

SKIP_REASONS = (
    mark("I cannot judge this"),
    mark("The responses are all alike"),
    mark("All responses are unusable"),
    mark("The prompt makes no sense"),
    mark("It is harmful or upsetting"),
)


@router.get("/desk")
def desk(
    request: Request,
    session: Database,
    project: MemberProject,
    member: Member,
    after: Annotated[list[Id], Query(max_length=100)] = [],  # noqa: B006 - FastAPI copies it
    kept: str = "",
) -> Response:
    """The annotator's live comparison or the next one; where there is none, why.

    `after` names the assignments that the page has at hand already, and asks for the one that comes after them.
    """
    try:
        found = queue.next_assignment(session, project.id, member.id, after=after, is_read=False)
    except (ConsentNeeded, ReadingNeeded):
        if not after:
            return redirect(f"/projects/{project.slug}/consent")
        found = EmptyQueue("to_read")
    if isinstance(found, EmptyQueue):
        return _page(request, session, project, member, empty=found, kept=kept)
    return _show(request, session, project, member, found, kept=kept)


@router.get("/assignments/{assignment_id}")
def assignment_page(
    request: Request, session: Database, project: MemberProject, member: Member, assignment_id: Id
) -> Response:
    """The desk with this assignment, whatever became of it: of one that was answered, its label."""
    asked = _own(session, member, assignment_id)
    if asked.state is AssignmentState.SUBMITTED:
        label_id = session.scalars(select(Label.id).where(Label.assignment_id == asked.id)).one()
        return redirect(f"/projects/{project.slug}/labels/{label_id}")
    return _show(request, session, project, member, asked)


def _own(session: Session, member: Membership, assignment_id: int) -> Assignment:
    """What stands for this assignment now. Raises NotFound for other people's."""
    return queue.standing(session, queue.get_assignment(session, assignment_id, member.id))


def _show(
    request: Request, session: Session, project: Project, member: Membership, assignment: Assignment, **context: object
) -> Response:
    view = queue.view(session, assignment)
    draft = drafts.read(session, assignment.id)
    shown = {
        "view": view,
        "asked": parse_form(view.project_version.judgement_form),
        "draft": draft,
        "filled": drafts.filled(draft) if draft else {},
        "skip_reasons": SKIP_REASONS,
    }
    return _page(request, session, project, member, **(shown | context))


def _page(request: Request, session: Session, project: Project, member: Membership, **context: object) -> Response:
    return page(
        request,
        "desk/desk.html",
        "desk",
        project=project,
        member=member,
        progress=progress(session, project.id, member.id),
        consistency=shown_consistency(session, project, member.id),
        last_label=last_label(session, member.id),
        **({"view": None, "empty": None, "filled": {}, "draft": None, "error": None, "kept": ""} | context),
    )


@router.post("/assignments/{assignment_id}/label")
def label(
    request: Request, session: Database, project: MemberProject, member: Member, assignment_id: Id, form: SentForm
) -> Response:
    """Answer an assignment and go on to the next."""
    assignment = queue.get_assignment(session, assignment_id, member.id)
    view = queue.view(session, assignment)
    try:
        groups, answers = read_answer(parse_form(view.project_version.judgement_form), view.responses, form)
        seconds = read_seconds(form)
        taken = labels.submit(session, assignment_id, member.id, groups, answers=answers, seconds=seconds)
    except Invalid as error:
        if wants_json(request):
            raise
        answer = _show(request, session, project, member, assignment, filled=sent_fields(form), error=str(error))
        answer.status_code = error.status
        return answer
    if wants_json(request):
        return _counts(session, project, member, label_id=taken.label.id, surplus=taken.surplus)
    return redirect(f"/projects/{project.slug}/desk{'?kept=surplus' if taken.surplus else ''}")


@router.post("/assignments/{assignment_id}/skip")
def skip(
    request: Request,
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
    if wants_json(request):
        return _counts(session, project, member, skipped=True)
    return redirect(f"/projects/{project.slug}/desk")


def _counts(session: Session, project: Project, member: Membership, **told: object) -> JSONResponse:
    """What became of an act, and how far they have come by it: for the page that shows the next one already."""
    return JSONResponse(told | asdict(progress(session, project.id, member.id)))


@router.put("/assignments/{assignment_id}/draft", status_code=204)
def save_draft(session: Database, member: Member, assignment_id: Id, sent: SentObject) -> Response:
    """Keep what the form holds, until it is sent."""
    drafts.save(
        session,
        _own(session, member, assignment_id),
        fields=sent.get("fields"),
        seconds=sent.get("seconds", 0),
        sequence=sent.get("sequence"),
        revision=sent.get("revision", 0),
    )
    return Response(status_code=204)


@router.delete("/assignments/{assignment_id}/draft", status_code=204)
def drop_draft(session: Database, member: Member, assignment_id: Id) -> Response:
    """Forget what the form held: a change that is wanted no more."""
    drafts.drop(session, _own(session, member, assignment_id).id)
    return Response(status_code=204)


@router.post("/assignments/{assignment_id}/heartbeat")
def heartbeat(session: Database, project: MemberProject, member: Member, assignment_id: Id) -> Response:
    """The annotator is still at it: the leases begin anew. For the page's script, which wants the seconds left."""
    queue.heartbeat(session, assignment_id, member.id)
    view = queue.view(session, queue.get_assignment(session, assignment_id, member.id))
    return JSONResponse({"project": project.slug, "seconds_left": view.seconds_left})


@router.get("/guidelines")
def guidelines(request: Request, project: MemberProject, member: Member) -> Response:
    """The project's guidelines on a page of their own."""
    return page(request, "desk/guidelines.html", project=project, member=member, version=project.current_version)


@router.get("/consent")
def consent_page(request: Request, session: Database, project: MemberProject, member: Member) -> Response:
    """What annotators read and agree to before they label."""
    version = project.current_version
    assert version is not None
    if not (version.consent_text or version.guidelines):
        return redirect(f"/projects/{project.slug}/desk")
    asked = consent.asked_of(session, member.id, version)
    return page(request, "desk/consent.html", project=project, member=member, version=version, asked=asked)


@router.post("/consent")
def accept_consent(
    session: Database, project: MemberProject, member: Member, version_id: Annotated[Id, Form()]
) -> Response:
    """Accept what was read, unless something new has come meanwhile."""
    version = project.current_version
    if version is None or version.id != version_id:
        raise Conflict(_("The text has changed meanwhile. Open the page again and read it once more."))
    consent.accept(session, member.id, version)
    consent.read(session, member.id, version)
    return redirect(f"/projects/{project.slug}/desk")

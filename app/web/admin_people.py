"""Who works here? Members and their pace, invite links that are shown once, taking people out."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from app.config import settings
from app.domain import agreement, labels, overview, people, projects
from app.errors import Invalid, NotFound
from app.language import gettext as _
from app.tables import Project, Role
from app.web.admin_page import admin_page
from app.web.numbers import Id, decimal, whole
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


@router.get("/people")
def people_page(request: Request, session: Database, project: ProjectAdmin, person: SignedIn) -> HTMLResponse:
    """The project's members and open invites."""
    return _page(request, session, project, you=person)


@router.post("/people/invites")
def invite(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    role: Annotated[Role, Form()],
    max_uses: Annotated[str, Form()] = "1",
    days: Annotated[str, Form()] = "14",
) -> HTMLResponse:
    """Make an invite. Its link is in this answer alone: only a hash of it is stored, so there is no redirect."""
    try:
        _invite, secret = people.create_invite(
            session,
            project_id=project.id,
            role=role,
            created_by=person,
            max_uses=whole(max_uses, _("The number of uses"), 1, people.MOST_USES),
            days=whole(days, _("The number of days"), 1, people.MOST_DAYS),
        )
    except Invalid as error:
        return _page(request, session, project, you=person, status_code=error.status, error=str(error))
    link = f"{settings().base_url.rstrip('/')}/invites/{secret}"
    answer = _page(request, session, project, you=person, status_code=201, link=link)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/people/invites/{invite_id}/revoke")
def revoke(session: Database, project: ProjectAdmin, person: SignedIn, invite_id: Id) -> Response:
    """Make an invite's link useless."""
    people.revoke_invite(session, project.id, invite_id, person)
    return redirect(f"/projects/{project.slug}/admin/people?saved=1")


@router.post("/people/{membership_id}/role")
def set_role(
    session: Database, project: ProjectAdmin, person: SignedIn, membership_id: Id, role: Annotated[Role, Form()]
) -> Response:
    """Make a member an admin or an annotator."""
    found = {member.id: who for member, who in people.list_members(session, project.id)}.get(membership_id)
    if found is None:
        raise NotFound(_("There is no such member in this project."))
    people.add_member(session, project, found, role, by=person)
    return redirect(f"/projects/{project.slug}/admin/people?saved=1")


@router.post("/people/{membership_id}/weight")
def set_label_weight(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    membership_id: Id,
    weight: Annotated[str, Form()] = "",
) -> Response:
    """Say how much a member's labels count where reward models go by given weights."""
    try:
        number = decimal(weight, _("The weight"), 0, people.MOST_WEIGHT)
    except Invalid as error:
        return _page(request, session, project, you=person, status_code=error.status, error=str(error))
    people.set_label_weight(session, project.id, membership_id, number, person)
    return redirect(f"/projects/{project.slug}/admin/people?saved=1")


@router.post("/people/{membership_id}/remove")
def remove(session: Database, project: ProjectAdmin, person: SignedIn, membership_id: Id) -> Response:
    """Take a member out of the project; their labels stay."""
    people.remove_member(session, project.id, membership_id, person)
    return redirect(f"/projects/{project.slug}/admin/people?saved=1")


@router.post("/people/{membership_id}/withdraw")
def withdraw(session: Database, project: ProjectAdmin, person: SignedIn, membership_id: Id) -> Response:
    """Take all labels of a member back for good, as the member asked."""
    labels.withdraw_annotator(session, people.get_member(session, project.id, membership_id), by=person)
    return redirect(f"/projects/{project.slug}/admin/people?saved=1")


def _page(request: Request, session: Session, project: Project, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "people.html",
        section="people",
        status_code=status_code,
        members=people.list_members(session, project.id),
        former=people.list_members(session, project.id, former=True),
        invites=people.list_invites(session, project.id),
        paces=overview.paces(session, project.id),
        by_annotator=agreement.pairwise_agreement(session, project.id).by_annotator,
        roles=Role,
        most_weight=people.MOST_WEIGHT,
        gives_weights=projects.settings_of(project).reward.annotators == "given",
        **told,
    )

"""How does a person come in, and leave? By password, by one-time link, by invite."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.domain import overview, people, projects
from app.domain import sign_in as identity
from app.errors import Conflict, Invalid, TooManyTries
from app.language import gettext as _
from app.language import language_of
from app.tables import Person, Role
from app.web.languages import keep_language
from app.web.pages import local_path, page, redirect
from app.web.session import SESSION_COOKIE, Database, SignedIn, Visit, client_of, keep_signed_in, keep_visitor

router = APIRouter()


def _enter(session: Session, person: Person, path: str) -> Response:
    _session, secret = identity.open_session(session, person)
    answer = redirect(path)
    keep_signed_in(answer, secret)
    if chosen := language_of(person.language):
        keep_language(answer, chosen)
    return answer


def _form(request: Request, template: str, *, status: int = 200, **context: Any) -> Response:
    answer = page(request, f"sign_in/{template}", **context)
    answer.status_code = status
    keep_visitor(request, answer)
    return answer


@router.get("/sign-in")
def sign_in_page(request: Request, visit: Visit, next: str | None = None) -> Response:  # noqa: A002 - the field's name
    """The form for e-mail and password."""
    if visit is not None:
        return redirect(local_path(next))
    return _form(request, "sign_in.html", next=local_path(next), email="")


@router.post("/sign-in")
def sign_in(
    request: Request,
    session: Database,
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str | None, Form()] = None,  # noqa: A002 - the field's name
) -> Response:
    """Sign in by password."""
    try:
        person = identity.sign_in(session, email, password, client=client_of(request))
    except TooManyTries as error:
        return _form(request, "sign_in.html", status=error.status, next=local_path(next), email=email, error=str(error))
    if person is None:
        wrong = _("This e-mail address and password do not belong together.")
        return _form(request, "sign_in.html", status=401, next=local_path(next), email=email, error=wrong)
    return _enter(session, person, local_path(next))


@router.post("/sign-out")
def sign_out(session: Database, visit: Visit) -> Response:
    """End this browser's session."""
    if visit is not None:
        identity.close_session(session, visit[0])
    answer = redirect("/sign-in")
    answer.delete_cookie(SESSION_COOKIE)
    return answer


@router.get("/link/{secret}")
def link_page(request: Request, secret: str) -> Response:
    """A one-time link. A button uses it up, since mail programs open links to look at them."""
    return _form(request, "link.html", secret=secret)


@router.post("/link/{secret}")
def use_link(session: Database, secret: str) -> Response:
    """Sign in by a one-time link."""
    return _enter(session, identity.use_sign_in_link(session, secret), "/")


@router.get("/invites/{secret}")
def invite_page(request: Request, session: Database, secret: str) -> Response:
    """What the invite is for, and the form to accept it."""
    return _invite(request, session, secret)


def _invite(request: Request, session: Session, secret: str, *, status: int = 200, **context: str) -> Response:
    invite = people.read_invite(session, secret)
    project = projects.get_project(session, invite.project_id) if invite.project_id is not None else None
    context = {"name": "", "email": "", "error": ""} | context
    return _form(
        request,
        "invite.html",
        status=status,
        secret=secret,
        project=project,
        is_admin=invite.role is Role.ADMIN,
        shortest_password=people.SHORTEST_PASSWORD,
        **context,
    )


@router.post("/invites/{secret}")
def accept_invite(
    request: Request,
    session: Database,
    secret: str,
    visit: Visit,
    name: Annotated[str, Form()] = "",
    email: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
) -> Response:
    """Join: as a new person, or as the one who is signed in."""
    if visit is not None:
        people.join_by_invite(session, secret, visit[1])
        return redirect("/")
    try:
        person = people.accept_invite(session, secret, email=email, name=name, password=password)
    except (Conflict, Invalid) as error:
        return _invite(request, session, secret, status=error.status, name=name, email=email, error=str(error))
    return _enter(session, person, "/")


@router.get("/")
def start(request: Request, session: Database, person: SignedIn) -> Response:
    """The person's projects. Who has one desk and nothing else goes straight to it."""
    mine = []
    for project in projects.list_projects(session, person):
        member = people.membership(session, project.id, person.id)
        mine.append((project, person.is_owner or (member is not None and member.role is Role.ADMIN)))
    if len(mine) == 1 and not mine[0][1]:
        return redirect(f"/projects/{mine[0][0].slug}/desk")
    administered = [project for project, is_admin in mine if is_admin]
    return page(request, "projects.html", projects=mine, counts=overview.project_counts(session, administered))

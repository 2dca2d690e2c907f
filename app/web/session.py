"""Who asks, and may they? The session dependency, the signed-in person, and their place in a project."""

import secrets
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import Response
from sqlalchemy.orm import Session

from app.config import settings
from app.database import get_session
from app.domain import people, projects, sign_in
from app.errors import NotAllowed, NotSignedIn
from app.language import gettext as _
from app.tables import Membership, Person, Project, WebSession

SESSION_COOKIE = "prefloop_session"
VISITOR_COOKIE = "prefloop_visitor"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Database = Annotated[Session, Depends(get_session, scope="function")]


@dataclass(frozen=True)
class Visitor:
    """Who is signed in, in plain values that error pages can show after the transaction is gone."""

    person_id: int
    name: str
    is_owner: bool


def _visit(request: Request, session: Database) -> tuple[WebSession, Person] | None:
    """The browser session of the request, noted in `request.state` for the templates."""
    secret = request.cookies.get(SESSION_COOKIE)
    found = sign_in.session_of(session, secret) if secret else None
    if found is None:
        # Before signing in, a form proves that it is ours by repeating this browser's own random cookie.
        request.state.csrf = request.cookies.get(VISITOR_COOKIE) or secrets.token_urlsafe(16)
        request.state.visitor = None
    else:
        web_session, person = found
        request.state.csrf = web_session.csrf_token
        request.state.visitor = Visitor(person.id, person.name or "", person.is_owner)
    return found


Visit = Annotated[tuple[WebSession, Person] | None, Depends(_visit)]


async def forbid_forgery(request: Request, visit: Visit) -> None:
    """Refuse a post whose form is not from one of our pages: every form carries the session's token.

    Raises NotAllowed, or NotSignedIn where nobody is signed in.
    """
    if request.method in _SAFE:
        return
    sent = request.headers.get("x-csrf-token")
    if sent is None:
        field = (await request.form()).get("csrf")
        sent = field if isinstance(field, str) else ""
    expected = request.state.csrf if visit or VISITOR_COOKIE in request.cookies else ""
    if expected and secrets.compare_digest(sent.encode(), expected.encode()):
        return
    if visit is None:
        raise NotSignedIn(_("You are not signed in, or were signed out meanwhile. Sign in and try again."))
    raise NotAllowed(_("This form has gone stale, or is not from here. Open the page again and send it once more."))


def _person(visit: Visit) -> Person:
    if visit is None:
        raise NotSignedIn(_("You are not signed in. Sign in and try again."))
    return visit[1]


SignedIn = Annotated[Person, Depends(_person)]


def _project(session: Database, slug: str, person: SignedIn) -> Project:
    """The project of the address, for its members: strangers do not learn that it exists."""
    project = projects.get_project(session, slug)
    people.require_member(session, project.id, person)
    return project


MemberProject = Annotated[Project, Depends(_project)]


def _member(session: Database, project: MemberProject, person: SignedIn) -> Membership:
    return people.require_member(session, project.id, person)


Member = Annotated[Membership, Depends(_member)]


def _administered(session: Database, project: MemberProject, person: SignedIn) -> Project:
    people.require_admin(session, project.id, person)
    return project


ProjectAdmin = Annotated[Project, Depends(_administered)]


def administered_project(request: Request, session: Session) -> Project:
    """What ProjectAdmin finds, for those who must know it before FastAPI reads the form.

    Raises NotSignedIn, NotFound, NotAllowed.
    """
    person = _person(_visit(request, session))
    return _administered(session, _project(session, request.path_params["slug"], person), person)


def client_of(request: Request) -> str:
    """The network address that the request comes from."""
    return request.client.host if request.client else ""


def keep_signed_in(answer: Response, secret: str) -> None:
    """Give the browser its session's cookie."""
    set_cookie(answer, SESSION_COOKIE, secret, settings().session_days * 24 * 3600)


def keep_visitor(request: Request, answer: Response) -> None:
    """Give a browser that is not signed in the cookie that its forms repeat."""
    if request.cookies.get(VISITOR_COOKIE) != request.state.csrf:
        set_cookie(answer, VISITOR_COOKIE, request.state.csrf, None)


def set_cookie(answer: Response, name: str, value: str, max_age: int | None) -> None:
    """Give the browser a cookie for this server alone, for so many seconds or until it is closed."""
    answer.set_cookie(
        name, value, max_age=max_age, httponly=True, samesite="lax", secure=settings().secure_cookies, path="/"
    )

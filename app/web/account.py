"""Who am I here? A person's own password and API tokens."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from app.domain import people, sign_in
from app.errors import Invalid, TooManyTries
from app.language import gettext as _
from app.tables import Person
from app.web.numbers import Id
from app.web.pages import page, redirect
from app.web.session import Database, SignedIn, client_of, keep_signed_in

router = APIRouter()


@router.get("/account")
def account_page(request: Request, session: Database, person: SignedIn) -> HTMLResponse:
    """The person's tokens and password form."""
    return _page(request, session, person)


@router.post("/account/tokens")
def create_token(
    request: Request, session: Database, person: SignedIn, name: Annotated[str, Form()] = ""
) -> HTMLResponse:
    """Make a token. It is in this answer alone: only a hash of it is stored, so there is no redirect."""
    try:
        _token, secret = sign_in.create_token(session, person, name)
    except Invalid as error:
        return _page(request, session, person, status_code=error.status, token_error=str(error))
    answer = _page(request, session, person, status_code=201, secret=secret)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/account/tokens/{token_id}/revoke")
def revoke_token(session: Database, person: SignedIn, token_id: Id) -> Response:
    """Make a token useless."""
    sign_in.revoke_token(session, token_id, person)
    return redirect("/account?saved=1")


@router.post("/account/password")
def set_password(
    request: Request,
    session: Database,
    person: SignedIn,
    current: Annotated[str, Form()] = "",
    new: Annotated[str, Form()] = "",
) -> Response:
    """Change the password, which signs every browser out, and sign this one in again."""
    try:
        known = person.password_hash is None or sign_in.sign_in(
            session, person.email or "", current, client=client_of(request)
        )
        if not known:
            wrong = _("The current password is wrong.")
            return _page(request, session, person, status_code=422, password_error=wrong)
        people.set_password(session, person, new, by=person)
    except (Invalid, TooManyTries) as error:
        return _page(request, session, person, status_code=error.status, password_error=str(error))
    _session, secret = sign_in.open_session(session, person)
    answer = redirect("/account?saved=1")
    keep_signed_in(answer, secret)
    return answer


def _page(request: Request, session: Session, person: Person, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    answer = page(
        request,
        "admin/account.html",
        person=person,
        tokens=sign_in.list_tokens(session, person),
        shortest_password=people.SHORTEST_PASSWORD,
        **told,
    )
    answer.status_code = status_code
    return answer

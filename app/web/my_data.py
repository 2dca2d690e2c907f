"""What is stored about me, and how do I get rid of it? To look at, to take along, to withdraw, to erase."""

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from sqlalchemy.orm import Session

from app.database import reading
from app.domain import my_data, people
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Person
from app.web.numbers import Id
from app.web.pages import page, redirect
from app.web.session import SESSION_COOKIE, Database, SignedIn

router = APIRouter(prefix="/account")


@router.get("/data")
def data_page(request: Request, session: Database, person: SignedIn) -> HTMLResponse:
    """What is stored about the person, in every project."""
    return _page(request, session, person)


@router.get("/data.json")
def download(person: SignedIn) -> StreamingResponse:
    """All of it as JSON, streamed."""
    return StreamingResponse(
        _pieces(person.id),
        media_type="application/json",
        headers={"Content-Disposition": 'attachment; filename="my-data.json"', "Cache-Control": "no-store"},
    )


def _pieces(person_id: int) -> Iterator[str]:
    # The request's own session is closed by the time this runs.
    with reading() as session:
        yield from my_data.as_json(session, people.get_person(session, person_id))


@router.post("/data/withdraw")
def withdraw(
    request: Request,
    session: Database,
    person: SignedIn,
    membership_id: Annotated[Id, Form()],
    name: Annotated[str, Form()] = "",
) -> Response:
    """Take back all one's labels in a project; its typed name says that it is meant."""
    try:
        my_data.withdraw(session, person, membership_id, name)
    except Invalid as error:
        refused = (membership_id, str(error))
        return _page(request, session, person, status_code=error.status, refused_withdrawal=refused)
    return redirect("/account/data?withdrawn=1")


@router.post("/erase")
def erase(request: Request, session: Database, person: SignedIn, email: Annotated[str, Form()] = "") -> Response:
    """Erase oneself for good; the typed e-mail address says that it is meant."""
    try:
        if email.strip().lower() != person.email:
            raise Invalid(_("This is not your e-mail address, so nothing was erased."))
        people.erase_person(session, person, by=person)
    except (Invalid, Conflict) as error:
        return _page(request, session, person, status_code=error.status, erase_error=str(error))
    answer = redirect("/sign-in")
    answer.delete_cookie(SESSION_COOKIE)
    return answer


def _page(request: Request, session: Session, person: Person, *, status_code: int = 200, **told: Any) -> HTMLResponse:
    context = {"refused_withdrawal": None, "erase_error": None, **told}
    answer = page(request, "admin/my_data.html", person=person, parts=my_data.parts(session, person), **context)
    answer.status_code = status_code
    return answer

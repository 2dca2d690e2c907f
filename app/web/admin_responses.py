"""What was answered, and by whom? Responses: browse and take out of new comparisons."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app import tables
from app.domain import policies, responses
from app.errors import Invalid
from app.tables import Project, ResponseSource, ResponseState
from app.web.admin_page import PAGE_ROWS, Filter, admin_page, back_to, chosen, listing
from app.web.numbers import Id
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


class ResponseFilter(Filter):
    """What the list of responses is narrowed to."""

    search: str | None = None
    source: ResponseSource | None = None
    state: ResponseState | None = None
    policy_id: Id | None = None
    prompt_id: Id | None = None


class ResponseChange(BaseModel):
    """One bulk act on responses."""

    act: Literal["retire", "reopen"]
    ids: list[Id] = []
    everything: bool = False


Asked = Annotated[ResponseFilter, Query()]


@router.get("/responses")
def list_page(
    request: Request, session: Database, project: ProjectAdmin, asked: Asked, changed: Id | None = None
) -> HTMLResponse:
    """The responses that match a filter."""
    return _page(request, session, project, asked, changed=changed)


@router.post("/responses/change")
def change(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    asked: Asked,
    sent: Annotated[ResponseChange, Form()],
) -> Response:
    """Retire or reopen the ticked responses, or all that match the filter."""
    act = {"retire": responses.retire_responses, "reopen": responses.reopen_responses}[sent.act]
    try:
        ids = chosen(sent.ids, sent.everything, lambda after, limit: _find(session, project, asked, after, limit))
    except Invalid as error:
        return _page(request, session, project, asked, status_code=error.status, error=str(error))
    return back_to(request, f"/projects/{project.slug}/admin/responses", changed=act(session, project.id, ids, person))


def _find(
    session: Session, project: Project, asked: ResponseFilter, after: int | None, limit: int
) -> Sequence[tables.Response]:
    return responses.list_responses(session, project.id, **asked.asked, after_id=after, limit=limit)


def _page(
    request: Request,
    session: Session,
    project: Project,
    asked: ResponseFilter,
    *,
    status_code: int = 200,
    **told: object,
) -> HTMLResponse:
    rows = _find(session, project, asked, asked.after, PAGE_ROWS + 1)
    return admin_page(
        request,
        project,
        "responses.html",
        "results",
        section="responses",
        status_code=status_code,
        asked=asked,
        found=listing(request, rows, key=lambda response: response.id),
        matching=responses.count_responses(session, project.id, **asked.asked),
        policies={policy.id: policy for policy in policies.list_policies(session, project.id)},
        sources=ResponseSource,
        states=ResponseState,
        **told,
    )

"""What did people say, and does it count? Labels: browse, exclude with a reason, include again."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.domain import labels, people, projects
from app.errors import Invalid
from app.tables import Comparison, Label, Project
from app.web.admin_page import PAGE_ROWS, Filter, admin_page, back_to, chosen, listing
from app.web.numbers import Id
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()
LETTERS = "ABCDEFGHI"


class LabelFilter(Filter):
    """What the list of labels is narrowed to."""

    search: str | None = None
    annotator_id: Id | None = None
    comparison_id: Id | None = None
    excluded: bool | None = None


class LabelChange(BaseModel):
    """One bulk act on labels."""

    act: Literal["exclude", "include"]
    ids: list[Id] = []
    everything: bool = False
    reason: str = ""


Asked = Annotated[LabelFilter, Query()]


@router.get("/labels")
def list_page(
    request: Request, session: Database, project: ProjectAdmin, asked: Asked, changed: Id | None = None
) -> HTMLResponse:
    """The labels that match a filter."""
    return _page(request, session, project, asked, changed=changed)


@router.post("/labels/change")
def change(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    asked: Asked,
    sent: Annotated[LabelChange, Form()],
) -> Response:
    """Exclude or include the ticked labels, or all that match the filter."""
    try:
        ids = chosen(sent.ids, sent.everything, lambda after, limit: _find(session, project, asked, after, limit))
        if sent.act == "exclude":
            changed = labels.exclude(session, project.id, ids, sent.reason, person)
        else:
            changed = labels.include(session, project.id, ids, person)
    except Invalid as error:
        return _page(request, session, project, asked, status_code=error.status, error=str(error), reason=sent.reason)
    return back_to(request, f"/projects/{project.slug}/admin/labels", changed=changed)


def annotator_names(session: Session, project: Project) -> dict[int, str | None]:
    """The names behind the annotator ids of those who are in the project now."""
    return {member.id: person.name for member, person in people.list_members(session, project.id)}


def letters(comparison: Comparison) -> dict[int, str]:
    """What the admin's pages call the responses of a comparison: the letters of their places, the same for all."""
    return {member.response_id: LETTERS[member.place] for member in comparison.members}


def _find(session: Session, project: Project, asked: LabelFilter, after: int | None, limit: int) -> Sequence[Label]:
    return labels.list_labels(session, project.id, **asked.asked, after_id=after, limit=limit)


def _page(
    request: Request,
    session: Session,
    project: Project,
    asked: LabelFilter,
    *,
    status_code: int = 200,
    **told: object,
) -> HTMLResponse:
    rows = _find(session, project, asked, asked.after, PAGE_ROWS + 1)
    return admin_page(
        request,
        project,
        "labels.html",
        "results",
        section="labels",
        status_code=status_code,
        asked=asked,
        found=listing(request, rows, key=lambda label: label.id),
        names=annotator_names(session, project),
        letters=letters,
        forms=projects.forms_by_version(session, project.id),
        **told,
    )

"""Which work is there, how far has it come, and how is it steered? Comparisons: browse, look into one, change many."""

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, people, policies, projects, responses, rounds
from app.errors import Invalid
from app.language import gettext as _
from app.tables import Comparison, ComparisonState, Person, Project, Purpose
from app.web.admin_labels import annotator_names, letters
from app.web.admin_page import PAGE_ROWS, Filter, admin_page, back_to, chosen, listing
from app.web.numbers import Id, whole
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


class ComparisonFilter(Filter):
    """What the list of comparisons is narrowed to."""

    search: str | None = None
    state: ComparisonState | None = None
    purpose: Purpose | None = None
    progress: Literal["untouched", "started", "done"] | None = None
    round_id: Id | None = None
    prompt_id: Id | None = None


class ComparisonChange(BaseModel):
    """One bulk act on comparisons; `act` is the button that was pressed."""

    act: Literal["priority", "k", "assignees", "pause", "close", "reopen", "retire"]
    ids: list[Id] = []
    everything: bool = False
    priority: str = ""
    k: str = ""
    assignees: list[Id] = []


Asked = Annotated[ComparisonFilter, Query()]


@router.get("/comparisons")
def list_page(
    request: Request, session: Database, project: ProjectAdmin, asked: Asked, changed: Id | None = None
) -> HTMLResponse:
    """The comparisons that match a filter."""
    return _page(request, session, project, asked, changed=changed)


@router.get("/comparisons/{comparison_id}")
def detail_page(
    request: Request, session: Database, project: ProjectAdmin, comparison_id: Id, changed: Id | None = None
) -> HTMLResponse:
    """One comparison with every answer to it, annotator beside annotator."""
    answers = labels.list_labels(session, project.id, comparison_id=comparison_id, limit=1000)
    comparison = comparisons.get_comparison(session, project.id, comparison_id)
    versions = {policy.id: policy.version for policy in policies.list_policies(session, project.id)}
    return admin_page(
        request,
        project,
        "comparison.html",
        section="comparisons",
        comparison=comparison,
        labels=answers,
        ranks={label.id: {rank.response_id: rank.rank for rank in label.revisions[-1].ranks} for label in answers},
        letters=letters(comparison),
        forms=projects.forms_by_version(session, project.id),
        names=annotator_names(session, project),
        versions=versions,
        assignees=comparisons.assignees_of(session, comparison),
        withdrawn=responses.withdrawn(session, project.id),
        changed=changed,
    )


@router.post("/comparisons/change")
def change(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    asked: Asked,
    sent: Annotated[ComparisonChange, Form()],
    back: Id | None = None,
) -> Response:
    """Do something to the ticked comparisons, or to all that match the filter."""
    try:
        ids = chosen(sent.ids, sent.everything, lambda after, limit: _find(session, project, asked, after, limit))
        with session.begin_nested():
            changed = _change(session, project, person, ids, sent)
    except Invalid as error:
        return _page(request, session, project, asked, status_code=error.status, error=str(error))
    here = f"/projects/{project.slug}/admin/comparisons"
    return redirect(f"{here}/{back}?changed={changed}") if back else back_to(request, here, changed=changed)


def _change(session: Session, project: Project, person: Person, ids: list[int], sent: ComparisonChange) -> int:
    match sent.act:
        case "priority":
            wanted = whole(
                sent.priority, _("The priority"), -comparisons.HIGHEST_PRIORITY, comparisons.HIGHEST_PRIORITY
            )
            return comparisons.set_priority(session, project.id, ids, wanted, person)
        case "k":
            return comparisons.set_k(session, project.id, ids, whole(sent.k, "k", 1, comparisons.MOST_LABELS), person)
        case "assignees":
            return comparisons.set_assignees(session, project.id, ids, sent.assignees, person)
    acts = {
        "pause": comparisons.pause,
        "close": comparisons.close,
        "reopen": comparisons.reopen,
        "retire": comparisons.retire,
    }
    return acts[sent.act](session, project.id, ids, person)


def _find(
    session: Session, project: Project, asked: ComparisonFilter, after: int | None, limit: int
) -> Sequence[Comparison]:
    return comparisons.list_comparisons(session, project.id, **asked.asked, after_id=after, limit=limit)


def _page(
    request: Request,
    session: Session,
    project: Project,
    asked: ComparisonFilter,
    *,
    status_code: int = 200,
    **told: object,
) -> HTMLResponse:
    rows = _find(session, project, asked, asked.after, PAGE_ROWS + 1)
    return admin_page(
        request,
        project,
        "comparisons.html",
        "results",
        section="comparisons",
        status_code=status_code,
        asked=asked,
        found=listing(request, rows, key=lambda comparison: comparison.id),
        rounds=rounds.list_rounds(session, project.id),
        members=people.list_members(session, project.id),
        states=ComparisonState,
        purposes=Purpose,
        **told,
    )

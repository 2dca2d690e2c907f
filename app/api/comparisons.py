"""What is there to compare, and how is it steered? Comparisons, filtered and changed in bulk."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator

from app.api.access import AdminProject, Caller, Database
from app.api.shapes import After, Id, Limit, Page, PathId, Received, Search, Shown, page_of
from app.domain import comparisons
from app.tables import Comparison, ComparisonState, Purpose

router = APIRouter(tags=["comparisons"])


class ComparisonShown(Shown):
    """A unit of labelling work: of `k` labels `openings` are free, `submitted` are there, the rest is leased."""

    id: int
    prompt_id: int
    round_id: int | None
    purpose: Purpose
    state: ComparisonState
    k: int
    openings: int
    submitted: int
    priority: int
    selected_because: str
    selection_probability: float | None
    gold_groups: list[list[int]] | None
    response_ids: list[int]
    created_at: datetime

    @classmethod
    def of(cls, row: object) -> Self:
        """The comparison with its responses' ids."""
        assert isinstance(row, Comparison)
        columns: dict[str, Any] = {column.key: getattr(row, column.key) for column in Comparison.__table__.columns}
        return cls(**columns, response_ids=[member.response_id for member in row.members])


class ComparisonChange(Received):
    """What to change, and on which comparisons. Fields that are left out stay as they are."""

    ids: list[Id] = Field(min_length=1, max_length=10_000)
    priority: int | None = Field(
        default=None,
        ge=-comparisons.HIGHEST_PRIORITY,
        le=comparisons.HIGHEST_PRIORITY,
        description="Higher is handed out first.",
    )
    k: int | None = Field(
        default=None,
        ge=1,
        le=comparisons.MOST_LABELS,
        description="Labels wanted; never below those there or leased.",
    )
    assignees: list[Id] | None = Field(default=None, description="Annotator ids; an empty list opens it to all.")
    state: Literal["open", "paused", "closed", "retired"] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.priority is None and self.k is None and self.assignees is None and self.state is None:
            raise ValueError("name something to change: priority, k, assignees or state")
        return self


class Changed(BaseModel):
    """How many comparisons each change has altered; those that were so already do not count."""

    changed: dict[str, int]


@router.get("/projects/{project}/comparisons")
def list_comparisons(
    session: Database,
    project: AdminProject,
    state: ComparisonState | None = None,
    purpose: Purpose | None = None,
    round_id: Id | None = None,
    progress: Annotated[
        Literal["untouched", "started", "done"] | None, Query(description="How far its labels have come.")
    ] = None,
    prompt_id: Id | None = None,
    search: Search = None,
    after: After = 0,
    limit: Limit = 100,
) -> Page[ComparisonShown]:
    """Comparisons by id."""
    rows = comparisons.list_comparisons(
        session,
        project.id,
        state=state,
        purpose=purpose,
        round_id=round_id,
        progress=progress,
        search=search,
        prompt_id=prompt_id,
        after_id=after,
        limit=limit,
    )
    return page_of(rows, limit, ComparisonShown.of)


@router.get("/projects/{project}/comparisons/{comparison_id}")
def get_comparison(session: Database, project: AdminProject, comparison_id: PathId) -> ComparisonShown:
    """One comparison."""
    return ComparisonShown.of(comparisons.get_comparison(session, project.id, comparison_id))


@router.patch("/projects/{project}/comparisons")
def change_comparisons(session: Database, project: AdminProject, person: Caller, change: ComparisonChange) -> Changed:
    """Change many comparisons at once: all of them or, on an error, none."""
    changed: dict[str, int] = {}
    if change.priority is not None:
        changed["priority"] = comparisons.set_priority(session, project.id, change.ids, change.priority, person)
    if change.k is not None:
        changed["k"] = comparisons.set_k(session, project.id, change.ids, change.k, person)
    if change.assignees is not None:
        changed["assignees"] = comparisons.set_assignees(session, project.id, change.ids, change.assignees, person)
    if change.state is not None:
        acts = {
            "open": comparisons.reopen,
            "paused": comparisons.pause,
            "closed": comparisons.close,
            "retired": comparisons.retire,
        }
        changed["state"] = acts[change.state](session, project.id, change.ids, person)
    return Changed(changed=changed)

"""What was answered? Responses, for admins only: they name their writers."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field

from app.api.access import AdminProject, Database
from app.api.shapes import After, Id, Limit, Page, Search, Shown, page_of
from app.domain import responses
from app.tables import FinishReason, ResponsePurpose, ResponseSource, ResponseState

router = APIRouter(tags=["prompts and responses"])


class ResponseShown(Shown):
    """A response and where it comes from."""

    id: int
    prompt_id: int
    text: str
    source: ResponseSource
    purpose: ResponsePurpose
    state: ResponseState
    policy_id: int | None
    system: str | None
    author_id: int | None = Field(description="A pseudonym: the membership of the person who wrote it.")
    corrects_id: int | None = Field(description="The response that a person corrected by writing this one.")
    run_id: int | None
    finish_reason: FinishReason
    token_ids: list[int] | None
    sampling: dict[str, Any] | None
    seed: int | None
    details: dict[str, Any]
    created_at: datetime


@router.get("/projects/{project}/responses")
def list_responses(
    session: Database,
    project: AdminProject,
    search: Search = None,
    source: ResponseSource | None = None,
    state: ResponseState | None = None,
    policy_id: Annotated[Id | None, Query(description="Only what this policy wrote.")] = None,
    prompt_id: Annotated[Id | None, Query(description="Only answers to this prompt.")] = None,
    after: After = 0,
    limit: Limit = 100,
) -> Page[ResponseShown]:
    """Responses by id."""
    rows = responses.list_responses(
        session,
        project.id,
        search=search,
        source=source,
        policy_id=policy_id,
        prompt_id=prompt_id,
        state=state,
        after_id=after,
        limit=limit,
    )
    return page_of(rows, limit, ResponseShown.of)

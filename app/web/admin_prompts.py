"""What is asked? Prompts: browse, look into one, edit it as a new version, retire and reopen many."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.domain import comparisons, policies, prompts, responses
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.tables import Project, Prompt, PromptState, Split
from app.web.admin_page import PAGE_ROWS, Filter, admin_page, back_to, chosen, listing
from app.web.numbers import Id
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()
_SHOWN = 200


class PromptFilter(Filter):
    """What the list of prompts is narrowed to."""

    search: str | None = None
    split: Split | None = None
    state: PromptState | None = None


class PromptChange(BaseModel):
    """One bulk act on prompts."""

    act: Literal["retire", "reopen"]
    ids: list[Id] = []
    everything: bool = False


@dataclass(frozen=True)
class Turn:
    """A message in its form; `parts` says that the content is JSON, a list of content parts."""

    role: str
    content: str
    parts: bool = False


class PromptEdit(BaseModel):
    """A conversation as its form sends it: turn by turn. Turns without content are left out."""

    role: list[str]
    content: list[str]
    parts: list[bool]

    def turns(self) -> list[Turn]:
        """The turns that say something."""
        sent = zip(self.role, self.content, self.parts, strict=False)
        return [Turn(role, content, parts) for role, content, parts in sent if content.strip()]

    def messages(self) -> list[dict[str, Any]]:
        """The turns as messages. Raises Invalid."""
        return [
            {"role": turn.role, "content": _parts(turn.content) if turn.parts else turn.content.replace("\r\n", "\n")}
            for turn in self.turns()
        ]


def _turns(messages: Sequence[dict[str, Any]]) -> list[Turn]:
    return [
        Turn(message["role"], message["content"])
        if isinstance(message["content"], str)
        else Turn(message["role"], json.dumps(message["content"], ensure_ascii=False, indent=2), parts=True)
        for message in messages
    ]


def _parts(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Invalid(_("The content parts are no valid JSON: %(reason)s.", reason=error)) from None


Asked = Annotated[PromptFilter, Query()]


@router.get("/prompts")
def list_page(
    request: Request, session: Database, project: ProjectAdmin, asked: Asked, changed: Id | None = None
) -> HTMLResponse:
    """The prompts that match a filter."""
    return _page(request, session, project, asked, changed=changed)


@router.post("/prompts/change")
def change(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    asked: Asked,
    sent: Annotated[PromptChange, Form()],
) -> Response:
    """Retire or reopen the ticked prompts, or all that match the filter."""
    act = {"retire": prompts.retire_prompts, "reopen": prompts.reopen_prompts}[sent.act]
    try:
        ids = chosen(sent.ids, sent.everything, lambda after, limit: _find(session, project, asked, after, limit))
    except Invalid as error:
        return _page(request, session, project, asked, status_code=error.status, error=str(error))
    return back_to(request, f"/projects/{project.slug}/admin/prompts", changed=act(session, project.id, ids, person))


@router.get("/prompts/{prompt_id}")
def detail_page(request: Request, session: Database, project: ProjectAdmin, prompt_id: Id) -> HTMLResponse:
    """One prompt with its responses and comparisons."""
    prompt = prompts.get_prompt(session, project.id, prompt_id)
    return _detail(request, session, project, prompt, turns=_turns(prompt.messages))


@router.post("/prompts/{prompt_id}")
def edit(
    request: Request,
    session: Database,
    project: ProjectAdmin,
    person: SignedIn,
    prompt_id: Id,
    sent: Annotated[PromptEdit, Form()],
) -> Response:
    """Store the prompt's next version; the old one is retired."""
    prompt = prompts.get_prompt(session, project.id, prompt_id)
    try:
        with session.begin_nested():
            edited = prompts.edit_prompt(session, prompt, sent.messages(), person)
    except (Invalid, Conflict) as error:
        return _detail(
            request, session, project, prompt, turns=sent.turns(), status_code=error.status, error=str(error)
        )
    return redirect(f"/projects/{project.slug}/admin/prompts/{edited.id}?saved=1")


def _find(session: Session, project: Project, asked: PromptFilter, after: int | None, limit: int) -> Sequence[Prompt]:
    return prompts.list_prompts(session, project.id, **asked.asked, after_id=after, limit=limit)


def _page(
    request: Request,
    session: Session,
    project: Project,
    asked: PromptFilter,
    *,
    status_code: int = 200,
    **told: object,
) -> HTMLResponse:
    rows = _find(session, project, asked, asked.after, PAGE_ROWS + 1)
    return admin_page(
        request,
        project,
        "prompts.html",
        "results",
        section="prompts",
        status_code=status_code,
        asked=asked,
        found=listing(request, rows, key=lambda prompt: prompt.id),
        matching=prompts.count_prompts(session, project.id, **asked.asked),
        splits=Split,
        states=PromptState,
        **told,
    )


def _detail(
    request: Request, session: Session, project: Project, prompt: Prompt, *, status_code: int = 200, **told: Any
) -> HTMLResponse:
    return admin_page(
        request,
        project,
        "prompt.html",
        section="prompts",
        status_code=status_code,
        prompt=prompt,
        newer=prompts.newer_version(session, prompt),
        roles=prompts.ROLES,
        responses=responses.list_responses(session, project.id, prompt_id=prompt.id, limit=_SHOWN),
        comparisons=comparisons.list_comparisons(session, project.id, prompt_id=prompt.id, limit=_SHOWN),
        policies={policy.id: policy for policy in policies.list_policies(session, project.id)},
        **told,
    )

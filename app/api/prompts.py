"""How do prompts and ready-made responses come in, and what is there? In bulk, and page by page."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, status
from pydantic import BaseModel, Field

from app.api.access import AdminProject, Caller, Database
from app.api.shapes import After, Limit, Page, PathId, Received, Search, Shown, page_of
from app.domain import audit, imports, projects, prompts, responses
from app.errors import Invalid, InvalidImport
from app.tables import PromptState, Split

router = APIRouter(tags=["prompts and responses"])

_LONGEST = 1_000_000  # characters of one text


class Message(Received):
    """One turn of a conversation."""

    role: str = Field(min_length=1, max_length=50, examples=["user"])
    content: Annotated[str, Field(max_length=_LONGEST)] | list[dict[str, Any]] = Field(
        description="Text, or a list of content parts.", examples=["Once there was a fox who could not sleep."]
    )


class ResponseReceived(Received):
    """A ready-made response."""

    text: str = Field(min_length=1, max_length=_LONGEST)
    system: str | None = Field(default=None, max_length=200, description="Who wrote it. Annotators never see this.")
    details: dict[str, Any] = Field(default={})


class PromptReceived(Received):
    """A prompt, and the responses to it that are there already."""

    prompt: Annotated[str, Field(min_length=1, max_length=_LONGEST)] | Annotated[list[Message], Field(min_length=1)] = (
        Field(description="A conversation, or one message of a user as plain text.")
    )
    id: str | None = Field(default=None, max_length=200, description="Its name where it comes from.")
    group: str | None = Field(
        default=None, max_length=500, description="Prompts of one group share a split. Left out: the first message."
    )
    details: dict[str, Any] = Field(default={})
    responses: list[Annotated[str, Field(min_length=1, max_length=_LONGEST)] | ResponseReceived] = Field(
        default=[], max_length=100
    )


class PromptsReceived(Received):
    """Prompts in bulk: all are taken or, on an error, none."""

    prompts: list[PromptReceived] = Field(
        min_length=1,
        max_length=1000,
        examples=[
            [
                {
                    "prompt": "Once there was a fox who could not sleep.",
                    "responses": ["She counted the stars.", {"text": "She sang a song.", "system": "model-b"}],
                }
            ]
        ],
    )
    compare: bool = Field(
        default=True, description="Make a comparison of the responses where a prompt has two different ones or more."
    )


class PromptsTaken(BaseModel):
    """What became of them."""

    prompt_ids: list[int] = Field(description="One for each prompt sent, in order.")
    added: int = Field(description="Prompts that are new.")
    known: int = Field(description="Prompts that were there already, word by word; their responses are added to them.")
    responses: int = Field(description="Responses that are new.")
    comparisons: int = Field(description="Comparisons that are new.")


class PromptShown(Shown):
    """A prompt."""

    id: int
    messages: list[Any]
    group_key: str
    split: Split
    state: PromptState
    version: int
    replaces_id: int | None
    external_id: str | None
    details: dict[str, Any]
    created_at: datetime


@router.get("/projects/{project}/prompts")
def list_prompts(
    session: Database,
    project: AdminProject,
    search: Search = None,
    split: Split | None = None,
    state: PromptState | None = None,
    after: After = 0,
    limit: Limit = 100,
) -> Page[PromptShown]:
    """Prompts by id."""
    rows = prompts.list_prompts(
        session, project.id, search=search, split=split, state=state, after_id=after, limit=limit
    )
    return page_of(rows, limit, PromptShown.of)


@router.get("/projects/{project}/prompts/{prompt_id}")
def get_prompt(session: Database, project: AdminProject, prompt_id: PathId) -> PromptShown:
    """One prompt."""
    return PromptShown.of(prompts.get_prompt(session, project.id, prompt_id))


@router.post("/projects/{project}/prompts", status_code=status.HTTP_201_CREATED)
def add_prompts(session: Database, project: AdminProject, person: Caller, body: PromptsReceived) -> PromptsTaken:
    """Take in prompts and ready-made responses. Sending the same again doubles nothing."""
    items = [_new_prompt(received) for received in body.prompts]
    _check_each(items)
    added = prompts.add_prompts(session, project, items)
    wanted = projects.settings_of(project).k
    opened = imports.open_comparisons(session, project, added.responses, wanted) if body.compare else 0
    counted = {"added": added.added, "responses": added.added_responses, "comparisons": opened}
    audit.record(session, "prompt.add", project_id=project.id, by=person, details=counted)
    return PromptsTaken(
        prompt_ids=[prompt.id for prompt in added.prompts],
        added=added.added,
        known=added.known,
        responses=added.added_responses,
        comparisons=opened,
    )


def _new_prompt(received: PromptReceived) -> prompts.NewPrompt:
    said = received.prompt
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else [turn.model_dump() for turn in said]
    given = [ResponseReceived(text=one) if isinstance(one, str) else one for one in received.responses]
    return prompts.NewPrompt(
        messages=messages,
        group_key=received.group,
        external_id=received.id,
        details=received.details,
        responses=tuple(responses.NewResponse(one.text, one.system, one.details) for one in given),
    )


def _check_each(items: list[prompts.NewPrompt]) -> None:
    """Refuse all prompts if some cannot be taken, saying which and why."""
    errors: list[dict[str, object]] = []
    for index, item in enumerate(items):
        try:
            prompts.check_messages(item.messages)
            for response in item.responses:
                responses.check_response(response)
        except Invalid as error:
            errors.append({"index": index, "reason": str(error)})
    if errors:
        first = errors[0]
        message = f"Nothing was taken: {len(errors)} prompts are bad. Prompt {first['index']}: {first['reason']}."
        raise InvalidImport(message, details={"errors": errors[:100]})

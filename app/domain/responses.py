"""What was answered? Responses that came with imports or were written by people, and how all are found again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.domain import audit, texts
from app.domain.filters import IS_WITHDRAWN, one_of
from app.domain.writable import require_writable
from app.errors import Invalid, NotFound
from app.language import gettext as _
from app.language import grouped
from app.tables import (
    FinishReason,
    Person,
    Prompt,
    Response,
    ResponsePurpose,
    ResponseSource,
    ResponseState,
)

LONGEST_TEXT = 200_000


@dataclass(frozen=True)
class NewResponse:
    """A response to be stored; `system` names who wrote it and is never shown to annotators.

    `corrects_id` is the response that a person corrected by writing this one.
    """

    text: str
    system: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: FinishReason = FinishReason.ENDED
    corrects_id: int | None = None


def check_response(new: NewResponse) -> None:
    """Raise Invalid where a response is empty, too long or cannot be kept."""
    if not new.text.strip():
        raise Invalid(_("a response is empty"))
    if len(new.text) > LONGEST_TEXT:
        raise Invalid(_("a response is longer than %(longest)s characters", longest=grouped(LONGEST_TEXT)))
    if found := texts.flaw([new.text, new.system, dict(new.details)]):
        raise Invalid(_("a response cannot be kept: %(reason)s", reason=found))


def add_responses(
    session: Session,
    prompt: Prompt,
    items: Sequence[NewResponse],
    *,
    source: ResponseSource = ResponseSource.IMPORTED,
    import_id: int | None = None,
    author_id: int | None = None,
) -> list[Response]:
    """Store responses to a prompt and return a row for each distinct text; a text that the prompt has is not doubled.

    `author_id` is the membership of a person who wrote them. Raises Invalid.
    """
    rows, _added = add_to_prompts(session, [(prompt, items)], source=source, import_id=import_id, author_id=author_id)
    return rows[0]


def add_to_prompts(
    session: Session,
    items: Sequence[tuple[Prompt, Sequence[NewResponse]]],
    *,
    source: ResponseSource = ResponseSource.IMPORTED,
    import_id: int | None = None,
    author_id: int | None = None,
) -> tuple[list[list[Response]], int]:
    """The same for many prompts of one project at once: the rows of each item, and how many rows are new."""
    for _prompt, news in items:
        for new in news:
            check_response(new)
    prompt_ids = sorted({prompt.id for prompt, _ in items})
    # Locked, so that the same file imported twice at the same time is stored once.
    session.execute(
        select(Prompt.id).where(Prompt.id.in_(prompt_ids)).order_by(Prompt.id).with_for_update(key_share=True)
    )
    known = _active_by_text(session, prompt_ids)
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for prompt, news in items:
        for new in news:
            key = (prompt.id, texts.sha256(new.text))
            if key not in known and key not in rows:
                rows[key] = {
                    "project_id": prompt.project_id,
                    "prompt_id": prompt.id,
                    "source": source,
                    "purpose": ResponsePurpose.LABELLING,
                    "state": ResponseState.ACTIVE,
                    "import_id": import_id,
                    "author_id": author_id,
                    "corrects_id": new.corrects_id,
                    "system": new.system,
                    "text": new.text,
                    "finish_reason": new.finish_reason,
                    "content_hash": key[1],
                    "details": dict(new.details),
                }
    added = (
        session.scalars(insert(Response).returning(Response, sort_by_parameter_order=True), list(rows.values()))
        if rows
        else ()
    )
    stored = {(row.prompt_id, row.content_hash): row for row in added} | known
    answers = [
        [stored[key] for key in dict.fromkeys((prompt.id, texts.sha256(new.text)) for new in news)]
        for prompt, news in items
    ]
    return answers, len(rows)


def _active_by_text(session: Session, prompt_ids: Sequence[int]) -> dict[tuple[int, str], Response]:
    query = (
        select(Response)
        .where(
            Response.prompt_id.in_(prompt_ids),
            Response.state == ResponseState.ACTIVE,
            Response.purpose == ResponsePurpose.LABELLING,
        )
        .order_by(Response.id.desc())
    )
    return {(row.prompt_id, row.content_hash): row for row in session.scalars(query)}


def list_responses(
    session: Session,
    project_id: int,
    *,
    search: str | None = None,
    source: ResponseSource | None = None,
    policy_id: int | None = None,
    prompt_id: int | None = None,
    state: ResponseState | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> Sequence[Response]:
    """A project's responses in the order they came, those after `after_id`; what was withdrawn is not shown."""
    where = _matching(project_id, search=search, source=source, policy_id=policy_id, prompt_id=prompt_id, state=state)
    query = select(Response).where(*where)
    if after_id is not None:
        query = query.where(Response.id > after_id)
    return session.scalars(query.order_by(Response.id).limit(limit)).all()


def count_responses(
    session: Session,
    project_id: int,
    *,
    search: str | None = None,
    source: ResponseSource | None = None,
    policy_id: int | None = None,
    prompt_id: int | None = None,
    state: ResponseState | None = None,
) -> int:
    """How many responses `list_responses` would list in all."""
    where = _matching(project_id, search=search, source=source, policy_id=policy_id, prompt_id=prompt_id, state=state)
    return session.scalar(select(func.count()).select_from(Response).where(*where)) or 0


def _matching(
    project_id: int,
    *,
    search: str | None,
    source: ResponseSource | None,
    policy_id: int | None,
    prompt_id: int | None,
    state: ResponseState | None,
) -> list[ColumnElement[bool]]:
    where = [Response.project_id == project_id, ~IS_WITHDRAWN]
    if search:
        where.append(texts.contains(Response.text, search))
    if source is not None:
        where.append(Response.source == source)
    if policy_id is not None:
        where.append(Response.policy_id == policy_id)
    if prompt_id is not None:
        where.append(Response.prompt_id == prompt_id)
    if state is not None:
        where.append(Response.state == state)
    return where


def get_response(session: Session, project_id: int, response_id: int) -> Response:
    """A response of the project, unless it was withdrawn. Raises NotFound."""
    own = (Response.project_id == project_id, Response.id == response_id, ~IS_WITHDRAWN)
    response = session.scalar(select(Response).where(*own))
    if response is None:
        raise NotFound(_("There is no response %(number)s in this project.", number=response_id))
    return response


def withdrawn(session: Session, project_id: int) -> set[int]:
    """The ids of a project's responses that their writers withdrew: where they are named, their texts are not shown."""
    return set(session.scalars(select(Response.id).where(Response.project_id == project_id, IS_WITHDRAWN)))


def retire_responses(session: Session, project_id: int, ids: Iterable[int], by: Person | None) -> int:
    """Keep responses out of new comparisons; return how many changed."""
    return _set_state(session, project_id, ids, ResponseState.RETIRED, by)


def reopen_responses(session: Session, project_id: int, ids: Iterable[int], by: Person | None) -> int:
    """Let responses be compared again, but those that their writers withdrew; return how many changed."""
    return _set_state(session, project_id, ids, ResponseState.ACTIVE, by)


def _set_state(session: Session, project_id: int, ids: Iterable[int], state: ResponseState, by: Person | None) -> int:
    require_writable(session, project_id)
    changed = session.scalars(
        update(Response)
        .where(
            Response.project_id == project_id, one_of(Response.id, list(ids)), Response.state != state, ~IS_WITHDRAWN
        )
        .values(state=state)
        .returning(Response.id)
    ).all()
    verb = "retire" if state is ResponseState.RETIRED else "reopen"
    for response_id in changed:
        audit.record(session, f"response.{verb}", project_id=project_id, by=by, subject_id=response_id)
    session.flush()
    return len(changed)

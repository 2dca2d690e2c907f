"""What is asked? Prompts, their splits and their versions."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.domain import audit, responses, texts
from app.domain.filters import one_of, prompt_says
from app.domain.projects import settings_of
from app.domain.responses import NewResponse
from app.domain.writable import require_writable
from app.errors import Conflict, Invalid, NotFound
from app.language import gettext as _
from app.language import grouped, mark
from app.tables import (
    Assignment,
    Comparison,
    ComparisonState,
    Person,
    Project,
    Prompt,
    PromptState,
    Response,
    Split,
)

ROLES = (mark("system"), mark("user"), mark("assistant"), mark("tool"))
LONGEST_TEXT = 200_000
_CHUNK = 1_000

Message = Mapping[str, Any]


@dataclass(frozen=True)
class NewPrompt:
    """A prompt to be stored, with the responses that came with it.

    Prompts of one `group_key` share a split; without one, those that begin with the same words do.
    """

    messages: Sequence[Message]
    group_key: str | None = None
    external_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    responses: tuple[NewResponse, ...] = ()


@dataclass(frozen=True)
class AddedPrompts:
    """What became of some prompts: the row of each, in their order, the rows of its responses, and what is new."""

    prompts: list[Prompt]
    responses: list[list[Response]]
    added: int
    known: int
    added_responses: int


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as they are stored. Raises Invalid where they are no conversation that waits for an answer."""
    if not messages:
        raise Invalid(_("the prompt is empty"))
    kept = [_check_message(message) for message in messages]
    if kept[-1]["role"] not in {"user", "tool"}:
        raise Invalid(
            _("the prompt ends with a message of the %(role)s, so there is nothing to answer", role=kept[-1]["role"])
        )
    if found := texts.flaw(kept):
        raise Invalid(_("the prompt cannot be kept: %(reason)s", reason=found))
    if sum(len(str(message["content"])) for message in kept) > LONGEST_TEXT:
        raise Invalid(_("the prompt is longer than %(longest)s characters", longest=grouped(LONGEST_TEXT)))
    return kept


def _check_message(message: object) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise Invalid(_('a message must be an object with "role" and "content"'))
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise Invalid(_("a message's role is %(role)s; known are %(known)s", role=repr(role), known=", ".join(ROLES)))
    if isinstance(content, str):
        if not content.strip():
            raise Invalid(_("a message is empty"))
    elif not (isinstance(content, list) and content and all(_is_part(part) for part in content)):
        raise Invalid(_("a message's content must be a text or a list of content parts"))
    return {"role": role, "content": content}


def _is_part(part: object) -> bool:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        return False
    return part["type"] != "text" or isinstance(part.get("text"), str)


def split_of(group_key: str, validation_share: float, test_share: float) -> Split:
    """The split of a group: its hash as a number in [0, 1) falls into test, then validation, then train."""
    place = int.from_bytes(hashlib.sha256(group_key.encode()).digest()[:8], "big") / 2**64
    if place < test_share:
        return Split.TEST
    return Split.VALIDATION if place < test_share + validation_share else Split.TRAIN


def root_of(messages: Sequence[Message]) -> str:
    """The group key of a conversation that names none: the hash of its beginning, up to the first user message."""
    first_user = next((place for place, message in enumerate(messages) if message["role"] == "user"), 0)
    return texts.sha256(texts.canonical(messages[: first_user + 1]))


def add_prompts(
    session: Session, project: Project, items: Iterable[NewPrompt], *, import_id: int | None = None
) -> AddedPrompts:
    """Store prompts and their responses, in bulk. Content that is there already is known, not doubled.

    Raises Invalid; check_messages and responses.check_response tell beforehand what would be.
    """
    require_writable(session, project.id)
    prompts: list[Prompt] = []
    answers: list[list[Response]] = []
    added = added_responses = 0
    settings = settings_of(project)
    remaining = iter(items)
    while chunk := list(islice(remaining, _CHUNK)):
        rows = [_row(project.id, item, settings.validation_share, settings.test_share) for item in chunk]
        stored, new = _store(session, project.id, [{**row, "import_id": import_id} for row in rows])
        of_chunk = [stored[row["content_hash"]] for row in rows]
        of_responses, new_responses = responses.add_to_prompts(
            session,
            [(prompt, item.responses) for prompt, item in zip(of_chunk, chunk, strict=True)],
            import_id=import_id,
        )
        prompts += of_chunk
        answers += of_responses
        added += new
        added_responses += new_responses
    return AddedPrompts(prompts, answers, added, len(prompts) - added, added_responses)


def _row(project_id: int, item: NewPrompt, validation_share: float, test_share: float) -> dict[str, Any]:
    messages = check_messages(item.messages)
    if found := texts.flaw([item.group_key, item.external_id, dict(item.details)]):
        raise Invalid(_("the prompt's details cannot be kept: %(reason)s", reason=found))
    group_key = item.group_key or root_of(messages)
    return {
        "project_id": project_id,
        "messages": messages,
        "group_key": group_key,
        "split": split_of(group_key, validation_share, test_share),
        "state": PromptState.ACTIVE,
        "external_id": item.external_id,
        "details": dict(item.details),
        "content_hash": content_hash(messages),
    }


def content_hash(messages: Sequence[Message]) -> str:
    """The hash by which a project knows a prompt again."""
    return texts.sha256(texts.canonical(messages))


def _store(session: Session, project_id: int, rows: list[dict[str, Any]]) -> tuple[dict[str, Prompt], int]:
    """The active prompts of these rows by content hash, and how many of them are new."""
    inserting = insert(Prompt).on_conflict_do_nothing().returning(Prompt)
    new = {prompt.content_hash: prompt for prompt in session.scalars(inserting, rows)}
    others = {row["content_hash"] for row in rows} - set(new)
    known = session.scalars(
        select(Prompt).where(
            Prompt.project_id == project_id,
            Prompt.state == PromptState.ACTIVE,
            Prompt.content_hash.in_(others),
        )
    )
    return new | {prompt.content_hash: prompt for prompt in known}, len(new)


def list_prompts(
    session: Session,
    project_id: int,
    *,
    search: str | None = None,
    split: Split | None = None,
    state: PromptState | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> Sequence[Prompt]:
    """A project's prompts in the order they came, those after `after_id`."""
    query = select(Prompt).where(*_matching(project_id, search, split, state))
    if after_id is not None:
        query = query.where(Prompt.id > after_id)
    return session.scalars(query.order_by(Prompt.id).limit(limit)).all()


def count_prompts(
    session: Session,
    project_id: int,
    *,
    search: str | None = None,
    split: Split | None = None,
    state: PromptState | None = None,
) -> int:
    """How many prompts `list_prompts` would list in all."""
    where = _matching(project_id, search, split, state)
    return session.scalar(select(func.count()).select_from(Prompt).where(*where)) or 0


def _matching(
    project_id: int, search: str | None, split: Split | None, state: PromptState | None
) -> list[ColumnElement[bool]]:
    where = [Prompt.project_id == project_id]
    if search:
        where.append(prompt_says(search))
    if split is not None:
        where.append(Prompt.split == split)
    if state is not None:
        where.append(Prompt.state == state)
    return where


def get_prompt(session: Session, project_id: int, prompt_id: int) -> Prompt:
    """A prompt of the project. Raises NotFound."""
    prompt = session.scalar(select(Prompt).where(Prompt.project_id == project_id, Prompt.id == prompt_id))
    if prompt is None:
        raise NotFound(_("There is no prompt %(number)s in this project.", number=prompt_id))
    return prompt


def newer_version(session: Session, prompt: Prompt) -> Prompt | None:
    """The version that this prompt was edited into, if it was."""
    return session.scalar(select(Prompt).where(Prompt.replaces_id == prompt.id))


def edit_prompt(session: Session, prompt: Prompt, messages: Sequence[Message], by: Person | None) -> Prompt:
    """The prompt's next version, in the same split. The old one is retired with its comparisons that nobody started.

    Raises Invalid, and Conflict where it was edited or retired meanwhile or says what another prompt says.
    """
    require_writable(session, prompt.project_id)
    kept = check_messages(messages)
    session.refresh(prompt, with_for_update=True)
    if prompt.state is PromptState.RETIRED:
        raise Conflict(_("This prompt was edited or retired meanwhile: open its newest version."))
    if content_hash(kept) == prompt.content_hash:
        return prompt
    edited: Prompt | None = session.scalar(
        insert(Prompt)
        .values(
            project_id=prompt.project_id,
            messages=kept,
            group_key=prompt.group_key,
            split=prompt.split,
            state=PromptState.ACTIVE,
            version=prompt.version + 1,
            replaces_id=prompt.id,
            external_id=prompt.external_id,
            details=prompt.details,
            content_hash=content_hash(kept),
        )
        .on_conflict_do_nothing()
        .returning(Prompt)
    )
    if edited is None:
        raise Conflict(_("Another prompt of this project says exactly this already."))
    _retire(session, prompt.project_id, [prompt.id])
    details = {"replaces": prompt.id}
    audit.record(session, "prompt.edit", project_id=prompt.project_id, by=by, subject_id=edited.id, details=details)
    session.flush()
    return edited


def retire_prompts(session: Session, project_id: int, ids: Iterable[int], by: Person | None) -> int:
    """Take prompts out of new work, with their comparisons that nobody started; return how many changed."""
    require_writable(session, project_id)
    changed = _retire(session, project_id, ids)
    _audit_each(session, "prompt.retire", project_id, changed, by)
    return len(changed)


def _retire(session: Session, project_id: int, ids: Iterable[int]) -> Sequence[int]:
    changed = session.scalars(
        update(Prompt)
        .where(Prompt.project_id == project_id, one_of(Prompt.id, list(ids)), Prompt.state == PromptState.ACTIVE)
        .values(state=PromptState.RETIRED)
        .returning(Prompt.id)
    ).all()
    started = select(Assignment.id).where(Assignment.comparison_id == Comparison.id)
    session.execute(
        update(Comparison)
        .where(
            one_of(Comparison.prompt_id, changed),
            Comparison.state.in_([ComparisonState.OPEN, ComparisonState.PAUSED]),
            ~started.exists(),
        )
        .values(state=ComparisonState.RETIRED)
        .execution_options(synchronize_session=False)
    )
    return changed


def reopen_prompts(session: Session, project_id: int, ids: Iterable[int], by: Person | None) -> int:
    """Put prompts back to work, but those that a newer version or an equal prompt replaces; return how many changed."""
    require_writable(session, project_id)
    replaced = select(Prompt.replaces_id).where(Prompt.replaces_id.is_not(None), Prompt.project_id == project_id)
    candidates = session.scalars(
        select(Prompt)
        .where(
            Prompt.project_id == project_id,
            one_of(Prompt.id, list(ids)),
            Prompt.state == PromptState.RETIRED,
            Prompt.id.not_in(replaced),
        )
        .order_by(Prompt.id)
    ).all()
    active = set(
        session.scalars(
            select(Prompt.content_hash).where(
                Prompt.project_id == project_id,
                Prompt.state == PromptState.ACTIVE,
                Prompt.content_hash.in_([prompt.content_hash for prompt in candidates]),
            )
        )
    )
    changed = []
    for prompt in candidates:
        if prompt.content_hash not in active:
            active.add(prompt.content_hash)
            prompt.state = PromptState.ACTIVE
            changed.append(prompt.id)
    _audit_each(session, "prompt.reopen", project_id, changed, by)
    return len(changed)


def _audit_each(session: Session, action: str, project_id: int, ids: Sequence[int], by: Person | None) -> None:
    for prompt_id in ids:
        audit.record(session, action, project_id=project_id, by=by, subject_id=prompt_id)
    session.flush()

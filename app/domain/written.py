"""What becomes of what annotators write? Corrections and better answers are a person's responses to the prompt.

The prompt's row is locked first of all, before the membership and the comparison: whoever adds responses holds it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.domain import drafts, responses
from app.domain.filters import IS_NEWEST_REVISION, SHOWS_WITHDRAWN, one_of
from app.language import mark
from app.tables import (
    Comparison,
    ComparisonResponse,
    ComparisonState,
    Label,
    LabelRevision,
    Prompt,
    Response,
    ResponseSource,
    ResponseState,
)

Answers = Mapping[str, Any]

_WITHDRAWN = mark("It judges a response whose writer withdrew.")


def lock_prompt(session: Session, comparison_id: int) -> Prompt:
    """Lock the prompt of a comparison, so that nobody else adds to its responses or takes from them."""
    query = (
        select(Prompt)
        .join(Comparison, Comparison.prompt_id == Prompt.id)
        .where(Comparison.id == comparison_id)
        .with_for_update(key_share=True, of=Prompt)
    )
    return session.scalars(query).one()


def lock_prompts(session: Session, author_id: int) -> None:
    """Lock all prompts that a person wrote responses to, in the order of their ids."""
    theirs = select(Response.prompt_id).where(Response.author_id == author_id)
    session.execute(select(Prompt.id).where(Prompt.id.in_(theirs)).order_by(Prompt.id).with_for_update(key_share=True))


def is_written(answers: Answers) -> bool:
    """Whether an answer holds texts of the annotator's that become responses."""
    return "corrections" in answers or "written" in answers


def take_in(session: Session, prompt: Prompt, author_id: int, answers: Answers, before: Answers) -> dict[str, Any]:
    """Make responses of the texts in checked answers; return the answers with `response_id` beside each text.

    A text that the prompt has already, as an active response, is that response. A text that stood in the label
    `before` stays the response that it was, whatever became of it.
    """
    known = _ids_of(before)
    corrections = {int(id_): one["text"] for id_, one in answers.get("corrections", {}).items()}
    news = [responses.NewResponse(text, corrects_id=id_) for id_, text in corrections.items() if text not in known]
    if "written" in answers and answers["written"]["text"] not in known:
        news.append(responses.NewResponse(answers["written"]["text"]))
    rows = responses.add_responses(session, prompt, news, source=ResponseSource.PERSON, author_id=author_id)
    ids = known | {row.text: row.id for row in rows}
    taken = dict(answers)
    if corrections:
        taken["corrections"] = {str(id_): {"text": text, "response_id": ids[text]} for id_, text in corrections.items()}
    if "written" in answers:
        taken["written"] = {"text": answers["written"]["text"], "response_id": ids[answers["written"]["text"]]}
    return taken


def release(session: Session, prompt: Prompt, label_id: int, before: Answers, after: Answers) -> None:
    """Retire the responses that a label no longer writes, where no comparison shows them and nobody else wrote them."""
    dropped = set(_ids_of(before).values()) - set(_ids_of(after).values())
    if dropped:
        unused = dropped - _shown(session, dropped) - _written_by_others(session, prompt, label_id)
        is_theirs = (one_of(Response.id, sorted(unused)), Response.source == ResponseSource.PERSON)
        session.execute(update(Response).where(*is_theirs).values(state=ResponseState.RETIRED))


def _ids_of(answers: Answers) -> dict[str, int]:
    """The responses that stored answers write, by their texts."""
    ones = [*answers.get("corrections", {}).values(), *([answers["written"]] if "written" in answers else [])]
    return {one["text"]: one["response_id"] for one in ones}


def _shown(session: Session, response_ids: Iterable[int]) -> set[int]:
    query = select(ComparisonResponse.response_id)
    return set(session.scalars(query.where(one_of(ComparisonResponse.response_id, sorted(response_ids)))))


def _written_by_others(session: Session, prompt: Prompt, label_id: int) -> set[int]:
    """The responses that other labels on the prompt write, as they stand now."""
    query = (
        select(LabelRevision.answers)
        .join(Label, Label.id == LabelRevision.label_id)
        .join(Comparison, Comparison.id == Label.comparison_id)
        .where(
            Comparison.prompt_id == prompt.id, Label.id != label_id, Label.withdrawn_at.is_(None), IS_NEWEST_REVISION
        )
    )
    return {id_ for answers in session.scalars(query) for id_ in _ids_of(answers).values()}


def exclude_withdrawn(session: Session, label: Label) -> None:
    """Exclude an answer to a comparison one of whose writers withdrew while it was being judged."""
    if session.scalar(select(Comparison.id).where(Comparison.id == label.comparison_id, SHOWS_WITHDRAWN)) is not None:
        label.excluded_at = func.clock_timestamp()
        label.excluded_reason = _WITHDRAWN


def withdraw(session: Session, author_id: int) -> Sequence[int]:
    """Retire all that a person wrote, and close the comparisons that show it; return the ids of those comparisons.

    Labels that judge it are excluded, so that no export holds its text. Drafts of the person are thrown away.
    """
    drafts.forget(session, author_id)
    writing = update(Response).where(Response.author_id == author_id).values(state=ResponseState.RETIRED)
    ids = session.scalars(writing.returning(Response.id)).all()
    showing = select(ComparisonResponse.comparison_id).where(one_of(ComparisonResponse.response_id, ids)).distinct()
    comparison_ids = session.scalars(showing).all()
    session.execute(
        update(Comparison)
        .where(
            one_of(Comparison.id, comparison_ids),
            Comparison.state.in_((ComparisonState.OPEN, ComparisonState.PAUSED)),
        )
        .values(state=ComparisonState.CLOSED)
    )
    session.execute(
        update(Label)
        .where(one_of(Label.comparison_id, comparison_ids), Label.excluded_at.is_(None))
        .values(excluded_at=func.clock_timestamp(), excluded_reason=_WITHDRAWN)
    )
    return comparison_ids

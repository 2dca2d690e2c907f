"""Rows for tests of labelling: comparisons in a project with annotators, and answers to them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, projects, queue
from app.tables import (
    Assignment,
    Comparison,
    ComparisonResponse,
    FinishReason,
    Project,
    Prompt,
    PromptState,
    Purpose,
    Response,
    ResponsePurpose,
    ResponseSource,
    ResponseState,
    Split,
)
from tests.factories import make_member, make_project

_numbers = count(1)


@dataclass(frozen=True)
class Desk:
    """A project with annotators and comparisons, everything by id where threads share it."""

    project_id: int
    annotator_ids: list[int]
    comparison_ids: list[int]


def make_desk(
    session: Session,
    *,
    annotators: int = 1,
    comparisons: int = 1,
    k: int = 1,
    responses: int = 3,
    split: Split = Split.TRAIN,
    purpose: Purpose = Purpose.TRAIN,
    **settings: object,
) -> Desk:
    """A project of new people, with so many open comparisons of so many responses each."""
    project = make_project(session, **settings)
    members = [make_member(session, project) for _ in range(annotators)]
    rows = make_comparisons(session, project, comparisons, k=k, responses=responses, split=split, purpose=purpose)
    return Desk(project.id, [member.id for member in members], [row.id for row in rows])


def make_comparisons(
    session: Session,
    project: Project,
    number: int,
    *,
    k: int = 1,
    responses: int = 3,
    split: Split = Split.TRAIN,
    purpose: Purpose = Purpose.TRAIN,
) -> list[Comparison]:
    """Comparisons of a prompt of their own each. The split is set, where real prompts draw theirs by hash."""
    prompts = [_prompt(project, split) for _ in range(number)]
    session.add_all(prompts)
    session.flush()
    texts = [[_response(prompt) for _ in range(responses)] for prompt in prompts]
    session.add_all([response for group in texts for response in group])
    session.flush()
    return comparisons.create_comparisons(
        session,
        [
            comparisons.NewComparison(
                project_id=project.id,
                prompt_id=prompt.id,
                response_ids=[response.id for response in group],
                k=k,
                purpose=purpose,
                selected_because="imported",
            )
            for prompt, group in zip(prompts, texts, strict=True)
        ],
    )


def _prompt(project: Project, split: Split) -> Prompt:
    number = next(_numbers)
    return Prompt(
        project_id=project.id,
        messages=[{"role": "user", "content": f"Question {number}?"}],
        group_key=f"group {number}",
        split=split,
        state=PromptState.ACTIVE,
        content_hash=f"prompt {number}",
    )


def _response(prompt: Prompt) -> Response:
    number = next(_numbers)
    return Response(
        project_id=prompt.project_id,
        prompt_id=prompt.id,
        source=ResponseSource.IMPORTED,
        purpose=ResponsePurpose.LABELLING,
        state=ResponseState.ACTIVE,
        text=f"Answer {number}.",
        finish_reason=FinishReason.ENDED,
        content_hash=f"response {number}",
    )


def set_form(session: Session, desk: Desk, **form: object) -> None:
    """Ask this from now on."""
    project = session.get_one(Project, desk.project_id)
    projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)


def response_ids(session: Session, comparison_id: int) -> list[int]:
    """A comparison's responses in the order of storing."""
    query = select(ComparisonResponse.response_id).where(ComparisonResponse.comparison_id == comparison_id)
    return list(session.scalars(query.order_by(ComparisonResponse.place)))


def lease(session: Session, desk: Desk, annotator: int = 0) -> Assignment:
    """The next assignment of the desk's annotator with this number; fails where there is none."""
    found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[annotator])
    assert isinstance(found, Assignment), found
    return found


def answer(session: Session, assignment: Assignment, groups: Sequence[Sequence[int]] | None = None) -> labels.Submitted:
    """A submit: by default the responses in the order of their ids, without ties."""
    ranking = [[id_] for id_ in sorted(assignment.shown_order)] if groups is None else groups
    return labels.submit(session, assignment.id, assignment.annotator_id, ranking, seconds=3.5)


def let_run_out(session: Session, assignments: Iterable[Assignment]) -> None:
    """Move the end of these leases into the past."""
    for assignment in assignments:
        session.execute(
            text("UPDATE assignments SET expires_at = clock_timestamp() - interval '1 second' WHERE id = :id"),
            {"id": assignment.id},
        )


def broken_rows(session: Session) -> list[int]:
    """Comparisons where k = openings + live + submitted does not hold, or the row disagrees with what it counts."""
    rows = session.execute(
        text("""
            SELECT c.id
            FROM comparisons c
            LEFT JOIN LATERAL (
                SELECT count(*) FILTER (WHERE a.state = 'live') AS live,
                       count(*) FILTER (WHERE a.state = 'submitted' AND NOT l.surplus) AS submitted
                FROM assignments a LEFT JOIN labels l ON l.assignment_id = a.id
                WHERE a.comparison_id = c.id
            ) counted ON true
            WHERE c.k <> c.openings + counted.live + c.submitted OR c.submitted <> counted.submitted
        """)
    )
    return [row.id for row in rows]


def number_of(session: Session, table: type) -> int:
    """How many rows a table has."""
    return session.scalar(select(func.count()).select_from(table)) or 0

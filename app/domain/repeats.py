"""Which comparison does an annotator see twice? A share of their work is their own earlier work again, unmarked."""

import random

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.domain import comparisons
from app.tables import Comparison, ComparisonResponse, Purpose

LABELS_BETWEEN = 20  # so that nobody remembers what they said
_WINDOW = 500  # labels before those, from which one is drawn

# Drawn from their own labels, some time ago, of comparisons that can still be shown as they were.
_DRAW = text(
    """
    WITH earlier AS (
        SELECT l.comparison_id FROM labels l
        WHERE l.annotator_id = :annotator_id
        ORDER BY l.id DESC
        OFFSET :labels_between LIMIT :window
    )
    SELECT c.id
    FROM earlier JOIN comparisons c ON c.id = earlier.comparison_id
    WHERE c.purpose = 'train'
        AND EXISTS (
            SELECT FROM labels l
            WHERE l.comparison_id = c.id AND l.annotator_id = :annotator_id
                AND l.withdrawn_at IS NULL AND l.excluded_at IS NULL
        )
        AND EXISTS (SELECT FROM prompts p WHERE p.id = c.prompt_id AND p.state = 'active')
        AND NOT EXISTS (
            SELECT FROM comparisons again JOIN comparison_assignees s ON s.comparison_id = again.id
            WHERE again.repeats_id = c.id AND s.annotator_id = :annotator_id
        )
        AND (
            SELECT count(*) >= 2 AND bool_and(r.state = 'active')
            FROM comparison_responses member JOIN responses r ON r.id = member.response_id
            WHERE member.comparison_id = c.id
        )
    ORDER BY random()
    LIMIT 1
    """
)


def add_repeat(session: Session, project_id: int, annotator_id: int, share: float) -> Comparison | None:
    """With the probability `share`, put an earlier comparison of this annotator first in their queue once more.

    It is a comparison of its own, for them alone and outside every k: its label trains nothing.
    """
    if random.random() >= share:
        return None
    drawn = session.scalar(_DRAW, {"annotator_id": annotator_id, "labels_between": LABELS_BETWEEN, "window": _WINDOW})
    if drawn is None:
        return None
    first = session.get_one(Comparison, drawn)
    members = select(ComparisonResponse.response_id).where(ComparisonResponse.comparison_id == first.id)
    (again,) = comparisons.create_comparisons(
        session,
        [
            comparisons.NewComparison(
                project_id=project_id,
                prompt_id=first.prompt_id,
                response_ids=session.scalars(members.order_by(ComparisonResponse.place)).all(),
                k=1,
                purpose=Purpose.REPEAT,
                selected_because="repeat",
                priority=comparisons.HIGHEST_PRIORITY,
                assignees=[annotator_id],
            )
        ],
    )
    again.repeats_id = first.id
    session.flush()
    return again

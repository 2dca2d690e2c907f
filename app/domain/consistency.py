"""Does an annotator agree with themselves? Measured on the comparisons that they were shown twice."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.domain.settings import parse_settings
from app.tables import Project

FEWEST_PAIRS = 10  # fewer say nothing


@dataclass(frozen=True)
class Consistency:
    """The share of response pairs that were ordered the same way both times, over so many pairs."""

    share: float | None
    pairs: int


# sign(b - a) is 1 where the first of two responses is the better one, -1 where the other is, 0 for a tie.
_COUNT = text(
    """
    WITH twice AS (
        SELECT first.id AS first_id, again.id AS again_id
        FROM labels l
        JOIN comparisons c ON c.id = l.comparison_id AND c.purpose = 'repeat'
        JOIN labels before ON before.comparison_id = c.repeats_id AND before.annotator_id = l.annotator_id
        JOIN label_revisions again ON again.label_id = l.id AND again.number = 1
        JOIN label_revisions first ON first.label_id = before.id AND first.number = 1
        WHERE l.annotator_id = :annotator_id AND l.withdrawn_at IS NULL AND before.withdrawn_at IS NULL
            AND l.excluded_at IS NULL AND before.excluded_at IS NULL
    )
    SELECT count(*), sum(1 - abs(sign(b1.rank - a1.rank) - sign(b2.rank - a2.rank)) / 2.0)
    FROM twice
    JOIN label_ranks a1 ON a1.revision_id = twice.first_id
    JOIN label_ranks b1 ON b1.revision_id = twice.first_id AND b1.response_id > a1.response_id
    JOIN label_ranks a2 ON a2.revision_id = twice.again_id AND a2.response_id = a1.response_id
    JOIN label_ranks b2 ON b2.revision_id = twice.again_id AND b2.response_id = b1.response_id
    """
)


def consistency(session: Session, annotator_id: int) -> Consistency:
    """How an annotator ordered pairs of responses when they saw them again.

    The first answer counts each time, not what an edit made of it. A tie both times is the same; a tie against an
    order counts as half, as ties in the prediction do in the concordance index (Harrell et al. 1996, "Multivariable
    prognostic models", section 5.5). Pairs without a place in one of the two answers are left out.
    """
    pairs, same = session.execute(_COUNT, {"annotator_id": annotator_id}).one()
    return Consistency(float(same) / pairs if pairs else None, pairs)


def shown_consistency(session: Session, project: Project, annotator_id: int) -> float | None:
    """The share that an annotator sees of themselves: where the project shows it and there are enough pairs."""
    if not parse_settings(project.settings).show_consistency:
        return None
    found = consistency(session, annotator_id)
    return found.share if found.pairs >= FEWEST_PAIRS else None

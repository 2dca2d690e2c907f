"""What has somebody filled in and not sent yet? Drafts, which wait on the server for whatever browser comes next."""

import math

from sqlalchemy import and_, bindparam, delete, func, or_, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.domain import texts
from app.domain.answer_parts import is_whole
from app.domain.writable import require_writable
from app.errors import Conflict, Invalid
from app.language import gettext as _
from app.language import grouped
from app.tables import Assignment, AssignmentState, Draft, Label, LabelRevision, Membership

LONGEST_DRAFT = 1_000_000  # characters, as long as answers may be
DAYS_KEPT = 7  # after the lease ran out
_LATEST = 2**63 - 1
_DAY = 86_400.0


def save(
    session: Session, assignment: Assignment, *, fields: object, seconds: object, sequence: object, revision: object
) -> None:
    """Keep what a form holds, unless something newer is kept already: the highest `sequence` wins, whenever it comes.

    `fields` are [name, value] pairs, `seconds` the time in front of them so far, `sequence` counts up in the browser,
    `revision` is the number of the answer that is being changed, or 0 for a new one.

    Raises:
        Invalid: if that is not what they are.
        Conflict: if the assignment was answered, skipped or changed meanwhile, or the project is archived.
    """
    number = _whole(revision, "revision")
    kept = {
        "fields": _fields(fields),
        "seconds": _seconds(seconds),
        "sequence": _whole(sequence, "sequence"),
        "revision": number,
    }
    require_writable(session, assignment.project_id)
    # In turn with whatever else the annotator does: no draft is left behind by an answer that is being stored.
    session.execute(
        select(Membership.id).where(Membership.id == assignment.annotator_id).with_for_update(key_share=True)
    )
    session.refresh(assignment)
    _require_current(session, assignment, number)
    saving = insert(Draft).values(
        assignment_id=assignment.id, project_id=assignment.project_id, comparison_id=assignment.comparison_id, **kept
    )
    newer = saving.excluded
    session.execute(
        saving.on_conflict_do_update(
            index_elements=[Draft.assignment_id],
            set_={**{name: newer[name] for name in kept}, "saved_at": func.clock_timestamp()},
            where=or_(Draft.sequence < newer.sequence, Draft.revision < newer.revision),
        )
    )


def _fields(sent: object) -> list[list[str]]:
    if not isinstance(sent, list) or not all(map(_is_pair, sent)):
        raise Invalid(_("The fields of a draft must be a list of pairs of texts: [name, value]."))
    if found := texts.flaw(sent):
        raise Invalid(_("The draft cannot be kept: %(reason)s.", reason=found))
    if len(texts.canonical(sent)) > LONGEST_DRAFT:
        longest = grouped(LONGEST_DRAFT)
        raise Invalid(_("The draft is longer than %(longest)s characters: shorten its texts.", longest=longest))
    return sent


def _is_pair(sent: object) -> bool:
    return isinstance(sent, list) and len(sent) == 2 and all(isinstance(part, str) for part in sent)


def _whole(sent: object, name: str) -> int:
    if not (is_whole(sent) and 0 <= sent <= _LATEST):
        raise Invalid(_("The draft's “%(name)s” must be a whole number that is not negative.", name=name))
    return sent


def _seconds(sent: object) -> float:
    # Not asked whether it is finite: a whole number of 400 digits is, and is no float.
    if isinstance(sent, bool) or not isinstance(sent, int | float) or not 0 <= sent < math.inf:
        raise Invalid(_("The draft's “%(name)s” must be a number that is not negative.", name="seconds"))
    return float(min(sent, _DAY))


def _require_current(session: Session, assignment: Assignment, revision: int) -> None:
    """Raise Conflict where `revision` is not what the assignment has come to."""
    if assignment.state is AssignmentState.SKIPPED:
        raise Conflict(_("You have skipped this comparison."))
    current = session.scalar(
        select(func.max(LabelRevision.number))
        .join(Label, and_(Label.id == LabelRevision.label_id, Label.withdrawn_at.is_(None)))
        .where(Label.assignment_id == assignment.id)
    )
    if assignment.state is AssignmentState.SUBMITTED and current is None:
        raise Conflict(_("This label was withdrawn and cannot be changed."))
    if revision != (current or 0):
        raise Conflict(
            _("This answer was sent or changed elsewhere meanwhile: load the page again to see it."),
            details={"revision": current or 0},
        )


def read(session: Session, assignment_id: int, revision: int = 0) -> Draft | None:
    """The draft of a new answer, or of a change of the answer with this number."""
    return session.scalar(
        select(Draft)
        .where(Draft.assignment_id == assignment_id, Draft.revision == revision)
        .execution_options(populate_existing=True)
    )


def filled(draft: Draft) -> dict[str, str]:
    """The fields of a draft by their names."""
    return {str(name): str(value) for name, value in draft.fields}


def forget(session: Session, annotator_id: int) -> None:
    """Throw away all drafts of an annotator, who leaves or takes everything back."""
    own = select(Assignment.id).where(Assignment.annotator_id == annotator_id)
    session.execute(delete(Draft).where(Draft.assignment_id.in_(own)))


def drop(session: Session, assignment_id: int) -> None:
    """Forget a draft: it was sent, or is wanted no more."""
    session.execute(delete(Draft).where(Draft.assignment_id == assignment_id))


# Where a lease ran out and the same person was given the comparison anew, what they had written comes along.
_TAKE_ALONG = text(
    """
    UPDATE drafts SET assignment_id = :assignment_id
    WHERE assignment_id = (
        SELECT d.assignment_id
        FROM assignments mine
        JOIN assignments before ON before.comparison_id = mine.comparison_id
            AND before.annotator_id = mine.annotator_id AND before.occasion = mine.occasion
            AND before.state = 'expired'
        JOIN drafts d ON d.assignment_id = before.id
        WHERE mine.id = :assignment_id
        ORDER BY d.saved_at DESC
        LIMIT 1
    )
    """
)


def take_along(session: Session, assignment_id: int) -> None:
    """Move the draft of a lease that ran out to the one that took its place."""
    session.execute(_TAKE_ALONG, {"assignment_id": assignment_id})


_PURGE = text(
    """
    DELETE FROM drafts d USING assignments a
    WHERE a.id = d.assignment_id AND d.saved_at < clock_timestamp() - make_interval(days => :days)
        AND (a.state <> 'live' OR a.expires_at < clock_timestamp())
    """
).bindparams(bindparam("days", DAYS_KEPT))


def purge(session: Session) -> None:
    """Forget drafts that nobody came back to for a week."""
    session.execute(_PURGE)

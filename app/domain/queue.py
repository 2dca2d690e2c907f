"""Who labels what next? Exactly k annotators a comparison, each with a lease that runs out.

For every comparison k = openings + live assignments + submitted. Whoever changes one of the three holds the
comparison's row. All that one annotator does happens one after the other, since it begins by locking their membership.
So the order of locks is membership, comparison, assignment, and nobody waits for a second comparison while holding one.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, joinedload

from app.domain import consent, drafts, repeats, texts
from app.domain.empty_queue import EmptyQueue, explain
from app.domain.filters import ASKED_BEFORE, FOR_ANNOTATOR
from app.domain.settings import parse_settings
from app.errors import Conflict, NotFound
from app.language import gettext as _
from app.language import mark
from app.tables import (
    Assignment,
    AssignmentState,
    Comparison,
    ComparisonState,
    Membership,
    Project,
    ProjectState,
    ProjectVersion,
    Prompt,
    Purpose,
    Response,
)

MOST_LIVE = 3  # leases of one annotator at a time: the comparison in front of them, and two ahead of time
_TRIES = 25
_PAUSE = 0.02  # seconds between two tries, while other transactions hold the rows in question

_MINE = f"c.project_id = :project_id AND c.state = 'open' AND {FOR_ANNOTATOR}"

# SKIP LOCKED passes over rows that others are changing, the recheck after the lock over rows that they have changed.
_HAND_OUT = text(
    f"""
    WITH candidate AS (
        SELECT c.id
        FROM comparisons c
        WHERE c.openings > 0 AND {_MINE} AND NOT ({ASKED_BEFORE})
        ORDER BY c.priority DESC, c.id
        LIMIT 1
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ), leased AS (
        UPDATE comparisons c SET openings = c.openings - 1
        FROM candidate WHERE c.id = candidate.id
        RETURNING c.id
    )
    INSERT INTO assignments
        (project_id, comparison_id, annotator_id, project_version_id, state, shown_order, leased_at, expires_at)
    SELECT
        :project_id, leased.id, :annotator_id, :project_version_id, 'live',
        (SELECT array_agg(r.response_id ORDER BY random())
         FROM comparison_responses r WHERE r.comparison_id = leased.id),
        clock_timestamp(), clock_timestamp() + make_interval(mins => :lease_minutes)
    FROM leased
    RETURNING id
    """  # noqa: S608 - the parts are the constants above
)

# The comparison is locked first and the state asked again after, since the lease may have been answered meanwhile.
_EXPIRE = text(
    """
    WITH overdue AS (
        SELECT a.id
        FROM assignments a JOIN comparisons c ON c.id = a.comparison_id
        WHERE a.state = 'live' AND a.expires_at <= clock_timestamp()
            AND (CAST(:project_id AS bigint) IS NULL OR a.project_id = :project_id)
        FOR NO KEY UPDATE OF c SKIP LOCKED
    ), ended AS (
        UPDATE assignments a SET state = 'expired', ended_at = clock_timestamp()
        FROM overdue
        WHERE a.id = overdue.id AND a.state = 'live' AND a.expires_at <= clock_timestamp()
        RETURNING a.comparison_id
    ), returned AS (
        UPDATE comparisons c SET openings = c.openings + back.number
        FROM (SELECT comparison_id, count(*) AS number FROM ended GROUP BY comparison_id) back
        WHERE c.id = back.comparison_id
    )
    SELECT count(*) FROM ended
    """
)


@dataclass(frozen=True)
class ShownResponse:
    """A response without a word on who wrote it."""

    id: int
    text: str
    parts: list[Any] | None


@dataclass(frozen=True)
class AssignmentView:
    """All that is shown of an assignment. `responses` stand in the order shown."""

    assignment: Assignment
    comparison: Comparison
    prompt: Prompt
    responses: list[ShownResponse]
    project_version: ProjectVersion
    seconds_left: float


def next_assignment(
    session: Session, project_id: int, annotator_id: int, *, after: Collection[int] = (), is_read: bool = True
) -> Assignment | EmptyQueue:
    """The annotator's live lease, or a new one: the highest priority first, then the oldest comparison.

    With `after`, the one that comes after these assignments, which the annotator has at hand: never more than
    MOST_LIVE leases at a time. Where little is left for others, there is none ahead of time.

    Leases that ran out are returned first. Before a new one it raises ConsentNeeded, and ReadingNeeded unless the
    caller says that the guidelines are read, as programs do.
    """
    lock_annotator(session, project_id, annotator_id)
    # Its version is loaded again with it: the caller may have loaded it before, and the page shows it.
    project = session.get_one(
        Project, project_id, options=[joinedload(Project.current_version)], populate_existing=True
    )
    if project.state is not ProjectState.ACTIVE:
        return EmptyQueue("project_paused")
    live = _live(session, annotator_id)
    if waiting := [assignment for assignment in live if assignment.id not in after]:
        return waiting[0]
    if len(live) >= MOST_LIVE:
        return EmptyQueue("enough_ahead")
    if project.current_version is not None:
        consent.require_consent(session, annotator_id, project.current_version)
        if not is_read:
            consent.require_reading(session, annotator_id, project.current_version)
    if live and not _is_plenty(session, project_id):
        return EmptyQueue("last_ones")
    return _hand_out(session, project, annotator_id)


def _hand_out(session: Session, project: Project, annotator_id: int) -> Assignment | EmptyQueue:
    """A new lease, or why there is none."""
    who = {"project_id": project.id, "annotator_id": annotator_id}
    settings = parse_settings(project.settings)
    lease = {"project_version_id": project.current_version_id, "lease_minutes": settings.lease_minutes}
    if settings.repeat_share and _is_held(session, who):
        repeats.add_repeat(session, project.id, annotator_id, settings.repeat_share)
    for _try in range(_TRIES):
        expire_leases(session, project.id)
        handed_out = session.scalar(_HAND_OUT, who | lease)
        if handed_out is not None:
            drafts.take_along(session, handed_out)
            return session.get_one(Assignment, handed_out)
        if not _is_held(session, who):
            break
        # Waiting for the row itself could close a circle with somebody who waits for a row of ours.
        time.sleep(_PAUSE)
    return explain(session, project.id, annotator_id)


_IS_PLENTY = text(
    """
    WITH people AS (
        SELECT count(DISTINCT annotator_id) AS number FROM assignments
        WHERE project_id = :project_id AND state = 'live' AND expires_at > clock_timestamp()
    )
    SELECT people.number < (
        SELECT count(*) FROM (
            SELECT FROM comparisons c
            WHERE c.project_id = :project_id AND c.state = 'open' AND c.openings > 0 AND c.purpose <> 'repeat'
            LIMIT (SELECT number + 1 FROM people)
        ) left_over
    )
    FROM people
    """
)


def _is_plenty(session: Session, project_id: int) -> bool:
    """Whether more comparisons have openings than people are at work: a second lease then takes nobody's next one."""
    return bool(session.scalar(_IS_PLENTY, {"project_id": project_id}))


def lock_annotator(session: Session, project_id: int, annotator_id: int) -> None:
    """Let nothing else that this annotator does happen until this transaction ends. Raises NotFound."""
    session.flush()
    member = session.scalar(
        select(Membership.id)
        .where(Membership.id == annotator_id, Membership.project_id == project_id)
        .with_for_update(key_share=True)
    )
    if member is None:
        raise NotFound(_("There is no annotator %(number)s in this project.", number=annotator_id))


def _live(session: Session, annotator_id: int) -> Sequence[Assignment]:
    """The annotator's live leases, the oldest first."""
    return session.scalars(
        select(Assignment)
        .where(
            Assignment.annotator_id == annotator_id,
            Assignment.state == AssignmentState.LIVE,
            Assignment.expires_at > func.clock_timestamp(),
        )
        .order_by(Assignment.id)
        .execution_options(populate_existing=True)
    ).all()


_IS_HELD = text(
    f"SELECT EXISTS (SELECT FROM comparisons c WHERE c.openings > 0 AND {_MINE} AND NOT ({ASKED_BEFORE}))"  # noqa: S608
)


def _is_held(session: Session, who: dict[str, int]) -> bool:
    """Whether there is something for this annotator, whoever is changing it: SKIP LOCKED passes over that."""
    return bool(session.scalar(_IS_HELD, who))


def get_assignment(session: Session, assignment_id: int, annotator_id: int) -> Assignment:
    """An assignment of this annotator, whatever became of it. Raises NotFound, for other people's too."""
    found = session.scalar(
        select(Assignment)
        .where(Assignment.id == assignment_id, Assignment.annotator_id == annotator_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound(_("You have no assignment %(number)s.", number=assignment_id))
    return found


def lock_assignment(session: Session, assignment_id: int, annotator_id: int) -> tuple[Comparison, Assignment]:
    """Lock the comparison of an assignment; return both, the assignment as it stands now.

    Where the lease ran out and the annotator was given the same comparison anew, that assignment is the one that
    stands: an answer to the old one, from a page left open, is an answer to it. Raises NotFound.
    """
    asked = get_assignment(session, assignment_id, annotator_id)
    lock_annotator(session, asked.project_id, annotator_id)
    comparison = session.get_one(
        Comparison, asked.comparison_id, with_for_update={"key_share": True}, populate_existing=True
    )
    return comparison, standing(session, asked)


def standing(session: Session, asked: Assignment) -> Assignment:
    """The assignment that stands for `asked` now: itself, or the one that took its place after its time ran out."""
    found = session.scalar(
        select(Assignment)
        .where(
            Assignment.comparison_id == asked.comparison_id,
            Assignment.annotator_id == asked.annotator_id,
            Assignment.occasion == asked.occasion,
            Assignment.state.in_((AssignmentState.LIVE, AssignmentState.SUBMITTED)),
        )
        .execution_options(populate_existing=True)
    )
    if found is None:
        session.refresh(asked)
        return asked
    return found


def skip(session: Session, assignment_id: int, annotator_id: int, reason: str | None = None) -> None:
    """Hand an assignment back; its opening goes to somebody else and the annotator is not asked again.

    Skipping twice is skipping once. Raises NotFound, Conflict where it was answered, Invalid for a reason too long.
    """
    why = texts.document(reason or "", _("The reason"), longest=2_000) or None
    comparison, assignment = lock_assignment(session, assignment_id, annotator_id)
    if assignment.state is AssignmentState.SUBMITTED:
        raise Conflict(_("You have answered this comparison: edit your label instead of skipping it."))
    if assignment.state is AssignmentState.SKIPPED:
        return
    if assignment.state is AssignmentState.LIVE:
        comparison.openings += 1
    if comparison.purpose is Purpose.REPEAT:
        comparison.state = ComparisonState.CLOSED  # it was for this annotator alone
    assignment.state = AssignmentState.SKIPPED
    assignment.skip_reason = why
    assignment.ended_at = func.clock_timestamp()
    drafts.drop(session, assignment.id)
    session.flush()
    session.refresh(assignment, ["ended_at"])


def heartbeat(session: Session, assignment_id: int, annotator_id: int) -> datetime:
    """Begin a live lease anew, and with it the annotator's other one; return when it ends.

    Raises NotFound, Conflict where it is live no more.
    """
    assignment = get_assignment(session, assignment_id, annotator_id)
    minutes = parse_settings(session.get_one(Project, assignment.project_id).settings).lease_minutes
    anew = func.clock_timestamp() + func.make_interval(0, 0, 0, 0, 0, minutes)
    expires_at: datetime | None = session.scalar(
        update(Assignment)
        .where(Assignment.id == assignment_id, Assignment.state == AssignmentState.LIVE)
        .values(expires_at=anew)
        .returning(Assignment.expires_at)
    )
    if expires_at is None:
        session.refresh(assignment)
        raise Conflict(_(_ENDED[assignment.state]), details={"state": assignment.state.value})
    # Passing over what somebody else holds: one who holds a row may not wait for a second one.
    others = select(Assignment.id).where(
        Assignment.annotator_id == annotator_id,
        Assignment.state == AssignmentState.LIVE,
        Assignment.expires_at > func.clock_timestamp(),
        Assignment.id != assignment_id,
    )
    free = session.scalars(others.with_for_update(key_share=True, skip_locked=True)).all()
    session.execute(update(Assignment).where(Assignment.id.in_(free)).values(expires_at=anew))
    return expires_at


_ENDED = {
    AssignmentState.SUBMITTED: mark("You have answered this comparison already."),
    AssignmentState.SKIPPED: mark("You have skipped this comparison."),
    AssignmentState.EXPIRED: mark("The time for this comparison ran out. Submit it all the same: your work is kept."),
}


def expire_leases(session: Session, project_id: int | None = None) -> int:
    """Give back the openings of leases that ran out, in one project or in all; return how many.

    Comparisons that somebody is changing at this moment are left to whoever comes next.
    """
    session.flush()
    return session.scalar(_EXPIRE, {"project_id": project_id}) or 0


def end_leases(session: Session, annotator_id: int) -> None:
    """Let all leases of an annotator run out now."""
    session.execute(
        update(Assignment)
        .where(Assignment.annotator_id == annotator_id, Assignment.state == AssignmentState.LIVE)
        .values(expires_at=func.clock_timestamp())
    )


def view(session: Session, assignment: Assignment) -> AssignmentView:
    """What is shown of an assignment: blinded, the responses in its own order, the guidelines it was leased under."""
    comparison, prompt, version, seconds_left = session.execute(
        select(
            Comparison,
            Prompt,
            ProjectVersion,
            func.extract("epoch", Assignment.expires_at - func.clock_timestamp()),
        )
        .select_from(Assignment)
        .join(Comparison, Comparison.id == Assignment.comparison_id)
        .join(Prompt, Prompt.id == Comparison.prompt_id)
        .join(ProjectVersion, ProjectVersion.id == Assignment.project_version_id)
        .where(Assignment.id == assignment.id)
    ).one()
    return AssignmentView(
        assignment=assignment,
        comparison=comparison,
        prompt=prompt,
        responses=_shown(session, assignment.shown_order),
        project_version=version,
        seconds_left=max(0.0, float(seconds_left)),
    )


def _shown(session: Session, shown_order: Sequence[int]) -> list[ShownResponse]:
    query = select(Response.id, Response.text, Response.parts).where(Response.id.in_(shown_order))
    by_id = {row.id: ShownResponse(row.id, row.text, row.parts) for row in session.execute(query)}
    return [by_id[response_id] for response_id in shown_order]

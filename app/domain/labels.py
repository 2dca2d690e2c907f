"""What did an annotator answer? Labels are submitted once and revised at any time; admins say which ones count."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, insert, select, update
from sqlalchemy.orm import Session, joinedload, selectinload

from app.domain import answers as checking
from app.domain import audit, drafts, queue, snapshots, texts, written
from app.domain.answers import CheckedAnswer
from app.domain.filters import LABEL_COUNTS, SHOWS_WITHDRAWN, one_of, says
from app.domain.judgement import parse_form
from app.domain.writable import require_writable
from app.errors import Conflict, Invalid, NotFound
from app.language import gettext as _
from app.tables import (
    Assignment,
    AssignmentState,
    Comparison,
    ComparisonState,
    Label,
    LabelRank,
    LabelRevision,
    Membership,
    Person,
    Project,
    ProjectVersion,
    Prompt,
    Response,
    Round,
    RoundState,
    Snapshot,
    SnapshotRevision,
)

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Submitted:
    """What became of a submit. `is_repeat`: the same answer was there already, so nothing was stored."""

    label: Label
    revision: LabelRevision
    surplus: bool
    is_repeat: bool


def submit(
    session: Session,
    assignment_id: int,
    annotator_id: int,
    groups: Groups,
    *,
    answers: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> Submitted:
    """Answer an assignment as its judgement form asks: response ids, the best group first, and what stands beside them.

    The same answer again gives the same label. Work is kept whatever became of the lease: after it ran out, or was
    skipped, the label takes an opening if one is left, and is surplus otherwise. Texts that the annotator wrote become
    responses to the prompt.

    Raises:
        NotFound: for somebody else's assignment.
        InvalidRanking, Invalid: if the answer does not follow the form, or the seconds cannot be kept.
        Conflict: if the assignment has another answer already, or the project is archived.
    """
    asked = queue.get_assignment(session, assignment_id, annotator_id)
    version_id, shown_order = asked.project_version_id, asked.shown_order
    answer = _check(session, version_id, shown_order, groups, answers, seconds)
    prompt = written.lock_prompt(session, asked.comparison_id) if written.is_written(answer.answers) else None
    comparison, assignment = queue.lock_assignment(session, assignment_id, annotator_id)
    if assignment.state is AssignmentState.SUBMITTED:
        return _repeat(session, assignment, answer)
    require_writable(session, comparison.project_id)
    surplus = _take_place(comparison, assignment)
    # Where the lease ran out and was given anew, what was answered is what the old page showed.
    assignment.project_version_id, assignment.shown_order = version_id, shown_order
    label = Label(
        project_id=comparison.project_id,
        comparison_id=comparison.id,
        assignment_id=assignment.id,
        annotator_id=annotator_id,
        surplus=surplus,
    )
    if comparison.state is ComparisonState.CLOSED:
        written.exclude_withdrawn(session, label)
    session.add(label)
    session.flush()
    if prompt is not None:
        answer = _taken_in(session, prompt, annotator_id, answer, {})
    revision = _add_revision(session, label, 1, version_id, shown_order, answer, seconds)
    return Submitted(label, revision, surplus, is_repeat=False)


def _take_place(comparison: Comparison, assignment: Assignment) -> bool:
    """Count the answer on the comparison's row; return whether it is surplus."""
    surplus = False
    if assignment.state is AssignmentState.LIVE:
        comparison.submitted += 1
    elif comparison.openings > 0:
        comparison.openings -= 1
        comparison.submitted += 1
    else:
        surplus = True
    assignment.state = AssignmentState.SUBMITTED
    assignment.ended_at = func.clock_timestamp()
    return surplus


def _repeat(session: Session, assignment: Assignment, answer: CheckedAnswer) -> Submitted:
    label = session.scalars(select(Label).where(Label.assignment_id == assignment.id)).one()
    revision = _latest(session, label)
    if not _says(revision, answer):
        raise Conflict(
            _("You have answered this comparison already, and differently: edit that label instead."),
            details={"label_id": label.id},
        )
    return Submitted(label, revision, label.surplus, is_repeat=True)


def revise(
    session: Session,
    label_id: int,
    annotator_id: int,
    groups: Groups,
    *,
    answers: Mapping[str, Any] | None = None,
    seconds: float | None = None,
) -> LabelRevision:
    """Change one's answer, at any time; earlier revisions stay. The same answer makes no new revision.

    Responses that it wrote and no longer writes are retired, unless they are used elsewhere.

    Raises NotFound, InvalidRanking, Invalid, and Conflict for a withdrawn label or an archived project.
    """
    # Before the label, as whoever adds responses holds the prompt first.
    prompt = written.lock_prompt(session, get_own(session, label_id, annotator_id).comparison_id)
    label = session.get_one(Label, label_id, with_for_update={"key_share": True}, populate_existing=True)
    if label.withdrawn_at is not None:
        raise Conflict(_("This label was withdrawn and cannot be changed."))
    last = _latest(session, label)
    answer = _check(session, last.project_version_id, last.shown_order, groups, answers, seconds)
    if _says(last, answer):
        return last
    require_writable(session, label.project_id)
    answer = _taken_in(session, prompt, annotator_id, answer, last.answers)
    revision = _add_revision(
        session, label, last.number + 1, last.project_version_id, last.shown_order, answer, seconds
    )
    written.release(session, prompt, label.id, last.answers, answer.answers)
    return revision


def get_own(session: Session, label_id: int, annotator_id: int) -> Label:
    """A label of this annotator, without its revisions. Raises NotFound."""
    label = session.scalar(select(Label).where(Label.id == label_id, Label.annotator_id == annotator_id))
    if label is None:
        raise NotFound(_("You have no label %(number)s.", number=label_id))
    return label


def _says(revision: LabelRevision, answer: CheckedAnswer) -> bool:
    """Whether a revision holds this answer; what became of its texts is no part of it."""
    ranks = {rank.response_id: rank.rank for rank in revision.ranks}
    return ranks == answer.ranks and checking.without_response_ids(revision.answers) == answer.answers


def _taken_in(
    session: Session, prompt: Prompt, annotator_id: int, answer: CheckedAnswer, before: Mapping[str, Any]
) -> CheckedAnswer:
    return CheckedAnswer(answer.ranks, written.take_in(session, prompt, annotator_id, answer.answers, before))


def _check(
    session: Session,
    version_id: int,
    shown: Sequence[int],
    groups: Groups,
    answers: Mapping[str, Any] | None,
    seconds: float | None,
) -> CheckedAnswer:
    if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
        raise Invalid(_("The seconds must be a number that is not negative."))
    rows = session.execute(select(Response.id, Response.text).where(one_of(Response.id, shown)))
    said = {row.id: row.text for row in rows}
    asked = parse_form(session.get_one(ProjectVersion, version_id).judgement_form)
    return checking.check(asked, {id_: said[id_] for id_ in shown}, groups, answers)


def _latest(session: Session, label: Label) -> LabelRevision:
    """The label's newest revision, with its ranks."""
    return session.scalars(
        select(LabelRevision)
        .where(LabelRevision.label_id == label.id)
        .order_by(LabelRevision.number.desc())
        .limit(1)
        .options(selectinload(LabelRevision.ranks))
    ).one()


def _add_revision(
    session: Session,
    label: Label,
    number: int,
    version_id: int,
    shown_order: Sequence[int],
    answer: CheckedAnswer,
    seconds: float | None,
) -> LabelRevision:
    revision = LabelRevision(
        project_id=label.project_id,
        comparison_id=label.comparison_id,
        label_id=label.id,
        number=number,
        project_version_id=version_id,
        shown_order=list(shown_order),
        answers=answer.answers,
        seconds=seconds,
    )
    session.add(revision)
    drafts.drop(session, label.assignment_id)
    session.flush()
    if answer.ranks:
        session.execute(
            insert(LabelRank),
            [
                {"revision_id": revision.id, "comparison_id": label.comparison_id, "response_id": id_, "rank": rank}
                for id_, rank in answer.ranks.items()
            ],
        )
    return revision


def get_label(session: Session, project_id: int, label_id: int, annotator_id: int | None = None) -> Label:
    """A label with its revisions, ranks and prompt; of this annotator, where one is named. Raises NotFound."""
    query = _with_all(select(Label)).where(Label.project_id == project_id, Label.id == label_id)
    if annotator_id is not None:
        query = query.where(Label.annotator_id == annotator_id)
    if (label := session.scalar(query)) is None:
        raise NotFound(_("There is no label %(number)s here.", number=label_id))
    return label


def my_labels(
    session: Session, project_id: int, annotator_id: int, before_id: int | None = None, limit: int = 20
) -> Sequence[Label]:
    """An annotator's labels, the newest first, with revisions, ranks and prompts."""
    query = select(Label).where(Label.project_id == project_id, Label.annotator_id == annotator_id)
    if before_id is not None:
        query = query.where(Label.id < before_id)
    return session.scalars(_with_all(query).order_by(Label.id.desc()).limit(limit)).all()


def list_labels(
    session: Session,
    project_id: int,
    *,
    annotator_id: int | None = None,
    excluded: bool | None = None,
    comparison_id: int | None = None,
    search: str | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> Sequence[Label]:
    """Labels by id, with revisions, ranks, prompts and members. `search` looks into prompts and responses."""
    query = select(Label).where(Label.project_id == project_id)
    if annotator_id is not None:
        query = query.where(Label.annotator_id == annotator_id)
    if excluded is not None:
        query = query.where(Label.excluded_at.is_not(None) if excluded else Label.excluded_at.is_(None))
    if comparison_id is not None:
        query = query.where(Label.comparison_id == comparison_id)
    if search and search.strip():
        query = query.join(Comparison, Comparison.id == Label.comparison_id).where(says(project_id, search))
    if after_id is not None:
        query = query.where(Label.id > after_id)
    return session.scalars(_with_all(query).order_by(Label.id).limit(limit)).all()


def _with_all(query: Select[Label]) -> Select[Label]:
    return query.options(
        selectinload(Label.revisions).selectinload(LabelRevision.ranks),
        joinedload(Label.comparison).options(joinedload(Comparison.prompt), selectinload(Comparison.members)),
    ).execution_options(populate_existing=True)


def exclude(session: Session, project_id: int, label_ids: Sequence[int], reason: str, by: Person | None) -> int:
    """Let these labels not count, for a reason; snapshots that hold them stay as they are.

    Returns how many changed. Raises NotFound if one is not of this project, Invalid without a reason.
    """
    why = texts.line(reason, _("The reason"), longest=1_000)
    values = {"excluded_at": func.clock_timestamp(), "excluded_reason": why, "excluded_by_id": by.id if by else None}
    return _change(session, project_id, label_ids, "exclude", by, Label.excluded_at.is_(None), values, {"reason": why})


def include(session: Session, project_id: int, label_ids: Sequence[int], by: Person | None) -> int:
    """Let labels count again, but those that judge what was withdrawn. Returns how many changed. Raises NotFound."""
    values = {"excluded_at": None, "excluded_reason": None, "excluded_by_id": None}
    may_count = Label.excluded_at.is_not(None) & Label.comparison_id.in_(select(Comparison.id).where(~SHOWS_WITHDRAWN))
    return _change(session, project_id, label_ids, "include", by, may_count, values, {})


def _change(
    session: Session,
    project_id: int,
    ids: Sequence[int],
    act: str,
    by: Person | None,
    where: ColumnElement[bool],
    values: Mapping[str, Any],
    details: Mapping[str, Any],
) -> int:
    """Give `values` to those of the labels that `where` holds for, and write it down."""
    require_writable(session, project_id)
    locking = select(Label.id).where(Label.project_id == project_id, one_of(Label.id, ids)).order_by(Label.id)
    if missing := set(ids) - set(session.scalars(locking.with_for_update(key_share=True))):
        raise NotFound(_("These labels are not in this project: %(missing)s.", missing=sorted(missing)))
    changing = update(Label).where(one_of(Label.id, ids), where).values(**values).returning(Label.id)
    changed = sorted(session.scalars(changing))
    if changed:
        audit.record(session, f"label.{act}", project_id=project_id, by=by, details={**details, "ids": changed})
        session.flush()
    return len(changed)


def new_labels(session: Session, project_id: int) -> int:
    """How many labels that count no round has learned from yet.

    Measured by the snapshot of the last round that came to a verdict: one taken for an export, or by a round that
    failed, uses nothing up. An edited label is no new one.
    """
    learned = (
        select(Round.snapshot_id)
        .where(Round.project_id == project_id, Round.state.in_((RoundState.PROMOTED, RoundState.REJECTED)))
        .order_by(Round.number.desc())
    )
    return _outside(session, project_id, learned)


def new_labels_since_snapshot(session: Session, project_id: int) -> int:
    """How many labels that count the newest snapshot knows nothing of. An edited label is no new one."""
    newest = select(Snapshot.id).where(Snapshot.project_id == project_id).order_by(Snapshot.number.desc())
    return _outside(session, project_id, newest)


def _outside(session: Session, project_id: int, snapshot: Select[int] | Select[int | None]) -> int:
    """How many labels that count have no revision in the first of these snapshots."""
    is_known = (
        select(LabelRevision.id)
        .join(SnapshotRevision, SnapshotRevision.revision_id == LabelRevision.id)
        .where(LabelRevision.label_id == Label.id, SnapshotRevision.snapshot_id == snapshot.limit(1).scalar_subquery())
        .exists()
    )
    query = (
        select(func.count(Label.id))
        .join(Comparison, Comparison.id == Label.comparison_id)
        .where(Label.project_id == project_id, *LABEL_COUNTS, ~is_known)
    )
    return session.scalar(query) or 0


def withdraw_annotator(session: Session, membership: Membership, by: Person | None = None) -> int:
    """Tombstone all labels of an annotator, and mark what was made of them: it is exported no more.

    Live leases end at once. What the annotator wrote is retired, and other people's labels that judge it count no
    more. Returns how many labels were withdrawn.
    """
    # The project's row first, as taking a snapshot does: none can be taken between the labels and its mark.
    session.execute(select(Project.id).where(Project.id == membership.project_id).with_for_update(key_share=True))
    written.lock_prompts(session, membership.id)
    queue.lock_annotator(session, membership.project_id, membership.id)
    queue.end_leases(session, membership.id)
    withdrawing = (
        update(Label)
        .where(Label.annotator_id == membership.id, Label.withdrawn_at.is_(None))
        .values(withdrawn_at=func.clock_timestamp())
        .returning(Label.id)
    )
    number = len(session.scalars(withdrawing).all())
    membership.withdrawn_at = func.clock_timestamp()
    snapshots.taint(session, membership, written.withdraw(session, membership.id))
    audit.record(
        session,
        "member.withdraw",
        project_id=membership.project_id,
        by=by,
        subject_id=membership.id,
        details={"labels": number},
    )
    session.flush()
    session.refresh(membership, ["withdrawn_at"])
    return number

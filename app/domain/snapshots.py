"""What exactly was learned from? Frozen sets of label revisions, told apart by a hash of what they say."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from app.domain import audit, projects, texts
from app.domain.filters import IS_NEWEST_REVISION, LABEL_COUNTS, one_of
from app.domain.judgement import JudgementForm
from app.errors import Conflict, NotFound
from app.language import gettext as _
from app.tables import (
    Comparison,
    ComparisonResponse,
    Label,
    LabelRank,
    LabelRevision,
    Membership,
    Person,
    Policy,
    Project,
    Prompt,
    Response,
    RewardModel,
    Round,
    Snapshot,
    SnapshotRevision,
    Split,
)

_BATCH = 500  # rankings that a server-side cursor fetches at a time


@dataclass(frozen=True)
class RankedSet:
    """One annotator's answer as a snapshot pins it.

    `responses` are (id, text) in the order of storing; `groups` are places in `responses`, the best group first, ties
    inside a group. A partial ranking leaves places out, an answer without an order has no groups. `shown_order` are
    response ids. `form` is the one that the answer follows. `believed` is how far the project believes the annotator
    today: it is read with the snapshot and is no part of it.
    """

    revision_id: int
    comparison_id: int
    prompt_id: int
    split: Split
    messages: list[Any]
    responses: list[tuple[int, str]]
    groups: list[list[int]]
    annotator_id: int
    shown_order: list[int]
    answers: dict[str, Any]
    seconds: float | None
    form: JudgementForm
    believed: float

    def ordered_pairs(self) -> Iterator[tuple[int, int]]:
        """All (better, worse) places in `responses`; ties give none."""
        for rank, group in enumerate(self.groups):
            for worse in (place for below in self.groups[rank + 1 :] for place in below):
                yield from ((better, worse) for better in group)

    @property
    def unranked(self) -> list[int]:
        """Places in `responses` of which the order says nothing."""
        ranked = {place for group in self.groups for place in group}
        return [place for place in range(len(self.responses)) if place not in ranked]

    @property
    def strength(self) -> int | None:
        """How much better the better one of two is, on the scale of the project's form; 1 is the least."""
        return self.answers.get("strength")

    @property
    def corrections(self) -> list[tuple[int, int, str]]:
        """(place in `responses` of what was corrected, id and text of the response that the correction became)."""
        said = self.answers.get("corrections", {})
        return [
            (place, said[str(id_)]["response_id"], said[str(id_)]["text"])
            for place, (id_, _text) in enumerate(self.responses)
            if str(id_) in said
        ]

    def implied_pairs(self) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
        """(better, worse) as (id, text): each correction is preferred to what it corrects."""
        for place, id_, text in self.corrections:
            yield (id_, text), self.responses[place]


def take_snapshot(session: Session, project_id: int, by: Person | None = None) -> Snapshot:
    """Freeze the newest revision of every label that counts. Nothing new since the last snapshot: the last one again.

    Raises:
        Conflict: if there is no label that counts.
    """
    session.flush()
    # One at a time, so that two snapshots at once get two numbers.
    session.execute(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    revision_ids = session.scalars(_newest_revisions(project_id)).all()
    if not revision_ids:
        raise Conflict(_("There are no labels to learn from yet: label some comparisons first."))
    last = _last(session, project_id)
    if last is not None and _revision_ids(session, last) == list(revision_ids):
        return last
    snapshot = Snapshot(
        project_id=project_id,
        number=last.number + 1 if last else 1,
        content_hash="",
        labels_count=len(revision_ids),
        created_by_id=by.id if by else None,
    )
    session.add(snapshot)
    session.flush()
    pinned = select(literal(project_id), literal(snapshot.id), LabelRevision.id)
    columns = [SnapshotRevision.project_id, SnapshotRevision.snapshot_id, SnapshotRevision.revision_id]
    session.execute(insert(SnapshotRevision).from_select(columns, pinned.where(one_of(LabelRevision.id, revision_ids))))
    snapshot.content_hash = content_hash(session, snapshot)
    details = {"number": snapshot.number, "labels": snapshot.labels_count}
    audit.record(session, "snapshot.take", project_id=project_id, by=by, subject_id=snapshot.id, details=details)
    session.flush()
    return snapshot


def _newest_revisions(project_id: int) -> Select[int]:
    """Ids of the newest revision of each label that counts, in order."""
    return (
        select(LabelRevision.id)
        .join(Label, Label.id == LabelRevision.label_id)
        .join(Comparison, Comparison.id == Label.comparison_id)
        .where(
            Label.project_id == project_id,
            *LABEL_COUNTS,
            IS_NEWEST_REVISION,
        )
        .order_by(LabelRevision.id)
    )


def _last(session: Session, project_id: int) -> Snapshot | None:
    query = select(Snapshot).where(Snapshot.project_id == project_id)
    return session.scalar(query.order_by(Snapshot.number.desc()).limit(1))


def _revision_ids(session: Session, snapshot: Snapshot) -> Sequence[int]:
    query = select(SnapshotRevision.revision_id).where(SnapshotRevision.snapshot_id == snapshot.id)
    return session.scalars(query.order_by(SnapshotRevision.revision_id)).all()


def content_hash(session: Session, snapshot: Snapshot) -> str:
    """The sha256 over what a snapshot's revisions say, in hex.

    It goes over one line a revision, by revision id: the JSON list [revision id, messages, [[response id, text,
    rank], ...] by response id, answers], with sorted keys, no spaces and no escapes but those that JSON demands, in
    UTF-8, ended by a line feed. Ranks begin with 1; ties are equal; the rank of a response without a place is null.
    The rankings export holds all that is in it.
    """
    digest = hashlib.sha256()
    for ranked in each_ranking(session, snapshot):
        digest.update(hashed_line(ranked).encode())
    return digest.hexdigest()


def hashed_line(ranked: RankedSet) -> str:
    """What a revision gives to the content hash."""
    ranks = {place: rank for rank, group in enumerate(ranked.groups, start=1) for place in group}
    said = sorted([id_, text, ranks.get(place)] for place, (id_, text) in enumerate(ranked.responses))
    return texts.canonical([ranked.revision_id, ranked.messages, said, ranked.answers]) + "\n"


def get_snapshot(session: Session, project_id: int, number: int) -> Snapshot:
    """A project's snapshot by its number. Raises NotFound."""
    row = session.scalar(select(Snapshot).where(Snapshot.project_id == project_id, Snapshot.number == number))
    if row is None:
        raise NotFound(_("The project has no snapshot %(number)s.", number=number))
    return row


def list_snapshots(session: Session, project_id: int) -> Sequence[Snapshot]:
    """All snapshots of a project, by number."""
    return session.scalars(select(Snapshot).where(Snapshot.project_id == project_id).order_by(Snapshot.number)).all()


def require_exportable(snapshot: Snapshot) -> None:
    """Raise Conflict for a snapshot that holds a withdrawn label."""
    if snapshot.tainted_at is not None:
        raise Conflict(
            _(
                "An annotator withdrew labels that snapshot %(number)s holds, so it is exported no more: "
                "take a new snapshot.",
                number=snapshot.number,
            )
        )


def rankings(session: Session, snapshot: Snapshot, split: Split | None = None) -> list[RankedSet]:
    """A snapshot's answers by revision id, also those without an order: all, or those of prompts of one split."""
    return list(each_ranking(session, snapshot, split))


def each_ranking(session: Session, snapshot: Snapshot, split: Split | None = None) -> Iterator[RankedSet]:
    """The same as `rankings`, streamed through a server-side cursor."""
    query = _rankings(snapshot.id)
    if split is not None:
        query = query.where(Prompt.split == split)
    forms = projects.forms_by_version(session, snapshot.project_id)
    for row in session.execute(query, execution_options={"yield_per": _BATCH}):
        revision, prompt_id, prompt_split, messages, annotator_id, believed, ids, contents, ranks = row
        groups: list[list[int]] = [[] for _rank in range(max((rank for rank in ranks if rank), default=0))]
        for place, rank in enumerate(ranks):
            if rank is not None:
                groups[rank - 1].append(place)
        yield RankedSet(
            revision_id=revision.id,
            comparison_id=revision.comparison_id,
            prompt_id=prompt_id,
            split=prompt_split,
            messages=messages,
            responses=list(zip(ids, contents, strict=True)),
            groups=groups,
            annotator_id=annotator_id,
            shown_order=revision.shown_order,
            answers=revision.answers,
            seconds=revision.seconds,
            form=forms[revision.project_version_id],
            believed=believed,
        )


def _rankings(snapshot_id: int) -> Select[Any]:
    """One row a revision; the last three columns are arrays over its responses by their place."""

    def by_place(column: Any) -> Any:
        return func.array_agg(column).aggregate_order_by(ComparisonResponse.place)

    return (
        select(
            LabelRevision,
            Prompt.id,
            Prompt.split,
            Prompt.messages,
            Label.annotator_id,
            Membership.label_weight,
            by_place(ComparisonResponse.response_id),
            by_place(Response.text),
            by_place(LabelRank.rank),
        )
        .join(SnapshotRevision, SnapshotRevision.revision_id == LabelRevision.id)
        .join(Label, Label.id == LabelRevision.label_id)
        .join(Membership, Membership.id == Label.annotator_id)
        .join(ComparisonResponse, ComparisonResponse.comparison_id == LabelRevision.comparison_id)
        .outerjoin(
            LabelRank,
            (LabelRank.revision_id == LabelRevision.id) & (LabelRank.response_id == ComparisonResponse.response_id),
        )
        .join(Response, Response.id == ComparisonResponse.response_id)
        .join(Prompt, Prompt.id == ComparisonResponse.prompt_id)
        .where(SnapshotRevision.snapshot_id == snapshot_id)
        .group_by(LabelRevision.id, Prompt.id, Label.id, Membership.id)
        .order_by(LabelRevision.id)
    )


def taint(session: Session, membership: Membership, comparison_ids: Sequence[int] = ()) -> None:
    """Mark the snapshots, reward models and policies that an annotator's labels went into, or any on `comparison_ids`.

    A policy inherits from its reward model, from its round's snapshot and from the policies it was trained from.
    """
    now = {"tainted_at": func.clock_timestamp()}
    holding = (
        select(SnapshotRevision.snapshot_id)
        .join(LabelRevision, LabelRevision.id == SnapshotRevision.revision_id)
        .join(Label, Label.id == LabelRevision.label_id)
        .where(or_(Label.annotator_id == membership.id, one_of(Label.comparison_id, comparison_ids)))
    )
    session.execute(update(Snapshot).where(Snapshot.id.in_(holding), Snapshot.tainted_at.is_(None)).values(now))
    fitted = RewardModel.snapshot_id.in_(holding)
    session.execute(update(RewardModel).where(fitted, RewardModel.tainted_at.is_(None)).values(now))
    heirs = (
        select(Policy.id)
        .outerjoin(RewardModel, RewardModel.id == Policy.reward_model_id)
        .outerjoin(Round, Round.id == Policy.round_id)
        .where(
            Policy.project_id == membership.project_id,
            or_(RewardModel.tainted_at.is_not(None), Round.snapshot_id.in_(holding)),
        )
        .cte("heirs", recursive=True)
    )
    heirs = heirs.union(select(Policy.id).join(heirs, Policy.parent_id == heirs.c.id))
    inherited = Policy.id.in_(select(heirs.c.id))
    session.execute(update(Policy).where(inherited, Policy.tainted_at.is_(None)).values(now))

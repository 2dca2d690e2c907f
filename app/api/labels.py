"""What did people answer? Labels with all their revisions, and whether they count."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, model_validator

from app.api.access import AdminProject, Caller, Database
from app.api.labelling import Answer, LabelTaken
from app.api.shapes import After, Id, Limit, Page, PathId, Received, Search, Shown, page_of
from app.domain import labels, people
from app.errors import NotFound
from app.language import gettext as _
from app.tables import Label, LabelRevision

router = APIRouter(tags=["labels"])


class RevisionShown(Shown):
    """What a label said at one time."""

    id: int
    number: int
    groups: list[list[int]] = Field(
        description="Response ids, the best group first; ids in one group are tied. Ids without a place are left out."
    )
    shown_order: list[int] = Field(description="Response ids as they were shown.")
    answers: dict[str, Any] = Field(
        description="What was said beside the order, in the shape in which it was sent; texts name their `response_id`."
    )
    seconds: float | None
    project_version_id: int
    created_at: datetime

    @classmethod
    def of(cls, row: object) -> Self:
        """The revision with its ranks as groups."""
        assert isinstance(row, LabelRevision)
        groups: dict[int, list[int]] = {}
        for rank in sorted(row.ranks, key=lambda rank: (rank.rank, rank.response_id)):
            groups.setdefault(rank.rank, []).append(rank.response_id)
        return cls(
            id=row.id,
            number=row.number,
            groups=list(groups.values()),
            shown_order=row.shown_order,
            answers=row.answers,
            seconds=row.seconds,
            project_version_id=row.project_version_id,
            created_at=row.created_at,
        )


class LabelShown(Shown):
    """An annotator's answer; the last revision is what holds."""

    id: int
    comparison_id: int
    assignment_id: int
    annotator_id: int = Field(description="A pseudonym: the person's membership in this project.")
    surplus: bool
    excluded_at: datetime | None
    excluded_reason: str | None
    withdrawn_at: datetime | None
    created_at: datetime
    revisions: list[RevisionShown]

    @classmethod
    def of(cls, row: object) -> Self:
        """The label with its revisions; of a withdrawn one nothing of what it said is left to see."""
        assert isinstance(row, Label)
        columns = {name: getattr(row, name) for name in cls.model_fields if name != "revisions"}
        return cls(**columns, revisions=[RevisionShown.of(one) for one in row.revisions if not row.withdrawn_at])


class LabelChange(Received):
    """Which labels are to count, or not."""

    ids: list[Id] = Field(min_length=1, max_length=10_000)
    excluded: bool
    reason: str | None = Field(default=None, max_length=2000, description="Needed to exclude.")

    @model_validator(mode="after")
    def _has_a_reason(self) -> Self:
        if self.excluded and not (self.reason or "").strip():
            raise ValueError("give a reason for leaving labels out")
        return self


class Changed(BaseModel):
    """How many labels were changed; those that were so already do not count."""

    changed: int


@router.get("/projects/{project}/labels")
def list_labels(
    session: Database,
    project: AdminProject,
    annotator_id: Id | None = None,
    excluded: Annotated[bool | None, Query(description="Only excluded ones, or only the others.")] = None,
    comparison_id: Id | None = None,
    search: Search = None,
    after: After = 0,
    limit: Limit = 100,
) -> Page[LabelShown]:
    """Labels by id, each with all its revisions."""
    rows = labels.list_labels(
        session,
        project.id,
        annotator_id=annotator_id,
        excluded=excluded,
        comparison_id=comparison_id,
        search=search,
        after_id=after,
        limit=limit,
    )
    return page_of(rows, limit, LabelShown.of)


@router.patch("/projects/{project}/labels")
def change_labels(session: Database, project: AdminProject, person: Caller, change: LabelChange) -> Changed:
    """Leave labels out of coming snapshots, with a reason, or take them in again."""
    if change.excluded:
        return Changed(changed=labels.exclude(session, project.id, change.ids, change.reason or "", person))
    return Changed(changed=labels.include(session, project.id, change.ids, person))


@router.post("/labels/{label_id}/revisions")
def revise(session: Database, person: Caller, label_id: PathId, answer: Answer) -> LabelTaken:
    """Change one of the caller's own labels, at any time. The same answer again makes no new revision."""
    label = session.get(Label, label_id)
    membership = people.membership(session, label.project_id, person.id) if label else None
    if label is None or membership is None or label.annotator_id != membership.id:
        raise NotFound(_("You have no label %(number)s.", number=label_id))
    revision = labels.revise(
        session, label.id, membership.id, answer.groups, answers=answer.answers, seconds=answer.seconds
    )
    return LabelTaken(
        label_id=label.id,
        revision_id=revision.id,
        revision=revision.number,
        surplus=label.surplus,
        is_repeat=False,
    )

"""Who labels in a project, and how much does a label of theirs count? Members by their pseudonyms."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from app.api.access import AdminProject, Caller, Database
from app.api.shapes import PathId, Received, Shown
from app.domain import people
from app.tables import Membership, Role

router = APIRouter(tags=["projects"])


class MemberShown(Shown):
    """A member. Names stand on the admin's page of people alone."""

    annotator_id: int = Field(description="The pseudonym that labels hold.")
    role: Role
    label_weight: float = Field(description="How much a label counts where `reward.annotators` is `given`.")
    joined_at: datetime
    left_at: datetime | None
    withdrawn_at: datetime | None = Field(description="When all labels were taken back.")


class Members(Shown):
    """Who is and who was in a project."""

    items: list[MemberShown]


class MemberChange(Received):
    """What may be changed of a member."""

    label_weight: float = Field(strict=True, ge=0, le=people.MOST_WEIGHT, allow_inf_nan=False)


@router.get("/projects/{project}/members")
def list_members(session: Database, project: AdminProject) -> Members:
    """Who is in the project, and then who has left it."""
    found = people.list_members(session, project.id) + people.list_members(session, project.id, former=True)
    return Members(items=[_shown(member) for member, _person in found])


@router.patch("/projects/{project}/members/{annotator_id}")
def change_member(
    session: Database, project: AdminProject, person: Caller, annotator_id: PathId, change: MemberChange
) -> MemberShown:
    """Say how much a member's labels count: 1 is an ordinary label, 0 leaves them out of reward models."""
    return _shown(people.set_label_weight(session, project.id, annotator_id, change.label_weight, person))


def _shown(member: Membership) -> MemberShown:
    return MemberShown(
        annotator_id=member.id,
        role=member.role,
        label_weight=member.label_weight,
        joined_at=member.joined_at,
        left_at=member.left_at,
        withdrawn_at=member.withdrawn_at,
    )

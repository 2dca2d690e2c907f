"""Which projects are mine?"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from app.api.access import Caller, Database, MemberProject
from app.api.shapes import Shown
from app.domain import people, projects
from app.tables import Person, Project, ProjectState

router = APIRouter(tags=["projects"])


class ProjectShown(Shown):
    """A project."""

    id: int
    slug: str
    name: str
    state: ProjectState
    current_version_id: int | None
    settings: dict[str, Any] | None = Field(description="For admins alone; annotators get null.")
    current_policy_id: int | None = Field(description="For admins alone; annotators get null.")
    created_at: datetime


class Projects(Shown):
    """The caller's projects."""

    items: list[ProjectShown]


@router.get("/projects")
def list_projects(session: Database, person: Caller) -> Projects:
    """The projects that the caller is a member of; for owners all."""
    return Projects(items=[_shown(session, project, person) for project in projects.list_projects(session, person)])


@router.get("/projects/{project}")
def get_project(session: Database, project: MemberProject, person: Caller) -> ProjectShown:
    """One project, by id or slug."""
    return _shown(session, project, person)


def _shown(session: Session, project: Project, person: Person) -> ProjectShown:
    shown = ProjectShown.of(project)
    # Which models are compared must not colour what annotators say.
    if people.is_admin(session, project.id, person):
        return shown
    return shown.model_copy(update={"settings": None, "current_policy_id": None})

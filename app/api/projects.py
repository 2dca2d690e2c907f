"""Which projects are mine?"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter

from app.api.access import Caller, Database, MemberProject
from app.api.shapes import Shown
from app.domain import projects
from app.tables import ProjectState

router = APIRouter(tags=["projects"])


class ProjectShown(Shown):
    """A project."""

    id: int
    slug: str
    name: str
    state: ProjectState
    settings: dict[str, Any]
    current_version_id: int | None
    current_policy_id: int | None
    created_at: datetime


class Projects(Shown):
    """The caller's projects."""

    items: list[ProjectShown]


@router.get("/projects")
def list_projects(session: Database, person: Caller) -> Projects:
    """The projects that the caller is a member of; for owners all."""
    return Projects(items=[ProjectShown.of(project) for project in projects.list_projects(session, person)])


@router.get("/projects/{project}")
def get_project(project: MemberProject) -> ProjectShown:
    """One project, by id or slug."""
    return ProjectShown.of(project)

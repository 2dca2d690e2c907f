"""Which projects are mine, and what are their annotators told and asked?"""

from datetime import datetime
from typing import Any

from fastapi import APIRouter, status
from pydantic import Field
from sqlalchemy.orm import Session

from app.api.access import AdminProject, Caller, Database, MemberProject
from app.api.shapes import Received, Shown
from app.domain import people, projects
from app.domain.judgement import JudgementForm, parse_form
from app.tables import Person, Project, ProjectState, ProjectVersion

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


class VersionShown(Shown):
    """What annotators are shown from some time on. Versions are never changed, only followed by the next."""

    id: int
    number: int
    guidelines: str = Field(description="Markdown; blocks of ```example are worked examples.")
    consent_text: str = Field(description="Markdown. Empty: none is asked for.")
    judgement_form: JudgementForm = Field(description="What annotators are asked, every part of it.")
    created_at: datetime


class Versions(Shown):
    """All versions of a project, the newest first."""

    items: list[VersionShown]


class VersionChange(Received):
    """The next version. What is left out stays as it is."""

    guidelines: str | None = None
    consent_text: str | None = None
    judgement_form: JudgementForm | None = Field(
        default=None, description="The whole form: a part that is left out gets its default, not what it was."
    )


@router.get("/projects")
def list_projects(session: Database, person: Caller) -> Projects:
    """The projects that the caller is a member of; for owners all."""
    return Projects(items=[_shown(session, project, person) for project in projects.list_projects(session, person)])


@router.get("/projects/{project}")
def get_project(session: Database, project: MemberProject, person: Caller) -> ProjectShown:
    """One project, by id or slug."""
    return _shown(session, project, person)


@router.get("/projects/{project}/versions")
def list_versions(session: Database, project: MemberProject) -> Versions:
    """What annotators are and were told and asked. The first one in the list holds for new assignments."""
    return Versions(items=[_version(version) for version in projects.list_versions(session, project.id)])


@router.post("/projects/{project}/versions", status_code=status.HTTP_201_CREATED)
def change_version(session: Database, project: AdminProject, person: Caller, change: VersionChange) -> VersionShown:
    """Change the guidelines, the consent text or the judgement form: the next version, for assignments from now on.

    Assignments that are being worked on follow the version that they were handed out under. Refused where nothing
    would change.
    """
    form = change.judgement_form
    version = projects.change_version(
        session,
        project,
        guidelines=change.guidelines,
        consent_text=change.consent_text,
        judgement_form=form.model_dump(mode="json") if form else None,
        by=person,
    )
    return _version(version)


def _version(version: ProjectVersion) -> VersionShown:
    return VersionShown(
        id=version.id,
        number=version.number,
        guidelines=version.guidelines,
        consent_text=version.consent_text,
        judgement_form=parse_form(version.judgement_form),
        created_at=version.created_at,
    )


def _shown(session: Session, project: Project, person: Person) -> ProjectShown:
    shown = ProjectShown.of(project)
    # Which models are compared must not colour what annotators say.
    if people.is_admin(session, project.id, person):
        return shown
    return shown.model_copy(update={"settings": None, "current_policy_id": None})

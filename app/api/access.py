"""Who calls, and what may they touch? A bearer token names a person; a project is found only by its members."""

from typing import Annotated

from fastapi import Depends, Path
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from app.database import get_session
from app.domain import people, projects, sign_in
from app.errors import NotFound, NotSignedIn
from app.language import gettext as _
from app.tables import Membership, Person, Project

Database = Annotated[Session, Depends(get_session, scope="function")]

_bearer = HTTPBearer(
    auto_error=False,
    bearerFormat="pl_...",
    description="A token made on the account page or with `prefloop token create`.",
)


def caller(session: Database, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Person:
    """The person whose token the request carries."""
    person = sign_in.person_of_token(session, credentials.credentials) if credentials else None
    if person is None:
        raise NotSignedIn(_("Send a valid token: `Authorization: Bearer pl_...`. The account page makes one."))
    return person


Caller = Annotated[Person, Depends(caller)]
ProjectName = Annotated[str, Path(description="The project's id or slug.", examples=["my-project"], max_length=200)]


def member(session: Database, person: Caller, project: ProjectName) -> Membership:
    """The caller's membership in the project; strangers learn nothing, not even that it exists."""
    try:
        return people.require_member(session, projects.get_project(session, project).id, person)
    except NotFound:
        raise NotFound(_("There is no project “%(project)s” that you are a member of.", project=project)) from None


Member = Annotated[Membership, Depends(member)]


def member_project(session: Database, membership: Member) -> Project:
    """The project, for any of its members."""
    return projects.get_project(session, str(membership.project_id))


def administered_project(
    session: Database, person: Caller, project: Annotated[Project, Depends(member_project)]
) -> Project:
    """The project, for its admins alone."""
    people.require_admin(session, project.id, person)
    return project


MemberProject = Annotated[Project, Depends(member_project)]
AdminProject = Annotated[Project, Depends(administered_project)]

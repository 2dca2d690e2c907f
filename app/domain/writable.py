"""May anything in a project still change? Archived projects are read only until they are made active again."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.errors import Conflict
from app.language import gettext as _
from app.tables import Project, ProjectState


def require_writable(session: Session, project_id: int) -> None:
    """Raise Conflict where the project is archived.

    Every rule that changes a project's content begins with it; leaving, withdrawing and erasure stay possible.
    """
    if session.scalar(select(Project.state).where(Project.id == project_id)) is ProjectState.ARCHIVED:
        raise Conflict(_("This project is archived, so it is read only: make it active again first."))

"""Has this annotator agreed to what the project says about their labels? Asked once for every consent text."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import ConsentNeeded
from app.tables import Consent, ProjectVersion


def is_given(session: Session, annotator_id: int, version: ProjectVersion) -> bool:
    """Whether nothing is asked, or the same text was accepted, under whichever version."""
    if not version.consent_text:
        return True
    accepted = (
        select(Consent.id)
        .join(ProjectVersion, ProjectVersion.id == Consent.project_version_id)
        .where(Consent.annotator_id == annotator_id, ProjectVersion.consent_text == version.consent_text)
    )
    return session.scalar(accepted.limit(1)) is not None


def require_consent(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Raise ConsentNeeded, with the text, where the annotator has not accepted what this version asks."""
    if not is_given(session, annotator_id, version):
        raise ConsentNeeded(
            "Read the project's consent text and accept it before you label.",
            details={"consent_text": version.consent_text, "project_version_id": version.id},
        )


def accept(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Keep that the annotator accepts this version's text, and when. Accepting again changes nothing."""
    if version.consent_text:
        accepting = insert(Consent).values(
            project_id=version.project_id, annotator_id=annotator_id, project_version_id=version.id
        )
        session.execute(accepting.on_conflict_do_nothing())

"""What comes before the first task? The consent text and the guidelines: each is asked for once for every wording."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.errors import ConsentNeeded, ReadingNeeded
from app.language import gettext as _
from app.tables import Consent, ProjectVersion, Reading


@dataclass(frozen=True)
class Asked:
    """What an annotator still has to do before a new task: read the guidelines, accept the consent text."""

    guidelines: bool
    consent: bool
    last_read: int | None  # the number of the version whose guidelines they read last, where those were others

    def __bool__(self) -> bool:
        return self.guidelines or self.consent


def asked_of(session: Session, annotator_id: int, version: ProjectVersion) -> Asked:
    """What stands between an annotator and a task under this version."""
    guidelines = bool(version.guidelines) and not _is_read(session, annotator_id, version)
    return Asked(
        guidelines=guidelines,
        consent=not is_given(session, annotator_id, version),
        last_read=_last_read(session, annotator_id) if guidelines else None,
    )


def is_given(session: Session, annotator_id: int, version: ProjectVersion) -> bool:
    """Whether nothing is asked, or the same consent text was accepted, under whichever version."""
    if not version.consent_text:
        return True
    accepted = (
        select(Consent.id)
        .join(ProjectVersion, ProjectVersion.id == Consent.project_version_id)
        .where(Consent.annotator_id == annotator_id, ProjectVersion.consent_text == version.consent_text)
    )
    return session.scalar(accepted.limit(1)) is not None


def _is_read(session: Session, annotator_id: int, version: ProjectVersion) -> bool:
    """Whether the same guidelines were read, under whichever version."""
    read = (
        select(Reading.annotator_id)
        .join(ProjectVersion, ProjectVersion.id == Reading.project_version_id)
        .where(Reading.annotator_id == annotator_id, ProjectVersion.guidelines == version.guidelines)
    )
    return session.scalar(read.limit(1)) is not None


def _last_read(session: Session, annotator_id: int) -> int | None:
    return session.scalar(
        select(ProjectVersion.number)
        .join(Reading, Reading.project_version_id == ProjectVersion.id)
        .where(Reading.annotator_id == annotator_id)
        .order_by(Reading.read_at.desc(), ProjectVersion.number.desc())
        .limit(1)
    )


def require_consent(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Raise ConsentNeeded, with the text, where the annotator has not accepted what this version asks."""
    if not is_given(session, annotator_id, version):
        raise ConsentNeeded(
            _("Read the project's consent text and accept it before you label."),
            details={"consent_text": version.consent_text, "project_version_id": version.id},
        )


def require_reading(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Raise ReadingNeeded where the annotator has not read these guidelines: for people, not for programs."""
    if version.guidelines and not _is_read(session, annotator_id, version):
        raise ReadingNeeded(_("Read the project's guidelines before you label."))


def accept(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Keep that the annotator accepts this version's consent text, and when. Accepting again changes nothing."""
    if version.consent_text:
        _keep(session, Consent, annotator_id, version)


def read(session: Session, annotator_id: int, version: ProjectVersion) -> None:
    """Keep that the annotator has read this version's guidelines, and when first."""
    if version.guidelines:
        _keep(session, Reading, annotator_id, version)


def _keep(session: Session, table: type[Consent] | type[Reading], annotator_id: int, version: ProjectVersion) -> None:
    keeping = insert(table).values(
        project_id=version.project_id, annotator_id=annotator_id, project_version_id=version.id
    )
    session.execute(keeping.on_conflict_do_nothing())

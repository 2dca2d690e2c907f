"""What is stored about me? Everything that a person's row leads to, to look at and to take along."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Select, func, select
from sqlalchemy.orm import Session, joinedload, selectinload

from app.domain import labels, responses
from app.errors import Invalid, NotFound
from app.language import gettext as _
from app.tables import (
    ApiToken,
    Assignment,
    AssignmentState,
    AuditEvent,
    Comparison,
    ComparisonResponse,
    Consent,
    Draft,
    Label,
    LabelRevision,
    Membership,
    Person,
    Project,
    ProjectVersion,
    Reading,
    Response,
    WebSession,
)

_BATCH = 100


@dataclass(frozen=True)
class Part:
    """A person's part in a project: what they agreed to and read, by version and time, and how much they did."""

    membership: Membership
    project: Project
    consents: Sequence[tuple[int, datetime]]
    readings: Sequence[tuple[int, datetime]]
    labels: int  # withdrawn ones are still stored, and left out here
    withdrawn: int
    skips: int


def parts(session: Session, person: Person) -> list[Part]:
    """A person's part in every project, also in those that they left."""
    rows = session.execute(
        select(Membership, Project)
        .join(Project, Project.id == Membership.project_id)
        .where(Membership.person_id == person.id)
        .order_by(Project.name, Project.id)
    ).all()
    return [_part(session, membership, project) for membership, project in rows]


def _part(session: Session, membership: Membership, project: Project) -> Part:
    withdrawn = func.count(Label.withdrawn_at)
    kept, gone = session.execute(
        select(func.count() - withdrawn, withdrawn).where(Label.annotator_id == membership.id)
    ).one()
    skips = select(func.count()).where(
        Assignment.annotator_id == membership.id, Assignment.state == AssignmentState.SKIPPED
    )
    return Part(
        membership=membership,
        project=project,
        consents=_versions(session, select(ProjectVersion.number, Consent.accepted_at), Consent, membership),
        readings=_versions(session, select(ProjectVersion.number, Reading.read_at), Reading, membership),
        labels=kept,
        withdrawn=gone,
        skips=session.scalar(skips) or 0,
    )


def _versions(
    session: Session, query: Select[int, datetime], table: type[Consent] | type[Reading], membership: Membership
) -> list[tuple[int, datetime]]:
    rows = session.execute(
        query.join(table, table.project_version_id == ProjectVersion.id)
        .where(table.annotator_id == membership.id)
        .order_by(ProjectVersion.number)
    )
    return [(number, time) for number, time in rows]


def withdraw(session: Session, person: Person, membership_id: int, typed: str) -> int:
    """Take all one's labels in a project back, for good; return how many there were.

    Raises NotFound, and Invalid where `typed` is not the project's name.
    """
    membership = session.scalar(
        select(Membership).where(Membership.id == membership_id, Membership.person_id == person.id)
    )
    if membership is None:
        raise NotFound(_("You have no part in this project."))
    name = session.get_one(Project, membership.project_id).name
    if typed.strip().casefold() != name.casefold():
        raise Invalid(_("This is not the project's name, so nothing was withdrawn."))
    return labels.withdraw_annotator(session, membership, by=person)


def as_json(session: Session, person: Person) -> Iterator[str]:
    """Everything stored about a person as one JSON object, piece by piece: however many labels there are."""
    yield f'{{"person": {_text(_person(session, person))}, "projects": ['
    for number, part in enumerate(parts(session, person)):
        yield f"{',' if number else ''}\n{_text(_project(part))[:-1]}"
        for name, rows in (
            ("labels", _labels(session, part.membership)),
            ("skips", _skips(session, part.membership)),
            ("drafts", _drafts(session, part.membership)),
        ):
            yield f', "{name}": ['
            yield from (f"{',' if place else ''}\n{_text(row)}" for place, row in enumerate(rows))
            yield "]"
        yield "}"
    yield "]}\n"


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=_time)


def _time(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat()


def _person(session: Session, person: Person) -> dict[str, Any]:
    """The person's own row, and what hangs on it. Passwords and secrets are stored as hashes, and stay here."""
    sessions = select(WebSession.created_at, WebSession.last_seen_at, WebSession.expires_at)
    tokens = select(ApiToken.name, ApiToken.created_at, ApiToken.last_used_at, ApiToken.revoked_at)
    acts = select(AuditEvent.action, AuditEvent.project_id, AuditEvent.created_at)
    return {
        "name": person.name,
        "email": person.email,
        "language": person.language,
        "is_owner": person.is_owner,
        "created_at": person.created_at,
        "sessions": _rows(session, sessions.where(WebSession.person_id == person.id).order_by(WebSession.id)),
        "tokens": _rows(session, tokens.where(ApiToken.person_id == person.id).order_by(ApiToken.id)),
        "acts": _rows(session, acts.where(AuditEvent.person_id == person.id).order_by(AuditEvent.id)),
    }


def _rows(session: Session, query: Executable) -> list[dict[str, Any]]:
    return [dict(row._mapping) for row in session.execute(query)]


def _project(part: Part) -> dict[str, Any]:
    member = part.membership
    return {
        "project": part.project.name,
        "annotator_id": member.id,
        "role": member.role.value,
        "joined_at": member.joined_at,
        "left_at": member.left_at,
        "withdrawn_at": member.withdrawn_at,
        "consents": [{"version": number, "accepted_at": time} for number, time in part.consents],
        "guidelines_read": [{"version": number, "read_at": time} for number, time in part.readings],
    }


def _labels(session: Session, membership: Membership) -> Iterator[dict[str, Any]]:
    """One's labels with every answer given, what was shown, but for what others withdrew, and when."""
    withdrawn = responses.withdrawn(session, membership.project_id)

    def text(response: Response) -> str | None:
        return None if response.id in withdrawn and response.author_id != membership.id else response.text

    shown = joinedload(Label.comparison).options(
        joinedload(Comparison.prompt), selectinload(Comparison.members).joinedload(ComparisonResponse.response)
    )
    query = (
        select(Label)
        .where(Label.annotator_id == membership.id)
        .order_by(Label.id)
        .options(selectinload(Label.revisions).selectinload(LabelRevision.ranks), shown)
    )
    for label in session.scalars(query, execution_options={"yield_per": _BATCH}):
        yield {
            "label_id": label.id,
            "created_at": label.created_at,
            "withdrawn_at": label.withdrawn_at,
            "prompt": label.comparison.prompt.messages,
            "responses": {member.response_id: text(member.response) for member in label.comparison.members},
            "answers": [_answer(revision) for revision in label.revisions],
        }


def _answer(revision: LabelRevision) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "created_at": revision.created_at,
        "seconds": revision.seconds,
        "shown_order": revision.shown_order,
        "ranks": {rank.response_id: rank.rank for rank in revision.ranks},
        "answers": revision.answers,
    }


def _skips(session: Session, membership: Membership) -> Iterator[dict[str, Any]]:
    query = select(Assignment.comparison_id, Assignment.skip_reason, Assignment.ended_at).where(
        Assignment.annotator_id == membership.id, Assignment.state == AssignmentState.SKIPPED
    )
    yield from _rows(session, query.order_by(Assignment.id))


def _drafts(session: Session, membership: Membership) -> Iterator[dict[str, Any]]:
    query = (
        select(Draft.comparison_id, Draft.fields, Draft.seconds, Draft.saved_at)
        .join(Assignment, Assignment.id == Draft.assignment_id)
        .where(Assignment.annotator_id == membership.id)
    )
    yield from _rows(session, query.order_by(Draft.assignment_id))

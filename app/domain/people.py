"""Who works here? People, their memberships, the invites that bring them in, and erasure.

There is no open registration: a person is made by an owner, by the command line or by an invite's link.
"""

import re
from collections.abc import Sequence
from datetime import timedelta

from argon2 import PasswordHasher
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.domain import audit, drafts, queue, texts
from app.errors import Conflict, Invalid, LinkExpired, NotAllowed, NotFound
from app.language import Language, grouped
from app.language import gettext as _
from app.tables import (
    ApiToken,
    Comparison,
    ComparisonAssignee,
    Invite,
    Membership,
    Person,
    Project,
    Purpose,
    Role,
    SignInLink,
    WebSession,
)

SHORTEST_PASSWORD = 10
LONGEST_PASSWORD = 1_000
MOST_USES = 10_000  # of an invite
MOST_DAYS = 365  # that an invite lasts
MOST_WEIGHT = 10  # of a label
HASHER = PasswordHasher()


def create_person(
    session: Session,
    *,
    email: str,
    name: str,
    password: str | None = None,
    is_owner: bool = False,
    by: Person | None = None,
) -> Person:
    """A new person. Without a password they come in by a one-time link. Raises Conflict where the e-mail is taken."""
    person: Person | None = session.scalar(
        insert(Person)
        .values(
            email=_email(email),
            name=texts.line(name, _("The name")),
            password_hash=_hash(password) if password is not None else None,
            is_owner=is_owner,
        )
        .on_conflict_do_nothing()
        .returning(Person)
    )
    if person is None:
        raise Conflict(_("Somebody with this e-mail address is here already."))
    audit.record(session, "person.create", by=by, subject_id=person.id, details={"is_owner": is_owner})
    return person


def _email(email: str) -> str:
    kept = texts.line(email, _("The e-mail address"), longest=254).lower()
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", kept):
        raise Invalid(_("The e-mail address should look like name@example.org."))
    return kept


def _hash(password: str) -> str:
    if len(password) < SHORTEST_PASSWORD:
        raise Invalid(_("The password is too short: use at least %(least)s characters.", least=SHORTEST_PASSWORD))
    if len(password) > LONGEST_PASSWORD or texts.flaw(password):
        raise Invalid(_("The password must be text of at most %(most)s characters.", most=grouped(LONGEST_PASSWORD)))
    return HASHER.hash(password)


def get_person(session: Session, person_id: int) -> Person:
    """A person, erased ones too. Raises NotFound."""
    person = session.get(Person, person_id)
    if person is None:
        raise NotFound(_("There is no person %(number)s.", number=person_id))
    return person


def find_person(session: Session, email: str) -> Person | None:
    """The person with this e-mail address, in any case."""
    return session.scalar(select(Person).where(func.lower(Person.email) == email.strip().lower()))


def list_people(session: Session) -> Sequence[Person]:
    """Everybody who is not erased, by name."""
    return session.scalars(select(Person).where(Person.erased_at.is_(None)).order_by(Person.name, Person.id)).all()


def set_password(session: Session, person: Person, password: str, *, by: Person | None = None) -> None:
    """Set a password (10 characters at least) and sign out every browser of the person."""
    person.password_hash = _hash(password)
    session.execute(delete(WebSession).where(WebSession.person_id == person.id))
    audit.record(session, "person.set_password", by=by, subject_id=person.id)
    session.flush()


def choose_language(session: Session, person: Person, language: Language | None) -> None:
    """Speak to a person in `language` from now on; None: as their browser asks."""
    person.language = language.code if language else None
    session.flush()


def add_member(
    session: Session, project: Project, person: Person, role: Role, *, by: Person | None = None
) -> Membership:
    """Put a person into a project, back into it, or into another role. Their annotator id stays what it was."""
    joining = insert(Membership).values(project_id=project.id, person_id=person.id, role=role)
    member = session.scalars(
        joining.on_conflict_do_update(
            index_elements=[Membership.project_id, Membership.person_id],
            set_={"role": role, "left_at": None},
        ).returning(Membership),
        execution_options={"populate_existing": True},
    ).one()
    audit.record(
        session, "member.add", project_id=project.id, by=by, subject_id=member.id, details={"role": role.value}
    )
    return member


def membership(session: Session, project_id: int, person_id: int) -> Membership | None:
    """The membership of a person who is in the project now."""
    return session.scalar(
        select(Membership).where(
            Membership.project_id == project_id, Membership.person_id == person_id, Membership.left_at.is_(None)
        )
    )


def require_member(session: Session, project_id: int, person: Person) -> Membership:
    """The person's membership. An owner becomes an admin of the project on first need. Raises NotFound."""
    member = membership(session, project_id, person.id)
    if member is not None:
        return member
    project = session.get(Project, project_id) if person.is_owner else None
    if project is None:
        raise NotFound(_("There is no such project, or you are not in it."))
    return add_member(session, project, person, Role.ADMIN, by=person)


def is_admin(session: Session, project_id: int, person: Person) -> bool:
    """Whether the person administers the project, as an owner or as a member."""
    member = membership(session, project_id, person.id)
    return person.is_owner or (member is not None and member.role is Role.ADMIN)


def require_admin(session: Session, project_id: int, person: Person) -> None:
    """Raise NotAllowed for annotators, NotFound for people outside the project."""
    if person.is_owner and session.get(Project, project_id) is not None:
        return
    if require_member(session, project_id, person).role is not Role.ADMIN:
        raise NotAllowed(_("Only the project's admins may do this."))


def list_members(session: Session, project_id: int, *, former: bool = False) -> list[tuple[Membership, Person]]:
    """Who is in the project now, admins first; `former`: who has left it."""
    rows = session.execute(
        select(Membership, Person)
        .join(Person, Person.id == Membership.person_id)
        .where(
            Membership.project_id == project_id,
            Membership.left_at.is_not(None) if former else Membership.left_at.is_(None),
        )
        .order_by(Membership.role, Membership.id)
    )
    return [(member, person) for member, person in rows]


def get_member(session: Session, project_id: int, membership_id: int) -> Membership:
    """Somebody who is or was in the project. Raises NotFound."""
    query = select(Membership).where(Membership.id == membership_id, Membership.project_id == project_id)
    member = session.scalar(query)
    if member is None:
        raise NotFound(_("There is no such member in this project."))
    return member


def set_label_weight(session: Session, project_id: int, membership_id: int, weight: float, by: Person) -> Membership:
    """Say how much a member's labels count beside those of others, where reward models go by given weights.

    1 is an ordinary label; with 0 reward models leave them out. Raises NotFound, Invalid.
    """
    if not 0 <= weight <= MOST_WEIGHT:
        raise Invalid(_("A label weighs between 0 and %(most)s.", most=MOST_WEIGHT))
    member = get_member(session, project_id, membership_id)
    details = {"weight": weight, "before": member.label_weight}
    member.label_weight = weight
    audit.record(
        session, "member.set_label_weight", project_id=project_id, by=by, subject_id=member.id, details=details
    )
    session.flush()
    return member


def remove_member(session: Session, project_id: int, membership_id: int, by: Person) -> Membership:
    """Take a person out of a project, with their leases and what was assigned to them; their labels stay.

    Raises NotFound.
    """
    member = session.scalar(
        select(Membership).where(
            Membership.id == membership_id, Membership.project_id == project_id, Membership.left_at.is_(None)
        )
    )
    if member is None:
        raise NotFound(_("There is no such member in this project."))
    _leave(session, member)
    audit.record(session, "member.remove", project_id=project_id, by=by, subject_id=member.id)
    session.flush()
    return member


def _leave(session: Session, member: Membership) -> None:
    queue.lock_annotator(session, member.project_id, member.id)
    queue.end_leases(session, member.id)
    drafts.forget(session, member.id)
    # Their repeats stay theirs: nobody else can answer those, and they see none twice if they come back.
    of_others = select(Comparison.id).where(Comparison.purpose != Purpose.REPEAT)
    assigned = (ComparisonAssignee.annotator_id == member.id, ComparisonAssignee.comparison_id.in_(of_others))
    session.execute(delete(ComparisonAssignee).where(*assigned))
    member.left_at = func.now()


def create_invite(
    session: Session,
    *,
    project_id: int | None,
    role: Role,
    created_by: Person,
    max_uses: int = 1,
    days: int = 14,
) -> tuple[Invite, str]:
    """An invite and the secret of its link, which is shown once. Without a project it makes owners: owners only."""
    if project_id is None and not created_by.is_owner:
        raise NotAllowed(_("Only owners may invite owners."))
    if not 1 <= max_uses <= MOST_USES:
        raise Invalid(_("An invite can be used between 1 and %(most)s times.", most=grouped(MOST_USES)))
    if not 1 <= days <= MOST_DAYS:
        raise Invalid(_("An invite lasts between 1 and %(most)s days.", most=MOST_DAYS))
    secret, token_hash = texts.new_secret()
    invite = Invite(
        project_id=project_id,
        role=role,
        token_hash=token_hash,
        created_by_id=created_by.id,
        max_uses=max_uses,
        expires_at=func.now() + timedelta(days=days),
    )
    session.add(invite)
    session.flush()
    details = {"role": role.value, "max_uses": max_uses, "days": days}
    audit.record(session, "invite.create", project_id=project_id, by=created_by, subject_id=invite.id, details=details)
    return invite, secret


def read_invite(session: Session, secret: str) -> Invite:
    """The invite behind a link, if it can still be used. Raises NotFound, LinkExpired."""
    row = session.execute(
        select(Invite, Invite.expires_at <= func.clock_timestamp())
        .where(Invite.token_hash == texts.secret_hash(secret))
        .execution_options(populate_existing=True)
    ).first()
    if row is None:
        raise NotFound(_("There is no such invite. Is the link complete?"))
    invite, has_run_out = row
    if invite.revoked_at is not None:
        raise LinkExpired(_("This invite was withdrawn. Ask for a new one."))
    if has_run_out:
        raise LinkExpired(_("This invite has run out. Ask for a new one."))
    if invite.uses >= invite.max_uses:
        raise LinkExpired(_("This invite was used up. Ask for a new one."))
    return invite


def accept_invite(session: Session, secret: str, *, email: str, name: str, password: str) -> Person:
    """A new person, in the invite's project. Raises NotFound, LinkExpired, Conflict (e-mail taken), Invalid."""
    with session.begin_nested():  # a refusal that the caller shows must not use the invite up
        invite = _use(session, secret)
        try:
            person = create_person(session, email=email, name=name, password=password)
        except Conflict as taken:
            raise Conflict(_("%(taken)s If that is you, sign in and open this link again.", taken=taken)) from taken
        _admit(session, invite, person)
    return person


def join_by_invite(session: Session, secret: str, person: Person) -> Person:
    """Let a person who has an account use an invite. Who has that access already does not use it up."""
    invite = read_invite(session, secret)
    if invite.project_id is None:
        has_access = person.is_owner
    else:
        has_access = membership(session, invite.project_id, person.id) is not None
    if not has_access:
        with session.begin_nested():
            _admit(session, _use(session, secret), person)
    return person


def _use(session: Session, secret: str) -> Invite:
    # One statement counts and checks, so that an invite for one is never used by two at the same instant.
    used = session.scalar(
        update(Invite)
        .where(
            Invite.token_hash == texts.secret_hash(secret),
            Invite.uses < Invite.max_uses,
            Invite.revoked_at.is_(None),
            Invite.expires_at > func.clock_timestamp(),
        )
        .values(uses=Invite.uses + 1)
        .returning(Invite)
        .execution_options(populate_existing=True, synchronize_session=False)
    )
    if used is None:
        read_invite(session, secret)
        raise LinkExpired(_("This invite was used up. Ask for a new one."))
    return used


def _admit(session: Session, invite: Invite, person: Person) -> None:
    if invite.project_id is None:
        person.is_owner = True
        audit.record(session, "person.make_owner", by=person, subject_id=person.id, details={"invite": invite.id})
        session.flush()
        return
    project = session.get_one(Project, invite.project_id)
    add_member(session, project, person, invite.role, by=person)


def list_invites(session: Session, project_id: int | None) -> Sequence[Invite]:
    """A project's invites that can still be used, newest first; None: those that make owners."""
    return session.scalars(
        select(Invite)
        .where(
            Invite.project_id.is_not_distinct_from(project_id),
            Invite.revoked_at.is_(None),
            Invite.uses < Invite.max_uses,
            Invite.expires_at > func.now(),
        )
        .order_by(Invite.id.desc())
    ).all()


def revoke_invite(session: Session, project_id: int | None, invite_id: int, by: Person) -> None:
    """Make an invite's link useless from now on. Raises NotFound."""
    invite = session.scalar(
        select(Invite).where(Invite.id == invite_id, Invite.project_id.is_not_distinct_from(project_id))
    )
    if invite is None:
        raise NotFound(_("There is no such invite."))
    invite.revoked_at = func.coalesce(Invite.revoked_at, func.now())
    audit.record(session, "invite.revoke", project_id=project_id, by=by, subject_id=invite.id)
    session.flush()


def erase_person(session: Session, person: Person, by: Person | None) -> None:
    """Empty a person's row for good and end every access; labels keep their pseudonymous annotator ids.

    People erase themselves, owners and the command line (`by` is empty) anybody.
    Raises NotAllowed for others, Conflict for the last owner.
    """
    if by is not None and by.id != person.id and not by.is_owner:
        raise NotAllowed(_("Only owners may erase other people."))
    # Locked, so that two owners cannot erase each other at the same time.
    owners = session.scalars(select(Person.id).where(Person.is_owner).order_by(Person.id).with_for_update()).all()
    if list(owners) == [person.id]:
        raise Conflict(_("This is the last owner: make somebody else an owner first."))
    for table in (WebSession, SignInLink, ApiToken):
        session.execute(delete(table).where(table.person_id == person.id))
    query = select(Membership).where(Membership.person_id == person.id, Membership.left_at.is_(None))
    for member in session.scalars(query.order_by(Membership.id)).all():
        _leave(session, member)
    person.email = person.name = person.password_hash = person.language = None
    person.is_owner = False
    person.erased_at = func.now()
    audit.record(session, "person.erase", by=by, subject_id=person.id)
    session.flush()

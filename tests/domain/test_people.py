"""Who works here: people, memberships, invites, erasure."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import audit, people, projects, sign_in
from app.errors import Conflict, Invalid, LinkExpired, NotAllowed, NotFound, PrefloopError
from app.tables import ApiToken, AuditEvent, Invite, Membership, Person, Role, SignInLink, WebSession
from tests.factories import PASSWORD, make_member, make_person, make_project


def test_an_email_belongs_to_one_person_in_any_case(session: Session) -> None:
    ada = people.create_person(session, email=" Ada@Example.org ", name=" Ada ")
    assert (ada.email, ada.name, ada.password_hash) == ("ada@example.org", "Ada", None)
    with pytest.raises(Conflict, match="already"):
        people.create_person(session, email="ADA@example.ORG", name="Another")
    assert people.find_person(session, "ADA@EXAMPLE.ORG") is ada
    assert people.list_people(session) == [ada]


@pytest.mark.parametrize(
    ("email", "name", "password", "message"),
    [
        ("no-at-sign", "A", None, "name@example.org"),
        ("two words@x", "A", None, "name@example.org"),
        ("", "A", None, "e-mail address is empty"),
        ("a@b", "  ", None, "name is empty"),
        ("a@b", "A\nB", None, "cannot be shown"),
        ("a@b", "A\x00B", None, "cannot be shown"),
        ("a@b", "\ud800", None, "cannot be shown"),
        ("a@b", "A" * 201, None, "longer than 200"),
        ("a@b", "A", "123456789", "at least 10"),
        ("a@b", "A", "1" * 1001, "at most 1,000"),
        ("a@b", "A", "0123456789\x00", "must be text"),
    ],
)
def test_bad_people_are_refused_in_words(
    session: Session, email: str, name: str, password: str | None, message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        people.create_person(session, email=email, name=name, password=password)
    assert people.list_people(session) == []


def test_a_password_is_stored_as_argon2id(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    assert person.password_hash is not None
    assert person.password_hash.startswith("$argon2id$")
    assert PASSWORD not in person.password_hash


def test_a_new_password_signs_out_every_browser(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    _, secret = sign_in.open_session(session, person)
    other = make_person(session)
    _, others_secret = sign_in.open_session(session, other)
    people.set_password(session, person, "a different one")
    assert sign_in.session_of(session, secret) is None
    assert sign_in.session_of(session, others_secret) is not None
    assert sign_in.sign_in(session, person.email or "", "a different one") is person
    assert sign_in.sign_in(session, person.email or "", PASSWORD) is None


def test_roles_decide_who_may(session: Session) -> None:
    owner = make_person(session, is_owner=True)
    project = make_project(session, owner)
    admin = make_member(session, project, Role.ADMIN)
    annotator = make_member(session, project)
    stranger = make_person(session)
    people.require_admin(session, project.id, owner)
    people.require_admin(session, project.id, people.get_person(session, admin.person_id))
    with pytest.raises(NotAllowed):
        people.require_admin(session, project.id, people.get_person(session, annotator.person_id))
    with pytest.raises(NotFound):
        people.require_admin(session, project.id, stranger)
    with pytest.raises(NotFound):
        people.require_member(session, project.id, stranger)
    with pytest.raises(NotFound):
        people.require_admin(session, project.id + 1, owner)
    with pytest.raises(NotFound):
        people.require_member(session, project.id + 1, owner)


def test_an_owner_joins_any_project_as_admin_on_first_need(session: Session) -> None:
    project = make_project(session)
    other_owner = make_person(session, is_owner=True)
    assert people.membership(session, project.id, other_owner.id) is None
    member = people.require_member(session, project.id, other_owner)
    assert member.role is Role.ADMIN
    assert people.require_member(session, project.id, other_owner) is member


def test_who_comes_back_keeps_their_annotator_id(session: Session) -> None:
    project = make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    member = make_member(session, project)
    person = people.get_person(session, member.person_id)
    people.remove_member(session, project.id, member.id, by)
    assert people.membership(session, project.id, person.id) is None
    assert member.id not in {row.id for row, _ in people.list_members(session, project.id)}
    with pytest.raises(NotFound):
        people.remove_member(session, project.id, member.id, by)
    again = people.add_member(session, project, person, Role.ADMIN, by=by)
    assert (again.id, again.role, again.left_at) == (member.id, Role.ADMIN, None)


def test_another_projects_member_cannot_be_removed(session: Session) -> None:
    mine, other = make_project(session), make_project(session)
    member = make_member(session, other)
    with pytest.raises(NotFound):
        people.remove_member(session, mine.id, member.id, people.get_person(session, mine.created_by_id or 0))


def test_an_invite_brings_one_person_in_once(session: Session) -> None:
    project = make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    invite, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by)
    assert secret != invite.token_hash
    assert people.read_invite(session, secret) is invite
    assert people.list_invites(session, project.id) == [invite]
    person = people.accept_invite(session, secret, email="new@example.org", name="New", password=PASSWORD)
    member = people.membership(session, project.id, person.id)
    assert member is not None
    assert member.role is Role.ANNOTATOR
    assert not person.is_owner
    assert people.list_invites(session, project.id) == []
    with pytest.raises(LinkExpired, match="used up"):
        people.accept_invite(session, secret, email="late@example.org", name="Late", password=PASSWORD)
    assert people.find_person(session, "late@example.org") is None


def test_a_refused_acceptance_does_not_use_the_invite_up(session: Session) -> None:
    project = make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    invite, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by)
    with pytest.raises(Invalid, match="at least 10"):
        people.accept_invite(session, secret, email="new@example.org", name="New", password="short")
    with pytest.raises(Conflict, match="sign in and open this link again"):
        people.accept_invite(session, secret, email=by.email or "", name="New", password=PASSWORD)
    session.refresh(invite)
    assert invite.uses == 0
    people.accept_invite(session, secret, email="new@example.org", name="New", password=PASSWORD)


def test_a_signed_in_person_joins_once_and_uses_the_invite_once(session: Session) -> None:
    project = make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    invite, secret = people.create_invite(
        session, project_id=project.id, role=Role.ANNOTATOR, created_by=by, max_uses=2
    )
    person = make_person(session)
    people.join_by_invite(session, secret, person)
    people.join_by_invite(session, secret, person)
    people.join_by_invite(session, secret, by)  # an admin stays an admin
    session.refresh(invite)
    assert invite.uses == 1
    assert people.require_member(session, project.id, by).role is Role.ADMIN


def test_an_owner_invite_is_for_owners_to_make(session: Session) -> None:
    owner, other = make_person(session, is_owner=True), make_person(session)
    with pytest.raises(NotAllowed):
        people.create_invite(session, project_id=None, role=Role.ADMIN, created_by=other)
    _, secret = people.create_invite(session, project_id=None, role=Role.ADMIN, created_by=owner)
    assert people.join_by_invite(session, secret, other).is_owner


def test_an_invite_ends(session: Session) -> None:
    project = make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    revoked, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by)
    with pytest.raises(NotFound):
        people.revoke_invite(session, None, revoked.id, by)
    people.revoke_invite(session, project.id, revoked.id, by)
    with pytest.raises(LinkExpired, match="withdrawn"):
        people.accept_invite(session, secret, email="a@b", name="A", password=PASSWORD)
    old, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by)
    session.execute(update(Invite).where(Invite.id == old.id).values(expires_at=func.now() - timedelta(seconds=1)))
    with pytest.raises(LinkExpired, match="run out"):
        people.join_by_invite(session, secret, make_person(session))
    for unknown in ("", "nonsense", "\x00", "\ud800"):
        with pytest.raises(NotFound, match="complete"):
            people.read_invite(session, unknown)


@pytest.mark.parametrize(("max_uses", "days"), [(0, 1), (10_001, 1), (1, 0), (1, 366)])
def test_invites_have_bounds(session: Session, max_uses: int, days: int) -> None:
    owner = make_person(session, is_owner=True)
    with pytest.raises(Invalid):
        people.create_invite(session, project_id=None, role=Role.ADMIN, created_by=owner, max_uses=max_uses, days=days)


def test_an_invite_for_three_admits_three_of_eight_at_once(committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        project = make_project(session)
        by = people.get_person(session, project.created_by_id or 0)
        _, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by, max_uses=3)
        crowd = [make_person(session) for _ in range(8)]

    def join(person: Person) -> bool:
        try:
            with committed.begin() as session:
                people.join_by_invite(session, secret, people.get_person(session, person.id))
        except LinkExpired:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        joined = list(pool.map(join, crowd))
    assert sum(joined) == 3
    with committed() as session:
        annotators = session.scalar(
            select(func.count()).select_from(Membership).where(Membership.role == Role.ANNOTATOR)
        )
        assert annotators == 3


def test_one_email_registers_once_of_four_at_once(committed: sessionmaker[Session]) -> None:
    def register(_: int) -> bool:
        try:
            with committed.begin() as session:
                people.create_person(session, email="same@example.org", name="Same")
        except PrefloopError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(register, range(4))) == 1


def test_erasure_empties_the_person_and_keeps_the_annotator(session: Session) -> None:
    owner = make_person(session, is_owner=True)
    project = make_project(session, owner)
    member = make_member(session, project)
    person = people.get_person(session, member.person_id)
    people.set_password(session, person, PASSWORD)
    email = person.email or ""
    _, cookie = sign_in.open_session(session, person)
    _, token = sign_in.create_token(session, person, "a laptop of somebody's")
    link = sign_in.create_sign_in_link(session, person)

    people.erase_person(session, person, owner)

    session.refresh(person)
    assert (person.email, person.name, person.password_hash, person.language) == (None, None, None, None)
    assert person.erased_at is not None
    assert session.get_one(Membership, member.id).left_at is not None
    assert people.list_people(session) == [owner]
    assert sign_in.session_of(session, cookie) is None
    assert sign_in.person_of_token(session, token) is None
    assert sign_in.sign_in(session, email, PASSWORD) is None
    with pytest.raises(NotFound):
        sign_in.use_sign_in_link(session, link)
    with pytest.raises(NotFound):
        sign_in.create_sign_in_link(session, person)
    for table in (WebSession, SignInLink, ApiToken):
        assert session.scalar(select(table.id).where(table.person_id == person.id)) is None
    said = " ".join(str(event.details) for event, _ in audit.list_events(session, None, limit=100))
    assert email not in said
    assert people.create_person(session, email=email, name="Again").id != person.id


def test_people_erase_themselves_and_owners_anybody_but_the_last_owner(session: Session) -> None:
    owner, one, two = make_person(session, is_owner=True), make_person(session), make_person(session)
    with pytest.raises(NotAllowed):
        people.erase_person(session, one, two)
    people.erase_person(session, one, one)
    with pytest.raises(Conflict, match="last owner"):
        people.erase_person(session, owner, owner)
    make_person(session, is_owner=True)
    people.erase_person(session, owner, owner)
    assert not owner.is_owner


def test_acts_leave_events_in_their_project(session: Session) -> None:
    project, other = make_project(session), make_project(session)
    by = people.get_person(session, project.created_by_id or 0)
    people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=by)
    newest, *_, oldest = audit.list_events(session, project.id)
    assert (newest[0].action, newest[1]) == ("invite.create", by)
    assert oldest[0].action == "project.create"
    assert [event.action for event, _ in audit.list_events(session, project.id, after_id=newest[0].id, limit=1)] == [
        "member.add"
    ]
    assert {event.project_id for event, _ in audit.list_events(session, other.id)} == {other.id}
    assert projects.get_project(session, project.id) is project


def test_labels_weigh_what_the_project_says(session: Session) -> None:
    admin = make_person(session, is_owner=True)
    project = make_project(session, admin)
    member = make_member(session, project)
    assert member.label_weight == 1
    people.set_label_weight(session, project.id, member.id, 0.25, admin)
    session.expire_all()
    assert people.get_member(session, project.id, member.id).label_weight == 0.25
    said = session.scalars(select(AuditEvent).where(AuditEvent.action == "member.set_label_weight")).one()
    assert (said.subject_id, said.details) == (member.id, {"weight": 0.25, "before": 1.0})


@pytest.mark.parametrize("weight", [-0.1, 10.1, float("nan"), float("inf")])
def test_a_weight_has_bounds(session: Session, weight: float) -> None:
    admin = make_person(session, is_owner=True)
    project = make_project(session, admin)
    member = make_member(session, project)
    with pytest.raises(Invalid, match="between 0 and 10"):
        people.set_label_weight(session, project.id, member.id, weight, admin)


def test_weights_are_kept_for_those_who_left_and_refused_for_strangers(session: Session) -> None:
    admin = make_person(session, is_owner=True)
    project, other = make_project(session, admin), make_project(session, admin)
    member = make_member(session, project)
    people.remove_member(session, project.id, member.id, admin)
    assert people.set_label_weight(session, project.id, member.id, 0, admin).label_weight == 0
    with pytest.raises(NotFound, match="no such member"):
        people.set_label_weight(session, other.id, member.id, 1, admin)

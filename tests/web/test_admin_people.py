"""Are people invited, watched and taken out, and do labels leave? Members, invites, exports, one's own account."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people, queue, sign_in
from app.tables import Assignment, Label, Person, Role
from tests.admin_project import AdminProject, make_admin_project, make_comparisons, make_label
from tests.factories import PASSWORD, make_person
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        return make_admin_project(session)


@pytest.fixture
def admin(place: AdminProject, visit_as: VisitAs) -> Visitor:
    return visit_as(place.admin)


def roles(committed: Committed, place: AdminProject) -> dict[str | None, Role]:
    with committed() as session:
        return {who.name: member.role for member, who in people.list_members(session, place.project.id)}


def test_invite_link_is_shown_once_and_works(place: AdminProject, admin: Visitor, visitor: Visitor) -> None:
    made = admin.post(f"{place.root}/people/invites", {"role": "annotator", "max_uses": "1", "days": "3"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    link = re.search(r'value="(http[^"]+/invites/[^"]+)"', made.text)
    assert link
    page = admin.get(f"{place.root}/people").text
    assert link[1] not in page
    assert "0 of 1" in page
    path = link[1][link[1].index("/invites/") :]
    assert "Stories" in visitor.get(path).text
    new = {"name": "Nora New", "email": "nora@example.org", "password": PASSWORD}
    assert visitor.post(path, new).status_code == 303
    assert "Nora New" in admin.get(f"{place.root}/people").text


def test_revoked_invite_is_useless(place: AdminProject, admin: Visitor, visitor: Visitor) -> None:
    made = admin.post(f"{place.root}/people/invites", {"role": "admin"})
    path = re.search(r'value="http[^"]+(/invites/[^"]+)"', made.text)
    revoke = re.search(r'action="([^"]+/revoke)"', made.text)
    assert path
    assert revoke
    assert admin.post(revoke[1]).status_code == 303
    assert visitor.get(path[1]).status_code == 409


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"role": "annotator", "max_uses": "0"}, 422),
        ({"role": "annotator", "days": "soon"}, 422),
        ({"role": "king"}, 422),
        ({}, 422),
    ],
)
def test_bad_invites_are_refused(place: AdminProject, admin: Visitor, fields: dict[str, str], status: int) -> None:
    refused = admin.post(f"{place.root}/people/invites", fields)
    assert refused.status_code == status
    assert "/invites/" not in refused.text.replace("people/invites", "")


def test_members_change_roles_and_leave(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    member = f"{place.root}/people/{place.annotator_member.id}"
    admin.post(f"{member}/role", {"role": "admin"})
    assert roles(committed, place)["Bea Annotator"] is Role.ADMIN
    admin.post(f"{member}/remove")
    assert "Bea Annotator" not in roles(committed, place)
    assert admin.post(f"{member}/remove").status_code == 404
    assert admin.post(f"{member}/role", {"role": "admin"}).status_code == 404


def test_pace_and_agreement_of_each_annotator_are_shown(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    with committed.begin() as session:
        make_comparisons(session, place.project, 3)
        for seconds in (10, 31, 90):
            make_label(session, place, seconds)
    row = re.sub(r"\s+", " ", admin.get(f"{place.root}/people").text).split("Bea Annotator")[1].split("</tr>")[0]
    assert ">3</a>" in row
    assert "> 31 <" in row


def test_labels_leave_as_three_kinds_of_lines(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    assert "No snapshot has been taken yet" in admin.get(f"{place.root}/exports").text
    with committed.begin() as session:
        make_comparisons(session, place.project, 2)
        make_label(session, place)
    assert admin.post(f"{place.root}/exports").status_code == 303
    assert "trl-conversational.jsonl" in admin.get(f"{place.root}/exports").text

    def lines(kind: str) -> list[dict[str, Any]]:
        answer = admin.get(f"{place.root}/exports/1/{kind}.jsonl")
        assert answer.headers["content-disposition"] == f'attachment; filename="{place.project.slug}-1-{kind}.jsonl"'
        return [json.loads(line) for line in answer.text.splitlines()]

    pairs = lines("trl")
    assert len(pairs) == 6  # ordered pairs of four
    assert (pairs[0]["chosen"], pairs[0]["rejected"]) == ("Ending A", "Ending B")
    assert lines("trl-conversational")[0]["chosen"] == [{"role": "assistant", "content": "Ending A"}]
    assert len(lines("rankings")) == 1
    assert admin.get(f"{place.root}/exports/1/secrets.jsonl").status_code == 422


def test_snapshot_with_withdrawn_labels_is_not_exported(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    with committed.begin() as session:
        make_comparisons(session, place.project, 1)
        make_label(session, place)
    admin.post(f"{place.root}/exports")
    assert admin.post(f"{place.root}/people/{place.annotator_member.id}/withdraw").status_code == 303
    assert admin.post(f"{place.root}/people/999999/withdraw").status_code == 404
    assert "no longer exported" in admin.get(f"{place.root}/exports").text
    assert admin.get(f"{place.root}/exports/1/trl.jsonl").status_code == 409
    assert "withdrawn" in admin.get(f"{place.root}/labels").text


def test_token_is_shown_once_and_revoked(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    assert admin.post("/account/tokens", {"name": " "}).status_code == 422
    made = admin.post("/account/tokens", {"name": "nightly"})
    assert (made.status_code, made.headers["cache-control"]) == (201, "no-store")
    secret = re.search(r'value="(pl_[^"]+)"', made.text)
    assert secret
    page = admin.get("/account").text
    assert secret[1] not in page
    assert "nightly" in page
    revoke = re.search(r'action="(/account/tokens/\d+/revoke)"', page)
    assert revoke
    with committed() as session:
        owner = sign_in.person_of_token(session, secret[1])
        assert owner is not None
        assert owner.id == place.admin.id
    assert admin.post(revoke[1]).status_code == 303
    with committed() as session:
        assert sign_in.person_of_token(session, secret[1]) is None


def test_nobody_revokes_anothers_token(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    with committed.begin() as session:
        token, _ = sign_in.create_token(session, place.owner, "hers")
    assert admin.post(f"/account/tokens/{token.id}/revoke").status_code == 404


def test_password_is_changed_and_other_browsers_are_signed_out(committed: Committed, visit_as: VisitAs) -> None:
    with committed.begin() as session:
        person = make_person(session, "Pat", password=PASSWORD)
    here, elsewhere = visit_as(person), visit_as(person)
    wrong = here.post("/account/password", {"current": "not it at all", "new": "another fine password"})
    assert wrong.status_code == 422
    assert "current password is wrong" in wrong.text
    short = here.post("/account/password", {"current": PASSWORD, "new": "short"})
    assert short.status_code == 422
    assert "at least 10" in short.text
    assert elsewhere.get("/account").status_code == 200
    assert here.post("/account/password", {"current": PASSWORD, "new": "another fine password"}).status_code == 303
    assert here.get("/account").status_code == 200
    assert elsewhere.get("/account").status_code == 303
    with committed.begin() as session:
        assert sign_in.sign_in(session, person.email or "", "another fine password") is not None


def test_who_left_is_listed_and_their_labels_can_be_withdrawn(
    place: AdminProject, admin: Visitor, visit_as: VisitAs, committed: Committed
) -> None:
    with committed.begin() as session:
        make_comparisons(session, place.project, 2)
        make_label(session, place)
        lease = queue.next_assignment(session, place.project.id, place.annotator_member.id)
    leaver = visit_as(place.annotator)
    assert leaver.post("/account/erase", {"email": "another@example.org"}).status_code == 422
    assert leaver.post("/account/erase", {"email": place.annotator.email or ""}).status_code == 303
    assert leaver.get("/account").status_code == 303  # signed out
    shown = admin.get(f"{place.root}/people").text
    assert f"annotator {place.annotator_member.id}, erased" in shown
    assert admin.post(f"{place.root}/people/{place.annotator_member.id}/withdraw").status_code == 303
    with committed() as session:
        assert session.scalars(select(Label.withdrawn_at)).one() is not None
        assert isinstance(lease, Assignment)
        assert queue.expire_leases(session, place.project.id) == 1


def test_labels_of_a_member_are_weighed(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    weight = f"{place.root}/people/{place.annotator_member.id}/weight"
    assert admin.post(weight, {"weight": "0.5"}).status_code == 303
    with committed() as session:
        assert people.get_member(session, place.project.id, place.annotator_member.id).label_weight == 0.5
    assert "weight 0.5" in admin.get(f"{place.root}/people").text
    for wrong in ("", "much", "-1", "11", "nan"):
        refused = admin.post(weight, {"weight": wrong})
        assert refused.status_code == 422
        assert "The weight must be a number between 0 and 10." in refused.text
    assert admin.post(f"{place.root}/people/999999/weight", {"weight": "1"}).status_code == 404
    assert "member.set_label_weight" in admin.get(f"{place.root}/audit").text


def test_annotators_neither_see_nor_set_weights(place: AdminProject, visit_as: VisitAs) -> None:
    annotator = visit_as(place.annotator)
    assert annotator.get(f"{place.root}/people").status_code == 403
    own = f"{place.root}/people/{place.annotator_member.id}/weight"
    assert annotator.post(own, {"weight": "10"}).status_code == 403

"""Do people come in by password, link and invite, and nobody else?"""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people, sign_in
from app.tables import Person, Role, SignInLink
from app.web.session import SESSION_COOKIE
from tests.factories import PASSWORD, make_person, make_project
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]


@pytest.fixture
def person(committed: Committed) -> Person:
    with committed.begin() as session:
        return make_person(session, "Ada", password=PASSWORD)


def test_password_signs_in_and_leads_back(visitor: Visitor, person: Person) -> None:
    asked = visitor.get("/account?tab=tokens")
    assert asked.status_code == 303
    visitor.get(asked.headers["location"])
    entered = visitor.post("/sign-in", {"email": person.email, "password": PASSWORD, "next": "/account?tab=tokens"})
    assert (entered.status_code, entered.headers["location"]) == (303, "/account?tab=tokens")
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Ada" in visitor.get("/").text


@pytest.mark.parametrize("password", ["wrong password", "", "\x00"])
def test_wrong_password_stays_out_and_keeps_the_address(visitor: Visitor, person: Person, password: str) -> None:
    visitor.get("/sign-in")
    refused = visitor.post("/sign-in", {"email": person.email, "password": password})
    assert refused.status_code == 401
    assert person.email in refused.text
    assert SESSION_COOKIE not in visitor.client.cookies


def test_ten_wrong_passwords_lock_the_account(visitor: Visitor, person: Person) -> None:
    visitor.get("/sign-in")
    statuses = [
        visitor.post("/sign-in", {"email": person.email, "password": "not this one"}).status_code for _ in range(11)
    ]
    assert statuses == [401] * 10 + [429]
    assert visitor.post("/sign-in", {"email": person.email, "password": PASSWORD}).status_code == 429


@pytest.mark.parametrize(
    "elsewhere", ["https://example.org", "//example.org", "/\\example.org", "javascript:alert(1)", ""]
)
def test_sign_in_leads_to_no_other_server(visitor: Visitor, person: Person, elsewhere: str) -> None:
    visitor.get("/sign-in")
    entered = visitor.post("/sign-in", {"email": person.email, "password": PASSWORD, "next": elsewhere})
    assert entered.headers["location"] == "/"


def test_signing_out_ends_the_session(person: Person, visit_as: VisitAs) -> None:
    browser = visit_as(person)
    assert browser.get("/").status_code == 200
    assert browser.post("/sign-out").headers["location"] == "/sign-in"
    assert browser.get("/").headers["location"].startswith("/sign-in")


def test_link_signs_in_once_and_looking_at_it_uses_nothing_up(
    visitor: Visitor, person: Person, committed: Committed
) -> None:
    with committed.begin() as session:
        secret = sign_in.create_sign_in_link(session, person)
    visitor.get(f"/link/{secret}")
    assert visitor.get(f"/link/{secret}").status_code == 200
    assert visitor.post(f"/link/{secret}").status_code == 303
    assert "Ada" in visitor.get("/").text
    assert visitor.post(f"/link/{secret}").status_code == 409


def test_link_that_ran_out_says_so(visitor: Visitor, person: Person, committed: Committed) -> None:
    with committed.begin() as session:
        secret = sign_in.create_sign_in_link(session, person)
        session.execute(update(SignInLink).values(expires_at=SignInLink.created_at))
    visitor.get(f"/link/{secret}")
    refused = visitor.post(f"/link/{secret}")
    assert refused.status_code == 409
    assert "Ask for a new one" in refused.text


def test_invite_makes_a_member(visitor: Visitor, committed: Committed) -> None:
    with committed.begin() as session:
        owner = make_person(session, is_owner=True)
        project = make_project(session, owner, name="Stories")
        _, secret = people.create_invite(session, project_id=project.id, role=Role.ANNOTATOR, created_by=owner)
    shown = visitor.get(f"/invites/{secret}")
    assert "You are invited to Stories" in shown.text
    refused = visitor.post(f"/invites/{secret}", {"name": "Bo", "email": "bo@example.org", "password": "short"})
    assert refused.status_code == 422
    assert "at least 10 characters" in refused.text
    assert 'value="bo@example.org"' in refused.text
    joined = visitor.post(f"/invites/{secret}", {"name": "Bo", "email": "bo@example.org", "password": PASSWORD})
    assert joined.status_code == 303
    assert visitor.get("/").headers["location"] == "/projects/stories/desk"
    assert visitor.get(f"/invites/{secret}").status_code == 409


def test_invite_lets_a_known_person_join_with_one_click(
    visit_as: VisitAs, person: Person, committed: Committed
) -> None:
    with committed.begin() as session:
        owner = make_person(session, is_owner=True)
        project = make_project(session, owner)
        _, secret = people.create_invite(session, project_id=project.id, role=Role.ADMIN, created_by=owner)
    browser = visit_as(person)
    assert "Join as Ada" in browser.get(f"/invites/{secret}").text
    assert browser.post(f"/invites/{secret}").status_code == 303
    with committed.begin() as session:
        member = people.membership(session, project.id, person.id)
    assert member is not None
    assert member.role is Role.ADMIN


@pytest.mark.parametrize("token", ["", "x", "ä" * 40])
def test_posts_without_the_token_are_refused(visitor: Visitor, person: Person, visit_as: VisitAs, token: str) -> None:
    browser = visit_as(person)
    browser.token = token
    assert browser.post("/sign-out").status_code == 403
    assert browser.get("/").status_code == 200
    visitor.get("/sign-in")
    visitor.token = token
    assert visitor.post("/sign-in", {"email": person.email, "password": PASSWORD}).status_code == 401
    assert SESSION_COOKIE not in visitor.client.cookies


def test_another_visitors_token_is_refused(
    visitor: Visitor, person: Person, visit_as: VisitAs, committed: Committed
) -> None:
    with committed.begin() as session:
        somebody = make_person(session)
    other = visit_as(somebody)
    browser = visit_as(person)
    browser.token = other.token
    assert browser.post("/sign-out").status_code == 403


def test_every_page_forbids_what_is_not_ours(visitor: Visitor) -> None:
    answers = [visitor.get(path) for path in ("/sign-in", "/nowhere", "/static/app.css", "/api/v1/nowhere")]
    nonces = set()
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        nonces |= set(re.findall(r"'nonce-([^']+)'", policy))
    assert len(nonces) == len(answers), "a nonce is used once"
    page = answers[0]
    (nonce,) = re.findall(r"'nonce-([^']+)'", page.headers["content-security-policy"])
    scripts = re.findall(r"<script\b[^>]*>", page.text)
    assert scripts
    assert all(f'nonce="{nonce}"' in script for script in scripts)
    assert " style=" not in page.text
    assert "<style" not in page.text


def test_static_files_are_kept_under_their_hash_alone(visitor: Visitor) -> None:
    (address,) = re.findall(r'href="(/static/app\.css\?v=\w+)"', visitor.get("/sign-in").text)
    assert "immutable" in visitor.get(address).headers["cache-control"]
    assert visitor.get("/static/app.css").headers["cache-control"] == "no-cache"
    assert visitor.get("/static/app.css?v=0").headers["cache-control"] == "no-cache"


def test_strangers_do_not_learn_that_a_project_exists(visit_as: VisitAs, person: Person, committed: Committed) -> None:
    with committed.begin() as session:
        make_project(session, name="Secret stories")
    browser = visit_as(person)
    for path in ("desk", "labels", "guidelines"):
        refused = browser.get(f"/projects/secret-stories/{path}")
        assert refused.status_code == 404
        assert "Secret stories" not in refused.text
    assert browser.get("/projects/no-such-project/desk").status_code == 404


def test_owner_sees_every_project(visit_as: VisitAs, committed: Committed) -> None:
    with committed.begin() as session:
        owner = make_person(session, is_owner=True)
        for name in ("One", "Two"):
            make_project(session, name=name)
    start = visit_as(owner).get("/").text
    assert "/projects/one/admin" in start
    assert "/projects/two/admin" in start


@pytest.mark.parametrize(("path", "megabytes"), [("/sign-in", 5), ("/api/v1/projects/none/prompts", 17)])
def test_bodies_are_counted_before_anybody_is_known(visitor: Visitor, path: str, megabytes: int) -> None:
    pieces = (b"x" * 1_000_000 for _ in range(megabytes))  # chunked: no length is declared
    headers = {"content-type": "application/x-www-form-urlencoded"}
    refused = visitor.client.post(path, content=pieces, headers=headers)
    assert refused.status_code == 413
    assert "Send it in smaller parts" in refused.text

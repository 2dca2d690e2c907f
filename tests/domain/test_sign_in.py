"""Is it really them: passwords, lockout, links, browser sessions, tokens."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people, sign_in
from app.errors import Invalid, LinkExpired, NotFound, TooManyTries
from app.tables import ApiToken, Person, SignInLink, SignInTry, WebSession
from tests.factories import PASSWORD, make_person


def email_of(person: Person) -> str:
    assert person.email is not None
    return person.email


def test_email_in_any_case_and_the_right_password(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    assert sign_in.sign_in(session, f"  {email_of(person).upper()} ", PASSWORD) is person
    for wrong in ("", "wrong", PASSWORD.upper(), PASSWORD + " ", "\x00", "\ud800", "x" * 5_000_000):
        assert sign_in.sign_in(session, email_of(person), wrong) is None
    for unknown in ("", "nobody@example.org", "\x00", "\ud800", "%"):
        assert sign_in.sign_in(session, unknown, PASSWORD) is None


def test_a_person_without_a_password_has_no_password(session: Session) -> None:
    person = make_person(session)
    assert sign_in.sign_in(session, email_of(person), "") is None


def test_ten_wrong_passwords_lock_that_client_out_for_15_minutes(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    for email in (email_of(person), "nobody@example.org"):  # who is unknown is treated alike
        for _ in range(10):
            assert sign_in.sign_in(session, email, "wrong", client="192.0.2.1") is None
        with pytest.raises(TooManyTries, match="15 minutes"):
            sign_in.sign_in(session, email, PASSWORD, client="192.0.2.1")
    assert sign_in.sign_in(session, email_of(person), PASSWORD, client="192.0.2.2") is person
    for ago, is_locked in ((14, True), (15, False)):
        session.execute(update(SignInTry).values(last_at=func.clock_timestamp() - timedelta(minutes=ago)))
        with pytest.raises(TooManyTries) if is_locked else nullcontext():
            assert sign_in.sign_in(session, email_of(person), PASSWORD, client="192.0.2.1") is person
    assert session.scalar(select(func.count()).select_from(SignInTry)) == 0


def test_a_right_password_starts_the_count_anew(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    for _ in range(2):
        for _ in range(9):
            assert sign_in.sign_in(session, email_of(person), "wrong") is None
        assert sign_in.sign_in(session, email_of(person), PASSWORD) is person


def test_parallel_guesses_are_all_counted(committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        email = email_of(make_person(session, password=PASSWORD))

    def guess(number: int) -> str:
        try:
            with committed.begin() as session:
                return "judged" if sign_in.sign_in(session, email, f"wrong {number}") is None else "in"
        except TooManyTries:
            return "locked"

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(guess, range(24)))
    assert outcomes.count("judged") == 10
    assert outcomes.count("locked") == 14


def test_an_unknown_email_takes_as_long_as_a_wrong_password(session: Session) -> None:
    person = make_person(session, password=PASSWORD)
    sign_in.sign_in(session, "warm@example.org", "up")

    def seconds(email: str) -> float:
        start = time.perf_counter()
        sign_in.sign_in(session, email, "wrong")
        return time.perf_counter() - start

    known = statistics.median(seconds(email_of(person)) for _ in range(5))
    unknown = statistics.median(seconds("nobody@example.org") for _ in range(5))
    assert 0.4 < unknown / known < 2.5


def test_a_browser_session_lives_until_it_is_closed_or_ends(session: Session) -> None:
    person = make_person(session)
    opened, secret = sign_in.open_session(session, person)
    other, other_secret = sign_in.open_session(session, person)
    assert opened.token_hash != secret
    assert opened.csrf_token != other.csrf_token
    assert sign_in.session_of(session, secret) == (opened, person)
    for unknown in ("", "x", opened.token_hash, "\x00", "\ud800"):
        assert sign_in.session_of(session, unknown) is None
    sign_in.close_session(session, opened)
    assert sign_in.session_of(session, secret) is None
    assert sign_in.session_of(session, other_secret) == (other, person)
    session.execute(update(WebSession).values(expires_at=func.now() - timedelta(seconds=1)))
    assert sign_in.session_of(session, other_secret) is None
    sign_in.open_session(session, person)
    assert session.scalar(select(func.count()).select_from(WebSession)) == 1  # the one that ended is gone


def test_use_is_noted_once_a_minute(session: Session) -> None:
    person = make_person(session)
    token, secret = sign_in.create_token(session, person, "laptop")
    assert sign_in.person_of_token(session, secret) is person
    session.refresh(token)
    first = token.last_used_at
    assert first is not None
    long_ago = session.scalar(
        update(ApiToken).values(last_used_at=func.now() - timedelta(minutes=2)).returning(ApiToken.last_used_at)
    )
    sign_in.person_of_token(session, secret)
    session.refresh(token)
    assert token.last_used_at != long_ago
    just_now = session.scalar(
        update(ApiToken).values(last_used_at=func.now() - timedelta(seconds=50)).returning(ApiToken.last_used_at)
    )
    sign_in.person_of_token(session, secret)
    session.refresh(token)
    assert token.last_used_at == just_now


def test_two_requests_of_one_token_do_not_wait_for_each_other(committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        _, secret = sign_in.create_token(session, make_person(session), "laptop")
    with committed.begin() as slow, committed.begin() as quick:
        assert sign_in.person_of_token(slow, secret) is not None
        quick.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert sign_in.person_of_token(quick, secret) is not None


def test_a_sign_in_link_works_once(session: Session) -> None:
    person = make_person(session)
    secret = sign_in.create_sign_in_link(session, person)
    assert sign_in.use_sign_in_link(session, secret) is person
    with pytest.raises(LinkExpired):
        sign_in.use_sign_in_link(session, secret)
    old = sign_in.create_sign_in_link(session, person, minutes=5)
    session.execute(update(SignInLink).values(expires_at=func.now() - timedelta(seconds=1)))
    with pytest.raises(LinkExpired):
        sign_in.use_sign_in_link(session, old)
    for unknown in ("", "x", "\x00", "\ud800"):
        with pytest.raises(NotFound):
            sign_in.use_sign_in_link(session, unknown)
    for minutes in (0, 7 * 24 * 60 + 1):
        with pytest.raises(Invalid):
            sign_in.create_sign_in_link(session, person, minutes=minutes)


def test_a_token_acts_for_its_person_until_it_is_revoked(session: Session) -> None:
    person, other = make_person(session), make_person(session)
    token, secret = sign_in.create_token(session, person, "training job")
    assert secret.startswith("pl_")
    assert secret.startswith(token.prefix)
    assert len(token.prefix) < 10
    assert secret not in token.token_hash
    assert sign_in.person_of_token(session, secret) is person
    for unknown in ("", "pl_", token.prefix, token.token_hash, "\x00", "\ud800"):
        assert sign_in.person_of_token(session, unknown) is None
    assert sign_in.list_tokens(session, person) == [token]
    with pytest.raises(NotFound):
        sign_in.revoke_token(session, token.id, other)
    sign_in.revoke_token(session, token.id, person)
    assert sign_in.person_of_token(session, secret) is None
    assert sign_in.list_tokens(session, person) == []
    with pytest.raises(Invalid, match="name is empty"):
        sign_in.create_token(session, person, " ")
    assert people.get_person(session, person.id) is person

"""Is it really them? Passwords, one-time links, browser sessions and API tokens. Only hashes of secrets are stored."""

import secrets
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.config import settings
from app.domain import audit, texts
from app.domain.people import HASHER, LONGEST_PASSWORD, find_person
from app.errors import Invalid, LinkExpired, NotFound, TooManyTries
from app.language import gettext as _
from app.tables import ApiToken, Person, SignInLink, SignInTry, WebSession

TRIES = 10
LOCKED_FOR = timedelta(minutes=15)
_SEEN_EVERY = timedelta(minutes=1)


def sign_in(session: Session, email: str, password: str, *, client: str = "") -> Person | None:
    """The person whom e-mail and password belong to; None where they are wrong, which is counted.

    None rather than an error, because an error would roll the count back. After ten wrong passwords in a row for an
    e-mail from one `client` (its network address) that client waits 15 minutes: TooManyTries. Others do not, so nobody
    can lock a person out; and an unknown e-mail behaves and takes as long as a known one, so nobody learns who is here.
    """
    kept = "" if texts.flaw(email) else email.strip().lower()
    key = texts.sha256(f"{kept}\n{client}")
    failed = _count_try(session, key)
    person = find_person(session, kept)
    if person is None or person.password_hash is None:
        _verify(_nobodys_hash(), password)
        return None
    if not _verify(person.password_hash, password):
        if failed == TRIES:
            audit.record(session, "person.lock", by=None, subject_id=person.id)
        return None
    has_run_out = SignInTry.last_at < func.clock_timestamp() - LOCKED_FOR
    session.execute(delete(SignInTry).where(or_(SignInTry.key_hash == key, has_run_out)))
    return person


def _count_try(session: Session, key: str) -> int:
    """Count a try before it is judged: the row stays locked until then, so parallel guesses queue up."""
    has_run_out = SignInTry.last_at < func.clock_timestamp() - LOCKED_FOR
    counting = insert(SignInTry).values(key_hash=key, failed=1, last_at=func.clock_timestamp())
    failed: int | None = session.scalar(
        counting.on_conflict_do_update(
            index_elements=[SignInTry.key_hash],
            set_={"failed": case((has_run_out, 1), else_=SignInTry.failed + 1), "last_at": func.clock_timestamp()},
            where=or_(has_run_out, SignInTry.failed < TRIES),
        ).returning(SignInTry.failed)
    )
    if failed is None:
        raise TooManyTries(_("Too many wrong passwords. Try again in 15 minutes, or ask an admin for a sign-in link."))
    return failed


def _verify(password_hash: str, password: str) -> bool:
    if len(password) > LONGEST_PASSWORD or texts.flaw(password):
        password = ""
    try:
        return HASHER.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        return False


@cache
def _nobodys_hash() -> str:
    return HASHER.hash(secrets.token_urlsafe(32))


def open_session(session: Session, person: Person) -> tuple[WebSession, str]:
    """A browser session and the secret for its cookie; it ends after the setting `session_days`."""
    secret, token_hash = texts.new_secret()
    web_session = WebSession(
        person_id=person.id,
        token_hash=token_hash,
        csrf_token=secrets.token_urlsafe(32),
        expires_at=func.now() + timedelta(days=settings().session_days),
    )
    session.execute(delete(WebSession).where(WebSession.person_id == person.id, WebSession.expires_at < func.now()))
    session.add(web_session)
    session.flush()
    return web_session, secret


def session_of(session: Session, secret: str) -> tuple[WebSession, Person] | None:
    """The live browser session of a cookie's secret, and whose it is."""
    row = session.execute(
        select(WebSession, Person)
        .join(Person, Person.id == WebSession.person_id)
        .where(
            WebSession.token_hash == texts.secret_hash(secret),
            WebSession.expires_at > func.now(),
            Person.erased_at.is_(None),
        )
    ).first()
    if row is None:
        return None
    web_session, person = row
    _mark_seen(session, WebSession, web_session.id)
    return web_session, person


def _mark_seen(session: Session, table: type[WebSession] | type[ApiToken], row_id: int) -> None:
    """Note the time of use once a minute; skips a locked row, so that parallel requests never wait for each other."""
    seen = WebSession.last_seen_at if table is WebSession else ApiToken.last_used_at
    due = (
        select(table.id)
        .where(table.id == row_id, or_(seen.is_(None), seen < func.now() - _SEEN_EVERY))
        .with_for_update(skip_locked=True)
    )
    session.execute(
        update(table).where(table.id.in_(due.scalar_subquery())).values({seen: func.now()}),
        execution_options={"synchronize_session": False},
    )


def close_session(session: Session, web_session: WebSession) -> None:
    """Sign a browser out."""
    session.execute(delete(WebSession).where(WebSession.id == web_session.id))


def create_sign_in_link(session: Session, person: Person, minutes: int = 60) -> str:
    """The secret of a link that signs the person in once, within `minutes`."""
    if person.erased_at is not None:
        raise NotFound(_("This person was erased."))
    if not 1 <= minutes <= 7 * 24 * 60:
        raise Invalid(_("A sign-in link lasts between 1 minute and 7 days."))
    secret, token_hash = texts.new_secret()
    expires_at = func.now() + timedelta(minutes=minutes)
    session.add(SignInLink(person_id=person.id, token_hash=token_hash, expires_at=expires_at))
    session.flush()
    return secret


def use_sign_in_link(session: Session, secret: str) -> Person:
    """The person of a one-time link, which is used up. Raises NotFound, LinkExpired."""
    token_hash = texts.secret_hash(secret)
    person_id = session.scalar(
        update(SignInLink)
        .where(
            SignInLink.token_hash == token_hash,
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > func.clock_timestamp(),
        )
        .values(used_at=func.clock_timestamp())
        .returning(SignInLink.person_id)
        .execution_options(synchronize_session=False)
    )
    if person_id is not None:
        return session.get_one(Person, person_id)
    if session.scalar(select(SignInLink.id).where(SignInLink.token_hash == token_hash)) is None:
        raise NotFound(_("There is no such sign-in link. Is it complete?"))
    raise LinkExpired(_("This sign-in link was used already or has run out. Ask for a new one."))


def create_token(session: Session, person: Person, name: str) -> tuple[ApiToken, str]:
    """An API token and its secret, which is shown once."""
    secret = f"pl_{secrets.token_urlsafe(32)}"
    token = ApiToken(
        person_id=person.id,
        name=texts.line(name, _("The token's name")),
        prefix=secret[:8],
        token_hash=texts.secret_hash(secret),
    )
    session.add(token)
    session.flush()
    audit.record(session, "token.create", by=person, subject_id=token.id)
    return token, secret


def person_of_token(session: Session, secret: str) -> Person | None:
    """Whom a program acts for, if its token is good."""
    row = session.execute(
        select(ApiToken.id, Person)
        .join(Person, Person.id == ApiToken.person_id)
        .where(
            ApiToken.token_hash == texts.secret_hash(secret), ApiToken.revoked_at.is_(None), Person.erased_at.is_(None)
        )
    ).first()
    if row is None:
        return None
    token_id, person = row
    _mark_seen(session, ApiToken, token_id)
    return person


def list_tokens(session: Session, person: Person) -> Sequence[ApiToken]:
    """A person's tokens that still work, newest first."""
    return session.scalars(
        select(ApiToken)
        .where(ApiToken.person_id == person.id, ApiToken.revoked_at.is_(None))
        .order_by(ApiToken.id.desc())
    ).all()


def revoke_token(session: Session, token_id: int, person: Person) -> None:
    """Make one of the person's own tokens useless from now on. Raises NotFound."""
    token = session.scalar(select(ApiToken).where(ApiToken.id == token_id, ApiToken.person_id == person.id))
    if token is None:
        raise NotFound(_("You have no such token."))
    token.revoked_at = func.coalesce(ApiToken.revoked_at, func.now())
    audit.record(session, "token.revoke", by=person, subject_id=token.id)
    session.flush()

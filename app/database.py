"""Where does a session come from? Only from here: the engine, its settings and the two kinds of session."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

from app import embedded_postgres
from app.config import settings


def database_url() -> str:
    """The SQLAlchemy URL of the database, starting the embedded server where none is named."""
    named = settings().database_url
    if named is None:
        return embedded_postgres.start(settings().home)
    scheme, separator, rest = named.partition("://")
    return f"postgresql+psycopg{separator}{rest}" if scheme in {"postgres", "postgresql"} else named


@cache
def engine() -> Engine:
    """The engine of this process."""
    return create_engine(database_url(), pool_size=10, max_overflow=30, pool_pre_ping=True)


@cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), expire_on_commit=False)


def get_session() -> Iterator[Session]:
    """One request, one transaction.

    Depend on it with `scope="function"`, so that the commit comes before the answer.
    """
    with _sessions().begin() as session:
        yield session


@contextmanager
def transaction() -> Iterator[Session]:
    """A short transaction outside a request: commits at the end, rolls back on an error."""
    with _sessions().begin() as session:
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A read-only view frozen at its first query, for answers that stream after the request's own session is closed."""
    with _sessions()() as session:
        session.connection(
            execution_options={"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
        )
        yield session

"""The real application, and browsers without JavaScript before it."""

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from app.domain import sign_in
from app.main import create_app
from app.tables import Person
from app.web.session import SESSION_COOKIE
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]


@pytest.fixture(scope="session")
def application() -> FastAPI:
    """The application; it finds its database anew for every test."""
    return create_app()


@pytest.fixture
def visitor(application: FastAPI, database_url: str) -> Iterator[Visitor]:
    """Nobody who is known."""
    with TestClient(application, follow_redirects=False) as client:
        yield Visitor(client)


@pytest.fixture
def visit_as(application: FastAPI, committed: Committed) -> Iterator[Callable[[Person], Visitor]]:
    """Makes browsers that are signed in: `visit_as(person)`."""
    opened: list[TestClient] = []

    def enter(person: Person) -> Visitor:
        with committed.begin() as session:
            web_session, secret = sign_in.open_session(session, person)
        client = TestClient(application, follow_redirects=False, cookies={SESSION_COOKIE: secret})
        opened.append(client)
        visitor = Visitor(client)
        visitor.token = web_session.csrf_token
        return visitor

    yield enter
    for client in opened:
        client.close()

"""A browser without JavaScript: it keeps cookies and sends forms with their token, against the real application."""

import re
from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy.orm import Session, sessionmaker

from app.domain import sign_in
from app.main import create_app
from app.tables import Person
from app.web.session import SESSION_COOKIE

Committed = sessionmaker[Session]


class Visitor:
    """One browser. `post` fetches the token from the last page, as a form on it would carry it."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.token = ""

    def get(self, path: str, **headers: str) -> Response:
        answer = self.client.get(path, headers=headers)
        if found := re.search(r'name="csrf" value="([^"]+)"', answer.text):
            self.token = found[1]
        return answer

    def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Response:
        return self.client.post(path, data={"csrf": self.token, **(fields or {})}, headers=headers)


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

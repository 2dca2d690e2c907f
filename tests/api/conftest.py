"""A server on a database of its own, and callers in every role."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, sign_in
from app.main import create_app
from app.tables import Person, Project, Purpose, Role
from tests.conftest import own_database
from tests.databases import LentDatabase
from tests.factories import make_member, make_person, make_project, make_prompt, make_responses


@dataclass
class Caller:
    """Somebody with a token, at a project."""

    client: TestClient
    token: str | None
    project: str

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Call `path` below /api/v1; `~` in it is the project."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        address = f"/api/v1{path.replace('~', f'/projects/{self.project}')}"
        return self.client.request(method, address, headers=headers, **more)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self("GET", path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: object = None, status: int = 201) -> Any:
        answer = self("POST", path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def refused(self, status: int, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The error of a call that must be refused with `status`."""
        answer = self(method, path, **more)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "details"}
        error: dict[str, Any] = body["error"]
        return error


@dataclass
class House:
    """A project with prompts to rank, and its people."""

    project: Project
    owner: Person
    admin: Caller
    annotator: Caller
    other: Caller
    stranger: Caller
    nobody: Caller


def token_of(session: Session, person: Person) -> str:
    return sign_in.create_token(session, person, "test")[1]


@pytest.fixture(scope="module")
def database_url(lent_database: LentDatabase, home: Path) -> Iterator[str]:
    """One database for all tests of a module: each has a project and people of its own."""
    with pytest.MonkeyPatch.context() as patch:
        yield from own_database(lent_database, home, patch)


@pytest.fixture(scope="module")
def committed(database_url: str, lent_engine: Engine) -> Iterator[sessionmaker[Session]]:
    """Sessions with real commits on that database."""
    yield sessionmaker(lent_engine, expire_on_commit=False)
    lent_engine.dispose()


@pytest.fixture(scope="module")
def client(database_url: str) -> Iterator[TestClient]:
    with TestClient(create_app(), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def house(client: TestClient, committed: sessionmaker[Session]) -> House:
    with committed.begin() as session:
        owner = make_person(session, is_owner=True)
        project = make_project(session, owner, validation_share=0, test_share=0)
        people = [make_person(session) for _ in range(3)]
        for person in people[:2]:
            make_member(session, project, Role.ANNOTATOR, person)
        admin = make_person(session)
        make_member(session, project, Role.ADMIN, admin)
        tokens = [token_of(session, person) for person in (admin, *people)]
        callers = [Caller(client, token, project.slug) for token in tokens]
        return House(project, owner, *callers, Caller(client, None, project.slug))


@pytest.fixture
def queue_of_two(house: House, committed: sessionmaker[Session]) -> list[list[int]]:
    """Two comparisons of three responses each, k = 2; returns their response ids."""
    ids = []
    with committed.begin() as session:
        for _ in range(2):
            prompt = make_prompt(session, house.project)
            rows = make_responses(session, prompt, 3)
            ids.append([row.id for row in rows])
            comparisons.create_comparisons(
                session,
                [
                    comparisons.NewComparison(
                        project_id=house.project.id,
                        prompt_id=prompt.id,
                        response_ids=ids[-1],
                        k=2,
                        purpose=Purpose.TRAIN,
                        selected_because="by_hand",
                    )
                ],
            )
    return ids

"""Who may call what: every route of the API, walked through with every role."""

import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from app.api.application import create_api
from app.domain import people, sign_in
from tests.api.conftest import Caller, House, token_of

FOR_ANNOTATORS = {
    ("GET", "/projects"),
    ("GET", "/projects/{project}"),
    ("GET", "/projects/{project}/versions"),
    ("POST", "/projects/{project}/next"),
    ("POST", "/projects/{project}/consent"),
    ("GET", "/assignments/{assignment_id}"),
    ("POST", "/assignments/{assignment_id}/label"),
    ("POST", "/assignments/{assignment_id}/skip"),
    ("POST", "/assignments/{assignment_id}/heartbeat"),
    ("POST", "/labels/{label_id}/revisions"),
}


DOCUMENT = create_api().openapi()
ROUTES = sorted((method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods)


def filled(path: str, house: House) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: house.project.slug if found[1] == "project" else "1", path)


def test_there_are_routes() -> None:
    assert len(ROUTES) > 25
    assert set(ROUTES) >= FOR_ANNOTATORS


@pytest.fixture
def body_of() -> dict[tuple[str, str], object]:
    """A body that is accepted, where one is needed, so that a refusal is about the role."""
    return {
        ("POST", "/projects/{project}/prompts"): {"prompts": [{"prompt": "p"}]},
        ("PATCH", "/projects/{project}/comparisons"): {"ids": [1], "priority": 1},
        ("PATCH", "/projects/{project}/labels"): {"ids": [1], "excluded": False},
        ("POST", "/assignments/{assignment_id}/label"): {"groups": [[1], [2]]},
        ("POST", "/labels/{label_id}/revisions"): {"groups": [[1], [2]]},
    }


def test_nobody_gets_in_without_a_token(house: House, body_of: dict[tuple[str, str], object]) -> None:
    impostor = Caller(house.nobody.client, "pl_of-nobody", house.project.slug)
    for method, path in ROUTES:
        for caller in (house.nobody, impostor):
            error = caller.refused(401, method, filled(path, house), json=body_of.get((method, path)))
            assert error["code"] == "NotSignedIn"


def test_strangers_do_not_learn_that_a_project_exists(house: House, body_of: dict[tuple[str, str], object]) -> None:
    for method, path in ROUTES:
        if "{project}" in path:
            body = body_of.get((method, path))
            error = house.stranger.refused(404, method, filled(path, house), json=body)
            absent = house.stranger.refused(
                404, method, filled(path, house).replace(house.project.slug, "none"), json=body
            )
            assert error["message"].replace(house.project.slug, "none") == absent["message"]
            assert error["code"] == absent["code"]


def test_annotators_may_label_and_nothing_else(house: House, body_of: dict[tuple[str, str], object]) -> None:
    for method, path in ROUTES:
        answer = house.annotator(method, filled(path, house), json=body_of.get((method, path)))
        if (method, path) in FOR_ANNOTATORS:
            assert answer.status_code != 403, (method, path)
        else:
            assert answer.status_code == 403, (method, path, answer.text)
            assert answer.json()["error"]["code"] == "NotAllowed"


def test_admins_may_do_everything(house: House, body_of: dict[tuple[str, str], object]) -> None:
    for method, path in ROUTES:
        answer = house.admin(method, filled(path, house), json=body_of.get((method, path)))
        assert answer.status_code not in {401, 403, 405}, (method, path, answer.text)
        assert answer.status_code < 500, (method, path, answer.text)


def test_owners_administer_every_project(house: House, committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        owner = Caller(house.admin.client, token_of(session, house.owner), house.project.slug)
    assert owner.get("~")["id"] == house.project.id
    assert owner.get("~/labels")["items"] == []


def test_a_project_is_found_by_id_and_by_slug(house: House) -> None:
    by_id = Caller(house.admin.client, house.admin.token, str(house.project.id))
    assert by_id.get("~") == house.admin.get("~")
    assert [project["slug"] for project in house.admin.get("/projects")["items"]] == [house.project.slug]
    assert house.stranger.get("/projects")["items"] == []


def test_a_revoked_token_opens_nothing(house: House, committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        token, secret = sign_in.create_token(session, house.owner, "short-lived")
    caller = Caller(house.admin.client, secret, house.project.slug)
    caller.get("~")
    with committed.begin() as session:
        sign_in.revoke_token(session, token.id, house.owner)
    caller.refused(401, "GET", "~")


def test_who_leaves_is_out(house: House, committed: sessionmaker[Session]) -> None:
    assert house.annotator.post("~/next", status=200)["assignment"] is None
    with committed.begin() as session:
        members = people.list_members(session, house.project.id)
        person = sign_in.person_of_token(session, str(house.annotator.token))
        assert person is not None
        (mine,) = [member for member, somebody in members if somebody.id == person.id]
        people.remove_member(session, house.project.id, mine.id, by=house.owner)
    house.annotator.refused(404, "POST", "~/next")


@pytest.mark.parametrize("path", ["/nothing", "/projects/x/nothing", "/"])
def test_an_unknown_address_is_a_json_error(house: House, path: str) -> None:
    assert house.admin.refused(404, "GET", path)["code"] == "NotFound"


def test_a_wrong_method_is_a_json_error(house: House) -> None:
    assert house.admin.refused(405, "DELETE", "/projects")["code"] == "MethodNotAllowed"


def test_openapi_describes_every_route(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    assert document["paths"].keys() == DOCUMENT["paths"].keys()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert operation["security"], (method, path)
            assert {"401", "422"} <= set(operation["responses"]), (method, path)
    assert document["servers"] == [{"url": "/api/v1"}]


def test_annotators_do_not_learn_which_models_are_compared(house: House) -> None:
    for shown in (house.annotator.get("~"), house.annotator.get("/projects")["items"][0]):
        assert (shown["settings"], shown["current_policy_id"]) == (None, None)
    assert house.admin.get("~")["settings"]["base_model"] == "tiny"

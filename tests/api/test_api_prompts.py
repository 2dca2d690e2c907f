"""Prompts and responses come in by bulk, are found again, and bad ones are refused with a reason."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from app.domain import audit
from tests.api.conftest import House

FOX: dict[str, Any] = {
    "prompt": "Once there was a fox.",
    "responses": ["It slept.", {"text": "It ran.", "system": "model-b"}],
    "id": "fox-1",
    "group": "foxes",
    "details": {"source": "by hand"},
}
TALK: dict[str, Any] = {
    "prompt": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Good day"},
        {"role": "user", "content": "你好吗"},
    ]
}


def test_prompts_and_responses_come_in(house: House) -> None:
    taken = house.admin.post("~/prompts", {"prompts": [FOX, TALK]})
    assert (taken["added"], taken["known"], taken["responses"], taken["comparisons"]) == (2, 0, 2, 1)
    fox = house.admin.get(f"~/prompts/{taken['prompt_ids'][0]}")
    assert fox["messages"] == [{"role": "user", "content": FOX["prompt"]}]
    assert (fox["external_id"], fox["group_key"], fox["details"]) == ("fox-1", "foxes", {"source": "by hand"})
    (talk,) = house.admin.get("~/prompts", search="你好")["items"]
    assert talk["messages"] == TALK["prompt"]
    responses = house.admin.get("~/responses", prompt_id=fox["id"])["items"]
    assert [(one["text"], one["system"], one["source"]) for one in responses] == [
        ("It slept.", None, "imported"),
        ("It ran.", "model-b", "imported"),
    ]
    (comparison,) = house.admin.get("~/comparisons")["items"]
    assert comparison["prompt_id"] == fox["id"]
    assert sorted(comparison["response_ids"]) == [one["id"] for one in responses]
    assert (comparison["k"], comparison["openings"], comparison["selected_because"]) == (1, 1, "imported")


def test_the_same_again_doubles_nothing(house: House) -> None:
    first = house.admin.post("~/prompts", {"prompts": [FOX, TALK]})
    again = house.admin.post("~/prompts", {"prompts": [FOX, TALK]})
    assert again["prompt_ids"] == first["prompt_ids"]
    assert (again["added"], again["known"], again["responses"], again["comparisons"]) == (0, 2, 0, 0)


def test_comparisons_can_be_left_out(house: House) -> None:
    assert house.admin.post("~/prompts", {"prompts": [FOX], "compare": False})["comparisons"] == 0
    assert house.admin.get("~/comparisons")["items"] == []


def test_pages_go_on_after_an_id(house: House) -> None:
    sent = house.admin.post("~/prompts", {"prompts": [{"prompt": f"Prompt {number}"} for number in range(25)]})
    found: list[int] = []
    after: int | None = 0
    pages = 0
    while after is not None:
        page = house.admin.get("~/prompts", after=after, limit=10)
        found += [prompt["id"] for prompt in page["items"]]
        after = page["next_after"]
        pages += 1
    assert found == sorted(sent["prompt_ids"])
    assert pages == 3


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"prompt": "  "}, "empty"),
        ({"prompt": "p", "responses": ["", "b"]}, "at least 1 character"),
        ({"prompt": "p", "responses": [True, "b"]}, "valid string"),
        ({"prompt": "p", "responses": [7]}, "valid string"),
        ({"responses": ["a"]}, "required"),
        ({"prompt": "p", "respones": ["a"]}, "not permitted"),
        ({"prompt": []}, "at least 1 item"),
        ({"prompt": [{"role": "user"}]}, "required"),
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "nothing to answer"),
        ({"prompt": [{"role": "king", "content": "x"}]}, "king"),
        ({"prompt": "a\x00b"}, "NUL"),
        ({"prompt": "p", "details": {"deep": ["\x00"]}}, "NUL"),
    ],
)
def test_a_bad_prompt_takes_nothing_in(house: House, bad: dict[str, Any], reason: str) -> None:
    error = house.admin.refused(422, "POST", "~/prompts", json={"prompts": [FOX, bad]})
    assert reason in error["message"]
    assert house.admin.get("~/prompts")["items"] == []


def test_half_an_emoji_is_refused(house: House) -> None:
    body = b'{"prompts": [{"prompt": "\\ud83d"}]}'
    error = house.admin.refused(422, "POST", "~/prompts", content=body)
    assert "surrogate" in error["message"]


def test_every_bad_prompt_is_named(house: House) -> None:
    prompts = [FOX, {"prompt": " "}, TALK, {"prompt": "p", "responses": ["a", "\n"]}]
    error = house.admin.refused(422, "POST", "~/prompts", json={"prompts": prompts})
    assert [found["index"] for found in error["details"]["errors"]] == [1, 3]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"prompts": []}', b'{"prompts": {}}', b'{"prompts": [{"prompt": NaN}]}'],
)
def test_what_is_no_body_is_refused(house: House, body: bytes) -> None:
    error = house.admin.refused(422, "POST", "~/prompts", content=body)
    assert error["message"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ALMOST = st.fixed_dictionaries(
    {"prompt": JSON | st.text(min_size=1, max_size=20)},
    optional={
        "responses": JSON | st.lists(st.text(max_size=10), max_size=4),
        "details": JSON,
        "id": JSON,
        "group": JSON,
    },
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=JSON | st.fixed_dictionaries({"prompts": st.lists(ALMOST, min_size=1, max_size=3) | JSON}))
def test_no_body_breaks_the_server(house: House, body: object) -> None:
    answer = house.admin("POST", "~/prompts", content=json.dumps(body).encode())
    assert answer.status_code in {201, 422}, (body, answer.text)
    if answer.status_code == 422:
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "parameters",
    [{"limit": 0}, {"limit": 10_000}, {"after": -1}, {"after": 2**63}, {"split": "tset"}, {"after": "x"}],
)
def test_bad_parameters_are_refused(house: House, parameters: dict[str, Any]) -> None:
    error = house.admin.refused(422, "GET", "~/prompts", params=parameters)
    assert next(iter(parameters)) in error["message"]


@pytest.mark.parametrize("prompt_id", [0, 2**63, 2**80, "x"])
def test_an_id_that_no_row_can_have_is_refused(house: House, prompt_id: object) -> None:
    house.admin.refused(422, "GET", f"~/prompts/{prompt_id}")


def test_a_search_finds_what_it_says_and_no_pattern(house: House) -> None:
    house.admin.post("~/prompts", {"prompts": [{"prompt": "100% sure"}, {"prompt": "100 times"}]})
    assert len(house.admin.get("~/prompts", search="100%")["items"]) == 1
    assert house.admin.get("~/prompts", search="\x00")["items"] == []


def test_adding_prompts_leaves_a_trace(house: House, committed: sessionmaker[Session]) -> None:
    house.admin.post("~/prompts", {"prompts": [{"prompt": "Why?", "responses": ["Because.", "Why not?"]}]})
    with committed() as session:
        events = audit.list_events(session, house.project.id, None, 1000)
    found = [one.details for one, _ in events if one.action == "prompt.add"]
    assert found == [{"added": 1, "responses": 2, "comparisons": 1}]

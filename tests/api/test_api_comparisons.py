"""Comparisons are listed by filters and changed in bulk."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people
from app.tables import AuditEvent, Role
from tests.api.conftest import House


def ids(house: House, **filters: Any) -> list[int]:
    return [comparison["id"] for comparison in house.admin.get("~/comparisons", **filters)["items"]]


def answer_one(house: House) -> int:
    assignment = house.annotator.post("~/next", status=200)["assignment"]
    groups = [[response["id"] for response in assignment["responses"]]]
    house.annotator.post(f"/assignments/{assignment['id']}/label", {"groups": groups})
    comparison_id: int = assignment["comparison_id"]
    return comparison_id


def test_filters(house: House, queue_of_two: list[list[int]]) -> None:
    first, second = ids(house)
    assert answer_one(house) == first
    assert ids(house, progress="untouched") == [second]
    assert ids(house, progress="started") == [first]
    assert ids(house, progress="done") == []
    assert ids(house, state="open", purpose="train") == [first, second]
    assert ids(house, state="closed") == []
    assert ids(house, limit=1) == [first]
    assert ids(house, after=first) == [second]
    one = house.admin.get(f"~/comparisons/{first}")
    assert (one["k"], one["openings"], one["submitted"]) == (2, 1, 1)
    assert ids(house, prompt_id=one["prompt_id"]) == [first]
    assert ids(house, search="Prompt") == [first, second]
    assert ids(house, search="no such words") == []


def test_bulk_change(house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]) -> None:
    first, second = ids(house)
    changed = house.admin("PATCH", "~/comparisons", json={"ids": [first, second], "priority": 5, "k": 3}).json()
    assert changed == {"changed": {"priority": 2, "k": 2}}
    again = house.admin("PATCH", "~/comparisons", json={"ids": [first, second], "priority": 5}).json()
    assert again == {"changed": {"priority": 0}}
    assert {one["priority"] for one in house.admin.get("~/comparisons")["items"]} == {5}
    assert {one["openings"] for one in house.admin.get("~/comparisons")["items"]} == {3}
    with committed() as session:
        acts = session.scalars(select(AuditEvent.action).where(AuditEvent.project_id == house.project.id)).all()
    assert {"comparison.set_priority", "comparison.set_k"} <= set(acts)


def test_states(house: House, queue_of_two: list[list[int]]) -> None:
    first, second = ids(house)
    for state, found in (("paused", "paused"), ("closed", "closed"), ("open", "open")):
        house.admin("PATCH", "~/comparisons", json={"ids": [first], "state": state})
        assert house.admin.get(f"~/comparisons/{first}")["state"] == found
    house.admin("PATCH", "~/comparisons", json={"ids": [first], "state": "closed"})
    assert answer_one(house) == second


def test_assignees_alone_get_it(house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]) -> None:
    with committed() as session:
        members = people.list_members(session, house.project.id)
    annotators = sorted(member.id for member, _ in members if member.role is Role.ANNOTATOR)
    body = {"ids": ids(house), "assignees": [annotators[1]]}
    assert house.admin("PATCH", "~/comparisons", json=body).status_code == 200
    assert house.annotator.post("~/next", status=200)["nothing"]["reason"] == "not_assigned"
    assert house.other.post("~/next", status=200)["assignment"] is not None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"ids": []}, 422),
        ({"ids": [1]}, 422),
        ({"ids": [1], "k": 0}, 422),
        ({"ids": [1], "k": 2**40}, 422),
        ({"ids": [1], "state": "done"}, 422),
        ({"ids": ["x"], "k": 1}, 422),
        ({"ids": [2**63], "k": 1}, 422),
        ({"ids": [2**62], "k": 1}, 404),
        ({"ids": [1], "k": 1, "purpose": "gold"}, 422),
    ],
)
def test_a_bad_change_changes_nothing(
    house: House, queue_of_two: list[list[int]], body: dict[str, Any], status: int
) -> None:
    before = house.admin.get("~/comparisons")
    house.admin.refused(status, "PATCH", "~/comparisons", json=body)
    assert house.admin.get("~/comparisons") == before


def test_a_change_is_whole_or_nothing(house: House, queue_of_two: list[list[int]]) -> None:
    first, _ = ids(house)
    house.admin.refused(404, "PATCH", "~/comparisons", json={"ids": [first, 2**62], "priority": 9})
    house.admin.refused(422, "PATCH", "~/comparisons", json={"ids": [first], "priority": 9, "assignees": [2**62]})
    assert house.admin.get(f"~/comparisons/{first}")["priority"] == 0


def test_labels_are_left_out_and_taken_in_again(house: House, queue_of_two: list[list[int]]) -> None:
    answer_one(house)
    (label,) = house.admin.get("~/labels")["items"]
    house.admin.refused(422, "PATCH", "~/labels", json={"ids": [label["id"]], "excluded": True})
    body = {"ids": [label["id"]], "excluded": True, "reason": "clicked through"}
    assert house.admin("PATCH", "~/labels", json=body).json() == {"changed": 1}
    (left_out,) = house.admin.get("~/labels", excluded=True)["items"]
    assert left_out["excluded_reason"] == "clicked through"
    assert house.admin.get("~/labels", excluded=False)["items"] == []
    assert house.admin("PATCH", "~/labels", json=body | {"excluded": False}).json() == {"changed": 1}
    assert house.admin.get("~/labels", excluded=True)["items"] == []

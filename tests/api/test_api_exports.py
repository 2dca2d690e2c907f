"""What was labelled leaves as snapshots, in files that the ecosystem's own library loads."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.domain import labels, people, sign_in
from tests.api.conftest import House


def answer(house: House, places: list[int]) -> list[int]:
    """Rank the next comparison: the places of its responses in the order of their ids. Returns the ids."""
    assignment = house.annotator.post("~/next", status=200)["assignment"]
    ids = sorted(response["id"] for response in assignment["responses"])
    groups = [[id_ for id_, place in zip(ids, places, strict=True) if place == best] for best in sorted(set(places))]
    house.annotator.post(f"/assignments/{assignment['id']}/label", {"groups": groups})
    return ids


@pytest.fixture
def labelled(house: House, queue_of_two: list[list[int]]) -> list[list[int]]:
    """The first comparison is ranked 2 > 1 = 3, the second 1 > 2 > 3; returns their response ids."""
    return [answer(house, [2, 1, 2]), answer(house, [1, 2, 3])]


def texts(house: House) -> dict[int, str]:
    return {response["id"]: response["text"] for response in house.admin.get("~/responses")["items"]}


def export(house: House, number: int, **parameters: str) -> list[dict[str, Any]]:
    answer = house.admin("GET", f"~/snapshots/{number}/export", params=parameters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/jsonl")
    assert "attachment" in answer.headers["content-disposition"]
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_snapshot_freezes_what_is_there(house: House, labelled: list[list[int]]) -> None:
    taken = house.admin.post("~/snapshots")
    assert (taken["number"], taken["labels_count"]) == (1, 2)
    assert house.admin.get("~/snapshots")["items"] == [taken]
    assert house.admin.get("~/snapshots/1") == taken
    assert house.admin.post("~/snapshots") == taken  # nothing new
    house.admin.refused(404, "GET", "~/snapshots/2")
    house.admin.refused(404, "GET", "~/snapshots/2/export")


def test_trl_pairs_are_all_ordered_pairs(house: House, labelled: list[list[int]]) -> None:
    house.admin.post("~/snapshots")
    said = texts(house)
    (a, b, c), (d, e, f) = labelled
    rows = export(house, 1, format="trl")
    pairs = {(row["chosen"], row["rejected"]) for row in rows}
    expected = {(b, a), (b, c), (d, e), (d, f), (e, f)}
    assert pairs == {(said[better], said[worse]) for better, worse in expected}
    assert len(rows) == len(expected)
    assert all(isinstance(row["prompt"], str) for row in rows)


def test_a_snapshot_keeps_saying_what_it_said(house: House, labelled: list[list[int]]) -> None:
    house.admin.post("~/snapshots")
    before = export(house, 1)
    (label, _) = house.admin.get("~/labels")["items"]
    groups = label["revisions"][0]["groups"]
    house.annotator.post(f"/labels/{label['id']}/revisions", {"groups": groups[::-1]}, status=200)
    assert export(house, 1) == before
    assert house.admin.post("~/snapshots")["number"] == 2
    assert export(house, 2) != before


@pytest.mark.parametrize("style", ["trl", "trl-conversational"])
def test_the_real_library_loads_it(house: House, labelled: list[list[int]], tmp_path: Path, style: str) -> None:
    import datasets

    house.admin.post("~/snapshots")
    file = tmp_path / "preferences.jsonl"
    file.write_bytes(house.admin("GET", "~/snapshots/1/export", params={"format": style}).content)
    loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "chosen", "rejected"} <= set(loaded.column_names)
    assert loaded.num_rows == 5
    row = loaded[0]
    if style == "trl":
        assert all(isinstance(row[column], str) for column in ("prompt", "chosen", "rejected"))
    else:
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert [message["role"] for message in row["chosen"]] == ["assistant"]
        assert row["chosen"] != row["rejected"]


def test_rankings_hold_everything(house: House, labelled: list[list[int]]) -> None:
    house.admin.post("~/snapshots")
    rows = export(house, 1, format="rankings")
    assert len(rows) == 2
    annotators = {label["annotator_id"] for label in house.admin.get("~/labels")["items"]}
    assert len(annotators) == 1
    said = texts(house)
    for row, ids in zip(rows, labelled, strict=True):
        assert sorted(response["text"] for response in row["responses"]) == sorted(said[id_] for id_ in ids)


def test_an_unknown_format_is_refused(house: House, labelled: list[list[int]]) -> None:
    house.admin.post("~/snapshots")
    error = house.admin.refused(422, "GET", "~/snapshots/1/export", params={"format": "csv"})
    assert "rankings" in error["message"]


def test_a_withdrawn_label_ends_the_export(
    house: House, labelled: list[list[int]], committed: sessionmaker[Session]
) -> None:
    house.admin.post("~/snapshots")
    with committed.begin() as session:
        person = sign_in.person_of_token(session, str(house.annotator.token))
        assert person is not None
        labels.withdraw_annotator(session, people.require_member(session, house.project.id, person))
    error = house.admin.refused(409, "GET", "~/snapshots/1/export")
    assert "withdr" in error["message"]
    assert house.admin.get("~/snapshots/1")["tainted_at"] is not None
    assert [label["revisions"] for label in house.admin.get("~/labels")["items"]] == [[], []]


def test_a_long_export_streams_in_whole_lines(house: House, committed: sessionmaker[Session]) -> None:
    prompts = [{"prompt": f"Prompt {number} " + "x" * 6000, "responses": ["one", "two"]} for number in range(25)]
    house.admin.post("~/prompts", {"prompts": prompts})
    for _ in prompts:
        answer(house, [1, 2])
    house.admin.post("~/snapshots")
    rows = export(house, 1)
    assert len(rows) == len(prompts)
    assert len({row["prompt"] for row in rows}) == len(prompts)
    assert math.isclose(sum(len(row["prompt"]) for row in rows), sum(len(prompt["prompt"]) for prompt in prompts))

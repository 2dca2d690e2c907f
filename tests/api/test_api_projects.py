"""Can a program read and change what annotators are told and asked?"""

from typing import Any

import pytest

from tests.api.conftest import House

FORM: dict[str, Any] = {
    "overall": "pair",
    "pair": {"scale": "anthropic"},
    "criteria": [{"key": "honest", "name": "Honest", "kind": "score", "highest": 7}],
    "flags": [{"key": "harmful", "name": "Harmful"}],
}


def test_a_version_changes_what_it_names_and_keeps_the_rest(house: House) -> None:
    first = house.admin.post("~/versions", {"guidelines": "Be kind"})
    assert (first["number"], first["guidelines"], first["judgement_form"]["overall"]) == (2, "Be kind", "ranking")
    second = house.admin.post("~/versions", {"judgement_form": FORM})
    assert (second["number"], second["guidelines"]) == (3, "Be kind")
    form = second["judgement_form"]
    assert (form["overall"], form["pair"], form["score"]) == ("pair", {"scale": "anthropic"}, None)
    assert form["criteria"][0] | {"description": "", "required": True} == form["criteria"][0]
    listed = house.annotator.get("~/versions")["items"]
    assert [version["number"] for version in listed] == [3, 2, 1]
    assert listed[0] == second


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"judgement_form": {"overall": "none"}}, "asks nothing"),
        ({"judgement_form": {"overall": "vote"}}, "overall"),
        ({"judgement_form": {"criteria": [{"key": "Not a key", "name": "X"}]}}, "key"),
        ({"judgement_form": {"colour": "red"}}, "colour"),
        ({"judgement_form": 3}, "judgement_form"),
        ({"guidelines": "x" * 100_001}, "longer than 100,000"),
        ({"guidelines": "\u0000"}, "NUL"),
        ({"guideline": "misspelt"}, "guideline"),
        ({}, "says the same"),
        ({"guidelines": " "}, "says the same"),
    ],
)
def test_a_version_that_does_not_work_is_refused(house: House, change: dict[str, Any], says: str) -> None:
    error = house.admin.refused(422, "POST", "~/versions", json=change)
    assert says in str(error)
    assert len(house.admin.get("~/versions")["items"]) == 1


def test_only_admins_change_versions_and_strangers_read_none(house: House) -> None:
    house.annotator.refused(403, "POST", "~/versions", json={"guidelines": "Mine"})
    house.stranger.refused(404, "GET", "~/versions")
    house.nobody.refused(401, "GET", "~/versions")

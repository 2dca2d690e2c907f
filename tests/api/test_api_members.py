"""How much each annotator's labels count, and what came of them, is read over REST by pseudonym."""

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session, sessionmaker

from tests.admin_project import make_admin_project
from tests.api.conftest import Caller, House, token_of
from tests.reward_cards import CARD, make_reward_model


def annotator_id(house: House) -> int:
    found = next(row for row in house.admin.get("~/members")["items"] if row["role"] == "annotator")
    return int(found["annotator_id"])


def test_a_weight_is_set_and_listed(house: House) -> None:
    id_ = annotator_id(house)
    answer = house.admin("PATCH", f"~/members/{id_}", json={"label_weight": 0.25})
    assert answer.status_code == 200
    assert answer.json()["label_weight"] == 0.25
    weights = {row["annotator_id"]: row["label_weight"] for row in house.admin.get("~/members")["items"]}
    assert weights.pop(id_) == 0.25
    assert set(weights.values()) == {1.0}
    assert "name" not in house.admin.get("~/members")["items"][0]


@pytest.mark.parametrize("weight", [-1, 10.5, "2", None, True])
def test_a_bad_weight_is_refused(house: House, weight: object) -> None:
    house.admin.refused(422, "PATCH", f"~/members/{annotator_id(house)}", json={"label_weight": weight})


def test_weights_are_for_admins_alone(house: House) -> None:
    house.annotator.refused(403, "GET", "~/members")
    house.annotator.refused(403, "PATCH", f"~/members/{annotator_id(house)}", json={"label_weight": 2})
    house.admin.refused(404, "PATCH", "~/members/999999", json={"label_weight": 2})


def test_a_reward_model_comes_with_its_card(client: TestClient, committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        place = make_admin_project(session, "Elsewhere")
        model = make_reward_model(session, place, CARD)
        admin = Caller(client, token_of(session, place.admin), place.project.slug)
    assert admin.get(f"~/reward-models/{model.id}")["card"] == CARD
    assert [one["id"] for one in admin.get("~/reward-models")["items"]] == [model.id]


def test_a_reward_model_that_is_not_there_is_not_found(house: House) -> None:
    assert "no reward model 7" in house.admin.refused(404, "GET", "~/reward-models/7")["message"]
    house.annotator.refused(403, "GET", "~/reward-models/7")

"""Rounds are started, fired and cancelled by hand; runs and policies are shown."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects, runs
from tests.api.conftest import House
from tests.api.test_api_exports import answer


@pytest.fixture
def splits(house: House, committed: sessionmaker[Session]) -> None:
    """Prompts in the splits that a round needs, with responses to rank; nothing is sampled."""
    with committed.begin() as session:
        project = projects.get_project(session, house.project.id)
        before = projects.settings_of(project)
        loop = before.loop.model_copy(update={"prompts_per_round": 0})
        changed = before.model_copy(update={"test_share": 0.5, "loop": loop})
        projects.update_settings(session, project, changed, house.owner)
    prompts = [{"prompt": f"Prompt {number}", "responses": ["one", "two", "three"]} for number in range(20)]
    house.admin.post("~/prompts", {"prompts": prompts})


def test_a_round_needs_prompts(house: House) -> None:
    error = house.admin.refused(409, "POST", "~/rounds")
    assert "prompts" in error["message"]


def test_a_round_by_hand(house: House, splits: None, committed: sessionmaker[Session]) -> None:
    started = house.admin.post("~/rounds", {"seed": 7})
    assert (started["number"], started["state"], started["seed"]) == (1, "labelling", 7)
    assert house.admin.get("~/rounds")["items"] == [started]
    assert "Round 1" in house.admin.refused(409, "POST", "~/rounds")["message"]
    assert "labels" in house.admin.refused(409, "POST", "~/rounds/1/fire")["message"]
    answer(house, [1, 2, 3])
    fired = house.admin.post("~/rounds/1/fire", status=200)
    assert (fired["state"], fired["trigger"]) == ("fitting", "hand")
    (run,) = house.admin.get("~/runs")["items"]
    assert (run["step"], run["state"], run["attempt"]) == ("fit_reward_model", "waiting", 0)
    with committed.begin() as session:
        attempt = runs.claim(session, run["id"])
        points = {1: {"loss": 0.7}, 2: {"loss": 0.6}}
        runs.report(session, run["id"], attempt, phase="fitting", done=2, total=5, points=points)
        queued = session.scalar(text("SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo'"))
    assert queued == 1
    whole = house.admin.get(f"~/runs/{run['id']}")
    assert (whole["state"], whole["phase"], whole["done"], whole["total"]) == ("running", "fitting", 2, 5)
    assert [(point["step"], point["values"]["loss"]) for point in whole["metrics"]] == [(1, 0.7), (2, 0.6)]
    assert "attempt 1" in whole["log"]
    assert house.admin.post("~/rounds/1/cancel", status=200)["state"] == "cancelled"
    assert house.admin.get(f"~/runs/{run['id']}")["state"] == "cancelled"
    assert house.admin.post("~/rounds")["number"] == 2


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "x"])
def test_a_bad_seed_is_refused(house: House, splits: None, seed: object) -> None:
    house.admin.refused(422, "POST", "~/rounds", json={"seed": seed})
    assert house.admin.get("~/rounds")["items"] == []


def test_a_round_is_seeded_without_being_told(house: House, splits: None) -> None:
    assert 0 <= house.admin.post("~/rounds")["seed"] < 2**31
    house.admin.refused(404, "POST", "~/rounds/2/cancel")
    house.admin.refused(404, "GET", "~/runs/1")


def test_a_project_begins_with_version_0(house: House) -> None:
    policies = house.admin.get("~/policies")
    (base,) = policies["items"]
    assert (base["version"], base["uri"]) == (0, "tiny")
    assert policies["current_policy_id"] == base["id"]
    whole = house.admin.get("~/policies/0")
    (link,) = whole["lineage"]
    assert (link["policy_version"], link["revisions"], link["improved_by"]) == (0, 0, None)
    house.admin.refused(404, "GET", "~/policies/1")
    assert house.admin.get("~/reward-models")["items"] == []

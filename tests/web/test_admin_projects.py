"""Does a project begin and change as its admin says, and does a refused form say why and keep what was typed?"""

import re
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects
from app.domain.judgement import parse_form
from app.domain.ready_made import READY_MADE
from app.tables import Person, ProjectState
from tests.admin_project import AdminProject, make_admin_project
from tests.factories import make_person
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]

NEW = {
    "name": "Bedtime stories",
    "guidelines": "# Be kind",
    "base_model": "demo/model",
    "k": "3",
    "responses_per_prompt": "4",
    "lease_minutes": "20",
    "repeat_share": "0",
    "validation_share": "0.1",
    "test_share": "0.1",
    "loop.prompts_per_round": "100",
    "loop.trigger_labels": "150",
    "loop.trigger_hours": "",
    "loop.trigger_min_labels": "50",
    "loop.mixed_share": "0.2",
    "loop.evaluation_samples": "4",
    "loop.best_of_n": "4",
    "loop.gate_pairs": "0",
    "loop.gate_winrate": "0.5",
    "loop.promote_winrate": "0.5",
    "loop.improve_by": "ppo",
    "sampling.temperature": "0.8",
    "sampling.top_p": "1",
    "sampling.max_new_tokens": "80",
    "ppo.kl_coefficient": "0.05",
}


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        return make_admin_project(session)


def test_new_project_has_its_settings_and_leads_to_the_import(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    browser = visit_as(place.owner)
    assert "Version 0 of the policy" in browser.get("/projects/new").text
    created = browser.post("/projects/new", {**NEW, "loop.automatic": "true"})
    assert (created.status_code, created.headers["location"]) == (303, "/projects/bedtime-stories/admin/import")
    with committed() as session:
        project = projects.get_project(session, "bedtime-stories")
        settings = projects.settings_of(project)
    assert project.current_version.guidelines == "# Be kind"
    assert (settings.k, settings.loop.trigger_labels, settings.loop.trigger_hours) == (3, 150, None)
    assert settings.loop.automatic is True
    assert settings.ppo.model_dump() == {"kl_coefficient": 0.05}
    assert settings.reward.model_dump() == {}


def test_a_word_that_looks_like_a_number_stays_a_word(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    browser = visit_as(place.owner)
    chosen = {"reward.set_weight": "1", "reward.annotators": "learned", "reward.lora_rank": "16"}
    assert "given (equal / given / learned)" in browser.get("/projects/new").text
    assert browser.post("/projects/new", {**NEW, **chosen}).status_code == 303
    with committed() as session:
        settings = projects.settings_of(projects.get_project(session, "bedtime-stories"))
    assert settings.reward.model_dump() == {"set_weight": "1", "annotators": "learned", "lora_rank": 16}
    refused = browser.post("/projects/new", {**NEW, "slug": "other", "reward.annotators": "some"})
    assert refused.status_code == 422
    assert 'id="reward-annotators-error"' in refused.text


def test_what_is_switched_off_stays_so(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    browser = visit_as(place.owner)
    chosen = {"ppo.score_clip": "none", "ppo.conservatism": "none", "loop.improve_by": "sft_then_ppo"}
    assert browser.post("/projects/new", {**NEW, **chosen}).status_code == 303
    shown = browser.get("/projects/bedtime-stories/admin/settings").text
    assert re.search(r'name="ppo.score_clip"\s+value="none"', shown)
    assert re.search(r'<option value="sft_then_ppo"\s+selected', shown)
    with committed() as session:
        settings = projects.settings_of(projects.get_project(session, "bedtime-stories"))
    assert settings.ppo.model_dump() == {"kl_coefficient": 0.05, "score_clip": None, "conservatism": "none"}
    assert settings.loop.improve_by == "sft_then_ppo"
    refused = browser.post("/projects/new", {**NEW, "slug": "other", "loop.improve_by": "luck"})
    assert refused.status_code == 422
    assert 'id="loop-improve_by-error"' in refused.text


def test_a_project_begins_with_the_judgement_form_that_was_chosen(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    browser = visit_as(place.owner)
    begun = READY_MADE[1]
    assert f'<option value="{begun.key}"' in browser.get("/projects/new").text
    refused = browser.post("/projects/new", {**NEW, "judgement_form": "none such"})
    assert refused.status_code == 422
    assert "no such judgement form" in refused.text
    kept = browser.post("/projects/new", {**NEW, "judgement_form": begun.key, "k": "0"}).text
    assert re.search(rf'<option value="{begun.key}"\s+selected', kept)
    assert browser.post("/projects/new", {**NEW, "judgement_form": begun.key}).status_code == 303
    with committed() as session:
        version = projects.get_project(session, "bedtime-stories").current_version
    assert parse_form(version.judgement_form) == begun.form


def test_refused_form_names_each_field_and_keeps_the_input(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    browser = visit_as(place.owner)
    refused = browser.post("/projects/new", {**NEW, "k": "0", "loop.mixed_share": "lots", "name": "Kept <name>"})
    assert refused.status_code == 422
    assert 'id="k-error"' in refused.text
    assert 'id="loop-mixed_share-error"' in refused.text
    assert 'id="test_share-error"' not in refused.text
    assert "Kept &lt;name&gt;" in refused.text
    assert 'value="lots"' in refused.text
    assert "# Be kind" in refused.text
    with committed() as session:
        assert [one.name for one in projects.list_projects(session, place.owner)] == ["Stories"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": " "}, "name is empty"),
        ({"slug": "Not A Slug"}, "lower-case letters"),
        ({"slug": "stories"}, "already"),
        ({"validation_share": "0.6", "test_share": "0.6"}, "leave no prompts"),
    ],
)
def test_reasons_that_belong_to_no_setting_stand_above_the_form(
    place: AdminProject, visit_as: VisitAs, change: dict[str, str], reason: str
) -> None:
    refused = visit_as(place.owner).post("/projects/new", {**NEW, **change})
    assert refused.status_code in {409, 422}
    assert reason in refused.text


def test_only_owners_create_projects(place: AdminProject, visit_as: VisitAs) -> None:
    browser = visit_as(place.admin)
    assert browser.get("/projects/new").status_code == 403
    assert browser.post("/projects/new", NEW).status_code == 403


def test_settings_are_saved_and_bad_ones_are_not(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    browser = visit_as(place.admin)
    assert 'name="loop.trigger_labels"' in browser.get(f"{place.root}/settings").text
    fields = {**NEW, "base_model": "tiny", "validation_share": "0", "test_share": "0.5"}
    assert browser.post(f"{place.root}/settings", {**fields, "k": "2"}).status_code == 303
    refused = browser.post(f"{place.root}/settings", {**fields, "k": "many"})
    assert refused.status_code == 422
    assert "Nothing was saved" in refused.text
    assert 'value="many"' in refused.text
    with committed() as session:
        assert projects.settings_of(projects.get_project(session, place.project.id)).k == 2


def test_guidelines_get_a_new_version(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    browser = visit_as(place.admin)
    assert browser.post(f"{place.root}/guidelines", {"guidelines": "Newer words"}).status_code == 303
    assert "Newer words" in browser.get(f"{place.root}/guidelines").text
    with committed() as session:
        assert projects.get_project(session, place.project.id).current_version.number == 2
    too_long = "long " * 30_000
    refused = browser.post(f"{place.root}/guidelines", {"guidelines": too_long})
    assert refused.status_code == 422
    assert too_long in refused.text


def test_projects_are_paused_archived_and_made_active(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    browser = visit_as(place.admin)
    for state in ("paused", "archived", "active"):
        assert browser.post(f"{place.root}/state", {"state": state}).status_code == 303
        with committed() as session:
            assert projects.get_project(session, place.project.id).state == ProjectState(state)
    assert browser.post(f"{place.root}/state", {"state": "gone"}).status_code == 422


def test_start_page_counts_what_an_admin_administers(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    assert "0 prompts" in visit_as(place.admin).get("/").text
    with committed.begin() as session:
        outsider = make_person(session)
    assert "Stories" not in visit_as(outsider).get("/").text

"""Which models are being aligned: projects, settings, versions."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain import audit, comparisons, people, projects, prompts
from app.domain.settings import LoopSettings, ProjectSettings, SamplingChoice, parse_settings
from app.errors import Conflict, Invalid, NotAllowed, NotFound
from app.tables import Policy, Project, ProjectState, ProjectVersion, Role
from tests.factories import make_member, make_person, make_project, make_prompt

SETTINGS = parse_settings({"base_model": "tiny"})


def test_a_project_begins_with_a_version_a_policy_and_an_admin(session: Session) -> None:
    owner = make_person(session, is_owner=True)
    project = projects.create_project(
        session, name="Story endings", by=owner, guidelines=" # Be kind\r\n", settings=SETTINGS, consent_text="Yes?"
    )
    assert (project.slug, project.state) == ("story-endings", ProjectState.ACTIVE)
    version = project.current_version
    assert version is not None
    assert (version.number, version.guidelines, version.consent_text) == (1, "# Be kind", "Yes?")
    assert version.judgement_form == {"ranking": {"ties": True}}
    policy = session.scalars(select(Policy).where(Policy.project_id == project.id)).one()
    assert (policy.version, policy.uri, policy.parent_id, policy.id) == (0, "tiny", None, project.current_policy_id)
    assert people.require_member(session, project.id, owner).role is Role.ADMIN
    assert projects.settings_of(project) == SETTINGS


def test_only_owners_create_projects(session: Session) -> None:
    with pytest.raises(NotAllowed):
        projects.create_project(session, name="Mine", by=make_person(session), settings=SETTINGS)


def test_addresses_are_made_of_names_and_never_collide(session: Session) -> None:
    def slug(name: str) -> str:
        return projects.create_project(session, name=name, by=None, settings=SETTINGS).slug

    assert [slug("Ünïcode & Co.") for _ in range(3)] == ["unicode-co", "unicode-co-2", "unicode-co-3"]
    assert [slug("故事结尾"), slug("小说")] == ["project", "project-2"]
    assert [slug("2026"), slug("x" * 200)] == ["project-2026", "x" * 50]


@pytest.mark.parametrize("slug", ["", "A", "a b", "-a", "a-", "a--b", "12", "a/b", "a" * 61, "é"])
def test_bad_addresses_are_refused(session: Session, slug: str) -> None:
    with pytest.raises(Invalid, match="story-endings"):
        projects.create_project(session, name="x", by=None, slug=slug, settings=SETTINGS)


def test_a_taken_address_is_a_conflict(session: Session) -> None:
    projects.create_project(session, name="x", by=None, slug="mine", settings=SETTINGS)
    with pytest.raises(Conflict, match="mine"):
        projects.create_project(session, name="y", by=None, slug="mine", settings=SETTINGS)


def test_a_project_is_found_by_address_or_id(session: Session) -> None:
    project = make_project(session)
    for key in (project.slug, project.id, str(project.id)):
        assert projects.get_project(session, key) is project
    for key in ("", "nothing", project.id + 1, "9" * 40, "\x00", "\ud800", "²"):
        with pytest.raises(NotFound):
            projects.get_project(session, key)


def test_people_see_their_projects_and_owners_all(session: Session) -> None:
    owner = make_person(session, is_owner=True)
    first, second = make_project(session, owner, name="A"), make_project(session, name="B")
    member = make_member(session, second)
    person = people.get_person(session, member.person_id)
    assert projects.list_projects(session, owner) == [first, second]
    assert projects.list_projects(session, person) == [second]
    projects.set_state(session, first, ProjectState.ARCHIVED, owner)
    assert projects.list_projects(session, owner) == [second, first]
    people.remove_member(session, second.id, member.id, owner)
    assert projects.list_projects(session, person) == []


def test_a_version_is_followed_never_changed(session: Session) -> None:
    project = make_project(session)
    first = project.current_version
    second = projects.new_version(
        session, project, guidelines="New", consent_text="", judgement_form={"ranking": {"ties": False}}, by=None
    )
    assert project.current_version is second
    assert second.number == 2
    assert session.scalars(select(ProjectVersion.guidelines).order_by(ProjectVersion.id)).all() == ["", "New"]
    assert first is not None
    with pytest.raises(Invalid, match="guidelines cannot be kept"):
        projects.new_version(session, project, guidelines="\x00", consent_text="", judgement_form=None, by=None)
    with pytest.raises(Invalid, match="longer than 100,000"):
        projects.new_version(session, project, guidelines="x" * 100_001, consent_text="", judgement_form=None, by=None)


def test_a_change_keeps_the_other_parts_and_says_what_changed(session: Session) -> None:
    project = make_project(session)
    projects.change_version(session, project, guidelines="Be kind", by=None)
    after = projects.change_version(
        session, project, judgement_form={"all_bad": True, "rationale": "required"}, by=None
    )
    assert (after.number, after.guidelines, after.consent_text) == (3, "Be kind", "")
    assert after.judgement_form == {"all_bad": True, "rationale": "required"}
    assert [version.number for version in projects.list_versions(session, project.id)] == [3, 2, 1]
    details = [event.details for event, _person in audit.list_events(session, project.id)[:2]]
    assert details == [
        {"number": 3, "judgement_form": {"all_bad": [False, True], "rationale": ["no", "required"]}},
        {"number": 2, "guidelines": "changed"},
    ]


def test_a_change_that_changes_nothing_makes_no_version(session: Session) -> None:
    project = make_project(session)
    same = {"ranking": {"ties": True, "partial": False}, "overall": "ranking"}
    with pytest.raises(Invalid, match="version 1 says the same"):
        projects.change_version(session, project, guidelines=" \r\n", judgement_form=same, by=None)


def test_a_judgement_form_that_does_not_work_makes_no_version(session: Session) -> None:
    project = make_project(session)
    with pytest.raises(Invalid, match="does not work") as refused:
        projects.change_version(session, project, judgement_form={"overall": "none", "score": {"step": 0}}, by=None)
    assert list(refused.value.details["fields"]) == ["score.step"]
    assert [version.number for version in projects.list_versions(session, project.id)] == [1]


def test_states_are_audited(session: Session) -> None:
    project = make_project(session)
    projects.set_state(session, project, ProjectState.ARCHIVED, None)
    assert session.get_one(Project, project.id).archived_at is not None
    projects.set_state(session, project, ProjectState.ACTIVE, None)
    assert project.archived_at is None
    event, _ = audit.list_events(session, project.id)[0]
    assert (event.action, event.details) == ("project.set_state", {"from": "archived", "to": "active"})


def test_settings_change_and_say_what_changed(session: Session) -> None:
    project = make_project(session)
    after = parse_settings({"base_model": "tiny", "k": 3, "loop": {"automatic": True}})
    projects.update_settings(session, project, after, None)
    assert projects.settings_of(session.get_one(Project, project.id)) == after
    event, _ = audit.list_events(session, project.id)[0]
    assert event.details["k"] == [1, 3]
    assert set(event.details) == {"k", "loop"}
    assert event.details["loop"][1]["automatic"] is True


def test_the_split_is_made_once(session: Session) -> None:
    project = make_project(session)
    other_shares = parse_settings({"base_model": "tiny", "test_share": 0.3})
    projects.update_settings(session, project, other_shares, None)
    make_prompt(session, project)
    with pytest.raises(Conflict, match="made once"):
        projects.update_settings(session, project, parse_settings({"base_model": "tiny"}), None)
    projects.update_settings(session, project, other_shares.model_copy(update={"k": 2}), None)


def test_the_base_model_is_replaced_until_the_loop_used_it(session: Session) -> None:
    project = make_project(session)
    projects.update_settings(session, project, parse_settings({"base_model": "better"}), None)
    policy = session.scalars(select(Policy).where(Policy.project_id == project.id)).one()
    assert policy.uri == "better"
    session.add(Policy(project_id=project.id, version=1, uri="x", parent_id=policy.id))
    session.flush()
    with pytest.raises(Conflict, match="another project"):
        projects.update_settings(session, project, SETTINGS, None)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "base_model: field required"),
        ({"base_model": ""}, "base_model: "),
        ({"base_model": "x\x00"}, "NUL"),
        ({"base_model": "x", "k": 0}, "k: should be greater than or equal to 1"),
        ({"base_model": "x", "responses_per_prompt": 10}, "responses_per_prompt: should be less than or equal to 9"),
        ({"base_model": "x", "lease_minutes": "soon"}, "lease_minutes: should be a valid integer"),
        ({"base_model": "x", "test_share": 0.6, "validation_share": 0.4}, "leave no prompts to train on"),
        ({"base_model": "x", "loop": {"mixed_share": 1.5}}, "loop.mixed_share: should be less than or equal to 1"),
        ({"base_model": "x", "loop": 5}, "loop: "),
        ({"base_model": "x", "lop": {}}, "lop: extra inputs are not permitted"),
        ({"base_model": "x", "sampling": {"temperature": float("inf")}}, "cannot be kept"),
        ({"base_model": "x", "ppo": {"learning_rat": 1}}, "ppo: there is no learning_rat; known are adam_epsilon"),
        ({"base_model": "x", "reward": {"kl_target": 1}}, "reward: there is no kl_target"),
        ({"base_model": "x", "reward": {"epochs": "abc"}}, "reward.epochs: should be a valid integer"),
        ({"base_model": "x", "ppo": {"minibatches": 0}}, "ppo.minibatches: should be greater than or equal to 1"),
        ({"base_model": "x", "ppo": {"precision": "fp64"}}, "ppo.precision: should be 'auto', 'fp32' or 'bf16'"),
        ({"base_model": "x", "ppo": {"episodes": 10}}, "10 episodes do not fill a rollout of 256"),
        ({"base_model": "x", "reward": {"epochs": [1]}}, "reward.epochs"),
        ({"base_model": "x", "loop": {"best_of_n": 65}}, "loop.best_of_n: should be less than or equal to 64"),
        ({"base_model": "x", "loop": {"improve_by": "dpo"}}, "loop.improve_by: should be 'ppo', 'sft' or"),
        ({"base_model": "x", "sft": {"epochs": 0}}, "sft.epochs: should be greater than or equal to 1"),
        ({"base_model": "x", "ppo": {"estimator": "rloo"}}, "group_size must be at least 2, not 1"),
        ({"base_model": "x", "ppo": {"group_size": 3}}, "256 episodes are no whole number of groups of 3"),
        (
            {"base_model": "x", "ppo": {"estimator": "grpo", "group_size": 2, "value_warmup": 1}},
            "grpo has no value function",
        ),
        ({"base_model": "x", "ppo": {"value_warmup": 32}}, "value_warmup 32 leaves the policy none of 32 rollouts"),
        ({"base_model": "x", "ppo": {"kl_horizon": 51}}, "it must be above 51.2"),
        (
            {"base_model": "x", "ppo": {"conservatism": "worst"}, "reward": {"posterior": False}},
            "ppo.conservatism worst asks how sure the reward model is: leave reward.posterior on",
        ),
    ],
)
def test_bad_settings_say_field_and_reason(data: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_settings(data)
    assert said in str(refusal.value)


def test_every_setting_explains_itself() -> None:
    for model in (ProjectSettings, LoopSettings, SamplingChoice):
        for name, field in model.model_fields.items():
            assert field.description, name
            assert field.description.endswith("."), name


def test_an_archived_project_is_read_only_until_it_is_active_again(session: Session) -> None:
    project = make_project(session)
    prompt = make_prompt(session, project)
    by = make_person(session)
    new = [prompts.NewPrompt(messages=[{"role": "user", "content": "One more"}])]
    changes: list[Callable[[], object]] = [
        lambda: prompts.add_prompts(session, project, new),
        lambda: prompts.retire_prompts(session, project.id, [prompt.id], by),
        lambda: comparisons.pause(session, project.id, [], by),
        lambda: projects.update_settings(session, project, SETTINGS, by),
    ]
    projects.set_state(session, project, ProjectState.ARCHIVED, by)
    for change in changes:
        with pytest.raises(Conflict, match="read only"):
            change()
    projects.set_state(session, project, ProjectState.ACTIVE, by)
    assert prompts.add_prompts(session, project, new).added == 1

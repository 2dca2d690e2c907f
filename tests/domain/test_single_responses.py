"""One response is a comparison where the project's form judges each by itself, and nowhere else."""

import json
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain import comparisons, imports, labels, projects, queue, rounds, samples
from app.domain.comparisons import NewComparison
from app.domain.imports import TakenImport
from app.errors import Conflict, Invalid
from app.tables import (
    Assignment,
    ComparisonResponse,
    FinishReason,
    LabelRank,
    Policy,
    Project,
    Prompt,
    Purpose,
    Response,
    ResponsePurpose,
    RoundState,
    Run,
    Split,
    Step,
)
from tests.factories import make_member, make_project, make_prompt, make_responses
from tests.factories_loop import make_loop_project, make_round, make_run

SCORE = {"overall": "none", "score": {}}


def ask(session: Session, project: Project, form: dict[str, Any]) -> Project:
    projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
    return project


def single(session: Session, project: Project, **more: Any) -> NewComparison:
    prompt = make_prompt(session, project)
    (row,) = make_responses(session, prompt, 1)
    return NewComparison(project.id, prompt.id, [row.id], 1, Purpose.TRAIN, "by_hand", **more)


def test_the_form_decides(session: Session) -> None:
    project = make_project(session)
    new = single(session, project)
    for form in ({}, {"overall": "pair"}, SCORE | {"criteria": [{"key": "a", "name": "A", "kind": "ranking"}]}):
        ask(session, project, form)
        assert comparisons.fewest_responses(session, project.id) == 2
        with pytest.raises(Invalid, match="give a comparison at least two"):
            comparisons.create_comparisons(session, [new])
    ask(session, project, SCORE)
    with pytest.raises(Invalid, match="1 to 9"):
        comparisons.create_comparisons(session, [NewComparison(project.id, 1, [], 1, Purpose.TRAIN, "by_hand")])
    gold = replace(new, purpose=Purpose.GOLD, gold_groups=[list(new.response_ids)])
    with pytest.raises(Invalid, match="known answer is an order"):
        comparisons.create_comparisons(session, [gold])
    (row,) = comparisons.create_comparisons(session, [new])
    member = make_member(session, project)
    assignment = queue.next_assignment(session, project.id, member.id)
    assert isinstance(assignment, Assignment)
    assert assignment.comparison_id == row.id
    score = {"scores": {str(new.response_ids[0]): 4.2}}
    taken = labels.submit(session, assignment.id, member.id, [], answers=score)
    assert taken.revision.answers == score
    assert session.scalars(select(LabelRank).where(LabelRank.revision_id == taken.revision.id)).all() == []


def test_imports_open_comparisons_of_one(session: Session) -> None:
    project = ask(session, make_project(session), SCORE)
    rows = [{"prompt": "p", "responses": ["a"]}, {"prompt": "q", "responses": ["b", "c"]}, {"prompt": "r"}]
    content = "\n".join(map(json.dumps, rows)).encode()
    upload = imports.preview_import(session, project, "x.jsonl", content, None)
    assert upload.report["comparisons"] == 2
    taken = imports.take_import(session, upload, only_good_rows=False, by=None)
    assert taken == TakenImport(prompts=3, responses=3, comparisons=2)
    again = imports.preview_import(session, project, "x.jsonl", content, None)
    assert imports.take_import(session, again, only_good_rows=False, by=None) == TakenImport(0, 0, 0)


def sampled(session: Session, run: Run, policy: Policy, prompts: list[Prompt], number: int) -> list[Response]:
    new = [
        samples.NewSample(prompt.id, f"answer {index}", (1,), FinishReason.ENDED, 0)
        for prompt in prompts
        for index in range(number)
    ]
    return samples.store_samples(session, run, policy, new, purpose=ResponsePurpose.LABELLING, sampling={})


@pytest.mark.parametrize(("form", "opened"), [(SCORE, 6), ({}, 0)])
def test_a_round_opens_them_where_the_form_allows_it(session: Session, form: dict[str, Any], opened: int) -> None:
    project = ask(session, make_loop_project(session), form)
    round_ = make_round(session, project, RoundState.SAMPLING)
    policy = session.get_one(Policy, round_.policy_id)
    run = make_run(session, round_, Step.SAMPLE_RESPONSES)
    draws = [draw for draw in samples.draw_prompts(session, project.id, 12, 1) if draw.prompt.split is Split.TRAIN]
    prompts = [draw.prompt for draw in draws]
    for prompt in prompts:
        make_responses(session, prompt, ["an older one"])
    fresh = sampled(session, run, policy, prompts, 1)
    rows = samples.open_comparisons(session, round_, draws, fresh, k=1, mixed_share=1.0, seed=1)
    assert (len(rows), {row.selected_because for row in rows}) == (opened, {"fresh"} if opened else set())
    members = (
        select(func.count())
        .select_from(ComparisonResponse)
        .where(ComparisonResponse.comparison_id.in_([row.id for row in rows]))
    )
    assert session.scalar(members) == opened


def test_single_samples_are_no_reference(session: Session) -> None:
    """The scores' unit comes from several samples of a prompt: a run that wrote one to each does not count as first."""
    project = make_loop_project(session)
    round_ = make_round(session, project, RoundState.FITTING)
    policy = session.get_one(Policy, round_.policy_id)
    prompts = list(session.scalars(select(Prompt).where(Prompt.project_id == project.id, Prompt.split == Split.TRAIN)))
    sampled(session, make_run(session, round_, Step.SAMPLE_RESPONSES), policy, prompts, 1)
    assert samples.reference_samples(session, policy) == {}
    later = sampled(session, make_run(session, round_, Step.FIT_REWARD_MODEL), policy, prompts, 2)
    reference = samples.reference_samples(session, policy)
    assert [row.id for own in reference.values() for row in own] == [row.id for row in later]


def test_a_round_that_could_compare_nothing_is_not_started(session: Session) -> None:
    project = make_loop_project(session, responses_per_prompt=1)
    with pytest.raises(Conflict, match="raise the responses per prompt"):
        rounds.start_round(session, project, by=None)
    ask(session, project, SCORE)
    assert rounds.start_round(session, project, by=None).state is RoundState.SAMPLING
    by_hand = make_loop_project(session, responses_per_prompt=1, loop={"prompts_per_round": 0})
    assert rounds.start_round(session, by_hand, by=None).state is RoundState.LABELLING


def test_a_gate_needs_an_order(session: Session) -> None:
    project = ask(session, make_loop_project(session, loop={"gate_pairs": 5}), SCORE)
    with pytest.raises(Conflict, match="set the gate pairs"):
        rounds.start_round(session, project, by=None)
    ask(session, project, {"overall": "pair"})
    assert rounds.start_round(session, project, by=None).state is RoundState.SAMPLING

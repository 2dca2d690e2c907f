"""Which of the labels does a reward model learn from? Orders, whole or partial, and corrections."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, labels, projects, queue, reward_models, rounds
from app.domain.snapshots import RankedSet
from app.tables import Assignment, Project, Prompt, Purpose, RewardModelPurpose, Round, RoundState, Split, Trigger
from tests.factories import make_member, make_responses
from tests.factories_loop import claim
from tests.worker.conftest import small_project
from worker.attempt import Attempt
from worker.learning.records import Message, Ranking
from worker.learning.reward.fitting import teaches
from worker.steps import STEPS
from worker.steps.inputs import as_rankings

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "hello"},)


def ranked(groups: list[list[int]], **answers: Any) -> RankedSet:
    """A set of four responses; `groups` are places."""
    return RankedSet(
        revision_id=1,
        comparison_id=1,
        prompt_id=1,
        split=Split.TRAIN,
        messages=list(PROMPT),
        responses=[(10, "a"), (11, "b"), (12, "c"), (13, "d")],
        groups=groups,
        annotator_id=1,
        shown_order=[10, 11, 12, 13],
        answers=answers,
        seconds=None,
    )


def test_of_a_partial_ranking_the_placed_responses_teach() -> None:
    assert list(as_rankings(ranked([[3], [0, 1]]))) == [Ranking(PROMPT, ("a", "b", "d"), ((2,), (0, 1)))]
    assert list(as_rankings(ranked([[2], [0], [3], [1]]))) == [
        Ranking(PROMPT, ("a", "b", "c", "d"), ((2,), (0,), (3,), (1,)))
    ]


def test_an_answer_without_an_order_teaches_nothing() -> None:
    assert list(as_rankings(ranked([], scores={"10": 4}))) == []
    assert list(as_rankings(ranked([], all_bad=True))) == []


def test_a_correction_is_a_set_of_two_and_marked() -> None:
    said = {"13": {"text": "better d", "response_id": 20}}
    assert list(as_rankings(ranked([[0, 1, 2, 3]], corrections=said))) == [
        Ranking(PROMPT, ("a", "b", "c", "d"), ((0, 1, 2, 3),)),
        Ranking(PROMPT, ("better d", "d"), ((0,), (1,)), implied=True),
    ]
    assert [teaches(one) for one in as_rankings(ranked([[0, 1, 2, 3]], corrections=said))] == [False, True]


def labelled_round(session: Session, tiny: Path, form: dict[str, Any], answers: Any) -> Round:
    """A round that goes on to fitting with labels to a form; `answers(ids)` gives groups and the rest."""
    project = small_project(session, tiny, loop={"prompts_per_round": 0})
    projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
    for prompt in session.scalars(select(Prompt).where(Prompt.project_id == project.id)).all():
        ids = [row.id for row in make_responses(session, prompt, ["good cat", "bad dog", "the sun"])]
        new = comparisons.NewComparison(project.id, prompt.id, ids, 1, Purpose.TRAIN, "imported")
        comparisons.create_comparisons(session, [new])
    member = make_member(session, project)
    round_ = rounds.start_round(session, session.get_one(Project, project.id), by=None, seed=1)
    while isinstance(found := queue.next_assignment(session, project.id, member.id), Assignment):
        groups, said = answers(sorted(found.shown_order))
        labels.submit(session, found.id, member.id, groups, answers=said)
    return rounds.fire(session, round_, Trigger.HAND)


def fit(committed: sessionmaker[Session], round_id: int) -> None:
    with committed.begin() as session:
        run, number = claim(session, session.get_one(Round, round_id))
    STEPS[run.step](Attempt(run.id, number, torch.device("cpu")))


def test_partial_rankings_and_corrections_are_fitted_on(
    committed: sessionmaker[Session], tiny_folder: Path, artifacts: Path
) -> None:
    form = {"ranking": {"partial": True}, "all_bad": True, "correction": "optional"}

    def answers(ids: list[int]) -> Any:
        if ids[0] % 2:
            return [[ids[0]], [ids[1]]], {}
        return [], {"all_bad": True, "corrections": {str(ids[1]): "good dog"}}

    with committed.begin() as session:
        round_id = labelled_round(session, tiny_folder, form, answers).id
    fit(committed, round_id)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        card = reward_models.reward_models_of_round(session, round_)[RewardModelPurpose.TRAINING].card
    assert round_.state is RoundState.IMPROVING
    assert card["rankings"] == {"fitted_on": 12, "chosen_on": 12, "test": 6}
    assert 0 < card["corrections"] < 12
    assert card["accuracy_pairs"] == 6


def test_labels_that_order_nothing_end_the_step_in_words(
    committed: sessionmaker[Session], tiny_folder: Path, artifacts: Path
) -> None:
    form = {"overall": "none", "score": {}}
    with committed.begin() as session:
        round_id = labelled_round(
            session, tiny_folder, form, lambda ids: ([], {"scores": {str(id_): 3 for id_ in ids}})
        ).id
    with pytest.raises(ValueError, match="asks for an order or for corrections"):
        fit(committed, round_id)

"""Does the fit step keep what it must: its place after a kill, its start, its curve, and what it says of annotators?"""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from app import config
from app.domain import people, reward_models, rounds, runs
from app.tables import (
    Membership,
    Project,
    RewardModel,
    RewardModelPurpose,
    Role,
    Round,
    RoundState,
    Run,
    RunState,
    Split,
    Step,
)
from tests.factories_loop import claim
from tests.worker.conftest import small_project
from tests.worker.round_steps import CPU, Committed, execute, execute_until, label_and_fire, start, states
from worker import artifacts as place
from worker import execution
from worker.attempt import Attempt
from worker.learning.reward.fitting import fit_reward_model
from worker.learning.seeds import derive_seed
from worker.steps.fit_reward_model import read_labels
from worker.steps.inputs import read_round


def fitting_round(committed: Committed, tiny: Path, annotators: int = 1, **settings: Any) -> tuple[int, int]:
    """A project and a round of it whose fit step waits, by id."""
    project_id, round_id = start(committed, tiny, **settings)
    execute(committed, round_id)
    label_and_fire(committed, project_id, round_id, annotators)
    return project_id, round_id


def cards(committed: Committed, round_id: int) -> dict[RewardModelPurpose, dict[str, Any]]:
    with committed() as session:
        models = reward_models.reward_models_of_round(session, session.get_one(Round, round_id))
    return {purpose: model.card for purpose, model in models.items()}


def test_a_killed_fit_goes_on_where_it_was_to_the_same_model(
    committed: Committed, tiny_folder: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"reward": {"precision": "fp32", "checkpoint_seconds": 0.0}}
    _, round_id = fitting_round(committed, tiny_folder, **settings)
    torch.set_num_threads(config.settings().threads or torch.get_num_threads())  # sums depend on how they are split
    run_id = execute_until(committed, round_id, monkeypatch, 3)
    assert [folder.name for folder in states()] == ["step-00000003"]
    began: list[int] = []
    with committed.begin() as session:
        number = runs.claim(session, run_id)
        inputs = read_round(session, Attempt(run_id, number, CPU))
        labels = read_labels(session, inputs)
    monkeypatch.setattr(Attempt, "report", lambda _attempt, progress: began.append(progress.done))
    execution.execute(run_id, number)
    assert began[0] == 4
    assert states() == []
    seed = derive_seed(inputs.round.seed, "fit", "training")
    whole = fit_reward_model(
        str(tiny_folder), labels[Split.TRAIN], labels[Split.VALIDATION], inputs.reward, seed, device=CPU
    )
    assert cards(committed, round_id)[RewardModelPurpose.TRAINING]["history"] == whole.history


def test_what_was_weighed_anew_is_fitted_anew(
    committed: Committed, tiny_folder: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project_id, round_id = fitting_round(committed, tiny_folder, reward={"checkpoint_seconds": 0.0})
    run_id = execute_until(committed, round_id, monkeypatch, 3)
    with committed.begin() as session:
        member = session.scalars(select(Membership).where(Membership.role == Role.ANNOTATOR)).one()
        admin = people.get_person(session, member.person_id)
        people.set_label_weight(session, project_id, member.id, 3, admin)
        number = runs.claim(session, run_id)
    execution.execute(run_id, number)
    (annotator,) = cards(committed, round_id)[RewardModelPurpose.TRAINING]["annotators"]
    assert annotator["weight"] == 3.0
    assert states() == []


def test_states_of_runs_that_have_ended_are_removed(
    committed: Committed, tiny_folder: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cancelled_id = fitting_round(committed, tiny_folder, reward={"checkpoint_seconds": 0.0})
    run_id = execute_until(committed, cancelled_id, monkeypatch, 3)
    stranger = place.states(Run(id=999_999), "other")
    stranger.mkdir(parents=True)
    with committed.begin() as session:
        session.execute(update(Run).where(Run.id == run_id).values(state=RunState.CANCELLED))
        project = small_project(session, tiny_folder)
        round_ = rounds.start_round(session, project, by=None, seed=1)
        run, number = claim(session, round_)
    assert states()
    execution.execute(run.id, number)
    assert states() == []
    assert stranger.exists()


def test_a_fit_may_start_from_the_earlier_training_model(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, first_id = fitting_round(committed, tiny_folder, reward={"start": "better"})
    execute(committed, first_id)
    first = cards(committed, first_id)
    assert first[RewardModelPurpose.TRAINING]["start"] is None
    for _ in range(2):
        execute(committed, first_id)
    with committed.begin() as session:
        second_id = rounds.start_round(session, session.get_one(Project, project_id), by=None, seed=2).id
    execute(committed, second_id)
    label_and_fire(committed, project_id, second_id)
    execute(committed, second_id)
    second = cards(committed, second_id)
    with committed() as session:
        models = reward_models.reward_models_of_round(session, session.get_one(Round, first_id))
    assert second[RewardModelPurpose.TRAINING]["start"] == models[RewardModelPurpose.TRAINING].id
    assert {choice["start"] for choice in second[RewardModelPurpose.TRAINING]["choices"]} == {"fresh", "warm"}
    assert second[RewardModelPurpose.EVALUATION]["start"] is None
    assert {choice["start"] for choice in second[RewardModelPurpose.EVALUATION]["choices"]} == {"fresh"}


def test_no_fit_starts_from_withdrawn_labels(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    project_id, first_id = fitting_round(committed, tiny_folder)
    execute(committed, first_id)
    with committed.begin() as session:
        later = Round(project_id=project_id, id=first_id + 1)
        found = reward_models.previous_training_model(session, later)
        assert found is not None
        assert (found.round_id, found.purpose) == (first_id, RewardModelPurpose.TRAINING)
        assert reward_models.previous_training_model(session, session.get_one(Round, first_id)) is None
        session.execute(update(RewardModel).values(tainted_at=found.created_at))
        assert reward_models.previous_training_model(session, later) is None


def test_the_card_has_a_learning_curve_where_it_is_asked_for(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    _, round_id = fitting_round(committed, tiny_folder, loop={"learning_curve": True})
    execute(committed, round_id)
    own = cards(committed, round_id)
    training = own[RewardModelPurpose.TRAINING]
    curve, taught = training["learning_curve"], training["labels"]["fitted_on"]
    assert [row["labels"] for row in curve] == [taught // 8, taught // 4, taught // 2, taught]
    assert curve[-1]["accuracy"] == training["accuracy"]
    assert "learning_curve" not in own[RewardModelPurpose.EVALUATION]
    assert states() == []


def test_the_card_says_how_far_annotators_were_believed(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    _, round_id = fitting_round(committed, tiny_folder, annotators=1, reward={"annotators": "learned"})
    execute(committed, round_id)
    training = cards(committed, round_id)[RewardModelPurpose.TRAINING]
    (row,) = training["annotators"]
    assert 0 < row["quality"] < 1
    assert isinstance(row["position_bias"], float)
    assert (row["weight"], row["labels"]) == (1.0, training["labels"]["fitted_on"])
    with committed() as session:
        assert session.get_one(Round, round_id).state is RoundState.IMPROVING
        member = session.scalars(select(Membership).where(Membership.role == Role.ANNOTATOR)).one()
        assert session.scalars(select(Run.state).where(Run.step == Step.FIT_REWARD_MODEL)).one() is RunState.DONE
    assert row["annotator"] == str(member.id)

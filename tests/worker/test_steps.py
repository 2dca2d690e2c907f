"""What does each step write? Every step on a tiny model and a real database, and the whole loop, twice round."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from app.domain import policies, reward_models, rounds, runs, samples
from app.domain.overrides import PPOOverrides, RewardOverrides, SFTOverrides
from app.errors import StaleAttempt
from app.tables import (
    Comparison,
    ComparisonResponse,
    ComparisonState,
    Policy,
    PolicyScore,
    Project,
    Prompt,
    Purpose,
    Response,
    ResponsePurpose,
    RewardModel,
    RewardModelPurpose,
    Round,
    RoundState,
    Run,
    RunMetric,
    RunState,
    Snapshot,
    Split,
    Step,
)
from tests.factories_loop import claim, label_all
from tests.worker.conftest import small_project
from tests.worker.round_steps import CPU, Committed, execute, label_and_fire, start
from worker import execution
from worker.attempt import Attempt
from worker.learning.checkpoints import hash_folder
from worker.learning.language_model import FINE_TUNING
from worker.learning.policy.settings import PPOSettings
from worker.learning.progress import Progress
from worker.learning.reward.settings import RewardSettings
from worker.steps import STEPS


def test_settings_of_the_server_are_those_of_the_worker() -> None:
    pairs = (
        (RewardOverrides(), RewardSettings()),
        (SFTOverrides(), FINE_TUNING),
        (PPOOverrides(), PPOSettings()),
    )
    for overrides, worker in pairs:
        names = set(type(overrides).model_fields)
        assert set(worker.__dataclass_fields__) - {"sampling"} == names
        assert {name: getattr(overrides, name) for name in names} == {name: getattr(worker, name) for name in names}


def test_sampling_opens_comparisons_of_distinct_answers(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, round_id = start(committed, tiny_folder, k=2, loop={"prompts_per_round": 15})
    execute(committed, round_id)
    with committed() as session:
        assert session.get_one(Round, round_id).state is RoundState.LABELLING
        rows = session.scalars(select(Comparison).where(Comparison.project_id == project_id)).all()
        split = dict(session.execute(select(Prompt.split, func.count()).join(Comparison).group_by(Prompt.split)).all())
        written = session.execute(
            select(Comparison.id, Response)
            .join(ComparisonResponse, ComparisonResponse.comparison_id == Comparison.id)
            .join(Response, Response.id == ComparisonResponse.response_id)
        ).all()
    assert len({row.prompt_id for row in rows}) == len(rows) <= 15
    assert split == {Split.TRAIN: 6, Split.VALIDATION: 6, Split.TEST: 3}
    assert {(row.k, row.openings, row.selected_because, row.purpose) for row in rows} == {
        (2, 2, "fresh", Purpose.TRAIN)
    }
    assert {row.selection_probability for row in rows} == {0.5}
    texts = Counter((comparison_id, response.text) for comparison_id, response in written)
    assert set(texts.values()) == {1}
    for _, response in written:
        assert response.text.strip()
        assert response.token_ids
        assert response.sampling == {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 6}


def test_prompts_with_the_fewest_comparisons_come_first(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    _, round_id = start(committed, tiny_folder, loop={"prompts_per_round": 15})
    execute(committed, round_id)
    with committed.begin() as session:
        round_ = session.get_one(Round, round_id)
        asked = set(session.scalars(select(Comparison.prompt_id)))
        draws = samples.draw_prompts(session, round_.project_id, 20, seed=5)
    probabilities = {draw.prompt.id: draw.probability for draw in draws}
    fresh = {id_ for id_ in probabilities if id_ not in asked}
    assert len(fresh) == 15  # all that had none
    assert {probabilities[id_] for id_ in fresh} == {1.0}
    assert {round(probabilities[id_], 3) for id_ in probabilities if id_ in asked} == {0.333}


def test_both_reward_models_are_fitted_apart_and_share_a_scale(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, round_id = start(committed, tiny_folder, reward={"precision": "fp32"})
    execute(committed, round_id)
    label_and_fire(committed, project_id, round_id)
    execute(committed, round_id)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        models = reward_models.reward_models_of_round(session, round_)
        base = policies.base_policy(session, project_id)
        reference = samples.reference_samples(session, base)
        labels = dict(
            session.execute(
                select(Prompt.split, func.count())
                .join(Comparison)
                .where(Comparison.submitted > 0)
                .group_by(Prompt.split)
            ).all()
        )
        prompts = {id_: session.get_one(Prompt, id_).messages for id_ in reference}
        stored = {prompt_id: [response.text for response in own] for prompt_id, own in reference.items()}
    assert round_.state is RoundState.IMPROVING
    training, evaluation = models[RewardModelPurpose.TRAINING], models[RewardModelPurpose.EVALUATION]
    assert training.card["labels"] == {
        "fitted_on": labels[Split.TRAIN],
        "chosen_on": labels[Split.VALIDATION],
        "test": labels[Split.TEST],
    }
    assert evaluation.card["labels"]["fitted_on"] == labels[Split.VALIDATION]
    assert evaluation.card["labels"]["chosen_on"] == 0
    for model in models.values():
        assert 0 <= model.card["accuracy_low"] <= model.card["accuracy"] <= model.card["accuracy_high"] <= 1
        assert hash_folder(Path(model.uri)) == model.content_hash
        assert AutoModelForSequenceClassification.from_pretrained(model.uri).num_labels == 1
        assert spread(model, prompts, stored) == pytest.approx((0.0, 1.0), abs=1e-3)
    assert training.content_hash != evaluation.content_hash


def spread(model: RewardModel, prompts: dict[int, Any], stored: dict[int, list[str]]) -> tuple[float, float]:
    """Mean over prompts and pooled deviation within prompts of a stored model's scores, computed by hand."""
    from worker.learning.reward.model import load_reward_model

    scorer = load_reward_model(Path(model.uri), CPU, "fp32")
    squares, freedom, means = 0.0, 0, []
    for prompt_id, texts in stored.items():
        scores = scorer([prompts[prompt_id]] * len(texts), texts).tolist()
        mean = math.fsum(scores) / len(scores)
        squares += math.fsum((score - mean) ** 2 for score in scores)
        freedom += len(scores) - 1
        means.append(mean)
    return math.fsum(means) / len(means), math.sqrt(squares / freedom)


def test_too_few_validation_labels_are_said_on_the_card(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, round_id = start(committed, tiny_folder, loop={"prompts_per_round": 12})
    execute(committed, round_id)
    label_and_fire(committed, project_id, round_id)
    for _ in range(3):
        execute(committed, round_id)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        models = reward_models.reward_models_of_round(session, round_)
    assert set(models) == {RewardModelPurpose.TRAINING}
    assert "No evaluation reward model: it needs 10" in models[RewardModelPurpose.TRAINING].card["note"]
    assert round_.verdict is not None
    assert round_.state is RoundState.REJECTED
    assert round_.verdict["measured_by"] == "the training reward model"
    assert "too few validation labels" in round_.verdict["decided_by"]


def test_imported_responses_alone_get_a_reference_set(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    """A project that samples nothing has no answers of version 0, which the scores' unit comes from."""
    from app.domain import comparisons
    from tests.factories import make_responses

    with committed.begin() as session:
        project = small_project(session, tiny_folder, loop={"prompts_per_round": 0})
        for prompt in session.scalars(select(Prompt).where(Prompt.project_id == project.id)).all():
            answers = make_responses(session, prompt, ["good cat", "bad dog"])
            comparisons.create_comparisons(
                session,
                [
                    comparisons.NewComparison(
                        project_id=project.id,
                        prompt_id=prompt.id,
                        response_ids=[answer.id for answer in answers],
                        k=1,
                        purpose=Purpose.TRAIN,
                        selected_because="imported",
                    )
                ],
            )
        project_id, round_id = project.id, rounds.start_round(session, project, by=None, seed=1).id
    label_and_fire(committed, project_id, round_id)
    execute(committed, round_id)
    with committed() as session:
        reference = samples.reference_samples(session, policies.base_policy(session, project_id))
        splits = set(session.scalars(select(Prompt.split).where(Prompt.id.in_(reference))))
        purposes = {response.purpose for own in reference.values() for response in own}
        normalised = session.scalars(select(RewardModel)).first()
    assert splits == {Split.TRAIN}
    assert purposes == {ResponsePurpose.EVALUATION}
    assert normalised is not None
    assert normalised.card["normalised_on"]["samples"] == sum(map(len, reference.values()))


def test_two_rounds_from_prompts_to_a_promoted_policy(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    project_id, first_id = start(committed, tiny_folder, loop={"mixed_share": 0.5})
    execute(committed, first_id)
    label_and_fire(committed, project_id, first_id)
    for _ in range(3):
        execute(committed, first_id)
    with committed.begin() as session:
        project = session.get_one(Project, project_id)
        first = session.get_one(Round, first_id)
        assert first.state is RoundState.PROMOTED
        second_id = rounds.start_round(session, project, by=None, seed=2).id
    execute(committed, second_id)
    check_fresh_comparisons(committed, second_id)
    label_and_fire(committed, project_id, second_id)
    for _ in range(3):
        execute(committed, second_id)
    with committed() as session:
        check_lineage(session, project_id)
        check_matrix(session, second_id)
        check_measures(session, project_id)
        check_runs(session, project_id)


def check_fresh_comparisons(committed: Committed, round_id: int) -> None:
    """The second round's comparisons show its policy's answers, in a share of them beside older ones."""
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        rows = session.execute(
            select(Comparison.id, Comparison.selected_because, Response.policy_id)
            .join(ComparisonResponse, ComparisonResponse.comparison_id == Comparison.id)
            .join(Response, Response.id == ComparisonResponse.response_id)
            .where(Comparison.round_id == round_id)
        ).all()
        older = session.scalars(
            select(Comparison.state).where(
                Comparison.round_id != round_id,
                Comparison.openings == Comparison.k,
                Comparison.purpose == Purpose.TRAIN,
            )
        ).all()
    assert set(older) <= {ComparisonState.RETIRED}
    writers: dict[tuple[int, str], set[bool]] = {}
    for comparison_id, because, policy_id in rows:
        writers.setdefault((comparison_id, because), set()).add(policy_id == round_.policy_id)
    kinds = Counter(because for _, because in writers)
    assert kinds["fresh"] > 0
    assert kinds["mixed"] > 0
    for (_, because), is_fresh in writers.items():
        assert is_fresh == ({True} if because == "fresh" else {True, False})


def check_lineage(session: Session, project_id: int) -> None:
    project = session.get_one(Project, project_id)
    newest = policies.current_policy(session, project)
    links = policies.lineage(session, newest)
    assert [link.policy.version for link in links] == [2, 1, 0]
    for link in links[:-1]:
        assert link.policy.content_hash == hash_folder(Path(link.policy.uri))
        AutoModelForCausalLM.from_pretrained(link.policy.uri)
        assert link.snapshot is not None
        assert link.revisions == link.snapshot.labels_count > 0
        assert link.annotators > 0
    assert links[0].snapshot is not links[1].snapshot
    base = policies.base_policy(session, project_id)
    assert {link.policy.reference_id for link in links[:-1]} == {base.id}
    assert len({link.policy.content_hash for link in links}) == 3


def check_matrix(session: Session, round_id: int) -> None:
    """New, parent and version 0 under both reward models; version 0 ties with itself."""
    cells = session.scalars(select(PolicyScore).where(PolicyScore.round_id == round_id)).all()
    assert len(cells) == 6
    versions = {policy.id: policy.version for policy in session.scalars(select(Policy))}
    for cell in cells:
        assert cell.samples == 12
        assert cell.winrate_low <= cell.winrate <= cell.winrate_high
        if versions[cell.policy_id] == 0:
            assert cell.winrate == 0.5
    written = session.execute(
        select(Response.policy_id, func.count())
        .join(Run)
        .join(Prompt, Prompt.id == Response.prompt_id)
        .where(Run.round_id == round_id, Response.purpose == ResponsePurpose.EVALUATION, Prompt.split == Split.TEST)
        .group_by(Response.policy_id)
    ).all()
    assert sorted(count for _, count in written) == [12, 12, 12]


def check_measures(session: Session, project_id: int) -> None:
    for policy in policies.list_policies(session, project_id):
        assert 0 <= policy.measures["ended_rate"] <= 1
        assert policy.measures["distinct_2"] > 0
        assert policy.measures["length_ratio"] > 0
        assert (policy.measures["kl"] == 0) == (policy.version == 0)
    assert json.dumps([row.verdict for row in rounds.list_rounds(session, project_id)])


def check_runs(session: Session, project_id: int) -> None:
    rows = runs.list_runs(session, project_id)
    assert {run.state for run in rows} == {RunState.DONE}
    assert Counter(run.step for run in rows) == dict.fromkeys(Step, 2)
    for run in rows:
        if run.step in {Step.FIT_REWARD_MODEL, Step.IMPROVE_POLICY}:
            curve = runs.metrics(session, run.id)
            assert curve, run.step
            assert [point.step for point in curve] == sorted(point.step for point in curve) or run.step is (
                Step.FIT_REWARD_MODEL
            )
    assert session.scalar(select(func.count()).select_from(Snapshot)) == 2


def test_people_judge_blinded_pairs_before_promotion(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    project_id, round_id = start(committed, tiny_folder, loop={"gate_pairs": 4, "gate_winrate": 0.0})
    execute(committed, round_id)
    label_and_fire(committed, project_id, round_id)
    for _ in range(3):
        execute(committed, round_id)
    with committed.begin() as session:
        round_ = session.get_one(Round, round_id)
        assert round_.state is RoundState.EVALUATING
        gate = session.scalars(select(Comparison).where(Comparison.purpose == Purpose.GATE)).all()
        splits = set(session.scalars(select(Prompt.split).join(Comparison).where(Comparison.purpose == Purpose.GATE)))
        assert (len(gate), splits) == (4, {Split.TEST})
        label_all(session, session.get_one(Project, project_id))
        rounds.tick(session, project_id)
        assert session.get_one(Round, round_id).state is RoundState.PROMOTED


def test_an_attempt_begun_anew_discards_what_the_earlier_one_stored(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, round_id = start(committed, tiny_folder)
    execute(committed, round_id)
    label_and_fire(committed, project_id, round_id)
    with committed.begin() as session:
        run, _ = claim(session, session.get_one(Round, round_id))
    leftover = artifacts / f"project-{project_id}" / f"fit_reward_model-{run.id}-1" / "training-reward-model"
    leftover.mkdir(parents=True)
    with committed.begin() as session:
        number = runs.claim(session, run.id)
    execution.execute(run.id, number)
    assert not leftover.parent.exists()
    with committed() as session:
        assert session.get_one(Round, round_id).state is RoundState.IMPROVING
        stored = session.scalars(select(RewardModel.uri)).all()
    assert {Path(uri).parent.name for uri in stored} == {f"fit_reward_model-{run.id}-2"}


def test_what_a_stale_attempt_learned_is_not_written(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    _, round_id = start(committed, tiny_folder)
    with committed.begin() as session:
        run, first = claim(session, session.get_one(Round, round_id))
        runs.claim(session, run.id)
    with pytest.raises(StaleAttempt):
        STEPS[run.step](Attempt(run.id, first, CPU))
    with committed() as session:
        assert session.scalar(select(func.count()).select_from(Response)) == 0
        assert session.scalar(select(func.count()).select_from(RunMetric)) == 0


def test_a_model_that_is_not_there_fails_the_round_in_words(
    committed: Committed, tmp_path: Path, artifacts: Path
) -> None:
    _, round_id = start(committed, tmp_path / "missing")
    with committed.begin() as session:
        run, number = claim(session, session.get_one(Round, round_id))
    execution.execute(run.id, number)
    with committed() as session:
        round_ = session.get_one(Round, round_id)
    assert round_.state is RoundState.FAILED
    assert round_.failure is not None
    assert round_.failure.startswith("The step to sample responses failed. no language model can be loaded from")


def test_progress_arrives_and_stops_when_told(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    _, round_id = start(committed, tiny_folder)
    with committed.begin() as session:
        run, number = claim(session, session.get_one(Round, round_id))
    attempt = Attempt(run.id, number, CPU)
    report = attempt.named("the policy writes")
    report(Progress("inner name", 1, 4, {"loss": 2.0}))
    report(Progress("inner name", 2, 4, {"loss": 1.0}))
    attempt.flush()
    with committed.begin() as session:
        row = session.get_one(Run, run.id)
        assert (row.phase, row.done, row.total) == ("the policy writes", 2, 4)
        assert [point.values for point in runs.metrics(session, run.id)] == [{"loss": 2.0}, {"loss": 1.0}]
        from tests.factories import make_person

        rounds.cancel_round(session, session.get_one(Round, round_id), make_person(session))
    report(Progress("inner name", 3, 4))
    with pytest.raises(StaleAttempt):
        attempt.flush()

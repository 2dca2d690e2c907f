"""How does a policy come about? Every way to improve it, on a tiny model; kills, guards, and what it learned from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import delete, func, select, update

from app import config
from app.domain import policies, runs, snapshots
from app.tables import (
    FinishReason,
    Membership,
    Policy,
    Response,
    Role,
    Round,
    RoundState,
    Run,
    RunMetric,
    RunState,
    Snapshot,
    Split,
    Step,
)
from tests.worker.round_steps import CPU, Committed, execute, execute_until, label_and_fire, start, states
from tests.worker.test_taught import ranked
from worker import execution
from worker.attempt import Attempt
from worker.learning.checkpoints import hash_folder
from worker.learning.models import load_language_model
from worker.steps.fine_tune import exemplary, read_examples
from worker.steps.inputs import read_round

EXACT = {"reward": {"precision": "fp32"}, "ppo": {"precision": "fp32"}, "sft": {"precision": "fp32"}}


def improving_round(committed: Committed, tiny: Path, **settings: Any) -> tuple[int, int]:
    """A project and a round of it whose policy is to be improved next, by id."""
    chosen = {key: EXACT.get(key, {}) | settings.get(key, {}) for key in EXACT | settings}
    project_id, round_id = start(committed, tiny, **chosen)
    execute(committed, round_id)
    with committed.begin() as session:
        session.execute(update(Response).values(finish_reason=FinishReason.ENDED))  # the tiny model seldom ends
    label_and_fire(committed, project_id, round_id)
    execute(committed, round_id)
    return project_id, round_id


def improved(committed: Committed, round_id: int) -> Policy:
    with committed() as session:
        return policies.policy_of_round(session, session.get_one(Round, round_id))


def log_of(committed: Committed, round_id: int) -> str:
    with committed() as session:
        query = select(Run.log).where(Run.round_id == round_id, Run.step == Step.IMPROVE_POLICY)
        return session.scalars(query).one()


def points(committed: Committed, round_id: int, phase: str) -> list[dict[str, Any]]:
    with committed() as session:
        query = select(RunMetric.values).join(Run).where(Run.round_id == round_id, RunMetric.phase == phase)
        return list(session.scalars(query.order_by(RunMetric.id)))


@pytest.mark.parametrize(("improve_by", "phase", "kept"), [("ppo", "PPO", ["ppo"]), ("sft_then_ppo", "SFT", ["sft"])])
def test_a_killed_run_goes_on_where_it_was_to_the_same_policy(
    committed: Committed,
    tiny_folder: Path,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    improve_by: str,
    phase: str,
    kept: list[str],
) -> None:
    now = {"checkpoint_seconds": 0.0}
    settings = {"ppo": now | EXACT["ppo"], "sft": now | EXACT["sft"] | {"batch_tokens": 64, "learning_rate": 1e-3}}
    _, round_id = improving_round(committed, tiny_folder, loop={"improve_by": improve_by}, **settings)
    torch.set_num_threads(config.settings().threads or torch.get_num_threads())  # sums depend on how they are split
    run_id = execute_until(committed, round_id, monkeypatch, 1, phase)
    assert [folder.parent.name[:3] for folder in states()] == kept
    with committed.begin() as session:
        number = runs.claim(session, run_id)
    began: list[tuple[str, int]] = []
    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "report", lambda _attempt, progress: began.append((progress.phase, progress.done)))
        execution.execute(run_id, number)
    told_again = [(phase, 1)] if phase == "PPO" else []  # where it stands
    assert began[: len(told_again) + 1] == [*told_again, (phase, 2)]
    assert states() == []
    resumed = improved(committed, round_id)
    with committed.begin() as session:  # once more, from the beginning
        session.execute(delete(Policy).where(Policy.id == resumed.id))
        session.execute(update(Round).where(Round.id == round_id).values(state=RoundState.IMPROVING))
        session.execute(delete(Run).where(Run.round_id == round_id, Run.step == Step.EVALUATE_POLICY))
        session.execute(update(Run).where(Run.id == run_id).values(state=RunState.WAITING))
    execute(committed, round_id)
    again = improved(committed, round_id)
    assert again.uri != resumed.uri
    assert again.content_hash == resumed.content_hash == hash_folder(Path(resumed.uri))


def test_ppo_shows_what_the_judge_that_it_never_saw_thinks(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    _, round_id = improving_round(committed, tiny_folder)
    execute(committed, round_id)
    rows = points(committed, round_id, "PPO")
    assert len(rows) == 2
    for row in rows:
        assert isinstance(row["watched/evaluation"], float)
        assert row["watched/evaluation"] != row["objective/scores"]
        assert row["seconds/left"] >= 0
    assert "policy version 1 after 2 rollouts of PPO: all rollouts are done" in log_of(committed, round_id)


@pytest.mark.parametrize(
    "ppo",
    [
        {"conservatism": "worst"},
        {"conservatism": "uncertainty", "conservatism_coefficient": 2.0},
        {"critic": "separate", "value_warmup": 1},
        {"estimator": "grpo", "group_size": 2, "kl_in": "loss"},
        {"lora_rank": 2, "watch_patience": 5},
    ],
)
def test_every_way_of_ppo_ends_in_a_policy(
    committed: Committed, tiny_folder: Path, artifacts: Path, ppo: dict[str, Any]
) -> None:
    _, round_id = improving_round(committed, tiny_folder, ppo=ppo)
    execute(committed, round_id)
    policy = improved(committed, round_id)
    before = load_language_model(str(tiny_folder), CPU).state_dict()
    after = load_language_model(policy.uri, CPU).state_dict()
    assert list(after) == list(before)
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_conservatism_changes_what_is_climbed(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    scores = []
    for ppo in ({}, {"conservatism": "worst"}):
        _, round_id = improving_round(committed, tiny_folder, ppo=ppo)
        execute(committed, round_id)
        scores.append(points(committed, round_id, "PPO")[0]["objective/scores"])
    assert scores[1] < scores[0]


def test_a_spent_kl_budget_ends_the_run(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    # Far enough that the KL of a few samples cannot come out below 0 by chance.
    far = {"learning_rate": 1e-2, "epochs": 8, "epoch_kl_limit": None, "kl_coefficient": 0.0}
    _, round_id = improving_round(committed, tiny_folder, ppo={"kl_budget": 1e-9, **far})
    execute(committed, round_id)
    assert "KL left its budget: the last policy within it is kept" in log_of(committed, round_id)


def test_watching_needs_a_watcher(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    few = {"prompts_per_round": 12}
    _, round_id = improving_round(committed, tiny_folder, loop=few, ppo={"watch_patience": 1})
    with pytest.raises(ValueError, match=r"this round has none: label more validation prompts"):
        execute(committed, round_id)


def test_fine_tuning_alone_makes_a_policy_from_labels(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    loop, sft = {"improve_by": "sft"}, {"learning_rate": 3e-3, "epochs": 4, "held_out_share": 0.0}
    project_id, round_id = improving_round(committed, tiny_folder, loop=loop, sft=sft)
    run_id = execute(committed, round_id)
    policy = improved(committed, round_id)
    losses = [row["loss"] for row in points(committed, round_id, "SFT")]
    assert losses[-1] < losses[0]
    assert points(committed, round_id, "PPO") == []
    assert "corrections and winning responses" in log_of(committed, round_id)
    with committed.begin() as session:
        link, base = policies.lineage(session, policy)
        assert (link.reward_model, link.improved_by) == (None, "sft")
        assert link.snapshot is not None
        assert link.revisions == link.snapshot.labels_count > 0
        assert (base.round, base.improved_by) == (None, None)
        assert session.get_one(Run, run_id).state is RunState.DONE
        member = session.scalars(select(Membership).where(Membership.role == Role.ANNOTATOR)).one()
        snapshots.taint(session, member)
        assert session.get_one(Policy, policy.id).tainted_at is not None
        assert policies.base_policy(session, project_id).tainted_at is None


def test_fine_tuning_and_then_ppo_start_from_each_other(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    _, round_id = improving_round(
        committed,
        tiny_folder,
        loop={"improve_by": "sft_then_ppo"},
        sft={"learning_rate": 1e-2, "epochs": 10, "held_out_share": 0.0},
        ppo={"lora_rank": 2},
    )
    execute(committed, round_id)
    first = points(committed, round_id, "PPO")[0]
    assert first["objective/kl"] > 0.1  # measured against version 0, which SFT has left
    with committed() as session:
        (link, _base) = policies.lineage(session, improved(committed, round_id))
        assert link.improved_by == "sft_then_ppo"
        assert link.reward_model is not None
        phases = session.scalars(
            select(RunMetric.phase)
            .join(Run)
            .where(Run.step == Step.IMPROVE_POLICY)
            .group_by(RunMetric.phase)
            .order_by(func.min(RunMetric.id))
        )
        assert list(phases) == ["SFT", "PPO"]


def said(groups: list[list[int]], **answers: Any) -> list[str]:
    return [text for _id, text in exemplary(ranked(groups, **answers))]


def test_corrections_and_sole_winners_are_held_up_as_good() -> None:
    better = {"11": {"response_id": 20, "text": "b, corrected"}}
    assert said([[1], [0, 2], [3]]) == ["b"]
    assert said([[1, 2], [0, 3]]) == []  # a tie at the top
    assert said([[0, 1, 2, 3]]) == []
    assert said([]) == []
    assert said([[1]]) == []  # above nothing
    assert said([[0], [1, 2, 3]], corrections=better) == ["b, corrected", "a"]
    assert said([[1], [0, 2, 3]], corrections=better) == ["b, corrected"]
    assert said([], corrections=better) == ["b, corrected"]
    assert said([[0], [1]], flags={"unsafe": [10]}) == []
    assert said([[0], [1]], flags={"unsafe": [11], "unsure": True}) == ["a"]


def test_only_whole_responses_of_train_prompts_teach(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    _, round_id = improving_round(committed, tiny_folder, loop={"improve_by": "sft"})
    with committed.begin() as session:
        run = session.scalars(select(Run).where(Run.round_id == round_id, Run.step == Step.IMPROVE_POLICY)).one()
        inputs = read_round(session, Attempt(run.id, 1, CPU))
        snapshot = session.get_one(Snapshot, inputs.round.snapshot_id)
        winners = [(one.split, one.responses[one.groups[0][0]]) for one in snapshots.each_ranking(session, snapshot)]
        session.execute(update(Response).where(Response.id % 2 == 0).values(finish_reason=FinishReason.CUT))
        cut = set(session.scalars(select(Response.id).where(Response.finish_reason == FinishReason.CUT)))
        wanted = [text for split, (id_, text) in winners if split is Split.TRAIN and id_ not in cut]
        assert 0 < len(wanted) < sum(split is Split.TRAIN for split, _winner in winners)
        assert [pair.response for pair in read_examples(session, inputs)] == wanted
        session.execute(update(Membership).values(label_weight=0.0))
        with pytest.raises(ValueError, match="nothing to fine-tune on: no label of a train prompt"):
            read_examples(session, inputs)
        session.execute(update(Membership).values(label_weight=1.0))
        session.execute(update(Response).values(finish_reason=FinishReason.CUT))
        with pytest.raises(ValueError, match=r"set loop\.improve_by to ppo"):
            read_examples(session, inputs)

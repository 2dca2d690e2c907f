"""What does a round's evaluation say beside its win rates? The best of n of the parent, and gold, by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import func, select
from transformers import AutoModelForCausalLM, AutoTokenizer

from app.domain import comparisons, policies, reward_models, rounds
from app.domain.comparisons import NewComparison
from app.tables import (
    Membership,
    Policy,
    Prompt,
    Purpose,
    Response,
    ResponsePurpose,
    RewardModelPurpose,
    Role,
    Round,
    Split,
)
from tests.factories import make_responses
from tests.worker.round_steps import CPU, Committed, execute
from tests.worker.test_improve_step import improving_round
from worker.learning.reward.model import load_reward_model

TEXTS = ["good good cat", "bad rain", "the big dog sat"]


def evaluated(committed: Committed, tiny: Path, **settings: Any) -> int:
    """A round that is over, by id; its project has a gold comparison of each of two prompts."""
    project_id, round_id = improving_round(committed, tiny, **settings)
    with committed.begin() as session:
        for prompt in session.scalars(select(Prompt).where(Prompt.project_id == project_id).limit(2)).all():
            first, second, third = [response.id for response in make_responses(session, prompt, TEXTS)]
            gold = NewComparison(
                project_id=project_id,
                prompt_id=prompt.id,
                response_ids=[first, second, third],
                k=1,
                purpose=Purpose.GOLD,
                selected_because="by_hand",
                gold_groups=[[first], [second, third]],
            )
            comparisons.create_comparisons(session, [gold])
    execute(committed, round_id)
    execute(committed, round_id)
    return round_id


def verdict_of(committed: Committed, round_id: int) -> dict[str, Any]:
    with committed() as session:
        verdict = session.get_one(Round, round_id).verdict
    assert verdict is not None
    return verdict


def test_the_new_policy_meets_the_best_of_n_of_its_parent(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    round_id = evaluated(committed, tiny_folder, loop={"best_of_n": 2}, ppo={"learning_rate": 1e-2})
    found = verdict_of(committed, round_id)["best_of_n"]
    with committed() as session:
        round_ = session.get_one(Round, round_id)
        new = policies.policy_of_round(session, round_)
        models = {
            purpose: load_reward_model(Path(row.uri), CPU, "fp32")
            for purpose, row in reward_models.reward_models_of_round(session, round_).items()
        }
        prompts = session.scalars(select(Prompt).where(Prompt.split == Split.TEST)).all()
        wins, bests, own_scores = [], [], []
        for prompt in prompts:
            written = select(Response.text).where(
                Response.prompt_id == prompt.id, Response.purpose == ResponsePurpose.EVALUATION
            )
            own = session.scalars(written.where(Response.policy_id == new.id)).all()
            drawn = session.scalars(written.where(Response.policy_id == round_.policy_id)).all()
            assert (len(own), len(drawn)) == (2, 2)
            chosen = models[RewardModelPurpose.TRAINING]([prompt.messages] * 2, drawn).argmax()
            judge = models[RewardModelPurpose.EVALUATION]
            best = judge([prompt.messages], [drawn[int(chosen)]]).item()
            scores = judge([prompt.messages] * 2, own).tolist()
            wins += [1.0 if score > best else 0.5 if score == best else 0.0 for score in scores]
            bests.append(best)
            own_scores += scores
    assert (found["n"], found["kl"]) == (2, pytest.approx(0.19315, abs=1e-5))
    assert found["winrate"]["value"] == pytest.approx(sum(wins) / len(wins))
    assert found["winrate"]["count"] == 12
    assert found["best"][1]["score"] == pytest.approx(sum(bests) / len(bests), abs=1e-5)
    assert found["score"] == pytest.approx(sum(own_scores) / len(own_scores), abs=1e-5)


def test_the_best_may_be_of_more_than_are_measured_and_may_be_left_out(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    round_id = evaluated(committed, tiny_folder, loop={"best_of_n": 5})
    found = verdict_of(committed, round_id)["best_of_n"]
    assert [row["n"] for row in found["best"]] == [1, 2, 3, 4, 5]
    assert found["winrate"]["count"] == 12
    with committed() as session:
        counts = session.execute(
            select(func.count(), Policy.version)
            .select_from(Response)
            .join(Policy, Policy.id == Response.policy_id)
            .join(Prompt, Prompt.id == Response.prompt_id)
            .where(Response.purpose == ResponsePurpose.EVALUATION, Prompt.split == Split.TEST)
            .group_by(Policy.version)
        ).all()
    assert sorted(map(tuple, counts)) == [(12, 0), (12, 1)]
    round_id = evaluated(committed, tiny_folder, loop={"best_of_n": 0})
    assert "best_of_n" not in verdict_of(committed, round_id)


def test_gold_pairs_say_whether_the_policy_moved_rightly(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    round_id = evaluated(committed, tiny_folder, ppo={"learning_rate": 1e-2})
    found = verdict_of(committed, round_id)["gold"]
    with committed() as session:
        new = policies.policy_of_round(session, session.get_one(Round, round_id))
        golden = session.scalars(select(Response.prompt_id).where(Response.text == TEXTS[0])).all()
        messages = [session.get_one(Prompt, id_).messages for id_ in golden]
    moved = [
        [likelihood(new.uri, asked, text) - likelihood(str(tiny_folder), asked, text) for text in TEXTS]
        for asked in messages
    ]
    rightly = [first > other for first, *others in moved for other in others]
    assert found["count"] == len(rightly) == 4
    assert found["value"] == pytest.approx(sum(rightly) / 4)
    assert found["low"] <= found["value"] <= found["high"]


def likelihood(folder: str, messages: Any, text: str) -> float:
    """log p of a response and the end, token by token, as transformers has it."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"]
    response = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *response]])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(response))


def test_no_gold_is_no_figure_and_withdrawn_gold_is_none(
    committed: Committed, tiny_folder: Path, artifacts: Path
) -> None:
    project_id, round_id = improving_round(committed, tiny_folder)
    execute(committed, round_id)
    with committed.begin() as session:
        author = session.scalars(select(Membership).where(Membership.role == Role.ANNOTATOR)).first()
        prompt = session.scalars(select(Prompt).where(Prompt.project_id == project_id)).first()
        assert author is not None
        assert prompt is not None
        written = make_responses(session, prompt, TEXTS[:2])
        gold = NewComparison(
            project_id=project_id,
            prompt_id=prompt.id,
            response_ids=[response.id for response in written],
            k=1,
            purpose=Purpose.GOLD,
            selected_because="by_hand",
            gold_groups=[[written[0].id], [written[1].id]],
        )
        comparisons.create_comparisons(session, [gold])
        written[0].author_id, author.withdrawn_at = author.id, session.scalar(select(func.clock_timestamp()))
    execute(committed, round_id)
    assert "gold" not in verdict_of(committed, round_id)
    with committed() as session:
        assert not session.get_one(Round, round_id).state.is_live
        assert rounds.live_round(session, project_id) is None

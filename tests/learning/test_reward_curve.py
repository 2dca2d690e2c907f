import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from worker.learning.records import Judgement, Label
from worker.learning.reward.card import reward_card
from worker.learning.reward.curve import learning_curve, reward_learning_curve
from worker.learning.reward.evaluation import Figures, Pairs, figures, prompt_key
from worker.learning.reward.fitting import FittedRewardModel, RewardSettings, fit_reward_model

pytestmark = pytest.mark.learning


def labels_of(prompts: int, each: int) -> list[Label]:
    """ "good" is always the better one."""
    return [
        Label(({"role": "user", "content": f"dog {'big ' * number}"},), ("good", "bad"), Judgement(((0,), (1,))))
        for number in range(prompts)
        for _ in range(each)
    ]


def test_a_learning_curve_grows_by_whole_prompts() -> None:
    seen: list[list[Label]] = []

    def fit_and_measure(labels: Sequence[Label]) -> Figures:
        seen.append(list(labels))
        return figures(Pairs(torch.full((10,), 1 - 1 / len(labels)), torch.ones(10), torch.arange(10)), 0)

    rows = learning_curve(labels_of(10, 3), [30, 4, 12, 99], fit_and_measure, seed=1)
    assert [row["labels"] for row in rows] == [4, 12, 30]
    assert [row["nll"] for row in rows] == pytest.approx([-math.log(1 - 1 / count) for count in (4, 12, 30)])
    assert list(rows[0]) == ["labels", "accuracy", "accuracy_low", "accuracy_high", "nll", "nll_low", "nll_high", "n"]
    prompts = [{prompt_key(label.prompt) for label in own} for own in seen]
    assert [len(own) for own in prompts] == [2, 4, 10]
    assert prompts[0] < prompts[1] < prompts[2]
    assert learning_curve(labels_of(10, 3), [4], fit_and_measure, seed=2)[0]["labels"] == 4
    assert {prompt_key(label.prompt) for label in seen[-1]} != prompts[0]


def test_a_reward_model_gets_better_along_its_curve(tiny_folder: Path) -> None:
    labels = labels_of(24, 2)
    held_out = [Label(({"role": "user", "content": "the cat"},), ("good", "bad"), Judgement(((0,), (1,))))]
    settings = RewardSettings(learning_rate=3e-3, batch_sets=4, precision="fp32", posterior=False)

    def fit(part: Sequence[Label]) -> FittedRewardModel:
        return fit_reward_model(str(tiny_folder), part, [], settings, 0, device=torch.device("cpu"))

    whole = reward_card(fit(labels).reward_model, held_out)
    rows = reward_learning_curve(labels, held_out, fit, whole, 0)
    assert [row["labels"] for row in rows] == [6, 12, 24, 48]
    assert rows[-1]["accuracy"] == whole["accuracy"] == 1
    first, last = rows[0]["nll"], rows[-1]["nll"]
    assert first is not None
    assert last is not None
    assert last < first

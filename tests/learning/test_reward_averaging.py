from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.planted import by_criteria, rankings
from worker.learning.progress import Progress
from worker.learning.reward.averaging import average_fits
from worker.learning.reward.fitting import FittedRewardModel, RewardSettings, fit_reward_model
from worker.learning.reward.model import RewardModel, new_reward_model
from worker.learning.reward.observations import shape_of

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
QUICK = RewardSettings(epochs=2, learning_rate=5e-3, batch_sets=8, precision="fp32")


def weights(model: RewardModel) -> dict[str, torch.Tensor]:
    assert model.heads is not None
    parts = {"model": model.model, "heads": model.heads, "answers": model.answers}
    return {f"{part} {name}": value for part, own in parts.items() for name, value in own.named_parameters()}


def test_the_mean_is_of_all_weights_and_each_fit_begins_with_the_same(tiny_folder: Path) -> None:
    """The fits add 1, 2 and 6 to everything, of which the mean is 3."""
    shape = shape_of(by_criteria(4, 0), annotators=False)
    model = new_reward_model(str(tiny_folder), 0, CPU, shape)
    begun = {name: value.detach().clone() for name, value in weights(model).items()}

    @torch.no_grad()
    def move(number: int) -> None:
        for name, value in weights(model).items():
            assert torch.equal(value, begun[name])
            value.add_((1.0, 2.0, 6.0)[number])

    average_fits(model, 3, move)
    assert any(name.startswith("heads") for name in begun)
    assert any(name.startswith("answers") for name in begun)
    for name, value in weights(model).items():
        assert torch.allclose(value, begun[name] + 3, atol=1e-6), name


@pytest.mark.parametrize("choice", [{}, {"lora_rank": 4}], ids=["full", "lora"])
def test_averaged_fits_differ_by_the_order_of_labels_alone(tiny_folder: Path, choice: dict[str, Any]) -> None:
    labels, checked = rankings(60, 0), rankings(20, 1)
    steps: list[tuple[int, int]] = []

    def note(progress: Progress) -> None:
        steps.append((progress.done, progress.total))

    def fit(seed: int, count: int) -> FittedRewardModel:
        settings = replace(QUICK, averaged_fits=count, posterior=False, **choice)
        return fit_reward_model(str(tiny_folder), labels, checked, settings, seed, note, CPU)

    averaged = fit(0, 3)
    assert steps == [(done, 48) for done in range(1, 49)]
    assert [(row.get("fit"), row.get("epoch")) for row in averaged.history] == [
        *((number, epoch) for number in (1, 2, 3) for epoch in (1, 2)),
        (None, None),
    ]
    losses = [row["loss"] for row in averaged.history[:-1]]
    assert len(set(losses)) == len(losses)
    assert averaged.history[-1] == {
        name: averaged.choices[0][name] for name in ("validation/nll", "validation/accuracy")
    }
    assert averaged.history[-1]["validation/accuracy"] > 0.9
    assert averaged.epochs == 2

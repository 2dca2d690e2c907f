"""How do several fits become one reward model? By the mean of their weights."""

from collections.abc import Callable

from torch import Tensor

from worker.learning.course import put_weights
from worker.learning.reward.model import RewardModel


def average_fits(reward_model: RewardModel, count: int, fit: Callable[[int], None]) -> None:
    """Leaves the mean of the weights after `count` fits in the model, heads and answers included.

    Ramé et al. 2024, "WARM: On the Benefits of Weight Averaged Reward Models", section 3.1: fits that begin with the
    same weights and see the labels in other orders end in one valley of the loss, so that the mean of their weights
    predicts about as well as the mean of their predictions, at the price of one model.

    Args:
        fit: learns in place, from the weights as they are, given the number of the fit, from 0 on.
    """
    begun = _copies(reward_model)
    sums = {name: value.new_zeros(value.shape) for name, value in begun.items()}
    for number in range(count):
        put_weights(reward_model.weights(), begun)
        fit(number)
        for name, fitted in _copies(reward_model).items():
            sums[name] += fitted
    put_weights(reward_model.weights(), {name: value / count for name, value in sums.items()})


def _copies(reward_model: RewardModel) -> dict[str, Tensor]:
    """Of all weights, on the CPU."""
    return {name: weight.detach().to("cpu", copy=True) for name, weight in reward_model.weights().items()}

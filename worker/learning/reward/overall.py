"""Which answers compare responses as a whole, and what do they say of the head that scores them?"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from worker.learning.reward.backbone import output_layer
from worker.learning.reward.batches import EncodedLabels, micro_batches
from worker.learning.reward.memory import in_pieces
from worker.learning.reward.model import RewardModel, scoring_budget
from worker.learning.reward.observations import AnswerShape, Observations, Weighting, observe
from worker.learning.reward.uncertainty import Posterior, pair_curvatures, posterior_of

OVERALL_COLUMN = 0


def is_overall(observed: Observations) -> Tensor:
    """Which pairs compare their responses as a whole [pairs]."""
    return observed.output == OVERALL_COLUMN


def is_tied(observed: Observations, shape: AnswerShape) -> Tensor:
    """Which pairs are tied [pairs]: those on the first rung of their scale."""
    return torch.isin(observed.rung, torch.tensor(list(shape.first_rungs.values()), device=observed.rung.device))


def orders_right(outputs: Tensor, observed: Observations, shape: AnswerShape) -> Tensor:
    """Of each pair in order, whether the better response has the higher overall output [pairs]; 1/2 if equal."""
    chosen = is_overall(observed) & ~is_tied(observed, shape)
    scores = outputs[:, OVERALL_COLUMN]
    return (torch.sign(scores[observed.first] - scores[observed.second])[chosen] + 1) / 2


def head_posterior(reward_model: RewardModel, labels: EncodedLabels, weighting: Weighting) -> Posterior:
    """The posterior of the overall head, given the labels that it was fitted on.

    Raises:
        ValueError: if they order nothing.
    """
    return posterior_of(output_layer(reward_model.model).weight[0], _pairs(reward_model, labels, weighting))


@torch.no_grad()
def _pairs(reward_model: RewardModel, labels: EncodedLabels, weighting: Weighting) -> Iterator[tuple[Tensor, Tensor]]:
    """Differences of features [pairs, width] and their curvatures [pairs], forward after forward."""
    answers, device = reward_model.answers, reward_model.model.device

    def split(chosen: Sequence[int], budget: int) -> list[list[int]]:
        return micro_batches(reward_model.forward, labels, chosen, budget)

    def tokens(chosen: Sequence[int]) -> int:
        return sum(own.tokens for own in labels.select(chosen).sets)

    def work(chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        own = labels.select(chosen)
        observed = observe([labels.labels[index] for index in chosen], own.places, answers.shape, weighting).to(device)
        features = reward_model.forward.features(own.sets)
        pairs = is_overall(observed)
        differences = features[observed.first[pairs]] - features[observed.second[pairs]]
        return differences, pair_curvatures(answers, reward_model.read(features), observed)[pairs]

    every = range(len(labels.labels))
    for _, pairs in in_pieces(every, scoring_budget(reward_model), split, tokens, work, device):
        yield pairs

"""Which of the answers put one response above another as a whole, and how much does each say of the head?"""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from worker.learning.reward.backbone import output_layer
from worker.learning.reward.batches import EncodedLabels, micro_batches
from worker.learning.reward.model import RewardModel, scoring_budget
from worker.learning.reward.observations import AnswerShape, Observations, Weighting, observe
from worker.learning.reward.uncertainty import Posterior, pair_curvatures, posterior_of

OVERALL_COLUMN = 0


def first_rungs(shape: AnswerShape) -> list[int]:
    """Where each scale's rungs begin, with that of its tie: it has one for a tie and each grade, and an upper end."""
    return list(accumulate((scale.levels + 2 for _, scale in shape.ladders), initial=0))[:-1]


def is_ordered(observed: Observations, shape: AnswerShape) -> Tensor:
    """Which pairs say overall that their first response is better: [pairs], False where they are tied."""
    ties = torch.isin(observed.rung, torch.tensor(first_rungs(shape), device=observed.rung.device))
    return (observed.output == OVERALL_COLUMN) & ~ties


def orders_right(outputs: Tensor, observed: Observations, shape: AnswerShape) -> Tensor:
    """Of each pair in order, whether the better response has the higher overall output [pairs]; 1/2 if equal."""
    chosen = is_ordered(observed, shape)
    scores = outputs[:, OVERALL_COLUMN]
    return (torch.sign(scores[observed.first] - scores[observed.second])[chosen] + 1) / 2


def head_posterior(reward_model: RewardModel, labels: EncodedLabels, weighting: Weighting) -> Posterior | None:
    """The posterior of the overall head, given the labels that it was fitted on; None where they order nothing."""
    observed = observe(labels.labels, labels.encoded.places, reward_model.answers.shape, weighting)
    if not bool((observed.output == OVERALL_COLUMN).any()):
        return None
    head = output_layer(reward_model.model).weight[0]
    return posterior_of(head, _pairs(reward_model, labels, weighting))


@torch.no_grad()
def _pairs(reward_model: RewardModel, labels: EncodedLabels, weighting: Weighting) -> Iterator[tuple[Tensor, Tensor]]:
    """Differences of features [pairs, width] and their curvatures [pairs], forward after forward."""
    answers, device = reward_model.answers, reward_model.model.device
    budget = scoring_budget(reward_model)
    for part in micro_batches(reward_model.forward, labels, range(len(labels.labels)), budget):
        own = labels.select(part)
        observed = observe([labels.labels[index] for index in part], own.places, answers.shape, weighting).to(device)
        features = reward_model.forward.features(own.sets)
        chosen = observed.output == OVERALL_COLUMN
        differences = features[observed.first[chosen]] - features[observed.second[chosen]]
        yield differences, pair_curvatures(answers, reward_model.read(features), observed)[chosen]

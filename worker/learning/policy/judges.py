"""What may a policy count on? Scores of reward models, lowered where the models are not sure of them.

A policy climbs wherever its reward model errs upwards. Coste et al. 2023, "Reward model ensembles help mitigate
overoptimization": of an ensemble the mean, the worst case, or the mean less its variance. Kept: their three formulas,
for several reward models. Added: a single model whose head has a posterior is asked for its doubt too, in one pass.
"""

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from worker.learning.policy.rollouts import RewardFunction
from worker.learning.records import Prompt
from worker.learning.reward.model import RewardModel, member_scores, read_scores
from worker.learning.reward.uncertainty import conservative

Conservatism = Literal["none", "uncertainty", "worst"]

MEMBERS = 5
"""Heads drawn from a single model's posterior: as many as Coste et al. have members."""


def reward_function(
    models: Sequence[RewardModel], conservatism: Conservatism, coefficient: float, seed: int
) -> RewardFunction:
    """What PPO climbs: normalised scores by one reward model, or by an ensemble of several.

    Args:
        models: one, or an ensemble fitted on the same labels (with other seeds, or on other parts of them).
        conservatism: "none": the score, of an ensemble its mean. "worst": the least that a member says, the members of
            a single model being `MEMBERS` heads drawn from its posterior, the same ones at every call. "uncertainty":
            less `coefficient` times the variance over the members, or the posterior's deviation of a single model.
        coefficient: of "uncertainty" alone.
        seed: draws the members.

    Raises:
        ValueError: if there is no model, or the doubt of a single one is asked for that has no posterior.
    """
    if not models:
        raise ValueError("there is no reward model: name one, or several for an ensemble")
    if len(models) > 1:
        return lambda prompts, responses: of_ensemble(
            torch.stack([model(prompts, responses) for model in models], dim=1), conservatism, coefficient
        )
    [model] = models
    if conservatism != "none" and model.posterior is None:
        raise ValueError(
            f"conservatism {conservatism!r} needs to know how sure the reward model is, and this one has no posterior:"
            " fit it with posterior on and on labels that hold an order, name several reward models, or set"
            " conservatism to none"
        )
    if conservatism == "worst":
        return lambda prompts, responses: of_ensemble(
            member_scores(model, prompts, responses, MEMBERS, seed), "worst", coefficient
        )
    if conservatism == "uncertainty":
        return lambda prompts, responses: _less_doubt(model, prompts, responses, coefficient)
    return model


def of_ensemble(scores: Tensor, conservatism: Conservatism, coefficient: float) -> Tensor:
    """One score [responses] from those of all members [responses, members].

    The mean, the worst case or uncertainty-weighted optimisation, mean - coefficient * variance, the variance divided
    by the number of members (Coste et al. 2023).
    """
    if conservatism == "worst":
        return scores.amin(dim=1)
    mean = scores.mean(dim=1)
    return mean if conservatism == "none" else mean - coefficient * scores.var(dim=1, unbiased=False)


def _less_doubt(model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str], coefficient: float) -> Tensor:
    read = read_scores(model, prompts, responses)
    deviations = cast(Tensor, read.deviations)  # there, since the model has a posterior
    return conservative(read.scores, deviations, coefficient)

"""Which response would people rank higher? A reward model fitted on their rankings."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from worker.learning.batches import group_by_length, token_budget
from worker.learning.evaluation import Estimate, bootstrap_ratio
from worker.learning.models import Precision, pick_device
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Ranking
from worker.learning.reward.model import RewardModel, encode, new_reward_model, raw_scores, score_responses
from worker.learning.seeds import generator_for


@dataclass(frozen=True)
class RewardSettings:
    """How a reward model is fitted."""

    epochs: int = 1
    """Passes over the rankings, at most; with validation rankings the best epoch is kept."""
    learning_rate: float = 1e-5
    """Of Adam, at the start; it falls linearly to 0 over all epochs."""
    warmup_share: float = 0.05
    """The share of all steps over which the learning rate first climbs from 0."""
    adam_epsilon: float = 1e-5
    """Larger than Adam's own 1e-8, as in lm-human-preferences: tames the first steps."""
    weight_decay: float = 0.0
    """AdamW's decay of the weights."""
    batch_sets: int = 16
    """Rankings an optimiser step; all pairs of a ranking stand in the same step."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm."""
    max_tokens: int = 1_024
    """Longer prompts lose their beginning, so that the response and its end stay."""
    micro_batch_tokens: int | None = None
    """The most tokens, padding included, in one forward; None lets the device say."""
    precision: Precision = "auto"
    """Of the forward and backward passes; weights and loss stay in fp32."""


@dataclass(frozen=True)
class FittedRewardModel:
    """A fitted reward model and how the fitting went.

    `epochs` is the number of passes that were kept; `history` has a row of metrics for each.
    """

    reward_model: RewardModel
    epochs: int
    history: list[dict[str, float]]


def fit_reward_model(
    source: str,
    rankings: Sequence[Ranking],
    validation: Sequence[Ranking],
    settings: RewardSettings,
    seed: int,
    report: Report = silent,
    device: torch.device | None = None,
) -> FittedRewardModel:
    """Fits a Bradley-Terry reward model on rankings, starting from a pretrained model.

    As in InstructGPT (Ouyang et al. 2022, equation 1) all pairs of a ranking share one batch
    element; the head starts as in Stiennon et al. 2020. Kept apart: dropout is off, the loss is
    weighted by ranking, and the epoch is chosen by validation likelihood.

    Args:
        source: a Hugging Face name or folder, causal or encoder.
        rankings: to learn from; rankings in which all responses are tied teach nothing.
        validation: rankings of other prompts to choose the epoch by; may be empty.

    Raises:
        ValueError: if no ranking has a better and a worse response.
    """
    taught, checked = ([one for one in given if teaches(one)] for given in (rankings, validation))
    if not taught:
        raise ValueError("no ranking has a better and a worse response: there is nothing to fit")
    reward_model = new_reward_model(
        source,
        seed,
        device or pick_device(),
        settings.max_tokens,
        settings.precision,
    )
    optimiser = torch.optim.AdamW(
        reward_model.model.parameters(),
        lr=settings.learning_rate,
        eps=settings.adam_epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    steps = math.ceil(len(taught) / settings.batch_sets)
    total = settings.epochs * steps
    history: list[dict[str, float]] = []
    best = Best(reward_model.model)
    for epoch in range(settings.epochs):
        losses = []
        for step, batch in enumerate(shuffled_batches(taught, settings.batch_sets, seed, epoch)):
            done = epoch * steps + step
            optimiser.param_groups[0]["lr"] = learning_rate_at(done, total, settings)
            metrics = optimise(reward_model, optimiser, batch, settings)
            losses.append(metrics["loss"])
            report(Progress("fit_reward_model", done + 1, total, metrics))
        history.append({"epoch": epoch + 1, "loss": sum(losses) / len(losses)})
        if checked:
            scores = score_rankings(reward_model, checked)
            history[-1]["validation/nll"] = mean_nll(scores, checked)
            history[-1]["validation/accuracy"] = pairwise_accuracy(scores, checked, seed).value
            best.consider(epoch + 1, history[-1]["validation/nll"])
    return FittedRewardModel(reward_model, best.restore() or settings.epochs, history)


class Best:
    """Keeps the weights of the epoch with the lowest validation loss."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._loss = math.inf
        self._epoch: int | None = None
        self._weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, loss: float) -> None:
        """Keeps a copy of the weights as they are now if `loss` is the lowest so far."""
        if loss < self._loss:
            self._loss, self._epoch = loss, epoch
            self._weights = {name: value.clone() for name, value in self._model.state_dict().items()}

    def restore(self) -> int | None:
        """Puts the best weights back and names their epoch; None if there never were any."""
        if self._epoch is not None:
            self._model.load_state_dict(self._weights)
        return self._epoch


def bradley_terry_loss(scores: Tensor, better: Tensor, worse: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of -log sigma(r_better - r_worse) over pairs, a scalar.

    Ouyang et al. 2022 ("InstructGPT"), equation 1; the likelihood is Bradley and Terry's (1952).

    Args:
        scores: r [responses].
        better, worse: indices into `scores` [pairs].
        weights: [pairs]; 1 / (pairs of the set) for the mean over each set.
    """
    return -(weights * functional.logsigmoid(scores[better] - scores[worse])).sum()


def score_rankings(reward_model: RewardModel, rankings: Sequence[Ranking]) -> list[Tensor]:
    """Normalised scores [responses] of each ranking's responses, in the responses' order."""
    flat = score_responses(
        reward_model,
        [ranking.prompt for ranking in rankings for _ in ranking.responses],
        [response for ranking in rankings for response in ranking.responses],
    )
    return list(torch.split(flat, [len(ranking.responses) for ranking in rankings]))


def pairwise_accuracy(scores: Sequence[Tensor], rankings: Sequence[Ranking], seed: int) -> Estimate:
    """The share of a ranking's ordered pairs that the scores put the same way.

    Pairs that people tied are left out; scores that are equal count half. `count` is the number
    of pairs; the interval resamples prompts, since rankings of one prompt are not independent.
    """
    right: dict[str, float] = {}
    pairs: dict[str, int] = {}
    for own, ranking in zip(scores, rankings, strict=True):
        prompt = json.dumps(ranking.prompt)
        for better, worse in ranking.ordered_pairs():
            difference = float(own[better] - own[worse])
            right[prompt] = right.get(prompt, 0) + (difference > 0) + 0.5 * (difference == 0)
            pairs[prompt] = pairs.get(prompt, 0) + 1
    return bootstrap_ratio(torch.tensor([right[prompt] for prompt in pairs]), torch.tensor(list(pairs.values())), seed)


def mean_nll(scores: Sequence[Tensor], rankings: Sequence[Ranking]) -> float:
    """The weighted mean over rankings of -log sigma(r_better - r_worse), ties left out."""
    total, weight = 0.0, 0.0
    for own, ranking in zip(scores, rankings, strict=True):
        if teaches(ranking):
            total += float(bradley_terry_loss(own, *pair_table([ranking])))
            weight += ranking.weight
    return total / weight


def pair_table(rankings: Sequence[Ranking]) -> tuple[Tensor, Tensor, Tensor]:
    """better, worse and weight [pairs] over the rankings' responses laid end to end.

    The weights of a ranking's pairs add up to the ranking's own, however many pairs it has.
    """
    better, worse, weights = [], [], []
    start = 0
    for ranking in rankings:
        pairs = ranking.ordered_pairs()
        better += [start + one for one, _ in pairs]
        worse += [start + other for _, other in pairs]
        weights += [ranking.weight / len(pairs)] * len(pairs)
        start += len(ranking.responses)
    return torch.tensor(better), torch.tensor(worse), torch.tensor(weights)


def teaches(ranking: Ranking) -> bool:
    """Whether a ranking says anything: a weight, and two responses that are not tied."""
    return ranking.weight > 0 and len(ranking.groups) > 1


def learning_rate_at(step: int, total: int, settings: RewardSettings) -> float:
    """Climbs linearly over the warm-up and falls linearly to 0 at the end."""
    warmup = max(1, round(settings.warmup_share * total))
    return settings.learning_rate * min(1.0, (step + 1) / warmup) * (1 - step / total)


def shuffled_batches(rankings: Sequence[Ranking], size: int, seed: int, epoch: int) -> list[list[Ranking]]:
    """All rankings in the epoch's own order, `size` at a time; the last batch may be smaller."""
    order = torch.randperm(len(rankings), generator=generator_for(seed, "epoch", epoch)).tolist()
    return [[rankings[index] for index in order[start : start + size]] for start in range(0, len(order), size)]


def optimise(
    reward_model: RewardModel,
    optimiser: torch.optim.Optimizer,
    rankings: Sequence[Ranking],
    settings: RewardSettings,
) -> dict[str, float]:
    """One optimiser step: the weighted mean over rankings of each one's mean over pairs.

    Micro-batches of whole rankings only bound memory: each adds its share of that mean.
    """
    rows = [[encode(reward_model, ranking.prompt, response) for response in ranking.responses] for ranking in rankings]
    total_weight = sum(ranking.weight for ranking in rankings)
    groups = group_by_length(
        [max(map(len, group)) for group in rows],
        settings.micro_batch_tokens or token_budget(reward_model.model.device),
        [len(group) for group in rows],
    )
    loss, right, pairs = 0.0, 0.0, 0
    for group in groups:
        better, worse, weights = pair_table([rankings[index] for index in group])
        scores = raw_scores(reward_model, [row for index in group for row in rows[index]])
        part = bradley_terry_loss(scores, better, worse, weights.to(scores)) / total_weight
        part.backward()  # type: ignore[no-untyped-call]
        loss += float(part.detach())
        right += int((scores[better] > scores[worse]).sum())
        pairs += len(better)
    norm = nn.utils.clip_grad_norm_(reward_model.model.parameters(), settings.max_grad_norm)
    optimiser.step()
    optimiser.zero_grad()
    return {
        "loss": loss,
        "accuracy": right / pairs,
        "grad_norm": float(norm),
        "learning_rate": optimiser.param_groups[0]["lr"],
    }

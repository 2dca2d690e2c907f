"""How do labels move the weights? Steps of Adam on their likelihood, resumable to the bit."""

import copy
import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from worker.learning.batches import token_budget
from worker.learning.course import Course, put_weights, rate_at, resume_course, save_course
from worker.learning.models import count_parameters
from worker.learning.progress import Progress, Report
from worker.learning.reward.backbone import head_parameters
from worker.learning.reward.batches import EncodedLabels, micro_batches, shuffled_batches
from worker.learning.reward.likelihood import AnswerModel, calibrate
from worker.learning.reward.memory import free_memory, halved, no_room, ran_out_of_memory, room_for_weights
from worker.learning.reward.model import RewardModel, read_features
from worker.learning.reward.observations import Observations, Weighting, observe
from worker.learning.reward.overall import orders_right
from worker.learning.reward.settings import RewardSettings, usual_learning_rate

Metrics = dict[str, float]

FIRST_NUMBERS = 8


@dataclass(frozen=True)
class Fit:
    """One fitting of `reward_model`, in place."""

    reward_model: RewardModel
    taught: EncodedLabels
    checked: EncodedLabels
    weighting: Weighting
    settings: RewardSettings
    seed: int

    @cached_property
    def weights(self) -> dict[str, nn.Parameter]:
        """All that is learned, by name."""
        named = self.reward_model.weights().items()
        return {name: parameter for name, parameter in named if parameter.requires_grad and parameter.numel()}

    @cached_property
    def learning_rate(self) -> float:
        """The trunk's, at its highest."""
        asked, adapters = self.settings.learning_rate, self.settings.lora_rank is not None
        usual = usual_learning_rate(count_parameters(self.reward_model.model), adapters=adapters)
        return usual if asked is None else asked

    @cached_property
    def label_weights(self) -> Tensor:
        """What each label weighs, with all that it says [labels]."""
        return weights_of(self.observe(self.taught, range(len(self.taught.labels)), self.taught.encoded.places))

    @cached_property
    def batches(self) -> list[list[list[int]]]:
        """The optimiser steps of every epoch, as indices of labels."""
        size, encoded = self.settings.batch_sets, self.taught.encoded
        return [shuffled_batches(encoded, size, self.seed, epoch) for epoch in range(self.settings.epochs)]

    def new_optimiser(self) -> torch.optim.Optimizer:
        """AdamW, with a learning rate of its own for the layers above the trunk, and one for the answers' numbers."""
        settings, heads = self.settings, {id(parameter) for parameter in head_parameters(self.reward_model.model)}
        head_rate = settings.head_learning_rate or self.learning_rate
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.weights.items():
            is_head = name.startswith("heads.") or id(parameter) in heads
            rate = head_rate if is_head else self.learning_rate
            if name.startswith("answers."):
                rate = settings.answer_learning_rate
            decays = parameter.dim() > 1 and not name.startswith("answers.")
            groups.setdefault((rate, settings.weight_decay if decays else 0.0), []).append(parameter)
        return torch.optim.AdamW(
            [
                {"params": own, "lr": rate, "highest": rate, "weight_decay": decay}
                for (rate, decay), own in groups.items()
            ],
            eps=settings.adam_epsilon,
            fused=True,
        )

    def observe(self, labels: EncodedLabels, chosen: Sequence[int], places: Sequence[Sequence[int]]) -> Observations:
        """What some of the labels say of responses at these places."""
        own = [labels.labels[index] for index in chosen]
        return observe(own, places, self.reward_model.answers.shape, self.weighting)

    def fingerprint(self) -> str:
        """What a checkpoint must agree with to be continued: settings, seed, labels, and the model as it begins.

        What only bounds memory may change in between. Of each of the model's tensors the shape and the first numbers
        tell it from another, of which there may be several with equal shapes.
        """
        left_out = {"checkpoint_seconds", "posterior", "micro_batch_tokens", "gradient_checkpointing"}
        settings = {name: value for name, value in asdict(self.settings).items() if name not in left_out}
        total = hashlib.sha256(json.dumps([settings, asdict(self.weighting), self.seed]).encode())
        for own in (self.taught, self.checked):
            for label in own.labels:
                said = {**vars(label), "criteria": sorted(label.criteria.items())}
                total.update(repr(said).encode())
        for name, parameter in [*self.weights.items(), *self.reward_model.model.named_parameters()]:
            first = parameter.detach().flatten()[:FIRST_NUMBERS].tolist()
            total.update(f"{name} {list(parameter.shape)} {first}".encode())
        return total.hexdigest()


def weights_of(observed: Observations) -> Tensor:
    """What each label weighs [labels]: the sum of its pairs' and scores' weights, times its own."""
    parts = torch.zeros_like(observed.label_weight)
    parts.index_add_(0, observed.pair_label, observed.pair_weight)
    parts.index_add_(0, observed.score_label, observed.score_weight)
    return parts * observed.label_weight


def learn(fit: Fit, report: Report, checkpoints: Path | None) -> Course:
    """Runs all epochs and leaves the best one's weights in the model.

    With a folder for `checkpoints` the newest state there is continued, to the same bits as if it had never stopped.

    Raises:
        ValueError: if the checkpoints belong to another fitting, the loss is not finite, or memory does not hold a
            single label, or the weights with Adam's moments.
    """
    optimiser, fingerprint = fit.new_optimiser(), fit.fingerprint()
    with room_for_weights(fit.reward_model.model.device):
        course = resume_course(checkpoints, fit.weights, [optimiser], fingerprint)
    ends = list(accumulate(len(batches) for batches in fit.batches))
    steps = [batch for batches in fit.batches for batch in batches]
    saved = time.monotonic()
    for batch in steps[course.step :]:
        share = rate_at(course.step, len(steps), fit.settings.warmup_share)
        metrics = optimise(fit, optimiser, batch, share, course)
        course.step += 1
        course.losses.append(metrics["loss"])
        if course.step in ends:
            measured = measure(fit)
            course.close_epoch(fit.weights, measured | _shrunk(course), "validation/nll")
            metrics |= measured
        if checkpoints and (course.step == len(steps) or time.monotonic() - saved >= fit.settings.checkpoint_seconds):
            save_course(checkpoints, course, fit.weights, [optimiser], fingerprint)
            saved = time.monotonic()
        report(Progress("fit_reward_model", course.step, len(steps), metrics))
    put_weights(fit.weights, course.best_weights)
    return course


def optimise(fit: Fit, optimiser: torch.optim.Optimizer, batch: Sequence[int], share: float, course: Course) -> Metrics:
    """One step on the mean over a batch's labels, by weight; `share` is that of the highest learning rates."""
    metrics = _within_memory(fit, optimiser, batch, course)
    rate = share * fit.learning_rate
    if not math.isfinite(metrics["loss"]):
        raise ValueError(
            f"the loss is {metrics['loss']} at step {course.step + 1}, where the learning rate was {rate:.2g}: lower"
            " learning_rate, or max_grad_norm, or compute in fp32"
        )
    with room_for_weights(fit.reward_model.model.device):  # the first step makes room for Adam's moments
        norm = _step(fit, optimiser, share)
    return {**metrics, "grad_norm": norm, "learning_rate": rate}


def _step(fit: Fit, optimiser: torch.optim.Optimizer, share: float) -> float:
    """Moves the weights by their gradients, and forgets these; returns the gradients' norm."""
    for parameter in fit.weights.values():
        if parameter.grad is None:  # part of the backbone that no score depends on; Adam is to know it all the same
            parameter.grad = torch.zeros_like(parameter)
    norm = nn.utils.clip_grad_norm_(fit.weights.values(), fit.settings.max_grad_norm)
    for group in optimiser.param_groups:
        group["lr"] = share * group["highest"]
    optimiser.step()
    optimiser.zero_grad()
    return float(norm)


def _within_memory(fit: Fit, optimiser: torch.optim.Optimizer, batch: Sequence[int], course: Course) -> Metrics:
    """The gradients of a batch; where memory runs out, anew from the beginning in smaller micro-batches."""
    device = fit.reward_model.model.device
    while True:
        budget = fit.settings.micro_batch_tokens or token_budget(device)
        budget = min(budget, course.micro_batch_tokens or budget)
        parts = micro_batches(fit.reward_model.forward, fit.taught, batch, budget)
        try:
            metrics = accumulate_gradients(fit, batch, parts)
        except (RuntimeError, MemoryError) as error:
            if not ran_out_of_memory(error):
                raise
            if max(map(len, parts)) == 1:
                raise no_room(device) from error
        else:
            return metrics | _shrunk(course)
        tokens = [sum(own.tokens for own in fit.taught.select(part).sets) for part in parts]
        course.micro_batch_tokens = halved(budget, max(tokens))
        optimiser.zero_grad()
        free_memory(device)


def _shrunk(course: Course) -> Metrics:
    """Says to how many tokens micro-batches had to shrink; nothing where memory held them."""
    return {} if course.micro_batch_tokens is None else {"micro_batch_tokens": float(course.micro_batch_tokens)}


def accumulate_gradients(fit: Fit, batch: Sequence[int], parts: Sequence[Sequence[int]]) -> Metrics:
    """Adds the gradients of a batch's loss to those of the weights, the same however the batch is split into parts.

    The loss is - sum of log-likelihoods / weight of the batch - log prior / weight of all labels + the centre term.
    """
    reward_model, answers = fit.reward_model, fit.reward_model.answers
    weight = float(fit.label_weights[list(batch)].sum())
    prior = -answers.log_prior() / float(fit.label_weights.sum())
    prior.backward()  # type: ignore[no-untyped-call]
    losses, right = [prior.detach()], []
    for part in parts:
        own = fit.taught.select(part)
        observed = fit.observe(fit.taught, part, own.places).to(prior.device)
        outputs = reward_model.read(reward_model.forward.features(own.sets))
        loss = -answers.label_log_likelihoods(outputs, observed).sum() / weight
        if fit.settings.centre_coefficient:
            loss = loss + fit.settings.centre_coefficient * squared_levels(outputs[:, 0], own.places) / len(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        right.append(orders_right(outputs.detach(), observed, answers.shape))
    pairs, count = torch.cat(right).mean(), sum(map(len, right))
    return {"loss": float(torch.stack(losses).sum())} | ({"accuracy": float(pairs)} if count else {})


def squared_levels(scores: Tensor, places: Sequence[Sequence[int]]) -> Tensor:
    """The sum over sets of (2 * mean score)^2: for a pair (r_chosen + r_rejected)^2.

    Eisenstein et al. 2023, "Helping or herding?", section 2.1. Only a set's level is drawn to 0, never a difference.
    """
    sets = torch.tensor([number for number, own in enumerate(places) for _ in own], device=scores.device)
    shares = torch.tensor([1 / len(own) for own in places for _ in own], device=scores.device)
    at = torch.tensor([place for own in places for place in own], device=scores.device)
    return (2 * scores.new_zeros(len(places)).index_add(0, sets, shares * scores[at])).square().sum()


def measure(fit: Fit) -> Metrics:
    """How likely the validation labels are once calibrated, and how often a better response has a higher score.

    Slopes, cuts and score regressions are fitted to the same labels on a copy, as they are on what is kept in the end:
    an epoch that knows more is not to lose for being overconfident, which calibration mends. The fewer labels there
    are, the less they move (see `calibrate`).
    A ranking weighs as much as a pair, whatever it weighs in the fitting, so that the two can be compared. Nothing
    where there are no validation labels.
    """
    if not fit.checked.labels:
        return {}
    outputs, observed = validation_outputs(fit)
    answers = copy.deepcopy(fit.reward_model.answers)
    calibrate(answers, outputs, observed)
    right = orders_right(outputs, observed, answers.shape)
    accuracy = {"validation/accuracy": float(right.mean())} if len(right) else {}
    return {"validation/nll": mean_nll(answers, outputs, observed), **accuracy}


def validation_outputs(fit: Fit) -> tuple[Tensor, Observations]:
    """The outputs [responses, outputs] for the validation labels, and what these say, a ranking weighing as a pair."""
    return labelled_outputs(fit.reward_model, fit.checked, replace(fit.weighting, set_weight="1"))


def labelled_outputs(
    reward_model: RewardModel, labels: EncodedLabels, weighting: Weighting
) -> tuple[Tensor, Observations]:
    """The outputs [responses, outputs] for labels, and what these say of them, without gradient."""
    device = reward_model.model.device
    outputs = read_features(reward_model, labels.encoded.sets, reward_model.read)
    observed = observe(labels.labels, labels.encoded.places, reward_model.answers.shape, weighting)
    return outputs.to(device), observed.to(device)


@torch.no_grad()
def mean_nll(answers: AnswerModel, outputs: Tensor, observed: Observations) -> float:
    """The negative log-likelihood of labels over what they weigh, in nats."""
    return -float(answers.label_log_likelihoods(outputs, observed).sum() / weights_of(observed).sum())

"""Which response would people prefer? A reward model fitted on all that they said of responses."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import torch

from worker.learning.course import Course
from worker.learning.models import pick_device
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Label
from worker.learning.reward.averaging import average_fits
from worker.learning.reward.backbone import output_layer, recomputed_layers
from worker.learning.reward.batches import encode_labels
from worker.learning.reward.likelihood import AnswerModel, calibrate
from worker.learning.reward.loop import Fit, learn, measure, validation_outputs, weights_of
from worker.learning.reward.lora import low_rank_adapters
from worker.learning.reward.model import RewardModel, load_reward_model, new_heads, new_reward_model
from worker.learning.reward.normalisation import Normalisation
from worker.learning.reward.observations import AnswerShape, Weighting, observe, shape_of, teaches
from worker.learning.reward.overall import head_posterior, is_overall
from worker.learning.reward.settings import RewardSettings
from worker.learning.seeds import derive_seed

SetWeight = Literal["1", "k-1"]
Start = Literal["fresh", "warm"]

__all__ = ["FittedRewardModel", "RewardSettings", "fit_reward_model"]


@dataclass(frozen=True)
class FittedRewardModel:
    """A fitted reward model and how the fitting went.

    `epochs` is the number of passes that were kept; `history` has a row of metrics for each. Where fits are averaged,
    `epochs` is the highest, the rows say of which `fit` they are, and the last one is of the mean. `choices` has a row
    for each way that was tried, with its validation likelihood, as calibrated, and whether it was `kept`.
    `learning_rate` is the highest.
    """

    reward_model: RewardModel
    epochs: int
    history: list[dict[str, float]]
    choices: list[dict[str, Any]]
    learning_rate: float

    @property
    def course(self) -> dict[str, Any]:
        """How the fitting went, as a card tells it."""
        return {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "history": self.history,
            "choices": self.choices,
        }


@dataclass(frozen=True)
class Way:
    """One way to fit: what a ranking weighs, and where the weights start."""

    set_weight: SetWeight
    start: Start


def fit_reward_model(
    source: str,
    labels: Sequence[Label],
    validation: Sequence[Label],
    settings: RewardSettings,
    seed: int,
    report: Report = silent,
    device: torch.device | None = None,
    *,
    checkpoints: Path | None = None,
    start: Path | None = None,
) -> FittedRewardModel:
    """Fits a reward model on labels, starting from a pretrained model or from an earlier reward model.

    As in InstructGPT (Ouyang et al. 2022, section 3.5) all pairs of a ranking share one batch element; the head starts
    as in Stiennon et al. 2020. Kept apart: the likelihood is an ordered logit that knows ties, grades and scores
    (`likelihood`), dropout is off, and the epoch is chosen by validation likelihood, as calibrated.

    Args:
        source: a Hugging Face name or folder, causal or encoder.
        labels: to learn from.
        validation: labels of other prompts, to choose the epoch and the slope of probabilities by; may be empty.
        checkpoints: a folder for resumable states; the newest there is continued, to the same bits.
        start: the folder of an earlier reward model, for `settings.start`.

    Raises:
        ValueError: if no label teaches anything, the loss is not finite, memory does not hold one label, or the
            checkpoints belong to another fitting.
    """
    device = device or pick_device()
    taught, checked = _teaching(labels, settings), _teaching(validation, settings)
    if not taught:
        raise ValueError(
            "no label says anything: there is nothing to fit. A label needs a weight above 0,"
            " and an order of two responses or a score"
        )
    shape = shape_of([*taught, *checked], annotators=settings.annotators == "learned")
    ways = _ways(settings, taught, checked, start)
    tried: list[_Tried] = []
    for number, way in enumerate(ways):
        reward_model = _begin(way, source, start, shape, settings, seed, device)
        to_learn, to_check = encode_labels(reward_model, taught), encode_labels(reward_model, checked)
        fit = Fit(reward_model, to_learn, to_check, _weighting(settings, way.set_weight), settings, seed)
        folder = checkpoints / f"{way.set_weight}-{way.start}" if checkpoints and len(ways) > 1 else checkpoints
        tried.append(_try(way, fit, _of_several(report, number, len(ways)), folder))
        if len(ways) > 1:
            reward_model.model.to("cpu")  # one model at a time on the device
    kept = min(tried, key=lambda one: one.measured.get("validation/nll", 0.0))
    kept.fit.reward_model.model.to(device)
    return FittedRewardModel(
        _finished(kept.fit),
        kept.epochs,
        kept.history,
        [one.row(one is kept) for one in tried],
        kept.fit.learning_rate,
    )


@dataclass(frozen=True)
class _Tried:
    way: Way
    fit: Fit
    epochs: int
    history: list[dict[str, float]]
    measured: dict[str, float]
    """The metrics of what was kept."""

    def row(self, kept: bool) -> dict[str, Any]:
        """What is told of it."""
        validation = {name: value for name, value in self.measured.items() if name.startswith("validation/")}
        return {**asdict(self.way), "epochs": self.epochs, **validation, "kept": kept}


def _try(way: Way, fit: Fit, report: Report, checkpoints: Path | None) -> _Tried:
    """Fits once, or as often as fits are to be averaged."""
    count = fit.settings.averaged_fits
    if count == 1:
        course = _learn(fit, report, checkpoints)
        return _Tried(way, fit, course.best_epoch, course.history, course.history[course.best_epoch - 1])
    history: list[dict[str, float]] = []
    epochs: list[int] = []

    def fit_one(number: int) -> None:
        own = replace(fit, seed=derive_seed(fit.seed, "averaged fit", number))
        folder = checkpoints / f"fit-{number + 1}" if checkpoints else None
        course = _learn(own, _of_several(report, number, count), folder)
        history.extend({"fit": number + 1, **row} for row in course.history)
        epochs.append(course.best_epoch)

    average_fits(fit.reward_model, count, fit_one)
    measured = measure(fit)
    return _Tried(way, fit, max(epochs), [*history, measured], measured)


def _teaching(labels: Sequence[Label], settings: RewardSettings) -> list[Label]:
    """The labels to which the settings leave any weight, with that weight."""
    told = [label for label in labels if teaches(label)]
    if settings.annotators != "given":
        told = [replace(label, weight=1.0) for label in told]
    places = [range(len(label.responses)) for label in told]
    weights = weights_of(observe(told, places, shape_of(told, annotators=False), _weighting(settings, "1")))
    return [label for label, weight in zip(told, weights.tolist(), strict=True) if weight > 0]


def _ways(settings: RewardSettings, taught: Sequence[Label], checked: Sequence[Label], start: Path | None) -> list[Way]:
    """All that are to be tried. Without validation labels nothing can be compared."""
    set_weights: Sequence[SetWeight] = ("1",) if settings.set_weight == "validation" else (settings.set_weight,)
    if settings.set_weight == "validation" and checked and len(set(map(_size, taught))) > 1:
        set_weights = ("1", "k-1")
    starts: Sequence[Start] = ("fresh",) if start is None or settings.start == "better" else (settings.start,)
    if settings.start == "better" and checked and start is not None:
        starts = ("fresh", "warm")
    return [Way(set_weight, begin) for set_weight, begin in product(set_weights, starts)]


def _size(label: Label) -> int:
    """K: where it is the same for all labels, 1 and K - 1 are the same weights."""
    return max(max(len(one.ranked), len(one.scores)) for one in (label.overall, *label.criteria.values()))


def _begin(
    way: Way,
    source: str,
    start: Path | None,
    shape: AnswerShape,
    settings: RewardSettings,
    seed: int,
    device: torch.device,
) -> RewardModel:
    """The model as it is before the first step."""
    if way.start == "warm" and start is not None:
        earlier = load_reward_model(start, device, settings.precision)
        return replace(warm_started(earlier, shape, seed), max_tokens=settings.max_tokens)
    return new_reward_model(source, seed, device, shape, settings.max_tokens, settings.precision)


@torch.no_grad()
def warm_started(earlier: RewardModel, shape: AnswerShape, seed: int) -> RewardModel:
    """An earlier model, in place: its heads in the unit of log-odds, in which fitting starts, and fresh thresholds.

    Outputs that it does not have start fresh.
    """
    layer, device = output_layer(earlier.model), earlier.model.device
    heads = new_heads(layer.in_features, len(shape.outputs) - 1, seed, device)
    for place, output in enumerate(shape.outputs[1:]):
        if heads is not None and earlier.heads is not None and output in earlier.outputs[1:]:
            before = earlier.outputs.index(output) - 1
            slope = earlier.answers.slopes[before + 1]
            heads.weight[place] = earlier.heads.weight[before] * slope
            heads.bias[place] = earlier.heads.bias[before] * slope
    for parameter in layer.parameters():
        parameter.mul_(earlier.answers.slopes[0])
    return replace(
        earlier, answers=AnswerModel(shape).to(device), heads=heads, posterior=None, normalisation=Normalisation()
    )


def _weighting(settings: RewardSettings, set_weight: SetWeight) -> Weighting:
    return Weighting(set_weight, settings.implied_weight, settings.criteria_weight, settings.score_weight)


def _of_several(report: Report, number: int, count: int) -> Report:
    """Reports one of several fittings, which have equally many steps, as a part of all."""

    def whole(progress: Progress) -> None:
        report(replace(progress, done=number * progress.total + progress.done, total=count * progress.total))

    return whole


def _learn(fit: Fit, report: Report, checkpoints: Path | None) -> Course:
    """Learns all weights, or adapters that are merged at the end."""
    settings, model = fit.settings, fit.reward_model.model
    with ExitStack() as stack:
        if settings.lora_rank is not None:
            stack.enter_context(low_rank_adapters(model, settings.lora_rank, settings.lora_alpha, fit.seed))
        if settings.gradient_checkpointing:
            stack.enter_context(recomputed_layers(model))
        return learn(fit, report, checkpoints)


def _finished(fit: Fit) -> RewardModel:
    """With probabilities calibrated on the validation labels, and the posterior of the head."""
    reward_model = fit.reward_model
    observed = fit.observe(fit.taught, range(len(fit.taught.labels)), fit.taught.encoded.places)
    has_orders = bool(is_overall(observed).any())
    if not has_orders:
        take_scores_for_rewards(reward_model)
    if fit.checked.labels:
        calibrate(reward_model.answers, *validation_outputs(fit))
    if not (has_orders and fit.settings.posterior):
        return reward_model
    return replace(reward_model, posterior=head_posterior(reward_model, fit.taught, fit.weighting))


@torch.no_grad()
def take_scores_for_rewards(reward_model: RewardModel) -> None:
    """Where no two responses were ever compared, the mean of the predicted scores is the reward."""
    answers, heads, layer = reward_model.answers, reward_model.heads, output_layer(reward_model.model)
    assert heads is not None, "labels without orders have scores, which outputs of their own predict"
    rows = [reward_model.outputs.index(output) - 1 for output in answers.shape.scored]
    layer.weight.copy_((answers.scores.log_slopes.exp()[:, None] * heads.weight[rows]).mean(dim=0))

"""What does a fitted reward model say of held-out pairs? Fits side by side, one on each core."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor
from transformers.utils import logging

from worker.learning.models import pick_device
from worker.learning.records import Label
from worker.learning.reward.batches import encode_labels
from worker.learning.reward.card import moderated_pairs, overall_pairs, pair_deviations, read_held_out
from worker.learning.reward.evaluation import Pairs
from worker.learning.reward.fitting import RewardSettings, fit_reward_model
from worker.learning.reward.judged import JudgedPair, as_pairs
from worker.learning.reward.likelihood import calibrate
from worker.learning.reward.loop import labelled_outputs, mean_nll
from worker.learning.reward.model import RewardModel
from worker.learning.reward.observations import Weighting


@dataclass(frozen=True)
class Fit:
    """A reward model to be fitted, and the labels that it will be measured on."""

    labels: Sequence[Label]
    validation: Sequence[Label]
    """To calibrate by: slope and thresholds."""
    test: Sequence[Label]
    settings: RewardSettings
    seed: int = 1
    slope: float | None = None
    """From differences of scores to log-odds, where there are no validation labels to fit it to."""


@dataclass(frozen=True)
class Measured:
    """What a fitted model says of the pairs that the test labels order; ties are left out."""

    pairs: Pairs
    moderated: Pairs
    """The same with probabilities drawn towards 1/2 by the posterior of the head."""
    longer: Tensor
    """Whether the better response is the longer one, in characters; 1/2 where they are as long [pairs]."""
    slope: float
    """From differences of scores to log-odds."""
    kept_back_nll: float
    """Nats a pair of the validation labels, calibrated on them; NaN without."""
    seconds: float


class Fitter:
    """Fits as many reward models at a time as there are processes."""

    def __init__(self, executor: ProcessPoolExecutor, backbone: Path, device: str) -> None:
        self._executor = executor
        self._backbone = backbone
        self._device = device

    def start(self, fits: Sequence[Fit]) -> list[Future[Measured]]:
        """Each fit's result, as it will be."""
        return [self._executor.submit(measure, fit, str(self._backbone), self._device) for fit in fits]


@contextmanager
def fitter(backbone: Path, device: str, processes: int) -> Iterator[Fitter]:
    """Processes with one thread each: small models fit faster beside each other than on several threads."""
    executor = ProcessPoolExecutor(processes, get_context("spawn"), initializer=prepare)
    try:
        yield Fitter(executor, backbone, device)
    finally:
        executor.shutdown(cancel_futures=True)


def prepare() -> None:
    """One thread, and no bars or warnings of the library between our lines."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()


def measure(fit: Fit, backbone: str, device: str) -> Measured:
    """Fits, and looks at the test labels."""
    began = time.perf_counter()
    # No validation labels: the number of epochs was settled beforehand. They calibrate what is kept.
    fitted = fit_reward_model(backbone, fit.labels, (), fit.settings, fit.seed, device=pick_device(device))
    reward_model = fitted.reward_model
    kept_back_nll = calibrated_nll(reward_model, fit.validation) if fit.validation else math.nan
    if fit.slope is not None:
        with torch.no_grad():
            reward_model.answers.slopes.fill_(fit.slope)
    slope = float(reward_model.answers.slopes[0])
    held_out = read_held_out(reward_model, fit.test)
    judged = [pair for pair in overall_pairs(reward_model, held_out) if pair.grade]
    posterior = reward_model.posterior
    drawn = (
        judged
        if posterior is None
        else moderated_pairs(reward_model, judged, pair_deviations(posterior, held_out, judged))
    )
    seconds = time.perf_counter() - began
    return Measured(as_pairs(judged), as_pairs(drawn), longer(judged), slope, kept_back_nll, seconds)


def calibrated_nll(reward_model: RewardModel, validation: Sequence[Label]) -> float:
    """Fits slope and thresholds to the validation labels; nats a label that are left."""
    outputs, observed = labelled_outputs(reward_model, encode_labels(reward_model, validation), Weighting())
    calibrate(reward_model.answers, outputs, observed)
    return mean_nll(reward_model.answers, outputs, observed)


def longer(judged: Sequence[JudgedPair]) -> Tensor:
    """Whether the better one is the longer one [pairs]."""
    gaps = torch.tensor([len(better) - len(worse) for better, worse in (pair.texts for pair in judged)])
    return (torch.sign(gaps).double() + 1) / 2

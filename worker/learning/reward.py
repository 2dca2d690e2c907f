"""Which response would people rank higher? A reward model fitted on their rankings."""

import json
import math
import random
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from worker.learning.batches import group_by_length, pad
from worker.learning.evaluation import Estimate, bootstrap_ratio
from worker.learning.models import Precision, autocast, encode_prompt, load_tokenizer, pick_device, save_model
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Prompt, Ranking
from worker.learning.seeds import derive_seed, generator_for

NORMALISATION_FILE = "reward.json"


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
    micro_batch_tokens: int = 16_384
    """The most tokens, padding included, in one forward; lower it when memory runs out."""
    precision: Precision = "auto"
    """Of the forward and backward passes; weights and loss stay in fp32."""


@dataclass(frozen=True)
class Normalisation:
    """The scale of the scores: version 0 has mean 0 and a deviation of 1 within a prompt.

    Bradley-Terry fixes only differences of scores within a prompt, so the unit comes from stored
    samples of version 0: score = gain * raw + offset. `gain` is already inside the saved head.
    """

    gain: float = 1.0
    offset: float = 0.0
    prompts: int = 0
    samples: int = 0


@dataclass(frozen=True)
class RewardModel:
    """A sequence classifier with one output, its tokenizer, and what turns outputs into scores."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    normalisation: Normalisation = field(default_factory=Normalisation)
    settings: RewardSettings = field(default_factory=RewardSettings)

    def __call__(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores [responses]; response i answers prompt i."""
        return score_responses(self, prompts, responses)


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
    taught = [ranking for ranking in rankings if ranking.ordered_pairs() and ranking.weight > 0]
    if not taught:
        raise ValueError("no ranking has a better and a worse response: there is nothing to fit")
    reward_model = new_reward_model(source, settings, seed, device or pick_device())
    optimiser = torch.optim.AdamW(...)
    raise NotImplementedError

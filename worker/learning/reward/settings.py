"""How is a reward model fitted? Every choice, with its default."""

import math
from dataclasses import dataclass
from typing import Literal

from worker.learning.models import Precision


@dataclass(frozen=True)
class RewardSettings:
    """How a reward model is fitted."""

    epochs: int = 1
    """Passes over the labels, at most; with validation labels the best epoch is kept."""
    averaged_fits: int = 1
    """Fits with the labels in other orders, of which the mean of the weights is kept (WARM): surer scores, as much more
    work."""
    learning_rate: float | None = None
    """Of Adam, at its highest: it climbs over the warm-up and falls linearly to 0. None goes by the backbone's size."""
    head_learning_rate: float | None = None
    """Of the fresh layers above the trunk; None is that of the trunk."""
    answer_learning_rate: float = 0.1
    """Of the thresholds, slopes and annotators' qualities: numbers so few that they can move fast."""
    warmup_share: float = 0.05
    """The share of all steps over which the learning rates first climb from 0."""
    adam_epsilon: float = 1e-5
    """Larger than Adam's own 1e-8, as in lm-human-preferences: tames the first steps."""
    weight_decay: float = 0.0
    """AdamW's decay of matrices; norms, biases and the answers' numbers are left alone."""
    batch_sets: int = 16
    """Labels an optimiser step; those that share responses stand in the same step."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm."""
    max_tokens: int = 1_024
    """Longer prompts lose their beginning, so that the response and its end stay."""
    micro_batch_tokens: int | None = None
    """The most tokens in one forward; None lets the device say. It is halved when memory runs out."""
    precision: Precision = "auto"
    """Of the forward and backward passes; weights and loss stay in fp32."""
    set_weight: Literal["1", "k-1", "validation"] = "1"
    """What a ranking of K responses weighs: as much as a pair, K - 1 pairs, or what validation labels like better."""
    implied_weight: float = 1.0
    """What a correction, better than what it corrects though nobody ordered the two, weighs beside an order."""
    criteria_weight: float = 0.5
    """What a judgement by a criterion weighs beside the overall one."""
    score_weight: float = 0.5
    """What a scalar score weighs beside an order."""
    centre_coefficient: float = 0.0
    """Pulls the mean score of every set to 0, as TRL's `center_rewards_coefficient` does with pairs (0.01 there)."""
    annotators: Literal["equal", "given", "learned"] = "given"
    """How far each annotator is believed: alike, by their labels' weights, or as the labels themselves show."""
    lora_rank: int | None = None
    """The rank of low-rank adapters (LoRA) on every linear layer of the trunk; None fits all weights."""
    lora_alpha: float = 32.0
    """Adapters are scaled by this over their rank."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes activations again, up to a third slower, instead of keeping them."""
    start: Literal["fresh", "warm", "better"] = "fresh"
    """From where, if an earlier reward model is at hand: the pretrained model, that one, or what validation prefers."""
    checkpoint_seconds: float = 60.0
    """Time between two resumable checkpoints."""
    posterior: bool = True
    """Whether the head's posterior is estimated, which says how sure a score is."""

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "averaged_fits",
            "answer_learning_rate",
            "adam_epsilon",
            "batch_sets",
            "max_grad_norm",
            "max_tokens",
            "lora_alpha",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {getattr(self, name)}")
        for name in ("learning_rate", "head_learning_rate", "micro_batch_tokens", "lora_rank"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0 or left out, not {value}")
        for name in (
            "implied_weight",
            "criteria_weight",
            "score_weight",
            "centre_coefficient",
            "weight_decay",
            "checkpoint_seconds",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, not {getattr(self, name)}")
        if not 0 <= self.warmup_share <= 1:
            raise ValueError(f"warmup_share must lie between 0 and 1, not be {self.warmup_share}")


def usual_learning_rate(parameters: int, *, adapters: bool) -> float:
    """What to begin with for a backbone of so many parameters: 1e-5 for a billion, 2e-4 for twenty million.

    A line through what was found to do well: 7e-4 with 2.8 million parameters (the demo), 2e-4 to 4e-4 with 22 million
    (docs/experiments.md), 5e-5 with 124 million (lm-human-preferences), 3e-6 to 9e-6 with some billions (Huang et al.
    2024, "The N+ implementation details of RLHF with PPO"; OpenRLHF's examples). Adapters take ten times it.
    """
    full = min(max(1e-5 * math.pow(1e9 / parameters, 0.75), 5e-6), 1e-3)
    return 10 * full if adapters else full

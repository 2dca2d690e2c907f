"""What may be chosen about a PPO run?"""

import math
from dataclasses import dataclass, field
from typing import Literal

from worker.learning.models import Precision
from worker.learning.sampling import SamplingSettings

COUNTS = (
    "group_size",
    "episodes",
    "batch_episodes",
    "epochs",
    "minibatches",
    "lora_rank",
    "watch_patience",
    "micro_batch_tokens",
)
ABOVE_ZERO = (
    "learning_rate",
    "critic_learning_rate",
    "lora_alpha",
    "adam_epsilon",
    "max_grad_norm",
    "clip_range",
    "value_clip_range",
    "score_clip",
    "kl_target",
    "kl_horizon",
    "epoch_kl_limit",
    "kl_budget",
)
NOT_NEGATIVE = (
    "value_warmup",
    "value_coefficient",
    "length_penalty",
    "conservatism_coefficient",
    "kl_coefficient",
    "checkpoint_seconds",
)


@dataclass(frozen=True)
class PPOSettings:
    """Every choice of a run of PPO, or of one of the estimators without a value function."""

    estimator: Literal["gae", "rloo", "grpo"] = "gae"
    """Of advantages: gae needs a value function and is PPO; rloo and grpo compare the responses to a prompt."""
    group_size: int = 1
    """Responses to each prompt in a rollout; rloo and grpo need at least 2."""
    episodes: int = 8_192
    """Responses sampled and learned from in the whole run."""
    batch_episodes: int = 256
    """Responses a rollout; the policy is fixed while they are written."""
    epochs: int = 4
    """Passes over each rollout."""
    minibatches: int = 1
    """Optimiser steps a pass: a run makes rollouts x epochs x minibatches of them."""
    learning_rate: float = 1e-5
    """Of Adam, at the start; it falls linearly to 0 over the run."""
    critic: Literal["shared", "separate"] = "shared"
    """The value function: a head on the policy's trunk, or a model of its own that starts from the reward model."""
    critic_learning_rate: float | None = None
    """Of the value function's own weights; None: the policy's."""
    value_warmup: int = 0
    """Rollouts at the start from which the value function alone learns."""
    lora_rank: int | None = None
    """Learn low-rank adapters of this rank beside a frozen policy, which without them is the reference."""
    lora_alpha: float = 32.0
    """The adapters' part is scaled by this over the rank."""
    adam_epsilon: float = 1e-5
    """Larger than Adam's own 1e-8, as in lm-human-preferences."""
    max_grad_norm: float = 1.0
    """Longer gradients are scaled down to this norm."""
    clip_range: float = 0.2
    """The probability ratio gains nothing beyond 1 +- this."""
    value_clip_range: float = 0.2
    """The new value counts as at most this far from the rollout's."""
    value_coefficient: float = 0.1
    """Weight of the value loss beside the policy's."""
    discount: float = 1.0
    """gamma: what a reward one token later is worth."""
    gae_lambda: float = 1.0
    """lambda: 1 trusts whole returns, 0 the value function alone. The only score comes at the end: with
    Ziegler's 0.95 the 60th token before it hears 5 % of it, unless the value function is already good."""
    grpo_scale: bool = True
    """Divide a group's advantages by its deviation, as GRPO does; else prompts whose answers are alike teach less."""
    whiten_rewards: bool = False
    """Scale the token rewards to variance 1 over the rollout, keeping their mean."""
    score_clip: float | None = 5.0
    """Scores beyond +- this count as this; None leaves them."""
    missing_end: Literal["subtract", "replace"] = "subtract"
    """For a response that was cut: subtract `missing_end_score` from its score, or put it there."""
    missing_end_score: float = 1.0
    """See `missing_end`; when replacing, a negative number."""
    length_penalty: float = 0.0
    """The price in score of each token of a response beyond `length_target`."""
    length_target: float | None = None
    """Tokens that cost nothing; None: as many as the first rollout has on the mean."""
    conservatism: Literal["none", "uncertainty", "worst"] = "none"
    """How a reward model's doubt lowers its scores: by its deviation, or to the least that an ensemble says."""
    conservatism_coefficient: float = 1.0
    """What the doubt is multiplied by before it is subtracted."""
    kl_in: Literal["reward", "loss"] = "reward"
    """Where the price of leaving the reference is paid: with each token's reward, or in the loss as GRPO does."""
    kl_coefficient: float = 0.15
    """beta at the start: the price in score of one nat away from the reference."""
    kl_target: float = 6.0
    """Nats a sequence that this run may add to the KL at which its policy starts."""
    kl_horizon: float | None = 10_000
    """Episodes over which beta adapts; smaller is quicker; None keeps beta as it is."""
    epoch_kl_limit: float | None = 0.1
    """Nats a token between the rollout's policy and the one that learns from it, beyond which it learns no more from
    that rollout; None makes all passes whatever they do."""
    kl_budget: float | None = None
    """Nats a sequence that the run may never add to the KL at which it starts: beyond them it ends, with the last
    policy that kept within."""
    watch_patience: int | None = None
    """Rollouts in a row that a watched reward, which nothing is learned from, may stay certainly below its best: then
    the run ends with the policy of that best. None only watches."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """How responses are drawn; PPO needs top_p = 1 and a temperature above 0."""
    micro_batch_tokens: int | None = None
    """The most tokens, padding included, in one forward; None lets the device say."""
    precision: Precision = "auto"
    """Of the forward and backward passes; weights, loss and the output layer stay in fp32."""
    checkpoint_seconds: float = 60.0
    """Time between two resumable checkpoints."""

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.sampling.top_p != 1 or self.sampling.temperature <= 0:
            raise ValueError(
                "PPO needs top_p = 1 and a temperature above 0: the ratio compares the"
                " distribution that was sampled, and a truncated one has zeros"
            )
        if self.episodes < self.batch_episodes:
            raise ValueError(f"{self.episodes} episodes do not fill a rollout of {self.batch_episodes}")
        if self.batch_episodes < self.minibatches:
            raise ValueError(f"{self.batch_episodes} episodes do not fill {self.minibatches} minibatches")
        if self.batch_episodes % self.group_size:
            raise ValueError(f"{self.batch_episodes} episodes are no whole number of groups of {self.group_size}")
        if self.estimator != "gae" and self.group_size < 2:
            raise ValueError(
                f"{self.estimator} compares the responses to a prompt: group_size must be at least 2, not 1"
            )
        if self.estimator != "gae" and self.value_warmup:
            raise ValueError(f"{self.estimator} has no value function: value_warmup must be 0")
        if self.value_warmup >= self.rollouts:
            raise ValueError(f"value_warmup {self.value_warmup} leaves the policy none of {self.rollouts} rollouts")
        if self.kl_horizon is not None and self.kl_horizon <= self.batch_episodes / 5:
            raise ValueError(
                f"kl_horizon {self.kl_horizon} lets a rollout of {self.batch_episodes} episodes turn kl_coefficient"
                f" negative: it must be above {self.batch_episodes / 5}"
            )

    def _check_numbers(self) -> None:
        for name in COUNTS:
            if (value := getattr(self, name)) is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        for name in ABOVE_ZERO:
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number above 0, not {value}")
        for name in NOT_NEGATIVE:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number that is not negative, not {getattr(self, name)}")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, not be {getattr(self, name)}")

    @property
    def rollouts(self) -> int:
        """Rollouts in the run; episodes that do not fill one are not sampled."""
        return self.episodes // self.batch_episodes

    @property
    def has_critic(self) -> bool:
        """Whether a value function is learned."""
        return self.estimator == "gae"

    @property
    def is_guarded(self) -> bool:
        """Whether something may end the run before its last rollout."""
        return self.kl_budget is not None or self.watch_patience is not None

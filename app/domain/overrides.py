"""What may an admin override of the worker's own settings? The names are those of its dataclasses, held by a test."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from app.language import gettext as _

Precision = Literal["auto", "fp32", "bf16"]


class _Overrides(BaseModel):
    """Every field is optional: what is not set is left to the worker's default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _names_are_known(cls, data: Any) -> Any:
        unknown = sorted(set(data) - set(cls.model_fields)) if isinstance(data, dict) else []
        if unknown:
            names = {"unknown": ", ".join(unknown), "known": ", ".join(sorted(cls.model_fields))}
            raise ValueError(_("there is no %(unknown)s; known are %(known)s", **names))
        return data

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name in self.model_fields_set}


class RewardOverrides(_Overrides):
    """Of `worker.learning.reward.settings.RewardSettings`, where every field has its sentence."""

    epochs: int = Field(default=1, ge=1, le=1_000)
    averaged_fits: int = Field(default=1, ge=1, le=64)
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    head_learning_rate: float | None = Field(default=None, gt=0, le=1)
    answer_learning_rate: float = Field(default=0.1, gt=0, le=1)
    warmup_share: float = Field(default=0.05, ge=0, le=1)
    adam_epsilon: float = Field(default=1e-5, gt=0, le=1)
    weight_decay: float = Field(default=0, ge=0, le=1)
    batch_sets: int = Field(default=16, ge=1, le=65_536)
    max_grad_norm: float = Field(default=1, gt=0)
    max_tokens: int = Field(default=1_024, ge=2, le=1_048_576)
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    set_weight: Literal["1", "k-1", "validation"] = "1"
    implied_weight: float = Field(default=1, ge=0, le=1_000)
    criteria_weight: float = Field(default=0.5, ge=0, le=1_000)
    score_weight: float = Field(default=0.5, ge=0, le=1_000)
    centre_coefficient: float = Field(default=0, ge=0, le=1_000)
    annotators: Literal["equal", "given", "learned"] = "given"
    lora_rank: int | None = Field(default=None, ge=1, le=65_536)
    lora_alpha: float = Field(default=32, gt=0, le=65_536)
    gradient_checkpointing: bool = False
    start: Literal["fresh", "warm", "better"] = "fresh"
    checkpoint_seconds: float = Field(default=60, ge=0, le=86_400)
    posterior: bool = True


class SFTOverrides(_Overrides):
    """Of `worker.learning.training.TrainingSettings`, where every field has its sentence; defaults of fine-tuning."""

    epochs: int = Field(default=2, ge=1, le=1_000)
    batch_tokens: int = Field(default=4_096, ge=1, le=100_000_000)
    micro_batch_tokens: int = Field(default=2_048, ge=1, le=100_000_000)
    optimiser: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(default=2e-5, gt=0, le=1)
    warmup_share: float = Field(default=0.03, ge=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    max_grad_norm: float = Field(default=1, gt=0)
    held_out_share: float = Field(default=0.02, ge=0, lt=1)
    precision: Precision = "auto"
    checkpoint_seconds: float = Field(default=60, ge=0, le=86_400)


class PPOOverrides(_Overrides):
    """Of `worker.learning.policy.settings.PPOSettings`, where every field has its sentence."""

    estimator: Literal["gae", "rloo", "grpo"] = "gae"
    group_size: int = Field(default=1, ge=1, le=65_536)
    episodes: int = Field(default=8_192, ge=1, le=100_000_000)
    batch_episodes: int = Field(default=256, ge=1, le=1_000_000)
    epochs: int = Field(default=4, ge=1, le=1_000)
    minibatches: int = Field(default=1, ge=1, le=65_536)
    learning_rate: float = Field(default=1e-5, gt=0, le=1)
    critic: Literal["shared", "separate"] = "shared"
    critic_learning_rate: float | None = Field(default=None, gt=0, le=1)
    value_warmup: int = Field(default=0, ge=0, le=1_000_000)
    lora_rank: int | None = Field(default=None, ge=1, le=65_536)
    lora_alpha: float = Field(default=32, gt=0, le=65_536)
    adam_epsilon: float = Field(default=1e-5, gt=0, le=1)
    max_grad_norm: float = Field(default=1, gt=0)
    clip_range: float = Field(default=0.2, gt=0, lt=1)
    value_clip_range: float = Field(default=0.2, gt=0)
    value_coefficient: float = Field(default=0.1, ge=0)
    discount: float = Field(default=1, gt=0, le=1)
    gae_lambda: float = Field(default=1, ge=0, le=1)
    grpo_scale: bool = True
    whiten_rewards: bool = False
    score_clip: float | None = Field(default=5, gt=0)
    missing_end: Literal["subtract", "replace"] = "subtract"
    missing_end_score: float = 1
    length_penalty: float = Field(default=0, ge=0)
    length_target: float | None = Field(default=None, ge=1)
    conservatism: Literal["none", "uncertainty", "worst"] = "none"
    conservatism_coefficient: float = Field(default=1, ge=0)
    kl_in: Literal["reward", "loss"] = "reward"
    kl_coefficient: float = Field(default=0.15, ge=0)
    kl_target: float = Field(default=6, gt=0)
    kl_horizon: float | None = Field(default=10_000, gt=0)
    epoch_kl_limit: float | None = Field(default=0.1, gt=0)
    kl_budget: float | None = Field(default=None, gt=0)
    watch_patience: int | None = Field(default=None, ge=1, le=1_000_000)
    micro_batch_tokens: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    checkpoint_seconds: float = Field(default=60, ge=0, le=86_400)

    @model_validator(mode="after")
    def _episodes_fill_their_batches(self) -> "PPOOverrides":
        if self.episodes < self.batch_episodes:
            counts = {"episodes": self.episodes, "batch": self.batch_episodes}
            raise ValueError(_("%(episodes)s episodes do not fill a rollout of %(batch)s", **counts))
        if self.batch_episodes < self.minibatches:
            counts = {"episodes": self.batch_episodes, "minibatches": self.minibatches}
            raise ValueError(_("%(episodes)s episodes do not fill %(minibatches)s minibatches", **counts))
        return self

    @model_validator(mode="after")
    def _groups_suit_the_estimator(self) -> "PPOOverrides":
        if self.batch_episodes % self.group_size:
            counts = {"episodes": self.batch_episodes, "size": self.group_size}
            raise ValueError(_("%(episodes)s episodes are no whole number of groups of %(size)s", **counts))
        if self.estimator == "gae":
            return self
        if self.group_size < 2:
            named = {"estimator": self.estimator}
            raise ValueError(
                _("%(estimator)s compares the responses to a prompt: group_size must be at least 2, not 1", **named)
            )
        if self.value_warmup:
            raise ValueError(_("%(estimator)s has no value function: value_warmup must be 0", estimator=self.estimator))
        return self

    @model_validator(mode="after")
    def _the_policy_learns(self) -> "PPOOverrides":
        rollouts = self.episodes // self.batch_episodes
        if self.value_warmup >= rollouts:
            counts = {"warmup": self.value_warmup, "rollouts": rollouts}
            raise ValueError(_("value_warmup %(warmup)s leaves the policy none of %(rollouts)s rollouts", **counts))
        if self.kl_horizon is not None and self.kl_horizon <= self.batch_episodes / 5:
            sizes = {"horizon": self.kl_horizon, "episodes": self.batch_episodes, "least": self.batch_episodes / 5}
            raise ValueError(
                _(
                    "kl_horizon %(horizon)s lets a rollout of %(episodes)s episodes turn kl_coefficient negative:"
                    " it must be above %(least)s",
                    **sizes,
                )
            )
        return self

"""How does a project work? Its settings: every field with its range and the sentence that the admin's form shows."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.domain import texts
from app.domain.overrides import PPOOverrides, RewardOverrides, SFTOverrides
from app.domain.validation import listed, reason, reasons_of
from app.errors import Invalid
from app.language import gettext as _


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


ImproveBy = Literal["ppo", "sft", "sft_then_ppo"]
"""How a round's policy comes about."""


class LoopSettings(_Settings):
    """When a round moves on, and what decides over its policy."""

    automatic: bool = Field(
        default=False,
        description="Rounds start by themselves: the first once its labels are due, each next one after a good end.",
    )
    prompts_per_round: int = Field(
        default=200, ge=0, le=1_000_000, description="Prompts that the current policy answers a round. 0: no sampling."
    )
    trigger_labels: int = Field(
        default=200, ge=1, le=1_000_000, description="New labels that make a round go on to fitting."
    )
    trigger_hours: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Hours after which a round goes on with fewer labels. Empty: it waits.",
    )
    trigger_min_labels: int = Field(
        default=50, ge=1, le=1_000_000, description="New labels that must be there when the hours have passed."
    )
    mixed_share: float = Field(
        default=0.2, ge=0, le=1, description="Share of fresh comparisons that mix new responses with older ones."
    )
    evaluation_samples: int = Field(
        default=4, ge=1, le=100, description="Responses a policy writes to each test prompt when it is measured."
    )
    best_of_n: int = Field(
        default=4,
        ge=0,
        le=64,
        description="Each new policy is compared with the best of this many responses of its parent. 0: it is not.",
    )
    gate_pairs: int = Field(
        default=0, ge=0, le=100_000, description="Blinded pairs that people judge before a policy is promoted. 0: none."
    )
    gate_winrate: float = Field(
        default=0.5, ge=0, le=1, description="Win rate among people that the new policy needs against its parent."
    )
    promote_winrate: float = Field(
        default=0.5, ge=0, le=1, description="Win rate by the evaluation reward model that the new policy needs."
    )
    improve_by: ImproveBy = Field(
        default="ppo",
        description="ppo: against the reward model. sft: fine-tuning on corrections and on responses that came first.",
    )
    learning_curve: bool = Field(
        default=False,
        description="Reward models are fitted on parts of the labels too, which shows whether more of them would help.",
    )


class SamplingChoice(_Settings):
    """How a policy writes responses for people."""

    temperature: float = Field(default=1.0, gt=0, le=10, description="Below 1 plays safe, above 1 takes risks.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Draw from the likeliest tokens that make up this share.")
    max_new_tokens: int = Field(
        default=80, ge=1, le=32_768, description="Longest response, in tokens; more is cut off."
    )


class ProjectSettings(_Settings):
    """Everything about a project that an admin may set. A round keeps a copy of what it started with."""

    base_model: str = Field(
        min_length=1,
        max_length=500,
        description="Version 0 of the policy: a name on the Hugging Face hub or a folder that the worker can read.",
    )
    k: int = Field(
        default=1, ge=1, le=100, description="Labels wanted for each comparison, each from another annotator."
    )
    responses_per_prompt: int = Field(
        default=4,
        ge=1,
        le=9,
        description="Responses that the policy writes to a prompt, compared together. 1 where each is judged alone.",
    )
    lease_minutes: int = Field(
        default=20,
        ge=1,
        le=240,
        description="Minutes an annotator has for a comparison before it goes to somebody else.",
    )
    repeat_share: float = Field(
        default=0,
        ge=0,
        le=0.5,
        description="Share of an annotator's work that is their own earlier work again, unmarked and never trained on.",
    )
    show_consistency: bool = Field(
        default=False,
        description="Annotators see how many pairs of responses they ordered the same way when they came again.",
    )
    validation_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of prompts for making choices. Fixed by the first prompt."
    )
    test_share: float = Field(
        default=0.1, ge=0, lt=1, description="Share of prompts that only measure. Fixed by the first prompt."
    )
    loop: LoopSettings = Field(default=LoopSettings(), description="When a round moves on, and what promotes a policy.")
    sampling: SamplingChoice = Field(
        default=SamplingChoice(), description="How the policy writes responses for people."
    )
    reward: RewardOverrides = Field(
        default=RewardOverrides(), description="Overrides for fitting reward models, such as learning_rate."
    )
    sft: SFTOverrides = Field(
        default=SFTOverrides(), description="Overrides for supervised fine-tuning, such as learning_rate."
    )
    ppo: PPOOverrides = Field(default=PPOOverrides(), description="Overrides for PPO, such as kl_coefficient.")

    @model_validator(mode="after")
    def _leaves_train_prompts(self) -> "ProjectSettings":
        if self.validation_share + self.test_share >= 1:
            raise ValueError(_("validation_share and test_share together leave no prompts to train on"))
        return self

    @model_validator(mode="after")
    def _knows_its_doubt(self) -> "ProjectSettings":
        if self.ppo.conservatism != "none" and not self.reward.posterior:
            raise ValueError(
                _(
                    "ppo.conservatism %(chosen)s asks how sure the reward model is: leave reward.posterior on",
                    chosen=self.ppo.conservatism,
                )
            )
        return self


def parse_settings(data: Mapping[str, Any]) -> ProjectSettings:
    """The settings in `data`, nested as the models are. Raises Invalid, which names every bad field."""
    if found := texts.flaw(dict(data)):
        raise Invalid(_("The settings cannot be kept: %(reason)s.", reason=found))
    try:
        return ProjectSettings.model_validate(data)
    except ValidationError as error:
        reasons = reasons_of(error, _reason)
        said = _("These settings do not work. %(reasons)s.", reasons=listed(reasons))
        raise Invalid(said, details={"fields": reasons}) from error


def _reason(error: Any) -> str:
    message = reason(error).removeprefix("Input ")
    return message[:1].lower() + message[1:]

"""How do rows become what learning functions take? Rounds, prompts, policies and settings, read and turned."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.domain import policies
from app.domain.samples import NewSample
from app.domain.settings import ProjectSettings, parse_settings
from app.tables import FinishReason, Policy, Prompt, PromptState, Round, Run, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.models import load_language_model, load_tokenizer
from worker.learning.records import Message, Sample
from worker.learning.reward.settings import RewardSettings
from worker.learning.sampling import SamplingSettings


@dataclass(frozen=True)
class RoundInputs:
    """A round as a step sees it: its settings, the policy it started from, and version 0."""

    round: Round
    run: Run
    settings: ProjectSettings
    policy: Policy
    base: Policy

    @property
    def sampling(self) -> SamplingSettings:
        """How the project draws responses."""
        return SamplingSettings(**self.settings.sampling.model_dump())

    @property
    def reward(self) -> RewardSettings:
        """How the project fits reward models."""
        return RewardSettings(**self.settings.reward.model_dump())


def read_round(session: Session, attempt: Attempt) -> RoundInputs:
    """What every step begins with."""
    run = session.get_one(Run, attempt.run_id)
    round_ = session.get_one(Round, run.round_id)
    base = policies.base_policy(session, round_.project_id)
    policy = session.get_one(Policy, round_.policy_id) if round_.policy_id is not None else base
    return RoundInputs(round_, run, parse_settings(round_.settings), policy, base)


def read_prompts(session: Session, project_id: int, split: Split) -> list[Prompt]:
    """The active prompts of a split. Raises ValueError where there are none."""
    query = select(Prompt).where(
        Prompt.project_id == project_id, Prompt.split == split, Prompt.state == PromptState.ACTIVE
    )
    prompts = list(session.scalars(query.order_by(Prompt.id)))
    if not prompts:
        raise ValueError(f"there are no active {split} prompts: import some, or open retired ones again")
    return prompts


def as_messages(messages: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Stored messages as a language model reads them. Raises ValueError where one holds more than text."""
    return tuple(Message(role=message["role"], content=_as_text(message["content"])) for message in messages)


def _as_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    kinds = {part["type"] for part in content} - {"text"}
    if kinds:
        raise ValueError(f"a prompt holds {', '.join(sorted(kinds))}, and the base model reads text alone: retire it")
    return "\n".join(part["text"] for part in content)


def load_policy(policy: Policy, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A policy's weights and tokenizer."""
    source = artifacts.local(policy.uri, policy.content_hash)
    return load_language_model(source, device), load_tokenizer(source)


def named_by(*given: object) -> str:
    """A name for what an attempt keeps for the next one: another wherever anything that was given differs."""
    return hashlib.sha256(repr(given).encode()).hexdigest()[:16]


def as_new_sample(prompt: Prompt, sample: Sample) -> NewSample:
    """A sample of the model as the row that keeps it."""
    reason = FinishReason.ENDED if sample.finish_reason == "ended" else FinishReason.CUT
    return NewSample(prompt.id, sample.text, sample.token_ids, reason, sample.seed)

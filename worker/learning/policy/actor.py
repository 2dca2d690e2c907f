"""Which weights act, which judge, and which stay as they are? The policy, its value function and the reference."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.learning.likelihood import (
    Dialogue,
    log_probabilities,
    logits_from,
    response_logprobs,
    response_states,
)
from worker.learning.lora import Adapters, low_rank_difference
from worker.learning.models import Precision, computes_in_bf16
from worker.learning.policy.critic import head_of, trunk_of, zero_head
from worker.learning.policy.outputs import TokenOutputs
from worker.learning.policy.settings import PPOSettings
from worker.learning.reward.backbone import longest_text
from worker.learning.seeds import derive_seed

POLICY = "policy"
CRITIC = "critic"
REWARD = "reward"


class Actor(nn.Module):
    """A policy, what it expects to score, and the reference that it must not leave far.

    Args:
        language_model: the policy; it is changed in place.
        value_head: reads values from states; None where no value function is learned.
        critic: a trunk of its own for the value head, in place of the policy's.
        adapters: on the policy's trunk: "policy"; "critic" and "reward", where with these it is the critic's.
        reference: None where it is the policy without adapters.
    """

    language_model: PreTrainedModel

    def __init__(
        self,
        language_model: PreTrainedModel,
        value_head: nn.Linear | None = None,
        critic: PreTrainedModel | None = None,
        adapters: Adapters | None = None,
        reference: PreTrainedModel | None = None,
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.value_head = value_head
        self.critic = critic
        self._adapters = adapters
        self._reference = (reference,)  # not a part of this module: it is neither trained nor saved

    def forward(self, dialogues: Sequence[Dialogue], temperature: float, precision: Precision) -> TokenOutputs:
        """Log-probabilities, entropies and values of all response tokens; in one pass where the trunk is shared.

        The value of a token is read, like its probability, from the state before it. It is 0 without a value function.
        """
        states = response_states(self.language_model, dialogues, precision)
        logits = logits_from(self.language_model, states.hidden) / temperature
        logprobs, entropies = log_probabilities(logits, states.targets)
        values = self._values(states.hidden, dialogues, precision)
        return TokenOutputs(states.by_row(logprobs), states.by_row(entropies), states.by_row(values), states.mask)

    def reference_logprobs(
        self, dialogues: Sequence[Dialogue], temperature: float, precision: Precision
    ) -> list[Tensor]:
        """The reference's log-probabilities, a CPU tensor [response length] a dialogue, without gradients."""
        [reference] = self._reference
        if reference is not None:
            return response_logprobs(reference, dialogues, temperature, precision)
        assert self._adapters is not None, "without a reference there are adapters"
        with self._adapters.using():
            return response_logprobs(self.language_model, dialogues, temperature, precision)

    def trained(self) -> dict[str, nn.Parameter]:
        """By name, all that optimiser steps change."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def policy_parameters(self) -> list[nn.Parameter]:
        """What is trained of the policy; a trunk that the value head shares belongs to it."""
        values = {id(parameter) for parameter in self.value_parameters()}
        return [parameter for parameter in self.trained().values() if id(parameter) not in values]

    def value_parameters(self) -> list[nn.Parameter]:
        """What is trained for values alone."""
        parts = [part for part in (self.critic, self.value_head) if part is not None]
        own = [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]
        return own + (self._adapters.parameters(CRITIC) if self._adapters is not None else [])

    def merge(self) -> PreTrainedModel:
        """The plain policy with its adapters folded in; it is the same object, and this actor is done with."""
        if self._adapters is not None:
            self._adapters.merge(POLICY)
            self._adapters = None
            self.language_model.requires_grad_(True)
        return self.language_model

    def _values(self, hidden: Tensor, dialogues: Sequence[Dialogue], precision: Precision) -> Tensor:
        """The values [tokens], given the policy's states before them [tokens, width]."""
        if self.value_head is None:
            return hidden.new_zeros(len(hidden))
        if self.critic is not None:
            _check_room(self.critic, dialogues)
            hidden = response_states(self.critic, dialogues, precision).hidden
        elif self._adapters is not None and CRITIC in self._adapters.names:
            with self._adapters.using(CRITIC, REWARD):
                hidden = response_states(self.language_model, dialogues, precision).hidden
        values: Tensor = self.value_head(hidden)
        return values.squeeze(-1)


def new_actor(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    critic: PreTrainedModel | None,
    settings: PPOSettings,
    seed: int,
) -> Actor:
    """The models of a run before the first rollout; dropout is off from here on.

    Args:
        policy: changed in place.
        reference: None with adapters, for the policy without them.
        critic: the reward model's classifier, from a copy of which a separate critic starts; None starts it from the
            policy's weights, expecting 0. Not looked at where the settings want no separate critic.
        seed: of the adapters.

    Raises:
        ValueError: if there is no reference, or the critic cannot read what the policy writes.
    """
    if reference is policy:
        raise ValueError("the reference must be a copy: the policy is changed in place")
    if reference is None and settings.lora_rank is None:
        raise ValueError("a policy that changes needs a reference beside it: pass a copy, or set lora_rank")
    is_separate = settings.has_critic and settings.critic == "separate"
    classifier = critic if is_separate else None
    head = None
    if settings.has_critic:
        head = zero_head(policy) if classifier is None else head_of(classifier, policy)
    if settings.lora_rank is not None:
        return _on_frozen_weights(policy, head, classifier, reference, settings, seed)
    policy.eval().requires_grad_(True)
    trunk = None
    if is_separate:
        trunk = copy.deepcopy(policy.base_model) if classifier is None else trunk_of(classifier, policy)
    return Actor(policy, head, trunk, reference=reference)


def _on_frozen_weights(
    policy: PreTrainedModel,
    head: nn.Linear | None,
    classifier: PreTrainedModel | None,
    reference: PreTrainedModel | None,
    settings: PPOSettings,
    seed: int,
) -> Actor:
    """Adapters for all that is learned.

    A separate critic takes no weights of its own where the reward model is the policy plus adapters, as one that was
    fitted so on the policy's base is: they are added as a fixed adapter, with the critic's own beside it.
    """
    assert settings.lora_rank is not None
    policy.eval().requires_grad_(False)
    rewards = None if classifier is None else low_rank_difference(policy.base_model, classifier.base_model, seed)
    trunk = trunk_of(classifier, policy) if classifier is not None and rewards is None else None
    adapters = Adapters(policy.base_model)
    critics = adapters if trunk is None else Adapters(trunk)
    adapters.add(POLICY, settings.lora_rank, settings.lora_alpha, derive_seed(seed, POLICY))
    if head is not None and settings.critic == "separate":
        critics.add(CRITIC, settings.lora_rank, settings.lora_alpha, derive_seed(seed, CRITIC))
    if rewards:
        adapters.add_fixed(REWARD, rewards)
    if all(computes_in_bf16(policy.device, used) for used in (settings.precision, settings.sampling.precision)):
        for own in (adapters, critics):
            own.hold_frozen_in(torch.bfloat16)  # to which every product rounds it anyway
    return Actor(policy, head, trunk, adapters, reference)


def _check_room(critic: PreTrainedModel, dialogues: Sequence[Dialogue]) -> None:
    longest = max(map(len, dialogues))
    if longest_text(critic, longest) < longest:
        raise ValueError(
            f"a dialogue of {longest} tokens does not fit the critic's {longest_text(critic, longest)} positions:"
            ' leave longer prompts out, lower max_new_tokens, or set critic to "shared"'
        )

"""Which weights act, which judge, and which stay as they are? The policy, its value function and the reference."""

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.learning.frozen import hold_in_bf16, share_layers, twin
from worker.learning.likelihood import Dialogue, predictions, response_logprobs, response_states
from worker.learning.lora import Adapters
from worker.learning.low_rank import low_rank_difference
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
        reference: neither trained nor saved.
        value_head: reads values from states; None where no value function is learned.
        critic: a trunk of its own for the value head, in place of the policy's.
        adapters: of the policy, if it learns by these.
    """

    language_model: PreTrainedModel

    def __init__(
        self,
        language_model: PreTrainedModel,
        reference: PreTrainedModel,
        value_head: nn.Linear | None = None,
        critic: PreTrainedModel | None = None,
        adapters: Adapters | None = None,
    ) -> None:
        super().__init__()
        self.language_model = language_model
        self.value_head = value_head
        self.critic = critic
        self._adapters = adapters
        self._reference = (reference,)  # in a tuple it is no part of this module

    def forward(self, dialogues: Sequence[Dialogue], temperature: float, precision: Precision) -> TokenOutputs:
        """Log-probabilities, entropies and values of all response tokens; in one pass where the trunk is shared.

        The value of a token is read, like its probability, from the state before it. It is 0 without a value function.
        """
        states = response_states(self.language_model, dialogues, precision)
        logprobs, entropies = predictions(self.language_model, states, temperature)
        values = self._values(states.hidden, dialogues, precision)
        return TokenOutputs(states.by_row(logprobs), states.by_row(entropies), states.by_row(values), states.mask)

    def reference_logprobs(
        self, dialogues: Sequence[Dialogue], temperature: float, precision: Precision
    ) -> list[Tensor]:
        """The reference's log-probabilities, a CPU tensor [response length] a dialogue, without gradients."""
        [reference] = self._reference
        return response_logprobs(reference, dialogues, temperature, precision)

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
        return [parameter for part in parts for parameter in part.parameters() if parameter.requires_grad]

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
        critic: the reward model's classifier, from which a separate critic starts; its scores stay as they are. None
            starts from the policy's weights, expecting 0. Not looked at where the settings want no separate critic.
        seed: of the adapters.

    Raises:
        ValueError: if there is no reference, or the critic cannot read what the policy writes.
    """
    if reference is policy:
        raise ValueError("the reference must be a copy: the policy is changed in place")
    if reference is None and settings.lora_rank is None:
        raise ValueError("a policy that changes needs a reference beside it: pass a copy, or set lora_rank")
    if reference is not None:
        reference.eval()
    is_separate = settings.has_critic and settings.critic == "separate"
    classifier = critic if is_separate else None
    head = None
    if settings.has_critic:
        head = zero_head(policy) if classifier is None else head_of(classifier, policy)
    if settings.lora_rank is not None:
        return _on_frozen_weights(policy, reference, head, classifier, settings, seed)
    assert reference is not None
    policy.eval().requires_grad_(True)
    trunk = None
    if is_separate:
        trunk = copy.deepcopy(policy.base_model) if classifier is None else trunk_of(classifier, policy)
    return Actor(policy, reference, head, trunk)


def _on_frozen_weights(
    policy: PreTrainedModel,
    reference: PreTrainedModel | None,
    head: nn.Linear | None,
    classifier: PreTrainedModel | None,
    settings: PPOSettings,
    seed: int,
) -> Actor:
    """Adapters for all that is learned; the reference and a critic that knows nothing are the policy's frozen weights.

    Where the reward model is these weights plus adapters, as one that was fitted so on the policy's base is, it and the
    critic that starts from it stand on them too, each with what the reward model had learned as a fixed adapter.
    """
    base = policy.eval().requires_grad_(False).base_model
    standing = [base]
    if reference is None:
        reference = twin(policy)
        standing.append(reference.base_model)
    learned = None
    if classifier is not None and classifier.device == policy.device:
        learned = low_rank_difference(base, classifier.base_model, seed)
    trunk = None
    if classifier is not None and learned is None:
        trunk = trunk_of(classifier, policy)
    elif head is not None and settings.critic == "separate":
        trunk = twin(base)
    if classifier is not None and learned:
        share_layers(classifier.base_model, base, learned)
        Adapters(classifier.base_model).add_fixed(REWARD, learned)
        standing.append(classifier.base_model)
    adapters = _adapted(base, POLICY, settings, seed)
    if trunk is not None:
        critics = _adapted(trunk, CRITIC, settings, seed)
        if learned:
            critics.add_fixed(REWARD, learned)
        standing.append(trunk)
    if all(computes_in_bf16(policy.device, used) for used in (settings.precision, settings.sampling.precision)):
        for model in standing:
            hold_in_bf16(model)
    return Actor(policy, reference, head, trunk, adapters)


def _adapted(trunk: PreTrainedModel, name: str, settings: PPOSettings, seed: int) -> Adapters:
    assert settings.lora_rank is not None
    adapters = Adapters(trunk)
    adapters.add(name, settings.lora_rank, settings.lora_alpha, derive_seed(seed, name))
    return adapters


def _check_room(critic: PreTrainedModel, dialogues: Sequence[Dialogue]) -> None:
    longest = max(map(len, dialogues))
    if longest_text(critic, longest) < longest:
        raise ValueError(
            f"a dialogue of {longest} tokens does not fit the critic's {longest_text(critic, longest)} positions:"
            ' leave longer prompts out, lower max_new_tokens, or set critic to "shared"'
        )

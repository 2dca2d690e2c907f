from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learning.actors import (
    DIALOGUES,
    FULL,
    LORA,
    NAMES,
    VARIANTS,
    actor_of,
    by_dialogue,
    disturb,
    outputs,
    snapshot,
    touched,
)
from worker.learning.likelihood import response_logprobs
from worker.learning.policy.actor import new_actor
from worker.learning.policy.settings import PPOSettings

pytestmark = pytest.mark.learning


# What is there at the start.


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_every_actor_begins_as_the_policy_it_was_made_of_and_expects_nothing(
    tiny_model: Any, settings: PPOSettings
) -> None:
    before = response_logprobs(tiny_model, DIALOGUES, precision="fp32")
    actor = actor_of(tiny_model, settings)
    new = outputs(actor)
    for logprobs, own, reference in zip(
        by_dialogue(new.logprobs, new.mask),
        before,
        actor.reference_logprobs(DIALOGUES, 1.0, "fp32"),
        strict=True,
    ):
        assert torch.equal(logprobs, own)
        assert torch.equal(reference, own)
    assert torch.equal(new.values, torch.zeros_like(new.logprobs))
    assert actor.language_model is tiny_model


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_what_is_trained_belongs_to_the_policy_or_to_the_values(tiny_model: Any, settings: PPOSettings) -> None:
    actor = actor_of(tiny_model, settings)
    policy, values = ({id(weight) for weight in own} for own in (actor.policy_parameters(), actor.value_parameters()))
    assert not policy & values
    assert policy | values == {id(weight) for weight in actor.trained().values()}
    assert bool(values) == settings.has_critic
    again = actor_of(deepcopy(actor.merge()), settings)
    assert list(again.trained()) == list(actor_of(actor.language_model, settings).trained())


# Where gradients flow.


@pytest.mark.parametrize("settings", VARIANTS, ids=NAMES)
def test_the_policys_loss_touches_the_policy_alone(tiny_model: Any, settings: PPOSettings) -> None:
    actor = actor_of(tiny_model, settings)
    disturb(actor.trained().values())
    outputs(actor).logprobs.sum().backward()
    names = {id(weight): name for name, weight in actor.named_parameters()}
    assert touched(actor) == {names[id(weight)] for weight in actor.policy_parameters()}


@pytest.mark.parametrize("settings", [one for one in VARIANTS if one.has_critic])
def test_the_value_loss_touches_the_policy_only_where_they_share_a_trunk(
    tiny_model: Any, settings: PPOSettings
) -> None:
    actor = actor_of(tiny_model, settings)
    disturb(actor.trained().values())
    outputs(actor).values.sum().backward()
    names = {id(weight): name for name, weight in actor.named_parameters()}
    own = {names[id(weight)] for weight in actor.value_parameters()}
    policy = {names[id(weight)] for weight in actor.policy_parameters()}
    assert own <= touched(actor)
    assert touched(actor) - own == (
        policy - {"language_model.lm_head.weight"} if settings.critic == "shared" else set()
    )


def test_both_losses_together_give_each_adapter_its_gradient(tiny_model: Any) -> None:
    """One backward pass through both, as a step of PPO does: what each gives alone."""
    actor = actor_of(tiny_model, replace(LORA, critic="separate"))
    disturb(actor.trained().values())
    alone: dict[str, Tensor] = {}
    for part in ("logprobs", "values"):
        getattr(outputs(actor), part).sum().backward()
        alone |= {name: actor.get_parameter(name).grad.clone() for name in touched(actor)}  # type: ignore[union-attr]
        actor.zero_grad()
    new = outputs(actor)
    (new.logprobs.sum() + new.values.sum()).backward()
    assert touched(actor) == set(alone) == set(actor.trained())
    for name, gradient in alone.items():
        assert torch.allclose(actor.get_parameter(name).grad, gradient, atol=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", VARIANTS[:3], ids=NAMES[:3])
def test_without_adapters_merging_changes_nothing(tiny_model: Any, settings: PPOSettings) -> None:
    actor = actor_of(tiny_model, settings)
    before = snapshot(tiny_model)
    assert actor.merge() is tiny_model
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())


def test_a_policy_without_a_reference_of_its_own_needs_adapters(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="lora_rank"):
        new_actor(tiny_model, None, None, FULL, seed=0)
    with pytest.raises(ValueError, match="must be a copy"):
        new_actor(tiny_model, tiny_model, None, FULL, seed=0)

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from tests.learning.actors import (
    DIALOGUES,
    FULL,
    LORA,
    actor_of,
    by_dialogue,
    disturb,
    outputs,
    snapshot,
    taken,
    touched,
)
from worker.learning.models import load_tokenizer
from worker.learning.policy.critic import check_same_vocabulary
from worker.learning.policy.settings import PPOSettings
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.lora import low_rank_adapters
from worker.learning.reward.model import RewardModel, load_reward_model, new_reward_model, save_reward_model
from worker.learning.reward.observations import AnswerShape
from worker.learning.sampling import SamplingSettings

pytestmark = pytest.mark.learning


@pytest.fixture
def reward_model(tiny_folder: Path) -> RewardModel:
    """On the policy's own base, with trunk weights of its own; making it puts its own attention into the classifier."""
    fitted = new_reward_model(str(tiny_folder), 3, torch.device("cpu"), AnswerShape(), precision="fp32")
    disturb(fitted.model.parameters())
    return fitted


# Value functions.


def test_a_shared_head_reads_the_state_before_each_token(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, FULL)
    assert actor.value_head is not None
    disturb(actor.value_head.parameters())
    new = outputs(actor)
    head, row = actor.value_head, DIALOGUES[0]
    for place in range(len(row.response_ids)):
        read = torch.tensor([[*row.prompt_ids, *row.response_ids[:place]]])
        state = tiny_model.model(input_ids=read).last_hidden_state[0, -1]
        by_hand = (state * head.weight[0]).sum() + head.bias[0]
        assert new.values[0, place].item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert not new.values[1, 2:].any()


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_a_critic_from_a_reward_model_says_its_raw_score_at_every_place(
    tiny_model: Any, reward_model: RewardModel, settings: PPOSettings
) -> None:
    actor = actor_of(tiny_model, replace(settings, critic="separate"), reward_model.model)
    new = outputs(actor)
    values = torch.cat([row[1:] for row in by_dialogue(new.values, new.mask)])
    assert torch.allclose(values, scores(reward_model), atol=1e-5)
    assert values.std().item() > 0.01


@pytest.fixture
def adapted_reward_model(tiny_folder: Path, tmp_path: Path) -> RewardModel:
    """Fitted by adapters on the policy's own base, saved with them merged, and loaded."""
    fitted = new_reward_model(str(tiny_folder), 3, torch.device("cpu"), AnswerShape(), precision="fp32")
    with low_rank_adapters(fitted.model, 3, 6.0, seed=0):
        disturb(weight for weight in fitted.model.parameters() if weight.requires_grad)
    save_reward_model(fitted, tmp_path / "reward")
    return load_reward_model(tmp_path / "reward", torch.device("cpu"), "fp32")


def scores(reward_model: RewardModel) -> Tensor:
    """Raw scores of every beginning of the responses but the empty and the whole one."""
    beginnings = [
        EncodedSet(
            tuple(row.prompt_ids), tuple(tuple(row.response_ids[:place]) for place in range(1, len(row.response_ids)))
        )
        for row in DIALOGUES
    ]
    with torch.no_grad():
        return torch.cat([reward_model.read(reward_model.forward.features([each]))[:, 0] for each in beginnings])


def test_policy_reference_critic_and_reward_model_stand_on_the_same_frozen_weights(
    tiny_model: Any, adapted_reward_model: RewardModel
) -> None:
    before, classifier = scores(adapted_reward_model), adapted_reward_model.model
    base, own = taken(tiny_model), taken(classifier)
    linear = sum(layer.weight.numel() for layer in tiny_model.model.modules() if isinstance(layer, nn.Linear))
    actor = actor_of(tiny_model, replace(LORA, critic="separate"), classifier)
    trained = sum(weight.numel() for weight in actor.trained().values())
    found = sum(weight.numel() for weight in actor.policy_parameters()) * 3 // 4  # of rank 3 instead of 4
    assert taken(actor, classifier) == base + trained + found + (own - linear) + found
    assert torch.allclose(scores(adapted_reward_model), before, atol=1e-4)
    new = outputs(actor)
    assert torch.allclose(torch.cat([row[1:] for row in by_dialogue(new.values, new.mask)]), before, atol=1e-4)


def test_what_the_reward_model_learned_stays_as_it_is(tiny_model: Any, adapted_reward_model: RewardModel) -> None:
    before = scores(adapted_reward_model)
    actor = actor_of(tiny_model, replace(LORA, critic="separate"), adapted_reward_model.model)
    assert not [name for name in actor.trained() if "reward" in name]
    outputs(actor).values.sum().backward()
    assert touched(actor) == {
        name for name in actor.trained() if ".lora_B.critic." in name or name.startswith("value_head")
    }
    disturb(actor.trained().values())
    assert torch.allclose(scores(adapted_reward_model), before, atol=1e-4)
    disturb(actor.merge().parameters())
    assert torch.allclose(scores(adapted_reward_model), before, atol=1e-4)


def test_a_reward_model_on_weights_held_in_bf16_may_still_compute_in_fp32(
    tiny_model: Any, adapted_reward_model: RewardModel
) -> None:
    before = scores(adapted_reward_model)
    bf16 = replace(LORA, critic="separate", precision="bf16", sampling=SamplingSettings(precision="bf16"))
    actor_of(tiny_model, bf16, adapted_reward_model.model)
    after = scores(adapted_reward_model)
    assert not torch.equal(after, before)
    assert torch.allclose(after, before, atol=0.05 * before.std().item())


def test_the_policy_that_is_merged_has_nothing_of_the_reward_model(
    tiny_model: Any, adapted_reward_model: RewardModel
) -> None:
    before = snapshot(tiny_model)
    actor = actor_of(tiny_model, replace(LORA, critic="separate"), adapted_reward_model.model)
    disturb(actor.value_parameters())
    merged = actor.merge().state_dict()
    assert merged.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in merged.items())


@pytest.mark.parametrize("settings", [FULL, LORA], ids=["full", "lora"])
def test_learning_values_leaves_the_reward_model_as_it_was(
    tiny_model: Any, reward_model: RewardModel, settings: PPOSettings
) -> None:
    before, kind = snapshot(reward_model.model), str(reward_model.model)
    actor = actor_of(tiny_model, replace(settings, critic="separate"), reward_model.model)
    disturb(actor.value_parameters())
    assert str(reward_model.model) == kind
    assert all(torch.equal(value, before[name]) for name, value in reward_model.model.state_dict().items())


@pytest.mark.parametrize(
    "settings", [FULL, replace(FULL, critic="separate", estimator="grpo", group_size=2)], ids=["shared", "none"]
)
def test_a_reward_model_is_copied_only_for_a_separate_critic(
    tiny_model: Any, reward_model: RewardModel, settings: PPOSettings
) -> None:
    assert actor_of(tiny_model, settings, reward_model.model).critic is None


# What cannot be.


def sequence_classifier(vocabulary: int) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForSequenceClassification(LlamaConfig(vocab_size=vocabulary, num_labels=1, **sizes)).eval()


def encoder(vocabulary: int) -> Any:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForSequenceClassification(BertConfig(vocab_size=vocabulary, num_labels=1, **sizes)).eval()


def both_ways(vocabulary: int) -> Any:
    """A classifier laid out like a causal one that reads in both directions."""
    classifier = sequence_classifier(vocabulary)
    for layer in classifier.model.layers:
        layer.self_attn.is_causal = False
    classifier.config.is_causal = False
    return classifier


@pytest.mark.parametrize(
    ("critic", "said"),
    [
        (lambda vocabulary: sequence_classifier(vocabulary + 1), "same vocabulary"),
        (encoder, "causal language model"),
        (both_ways, "those after it"),
    ],
    ids=["vocabulary", "encoder", "both ways"],
)
def test_a_critic_that_cannot_read_the_policys_tokens_as_they_come_is_refused(
    tiny_model: Any, critic: Any, said: str
) -> None:
    vocabulary = tiny_model.get_input_embeddings().num_embeddings
    with pytest.raises(ValueError, match=said):
        actor_of(tiny_model, replace(FULL, critic="separate"), critic(vocabulary))


def test_a_smaller_reward_model_of_the_same_vocabulary_will_do(tiny_model: Any) -> None:
    vocabulary = tiny_model.get_input_embeddings().num_embeddings
    actor = actor_of(tiny_model, replace(FULL, critic="separate"), sequence_classifier(vocabulary))
    assert outputs(actor).values.shape == (3, 4)


def test_a_dialogue_longer_than_the_critic_can_read_is_refused(tiny_model: Any) -> None:
    reader = actor_of(tiny_model, replace(FULL, critic="separate"))
    reader.critic.config.max_position_embeddings = 5  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="of 6 tokens does not fit the critic's 5 positions"):
        outputs(reader)


def test_tokenizers_that_number_a_token_differently_are_told_apart(tiny_folder: Path) -> None:
    ours, theirs = load_tokenizer(str(tiny_folder)), load_tokenizer(str(tiny_folder))
    check_same_vocabulary(ours, theirs)
    theirs.add_tokens(["<new>"])
    with pytest.raises(ValueError, match="differ in 1 tokens, '<new>' among them"):
        check_same_vocabulary(ours, theirs)

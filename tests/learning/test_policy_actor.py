from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from worker.learning.likelihood import Dialogue, response_logprobs
from worker.learning.models import load_tokenizer, save_model
from worker.learning.policy.actor import Actor, new_actor
from worker.learning.policy.critic import check_same_vocabulary
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import improve_policy
from worker.learning.records import Prompt
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.lora import low_rank_adapters
from worker.learning.reward.model import RewardModel, load_reward_model, new_reward_model, save_reward_model
from worker.learning.reward.observations import AnswerShape
from worker.learning.sampling import SamplingSettings, sample_responses

pytestmark = pytest.mark.learning

FULL = PPOSettings(precision="fp32")
LORA = replace(FULL, lora_rank=4, lora_alpha=8.0)
DIALOGUES = [Dialogue([3, 4], [5, 6, 7, 1]), Dialogue([8], [9, 1]), Dialogue([10, 11, 12], [13, 14, 15])]
VARIANTS = [
    variant
    for kind in (FULL, LORA)
    for variant in (kind, replace(kind, critic="separate"), replace(kind, estimator="rloo", group_size=2))
]
NAMES = [f"{'lora' if one.lora_rank else 'full'}-{one.critic if one.has_critic else 'none'}" for one in VARIANTS]


@pytest.fixture
def reward_model(tiny_folder: Path) -> RewardModel:
    """On the policy's own base, with trunk weights of its own; making it puts its own attention into the classifier."""
    fitted = new_reward_model(str(tiny_folder), 3, torch.device("cpu"), AnswerShape(), precision="fp32")
    disturb(fitted.model.parameters())
    return fitted


def disturb(parameters: Any) -> None:
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def actor_of(policy: Any, settings: PPOSettings, critic: Any = None, reference: Any = None) -> Actor:
    if reference is None and settings.lora_rank is None:
        reference = deepcopy(policy)
    return new_actor(policy, reference, critic, settings, seed=0)


def outputs(actor: Actor) -> Any:
    return actor(DIALOGUES, 1.0, "fp32")


def touched(actor: Actor) -> set[str]:
    return {name for name, weight in actor.named_parameters() if weight.grad is not None and bool(weight.grad.any())}


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def by_dialogue(table: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[kept].detach() for row, kept in zip(table, mask, strict=True)]


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


# Adapters.


def test_the_reference_is_the_base_to_the_bit_whatever_the_adapters_learned(tiny_model: Any) -> None:
    base = snapshot(tiny_model)
    before = response_logprobs(tiny_model, DIALOGUES, precision="fp32")
    actor = actor_of(tiny_model, replace(LORA, critic="separate"))
    disturb(actor.trained().values())
    assert not torch.equal(response_logprobs(tiny_model, DIALOGUES, precision="fp32")[0], before[0])
    for reference, own in zip(actor.reference_logprobs(DIALOGUES, 1.0, "fp32"), before, strict=True):
        assert torch.equal(reference, own)
    trained = {id(weight) for weight in actor.trained().values()}
    frozen = {
        name.replace(".base_layer", ""): weight
        for name, weight in tiny_model.named_parameters()
        if id(weight) not in trained
    }
    assert frozen.keys() == base.keys()
    assert all(torch.equal(weight, base[name]) for name, weight in frozen.items())


def test_a_reference_that_is_given_is_used_beside_adapters_too(tiny_model: Any) -> None:
    other = deepcopy(tiny_model)
    disturb(other.parameters())
    actor = actor_of(tiny_model, LORA, reference=other)
    expected = response_logprobs(other, DIALOGUES, precision="fp32")
    assert all(map(torch.equal, actor.reference_logprobs(DIALOGUES, 1.0, "fp32"), expected))
    assert not any(weight is mine for weight in other.parameters() for mine in actor.parameters())


def test_a_second_adapter_reads_values_that_the_policys_own_does_not_change(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, replace(LORA, critic="separate"))
    disturb(actor.value_parameters())
    values = outputs(actor).values
    disturb(actor.policy_parameters())
    new = outputs(actor)
    assert torch.equal(new.values, values)
    disturb(actor.value_parameters())
    later = outputs(actor)
    assert torch.equal(later.logprobs, new.logprobs)
    assert not torch.equal(later.values, values)


def test_adapters_stand_on_every_linear_layer_but_the_output(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, LORA)
    assert len(actor.policy_parameters()) == 2 * 7 * 2  # A and B for seven matrices in each of two layers
    assert not [name for name in actor.trained() if "lm_head" in name or "embed" in name]


def test_the_reference_takes_no_weights_of_its_own(tiny_model: Any) -> None:
    actor = actor_of(tiny_model, LORA)
    adapted = sum(weight.numel() for weight in actor.trained().values())
    [reference] = actor._reference
    assert reference is not tiny_model
    assert taken(actor, reference) == taken(reference) + adapted


def test_adapters_are_the_same_from_the_same_seed(tiny_model: Any) -> None:
    first, second, other = (new_actor(deepcopy(tiny_model), None, None, LORA, seed).trained() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# Merging.


def tied_llama() -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True)).eval()


def gpt2() -> Any:
    """Its layers are of another kind than nn.Linear, and its embeddings are tied."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=19, n_embd=32, n_layer=2, n_head=4, n_positions=32)).eval()


@pytest.fixture(params=["untied", "tied", "gpt2"])
def any_model(request: pytest.FixtureRequest, tiny_model: Any) -> Any:
    return {"untied": lambda: tiny_model, "tied": tied_llama, "gpt2": gpt2}[request.param]()


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_merging_leaves_a_plain_model_that_says_the_same(
    any_model: Any, critic: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    names, kind = set(any_model.state_dict()), str(any_model)
    embeddings = any_model.get_input_embeddings().weight.clone()
    actor = actor_of(any_model, replace(LORA, critic=critic))
    disturb(actor.trained().values())
    adapted = response_logprobs(any_model, DIALOGUES, precision="fp32")
    merged = actor.merge()
    assert merged is any_model
    assert set(merged.state_dict()) == names
    assert str(merged) == kind
    assert torch.equal(merged.get_input_embeddings().weight, embeddings)
    assert all(weight.requires_grad for weight in merged.parameters())
    save_model(merged, tiny_tokenizer, tmp_path / "merged")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    for model in (merged, loaded):
        for own, expected in zip(response_logprobs(model, DIALOGUES, precision="fp32"), adapted, strict=True):
            assert torch.allclose(own, expected, atol=1e-4)
    again = actor_of(merged, LORA)
    assert torch.allclose(outputs(again).logprobs[0], adapted[0], atol=1e-4)


@pytest.mark.parametrize("settings", VARIANTS[:3], ids=NAMES[:3])
def test_without_adapters_merging_changes_nothing(tiny_model: Any, settings: PPOSettings) -> None:
    actor = actor_of(tiny_model, settings)
    before = snapshot(tiny_model)
    assert actor.merge() is tiny_model
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())


def test_in_bf16_the_frozen_weights_take_half_the_memory_and_nothing_else_changes(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    halved = replace(
        LORA, critic="separate", precision="bf16", sampling=SamplingSettings(max_new_tokens=4, precision="bf16")
    )
    whole = replace(halved, sampling=SamplingSettings(max_new_tokens=4, precision="fp32"))
    small, large = (actor_of(deepcopy(tiny_model), settings) for settings in (halved, whole))
    for actor in (small, large):
        disturb(actor.trained().values())
    linear = tiny_model.model.layers[0].mlp.up_proj.weight
    assert small.language_model.model.layers[0].mlp.up_proj.weight.nbytes == linear.nbytes / 2
    assert {weight.dtype for weight in small.trained().values()} == {torch.float32}
    ours, theirs = (actor(DIALOGUES, 1.0, "bf16") for actor in (small, large))
    assert torch.equal(ours.logprobs, theirs.logprobs)
    assert torch.equal(ours.values, theirs.values)
    prompt: Prompt = ({"role": "user", "content": "the cat"},)
    drawn = [
        sample_responses(actor.language_model, tiny_tokenizer, [prompt], 3, halved.sampling, seed=1)
        for actor in (small, large)
    ]
    assert drawn[0] == drawn[1]
    merged = small.merge()
    assert {weight.dtype for weight in merged.parameters()} == {torch.float32}
    expected = large.merge().model.layers[0].mlp.up_proj.weight
    assert torch.allclose(merged.model.layers[0].mlp.up_proj.weight, expected, atol=2**-8 * linear.abs().max().item())


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


def taken(*models: nn.Module) -> int:
    """Numbers in memory, those that models share once."""
    return sum({weight.data_ptr(): weight.numel() for model in models for weight in model.parameters()}.values())


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


def test_a_policy_without_a_reference_of_its_own_needs_adapters(tiny_model: Any) -> None:
    with pytest.raises(ValueError, match="lora_rank"):
        new_actor(tiny_model, None, None, FULL, seed=0)
    with pytest.raises(ValueError, match="must be a copy"):
        new_actor(tiny_model, tiny_model, None, FULL, seed=0)


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


# In a run.


@pytest.mark.parametrize(
    "variant",
    [{}, {"critic": "separate"}, {"estimator": "rloo", "group_size": 4}],
    ids=["shared", "separate", "none"],
)
def test_adapters_learn_a_planted_reward(tiny_model: Any, tiny_tokenizer: Any, variant: dict[str, Any]) -> None:
    """Nothing but adapters moves, and what is left in the end is a plain model that does it."""
    config = deepcopy(tiny_model.config)
    config.initializer_range = 0.15  # else the output layer, which is frozen too, tells no word from another
    torch.manual_seed(0)
    policy: Any = LlamaForCausalLM(config).eval()
    before = snapshot(policy)
    prompts: list[Prompt] = [({"role": "user", "content": text},) for text in ("the cat", "rain and sun", "small")]

    def count_good(prompts: Any, responses: Any) -> Tensor:
        return torch.tensor([float(response.split().count("good")) for response in responses])

    settings = replace(
        LORA,
        lora_alpha=32.0,
        episodes=320,
        batch_episodes=64,
        learning_rate=1e-2,
        kl_coefficient=0.02,
        sampling=SamplingSettings(max_new_tokens=10),
        **variant,
    )
    improved = improve_policy(policy, None, tiny_tokenizer, count_good, prompts, settings, seed=0)
    scores = [row["objective/scores"] for row in improved.metrics]
    assert scores[-1] > scores[0] + 1
    assert improved.policy is policy
    changed = {name for name, value in policy.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "_proj" in name}
    assert policy.state_dict().keys() == before.keys()

"""What does a value function begin with? Nothing known, or what the reward model knows."""

import copy

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.reward.backbone import head_parameters, output_layer


def zero_head(policy: PreTrainedModel) -> nn.Linear:
    """A value head for the policy's states that says 0 of each, as in lm-human-preferences."""
    head = nn.Linear(policy.get_output_embeddings().in_features, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head.to(policy.device)


def check_classifier(classifier: PreTrainedModel, policy: PreTrainedModel) -> None:
    """Whether a value function of the policy's tokens can start from a reward model's classifier.

    Raises:
        ValueError: if it has another vocabulary, or no score that is read from one state.
    """
    name = type(classifier).__name__
    theirs, ours = (model.get_input_embeddings().num_embeddings for model in (classifier, policy))
    if theirs != ours:
        raise ValueError(
            f"{name} knows {theirs} tokens and the policy {ours}: a value function that starts from a reward model"
            " reads the policy's tokens, so both need the same vocabulary. Fit the reward model on the policy's base"
            ' model, or set critic to "shared"'
        )
    own = {id(parameter) for parameter in output_layer(classifier).parameters()}
    if classifier.config.is_encoder_decoder or {id(parameter) for parameter in head_parameters(classifier)} - own:
        raise _unusable(classifier, "has more between its trunk and its score than one layer")


def head_of(classifier: PreTrainedModel, policy: PreTrainedModel) -> nn.Linear:
    """A copy of a reward model's output layer as the value head: at the end of a text the value is the raw score.

    Raises:
        ValueError: as `check_classifier`.
    """
    check_classifier(classifier, policy)
    layer = output_layer(classifier)
    head = nn.Linear(layer.in_features, 1).to(policy.device)
    with torch.no_grad():
        head.weight.copy_(layer.weight)
        head.bias.copy_(layer.bias if layer.bias is not None else torch.zeros(1))
    return head


def trunk_of(classifier: PreTrainedModel, policy: PreTrainedModel) -> PreTrainedModel:
    """A copy of a classifier's trunk, for what is learned not to change the reward.

    Raises:
        ValueError: if it cannot read a text that is still being written.
    """
    trunk: PreTrainedModel = copy.deepcopy(classifier.base_model).to(policy.device).eval()
    trunk.set_attn_implementation(policy.config._attn_implementation)  # scoring may have changed it to its own
    if _sees_ahead(trunk):
        raise _unusable(classifier, "is an encoder: it reads a token together with those after it")
    return trunk.requires_grad_(True)


def check_same_vocabulary(policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase) -> None:
    """Whether a reward model can say what a policy's tokens are worth.

    Raises:
        ValueError: if some token has another number in the other's vocabulary.
    """
    ours, theirs = policy.get_vocab(), critic.get_vocab()
    different = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if different:
        raise ValueError(
            f"the reward model's tokenizer and the policy's differ in {len(different)} tokens, {different[0]!r} among"
            " them: a value function that starts from it reads the policy's tokens. Fit the reward model on the"
            ' policy\'s base model, or set critic to "shared"'
        )


def _unusable(classifier: PreTrainedModel, reason: str) -> ValueError:
    return ValueError(
        f"no value function can start from {type(classifier).__name__}: it {reason}. Fit a reward model on a causal"
        ' language model, or set critic to "shared"'
    )


@torch.no_grad()
def _sees_ahead(trunk: PreTrainedModel) -> bool:
    """Whether the state of a token changes with the token after it."""
    ids = torch.tensor([[0, 1], [0, 2]], device=trunk.device)
    first, second = trunk(input_ids=ids).last_hidden_state[:, 0].float()
    return not torch.allclose(first, second, rtol=1e-3, atol=1e-3)

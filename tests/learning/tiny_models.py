"""Which sizes do small random models of the families of transformers have, and how are they made?"""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

VOCABULARY, PAD, END, BEGIN = 64, 0, 1, 2
TOKENS: dict[str, Any] = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END}
PLAIN = TOKENS | {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
GROUPED = PLAIN | {"num_key_value_heads": 2}
OLD = TOKENS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
JAMBA = GROUPED | {
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 4,
}


def language_model(family: str, settings: dict[str, Any], **more: Any) -> PreTrainedModel:
    """With a head that predicts tokens."""
    return _tiny(AutoModelForCausalLM, family, settings, **more)


def classifier(family: str, settings: dict[str, Any], **more: Any) -> PreTrainedModel:
    """With a head of one output, as a reward model has."""
    return _tiny(AutoModelForSequenceClassification, family, settings | {"num_labels": 1}, **more)


def _tiny(kind: Any, family: str, settings: dict[str, Any], **more: Any) -> PreTrainedModel:
    """The larger weights make every path through the model matter."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**settings, initializer_range=0.2)
    model: PreTrainedModel = kind.from_config(config, **more)
    return model.eval()

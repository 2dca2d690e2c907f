"""How does a language model come about? Pretraining on documents, then supervised fine-tuning on pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.corpus import Pair, encode_document, encode_pair, is_held_out, train_tokenizer
from worker.learning.models import load_language_model, load_tokenizer, pick_device
from worker.learning.packing import LearningSequence
from worker.learning.progress import Report, silent
from worker.learning.seeds import derive_seed
from worker.learning.training import Training, TrainingSettings, train

FINE_TUNING = TrainingSettings(epochs=2, learning_rate=2e-5)
"""How a model that can speak already is taught, unless somebody chooses otherwise."""


@dataclass(frozen=True)
class ModelShape:
    """A Llama-shaped model (Touvron et al. 2023) with tied embeddings; the defaults give 2.8 M parameters."""

    vocabulary: int = 3_072
    """Tokens of the byte-level BPE vocabulary, pad and end token included."""
    context: int = 512
    """The most tokens the model sees at once; longer documents are cut into windows."""
    hidden_size: int = 224
    """Width of the residual stream."""
    layers: int = 4
    """Blocks of attention and feed-forward."""
    heads: int = 7
    """Attention heads; they share the width."""
    intermediate_size: int = 480
    """Width of the gated feed-forward."""

    def __post_init__(self) -> None:
        if self.hidden_size % (2 * self.heads):
            raise ValueError(f"hidden_size {self.hidden_size} must be an even multiple of heads {self.heads}")


@dataclass(frozen=True)
class TrainedModel:
    """A model, its tokenizer, and how the training went.

    `history` has a row for each epoch: `epoch`, `loss` and, where anything was held out,
    `held_out_loss`, both in nats a learned token. The weights are those of `best_epoch`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0

    @property
    def held_out_loss(self) -> float | None:
        """Nats a learned token of the held-out sequences, of the weights that were kept."""
        return self.history[self.best_epoch - 1].get("held_out_loss")


def pretrain(
    documents: Sequence[str],
    shape: ModelShape,
    settings: TrainingSettings,
    seed: int,
    report: Report = silent,
    checkpoints: Path | None = None,
    device: torch.device | None = None,
) -> TrainedModel:
    """Trains a byte-level BPE tokenizer and a Llama-shaped model on documents, from nothing.

    Every document ends with the end token. Documents share rows but never see each other. With a
    folder for `checkpoints`, a training that was stopped goes on from there, to the same bits.

    Raises:
        ValueError: if too few documents are left to train on, or the checkpoints belong to
            another training.
    """
    held_out = [document for document in documents if is_held_out(document, settings.held_out_share)]
    taught = [document for document in documents if not is_held_out(document, settings.held_out_share)]
    if not taught:
        raise ValueError("no document is left to train on: give more documents or lower held_out_share")
    tokenizer = train_tokenizer(taught, shape.vocabulary, shape.context)
    model = new_language_model(shape, tokenizer, seed).to(device or pick_device())
    sequences, checked = (
        [sequence for document in group for sequence in encode_document(tokenizer, document, shape.context)]
        for group in (taught, held_out)
    )
    training = Training("pretrain", model, sequences, checked, shape.context, settings, seed)
    history, best = train(training, report, checkpoints)
    return TrainedModel(model, tokenizer, history, best)


def finetune(
    source: str,
    pairs: Sequence[Pair],
    settings: TrainingSettings,
    seed: int,
    report: Report = silent,
    checkpoints: Path | None = None,
    device: torch.device | None = None,
) -> TrainedModel:
    """Supervised fine-tuning: the model learns the responses and to end them, not the prompts.

    As the first step of Ouyang et al. 2022. The loss is the mean over all learned tokens of a
    step, so long responses weigh more than short ones.

    Raises:
        ValueError: if no pair is left to train on, a pair does not fit the context, or the
            checkpoints belong to another training.
    """
    tokenizer = load_tokenizer(source)
    model = load_language_model(source, device)
    context = context_of(model.config)
    sequences: list[LearningSequence] = []
    checked: list[LearningSequence] = []
    for number, pair in enumerate(pairs, start=1):
        try:
            sequence = encode_pair(tokenizer, pair, context)
        except ValueError as error:
            raise ValueError(f"pair {number}: {error}") from error
        (checked if is_held_out(pair.group, settings.held_out_share) else sequences).append(sequence)
    if not sequences:
        raise ValueError("no pair is left to train on: give more pairs or lower held_out_share")
    columns = min(context, max(512, *(len(sequence) for sequence in (*sequences, *checked))))
    training = Training("sft", model, sequences, checked, columns, settings, seed)
    history, best = train(training, report, checkpoints)
    return TrainedModel(model, tokenizer, history, best)


def context_of(config: PretrainedConfig) -> int:
    """The most tokens that a model sees at once; 2,048 where it names no limit."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2_048)


def new_language_model(shape: ModelShape, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """A Llama-shaped model with fresh weights from N(0, 0.02)."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():  # transformers draws weights from the global generator alone
        torch.manual_seed(derive_seed(seed, "weights"))
        return LlamaForCausalLM(config).eval()

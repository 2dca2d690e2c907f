"""How is a language model made from files alone? `prefloop pretrain` and `prefloop sft`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import torch

from worker.commands.outputs import reserved
from worker.commands.terminal import FILE, FOLDER, clear_errors, console, option, progress_bar
from worker.learning.checkpoints import remove_states
from worker.learning.corpus import read_documents, read_pairs
from worker.learning.language_model import FINE_TUNING, ModelShape, TrainedModel
from worker.learning.language_model import finetune as finetune_model
from worker.learning.language_model import pretrain as pretrain_model
from worker.learning.models import check_source, count_parameters, pick_device, save_model
from worker.learning.training import TrainingSettings


def _training_options(epochs: int, optimiser: str, learning_rate: float) -> list[click.Parameter]:
    """The options that pretraining and fine-tuning share, with the defaults in which they differ."""
    settings = TrainingSettings
    return [
        click.Option(["--out"], required=True, type=FOLDER, help="Folder for the model; replaced if it exists."),
        option("--epochs", epochs, "Passes over the data, at most; the best by held-out loss is kept."),
        option("--optimiser", optimiser, "Muon learns faster from nothing, AdamW fine-tunes.", ["adamw", "muon"]),
        option("--learning-rate", learning_rate, "At its highest; it falls to 0."),
        option("--batch-tokens", settings.batch_tokens, "Tokens an optimiser step."),
        option("--micro-batch-tokens", settings.micro_batch_tokens, "Tokens a forward pass: lower if memory is short."),
        option("--weight-decay", settings.weight_decay, "Decay of matrices."),
        option("--held-out-share", settings.held_out_share, "Share of the data that is never trained on."),
        option("--seed", 1, "Of the weights and the order."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
        option("--precision", "auto", "auto is bf16 where the hardware has it.", ["auto", "fp32", "bf16"]),
        option("--weights", "fp32", "Of the file: bf16 is half the size.", ["fp32", "bf16"]),
    ]


@click.command(
    params=[
        option("--vocabulary", ModelShape.vocabulary, "Tokens of the byte-level BPE vocabulary."),
        option("--context", ModelShape.context, "Most tokens seen at once."),
        option("--hidden-size", ModelShape.hidden_size, "Width of the model."),
        option("--layers", ModelShape.layers, "Number of blocks."),
        option("--heads", ModelShape.heads, "Attention heads a block."),
        option("--intermediate-size", ModelShape.intermediate_size, "Width of the feed-forward."),
        *_training_options(epochs=8, optimiser="muon", learning_rate=4e-3),
    ],
    epilog="""\b
Examples:
  prefloop pretrain stories.txt --out models/base
  prefloop pretrain a.txt b.txt --out models/tiny --layers 2 --hidden-size 128 --heads 4 --epochs 3
""",
)
@click.argument("corpus", nargs=-1, required=True, type=FILE)
def pretrain(
    corpus: tuple[Path, ...],
    out: Path,
    vocabulary: int,
    context: int,
    hidden_size: int,
    layers: int,
    heads: int,
    intermediate_size: int,
    **options: Any,
) -> None:
    """Train a tokenizer and a small language model on text, from nothing.

    CORPUS are UTF-8 text files with <|endoftext|> between the documents. Stop it at any time: the same command goes on
    from its last checkpoint, kept beside OUT until the model is written.
    """
    with clear_errors(), _reserved(out) as checkpoints:
        documents = read_documents(corpus)
        shape = ModelShape(vocabulary, context, hidden_size, layers, heads, intermediate_size)
        _learn(out, checkpoints, options, lambda *rest: pretrain_model(documents, shape, *rest))


@click.command(
    params=_training_options(FINE_TUNING.epochs, FINE_TUNING.optimiser, FINE_TUNING.learning_rate),
    epilog="""\b
Examples:
  prefloop sft models/base pairs.jsonl --out models/chat
  prefloop sft Qwen/Qwen3-0.6B pairs.jsonl --out models/mine --epochs 1 --device cuda
""",
)
@click.argument("model")
@click.argument("pairs", type=FILE)
def sft(model: str, pairs: Path, out: Path, **options: Any) -> None:
    """Fine-tune a language model on prompts and responses.

    MODEL is a folder or a Hugging Face name. PAIRS is a file of JSON lines with "prompt" (a text, or a list of
    messages) and "response"; only the responses, and to end them, are learned. Stopped, the same command goes on.
    """
    with clear_errors(), _reserved(out) as checkpoints:
        check_source(model)
        rows = read_pairs(pairs)
        _learn(out, checkpoints, options, lambda *rest: finetune_model(model, rows, *rest))


def _reserved(out: Path) -> AbstractContextManager[Path]:
    return reserved(out, "config.json", "a language model")


def _learn(out: Path, checkpoints: Path, options: dict[str, Any], training: Callable[..., TrainedModel]) -> None:
    """Runs a training with a progress bar and writes the model; the checkpoints go once it is there."""
    seed, device = options.pop("seed"), pick_device(options.pop("device"))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.pop("weights")]
    settings = TrainingSettings(**options)
    with progress_bar() as report:
        trained = training(settings, seed, report, checkpoints, device)
    save_model(trained.model, trained.tokenizer, out, dtype)
    remove_states(checkpoints)
    console.print(f"[bold]{out}[/bold]: {count_parameters(trained.model):,} parameters, epoch {trained.best_epoch}")
    if trained.held_out_loss is not None:
        console.print(f"held-out loss {trained.held_out_loss:.4f} nats a token")

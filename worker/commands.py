"""Which learning steps run from files alone, without a server? `prefloop pretrain` and `prefloop sft`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from transformers.utils import logging as transformers_logging

from worker.learning.checkpoints import remove_states
from worker.learning.corpus import read_documents, read_pairs
from worker.learning.language_model import ModelShape, TrainedModel
from worker.learning.language_model import finetune as finetune_model
from worker.learning.language_model import pretrain as pretrain_model
from worker.learning.models import count_parameters, pick_device, save_model
from worker.learning.progress import Progress, Report
from worker.learning.training import TrainingSettings

console = Console(stderr=True)

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_folder = click.Path(file_okay=False, path_type=Path)


def _training_options(epochs: int, optimiser: str, learning_rate: float) -> list[click.Parameter]:
    """The options that pretraining and fine-tuning share, with the defaults in which they differ."""
    settings = TrainingSettings
    return [
        click.Option(["--out"], required=True, type=_folder, help="Folder for the model; replaced if it exists."),
        _option("--epochs", epochs, "Passes over the data, at most; the best by held-out loss is kept."),
        _option("--optimiser", optimiser, "Muon learns faster from nothing, AdamW fine-tunes.", ["adamw", "muon"]),
        _option("--learning-rate", learning_rate, "At its highest; it falls to 0."),
        _option("--batch-tokens", settings.batch_tokens, "Tokens an optimiser step."),
        _option(
            "--micro-batch-tokens", settings.micro_batch_tokens, "Tokens a forward pass: lower if memory is short."
        ),
        _option("--weight-decay", settings.weight_decay, "Decay of matrices."),
        _option("--held-out-share", settings.held_out_share, "Share of the data that is never trained on."),
        _option("--seed", 1, "Of the weights and the order."),
        _option("--device", "auto", "auto, cpu, cuda or cuda:1."),
        _option("--precision", "auto", "auto is bf16 where the hardware has it.", ["auto", "fp32", "bf16"]),
        _option("--weights", "fp32", "Of the file: bf16 is half the size.", ["fp32", "bf16"]),
    ]


def _option(name: str, default: float | str, text: str, choices: list[str] | None = None) -> click.Option:
    kind = click.Choice(choices) if choices else None
    return click.Option([name], default=default, show_default=True, help=text, type=kind)


@click.command(
    params=[
        _option("--vocabulary", ModelShape.vocabulary, "Tokens of the byte-level BPE vocabulary."),
        _option("--context", ModelShape.context, "Most tokens seen at once."),
        _option("--hidden-size", ModelShape.hidden_size, "Width of the model."),
        _option("--layers", ModelShape.layers, "Number of blocks."),
        _option("--heads", ModelShape.heads, "Attention heads a block."),
        _option("--intermediate-size", ModelShape.intermediate_size, "Width of the feed-forward."),
        *_training_options(epochs=8, optimiser="muon", learning_rate=4e-3),
    ],
    epilog="""\b
Examples:
  prefloop pretrain stories.txt --out models/base
  prefloop pretrain a.txt b.txt --out models/tiny --layers 2 --hidden-size 128 --heads 4 --epochs 3
""",
)
@click.argument("corpus", nargs=-1, required=True, type=_file)
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
    with _clear_errors():
        documents = read_documents(corpus)
        shape = ModelShape(vocabulary, context, hidden_size, layers, heads, intermediate_size)
        _learn(out, options, lambda *rest: pretrain_model(documents, shape, *rest))


@click.command(
    params=_training_options(epochs=2, optimiser="adamw", learning_rate=2e-5),
    epilog="""\b
Examples:
  prefloop sft models/base pairs.jsonl --out models/chat
  prefloop sft Qwen/Qwen3-0.6B pairs.jsonl --out models/mine --epochs 1 --device cuda
""",
)
@click.argument("model")
@click.argument("pairs", type=_file)
def sft(model: str, pairs: Path, out: Path, **options: Any) -> None:
    """Fine-tune a language model on prompts and responses.

    MODEL is a folder or a Hugging Face name. PAIRS is a file of JSON lines with "prompt" (a text, or a list of
    messages) and "response"; only the responses, and to end them, are learned. Stopped, the same command goes on.
    """
    with _clear_errors():
        rows = read_pairs(pairs)
        _learn(out, options, lambda *rest: finetune_model(model, rows, *rest))


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Bad input ends with its own sentence, a keyboard interrupt with what to do next."""
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException(
            "stopped; the same command goes on from its last checkpoint (one a minute)"
        ) from None


def _learn(out: Path, options: dict[str, Any], training: Callable[..., TrainedModel]) -> None:
    """Runs a training with a progress bar and writes the model; the checkpoints go once it is there."""
    seed, device = options.pop("seed"), pick_device(options.pop("device"))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.pop("weights")]
    settings = TrainingSettings(**options)
    checkpoints = out.with_name(f"{out.name}.checkpoints")
    transformers_logging.disable_progress_bar()  # it would break ours
    with _progress_bar() as report:
        trained = training(settings, seed, report, checkpoints, device)
    save_model(trained.model, trained.tokenizer, out, dtype)
    remove_states(checkpoints)
    console.print(f"[bold]{out}[/bold]: {count_parameters(trained.model):,} parameters, epoch {trained.best_epoch}")
    if trained.held_out_loss is not None:
        console.print(f"held-out loss {trained.held_out_loss:.4f} nats a token")


@contextmanager
def _progress_bar() -> Iterator[Report]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with ProgressBar(*columns, console=console) as bar:
        task = bar.add_task("reading", total=None, metrics="")
        shown: dict[str, float] = {}

        def report(progress: Progress) -> None:
            shown.update(progress.metrics)
            metrics = "  ".join(f"{name} {shown[name]:.3f}" for name in ("loss", "held_out_loss") if name in shown)
            bar.update(task, description=progress.phase, total=progress.total, completed=progress.done, metrics=metrics)

        yield report


learning_commands: list[click.Command] = [pretrain, sft]

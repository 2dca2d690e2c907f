"""How does a command of learning speak to a person? Options, errors and a progress bar, on standard error."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from worker.learning.progress import Progress, Report

console = Console(stderr=True)

SLOWEST = 24 * 3600.0
"""Seconds of which the rate of steps is estimated, and with it the end: as many as a few slow steps may take."""

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def option(name: str, default: float | str, text: str, choices: list[str] | None = None) -> click.Option:
    """An option with a default that its help shows."""
    kind = click.Choice(choices) if choices else None
    return click.Option([name], default=default, show_default=True, help=text, type=kind)


@contextmanager
def clear_errors(stopped: str = "the same command goes on from its last checkpoint (one a minute)") -> Iterator[None]:
    """Bad input ends with its own sentence; an interrupt, or a disk that fails, also says what is left of the work.

    The libraries' own bars and notes on loading are kept away: they would break our bar.
    """
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        raise  # whoever read our output wants no more of it: click ends without a word
    except (OSError, SafetensorError) as error:
        raise click.ClickException(f"{_reason(error)}; {stopped}") from error
    except KeyboardInterrupt:
        raise click.ClickException(f"stopped; {stopped}") from None


def _reason(error: OSError | SafetensorError) -> str:
    """What the system says of a file, and its name where it is known."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    name = error.filename2 or error.filename
    return f"{name}: {error.strerror}" if name else error.strerror


LEARNING = {"loss": "loss", "accuracy": "accuracy", "held_out_loss": "held_out_loss"}


@contextmanager
def progress_bar(figures: Mapping[str, str] = LEARNING) -> Iterator[Report]:
    """Gives a callback that moves a bar with the figures that learning reports: those named here, and their labels."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[metrics]}"),
    )
    with ProgressBar(*columns, console=console, speed_estimate_period=SLOWEST) as bar:
        task = bar.add_task("reading", total=None, metrics="")
        shown: dict[str, float] = {}

        def report(progress: Progress) -> None:
            shown.update(progress.metrics)
            metrics = "  ".join(f"{label} {shown[name]:.3f}" for name, label in figures.items() if name in shown)
            bar.update(task, description=progress.phase, total=progress.total, completed=progress.done, metrics=metrics)

        yield report

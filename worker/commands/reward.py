"""How good a reward model do labels make, without a server? `prefloop reward fit`, `score` and `evaluate`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from worker.commands.outputs import reserved
from worker.commands.settings import read_settings
from worker.commands.terminal import FILE, FOLDER, clear_errors, console, option, progress_bar
from worker.learning.checkpoints import remove_states
from worker.learning.models import Precision, check_source, pick_device
from worker.learning.reward.card import reward_card
from worker.learning.reward.curve import reward_learning_curve
from worker.learning.reward.files import labels_of, read_lines, score_file
from worker.learning.reward.fitting import RewardSettings, fit_reward_model
from worker.learning.reward.model import (
    REWARD_FACTS,
    RewardModel,
    load_reward_model,
    normalise,
    read_scores,
    save_reward_model,
)
from worker.learning.reward.reference import some_of, whole_reference
from worker.learning.reward.scales import on_common_scales
from worker.learning.reward.splits import Sides, read_sides

PRECISIONS = ["auto", "fp32", "bf16"]
OF_SEVERAL_FITS = ("1-fresh", "1-warm", "k-1-fresh", "k-1-warm", "fit-[0-9]*", "curve-[0-9]*")
"""The folders among the checkpoints where several ways are tried, fits averaged, or a learning curve drawn."""


@click.group()
def reward() -> None:
    """Fit reward models on files of labels, score responses with them, and measure them.

    The files are JSON Lines: rankings, or pairs as TRL has them. docs/reward.md says all that a line may hold.
    """


@reward.command(
    params=[
        click.Option(["--data"], required=True, type=FILE, help="Labels: JSON Lines, plain or gzipped."),
        click.Option(["--backbone"], required=True, help="Pretrained model: a folder, or a Hugging Face name."),
        click.Option(["--out"], required=True, type=FOLDER, help="Folder for the reward model; replaced if it exists."),
        click.Option(["--settings"], type=FILE, help="How to fit: a JSON object, or TOML, of settings by name."),
        click.Option(["--set", "changes"], multiple=True, metavar="NAME=VALUE", help="One setting, over the file's."),
        click.Option(["--validation"], type=FILE, help="Labels to choose the epoch and calibrate by."),
        click.Option(
            ["--held-out-share"],
            type=click.FloatRange(0, 1, max_open=True),
            help="Of the prompts, to choose by where no file or line says which.  [default: 0.1 from 20 prompts on]",
        ),
        click.Option(["--reference"], type=FILE, help="Prompts with responses that give scores their zero and unit."),
        click.Option(["--start"], type=FOLDER, help="Earlier reward model to go on from, in place of the backbone."),
        click.Option(["--learning-curve", "curve"], is_flag=True, help="Also fit on 1/8, 1/4 and 1/2 of the labels."),
        click.Option(["--only-good-rows"], is_flag=True, help="Leave out lines that cannot be read."),
        option("--seed", 1, "Of the head and the order."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
    ],
    epilog="""\b
Examples:
  prefloop reward fit --data labels.jsonl --backbone Qwen/Qwen3-0.6B --out models/reward
  prefloop reward fit --data labels.jsonl --backbone models/base --out models/reward --set epochs=2
""",
)
def fit(
    data: Path,
    backbone: str,
    out: Path,
    settings: Path | None,
    changes: tuple[str, ...],
    validation: Path | None,
    held_out_share: float | None,
    reference: Path | None,
    start: Path | None,
    curve: bool,
    only_good_rows: bool,
    seed: int,
    device: str,
) -> None:
    """Fit a reward model on labels.

    A line may name its "split": train lines teach, validation ones choose, test ones measure. Stop it at any time: the
    same command goes on from its last checkpoint, kept beside OUT until the model is written.
    """
    with clear_errors(), reserved(out, REWARD_FACTS, "a reward model") as checkpoints:
        chosen = _with_start(read_settings(RewardSettings, settings, changes), start)
        where = pick_device(device)
        if chosen.start != "warm":
            check_source(backbone)
        sides = read_sides(data, validation, held_out_share, only_good_rows)
        references = whole_reference(read_lines(reference)) if reference is not None else some_of(sides.train)
        train, checked, test = sides.labels
        held_out = test or checked
        if curve and not held_out:
            raise ValueError("a learning curve needs held-out labels: give --validation or --held-out-share")
        with progress_bar() as report:
            fit_on = partial(fit_reward_model, backbone, seed=seed, report=report, device=where, start=start)
            fitted = fit_on(train, checked, chosen, checkpoints=checkpoints)
            model = normalise(fitted.reward_model, *references) if any(references) else fitted.reward_model
            card = {
                **reward_card(model, held_out, seed),
                "measured_prompts": ("test" if test else "validation") if held_out else None,
                "labels": {"train": len(train), "validation": len(checked), "test": len(test)},
                **fitted.course,
                "backbone": backbone if chosen.start != "warm" else None,
                "start": str(start) if start is not None else None,
                "normalised_on": _scale(model, reference),
                "settings": asdict(chosen),
                "seed": seed,
            }
            if curve:
                card["learning_curve"] = reward_learning_curve(
                    train,
                    held_out,
                    lambda part: fit_on(part, checked, chosen, checkpoints=checkpoints / f"curve-{len(part)}"),
                    card,
                    seed,
                )
        save_reward_model(model, out, card)
        remove_states(checkpoints, OF_SEVERAL_FITS)
        _tell(out, model, card, sides)


@reward.command(
    params=[
        click.Option(["--model"], required=True, type=FOLDER, help="Folder that `prefloop reward fit` wrote."),
        click.Option(
            ["--data"], required=True, type=FILE, help="Prompts with responses: JSON Lines, plain or gzipped."
        ),
        click.Option(["--out"], required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
        option("--precision", "auto", "auto is bf16 where the hardware has it.", PRECISIONS),
    ],
    epilog="""\b
Examples:
  prefloop reward score --model models/reward --data responses.jsonl --out scored.jsonl
  prefloop reward score --model models/reward --data labels.jsonl.gz --out scored.jsonl.gz --device cuda
""",
)
def score(model: Path, data: Path, out: Path, device: str, precision: Precision) -> None:
    """Add `scores` and their `deviations`, one a response, to every line of a file.

    A model that knows criteria or scores adds `outputs` by their names. Lines keep all else; scores that people
    gave are kept as `given_scores`. Nothing is written where a line cannot be read.
    """
    with clear_errors(stopped="nothing was written"):
        reward_model = _load(model, device, precision)
        with progress_bar() as report:
            lines = score_file(data, out, partial(read_scores, reward_model), report)
        console.print(f"[bold]{out}[/bold]: {lines:,} lines with scores")
        if reward_model.posterior is None:
            console.print("their deviations are null: the model was fitted without a posterior")


@reward.command(
    params=[
        click.Option(["--model"], required=True, type=FOLDER, help="Folder that `prefloop reward fit` wrote."),
        click.Option(["--data"], required=True, type=FILE, help="Labels that the model never saw."),
        click.Option(["--split"], help='Only lines with this "split", such as test.'),
        click.Option(["--only-good-rows"], is_flag=True, help="Leave out lines that cannot be read."),
        option("--seed", 1, "Of the intervals' resampling."),
        option("--device", "auto", "auto, cpu, cuda or cuda:1."),
        option("--precision", "auto", "auto is bf16 where the hardware has it.", PRECISIONS),
    ],
    epilog="""\b
Examples:
  prefloop reward evaluate --model models/reward --data test.jsonl
  prefloop reward evaluate --model models/reward --data export.jsonl --split test | jq .accuracy
""",
)
def evaluate(
    model: Path, data: Path, split: str | None, only_good_rows: bool, seed: int, device: str, precision: Precision
) -> None:
    """Print how well a reward model agrees with labels, as JSON.

    `accuracy`, `nll` and `ece` are of the `n` pairs that people put in an order, ties left out; docs/reward.md says
    what the other keys mean.
    """
    with clear_errors(stopped="nothing was measured"):
        lines = read_lines(data, [] if only_good_rows else None)
        chosen = [line for line in lines if split is None or line.split == split]
        if not chosen:
            raise ValueError(f'{data} has no line with the "split" {split}')
        reward_model = _load(model, device, precision)
        labels = labels_of(on_common_scales(chosen, reward_model.answers.shape.scales))
        with console.status(f"measuring on {len(labels):,} labels"):
            card = reward_card(reward_model, labels, seed)
        click.echo(json.dumps(card, indent=2))


def _with_start(settings: RewardSettings, start: Path | None) -> RewardSettings:
    """A given start is a warm one, unless the settings ask to try both."""
    if start is None and settings.start != "fresh":
        raise ValueError(f"the setting start is {settings.start}: name the reward model to start from with --start")
    return replace(settings, start="warm") if start is not None and settings.start == "fresh" else settings


def _load(folder: Path, device: str, precision: Precision) -> RewardModel:
    return load_reward_model(folder, pick_device(device), precision)


def _scale(model: RewardModel, reference: Path | None) -> dict[str, Any]:
    """Which responses gave the scores their zero and unit, and how many."""
    count = model.normalisation
    source = "reference" if reference is not None else "labels" if count.prompts else None
    return {"responses_of": source, "prompts": count.prompts, "samples": count.samples}


def _tell(out: Path, model: RewardModel, card: Mapping[str, Any], sides: Sides) -> None:
    """A short table for the person who waited; all of it stands in the card."""
    if sides.skipped:
        console.print(f"left out, since they could not be read: {len(sides.skipped):,}, the first {sides.skipped[0]}")
    asked = card["settings"]
    if not card["labels"]["validation"] and (asked["set_weight"] == "validation" or asked["start"] == "better"):
        console.print("no label was held out to choose by, so nothing was compared: see choices in the card")
    if sides.shared_prompts:
        console.print(f"{sides.shared_prompts:,} prompts were learned from and held out: the figures flatter the model")
    if not model.forward.shares:
        console.print(f"every response was encoded with its prompt: {model.forward.reason}")
    if model.normalisation.prompts == 0:
        console.print("scores have no zero and no unit: no prompt has two responses, and no --reference was given")
    labels = ", ".join(f"{count:,} {side}" for side, count in card["labels"].items() if count)
    console.print(f"[bold]{out}[/bold]: {labels} labels, epoch {card['epochs']}")
    if not card["n"]:
        console.print("no held-out pair to measure it on")
        return
    table = Table("", "", "95 %", title=f"on {card['n']:,} pairs of {card['measured_prompts']} prompts")
    for name in ("accuracy", "nll", "ece"):
        low, high = card[f"{name}_low"], card[f"{name}_high"]
        table.add_row(name, f"{card[name]:.3f}", f"{low:.3f} to {high:.3f}" if low is not None else "of one prompt")
    console.print(table)

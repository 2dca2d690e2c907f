"""Who gets the higher score at the same KL? TRL's last PPOTrainer and ours, from the same policy on the same score.

Alike are the policy, the programmed score and its price where the end is missing, the prompts, the number of episodes,
of rollouts and of optimiser steps, Adam and its learning rate, lambda, the fixed price of KL, and fp32. Both final
policies are measured by the same code on fresh answers to the held-out openings.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.ppo.curves import Line, Panel, draw
from benchmarks.ppo.figures import Reached, Row, gains_at_equal_kl, row
from benchmarks.ppo.runs import Measured, all_done, climb_gold, measure_saved
from benchmarks.ppo.stories import UNIT, ZERO, openings
from worker.learning.models import encode_prompt, load_tokenizer
from worker.learning.policy.settings import PPOSettings

TRL = "1.12.0"
SHARED = ("torch", "transformers", "datasets", "accelerate", "tokenizers")
SCRIPT = Path(__file__).with_name("peer.py")


def ours(start: Path, device: str, settings: PPOSettings, seed: int, _: Path) -> Measured:
    """Our run's final policy, measured."""
    return climb_gold(start, device, settings, seed)[1]


def theirs(start: Path, device: str, settings: PPOSettings, seed: int, python: Path) -> Measured:
    """TRL's run's final policy, measured.

    Raises:
        RuntimeError: if TRL did not come to the end.
    """
    tokenizer = load_tokenizer(str(start))
    with tempfile.TemporaryDirectory(prefix="ppo-quality-") as out:
        asked = {
            "policy": str(start),
            "out": out,
            "prompt_ids": [encode_prompt(tokenizer, prompt) for prompt in openings("train")],
            "zero": ZERO,
            "unit": UNIT,
            "new_tokens": settings.sampling.max_new_tokens,
            "device": device,
            "seed": seed,
            **{
                name: getattr(settings, name)
                for name in (
                    "episodes",
                    "batch_episodes",
                    "epochs",
                    "learning_rate",
                    "adam_epsilon",
                    "gae_lambda",
                    "kl_coefficient",
                    "missing_end_score",
                )
            },
        }
        done = subprocess.run(
            [python, SCRIPT],
            input=json.dumps(asked),
            text=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"TRL's run failed:\n{done.stderr[-2_000:]}")
        return measure_saved(start, Path(out), device, settings.sampling, seed)


TRAINERS = (ours, theirs)


def one_run(trainer: int, start: Path, device: str, settings: PPOSettings, seed: int, python: Path) -> Measured:
    """By the trainer's number."""
    return TRAINERS[trainer](start, device, settings, seed, python)


def against_trl(
    executor: ProcessPoolExecutor,
    start: Path,
    device: str,
    settings: PPOSettings,
    prices: Sequence[float],
    seeds: Sequence[int],
    python: Path,
    picture: Path | None,
    say: Callable[[str], None],
) -> list[Row]:
    """Runs both trainers at all prices of KL and with all seeds, in turns."""
    cases = [(seed, price, trainer) for seed in seeds for price in prices for trainer in range(len(TRAINERS))]
    tasks = [
        (trainer, start, device, replace(settings, kl_coefficient=price), seed, python)
        for seed, price, trainer in cases
    ]

    def told(number: int, result: Measured) -> None:
        seed, price, trainer = cases[number]
        name = ("ours", "TRL")[trainer]
        say(f"  {name}, seed {seed}, price {price:g}: score {result.scores['gold']:.2f} at KL {result.kl:.1f}")

    [first] = all_done(executor, measure_saved, [(start, start, device, settings.sampling, seeds[0])], lambda *_: None)
    measured = dict(zip(cases, all_done(executor, one_run, tasks, told), strict=True))
    reached = {
        trainer: [[measured[seed, price, trainer].reached for price in prices] for seed in seeds]
        for trainer in range(len(TRAINERS))
    }
    if picture is not None:
        draw(picture, [panel(reached[0], reached[1], first.reached)])
    return rows(reached[0], reached[1], first.reached)


def rows(mine: Sequence[Sequence[Reached]], peers: Sequence[Sequence[Reached]], first: Reached) -> list[Row]:
    """The gains at equal KL, a run a seed, and what either reached by itself, a run a policy."""
    gains = [gains_at_equal_kl(own, other, first.score) for own, other in zip(mine, peers, strict=True)]
    own, other = ([pair[side] for pair in gains] for side in range(2))
    all_own, all_others = ([one for side in sides for one in side] for sides in (mine, peers))
    name = f"trl {TRL}"
    return [
        row("score at equal KL", "gain in gold", own, other, name, goal=1.0),
        row("final score", "gold", [one.score for one in all_own], [one.score for one in all_others], name),
        row("final KL", "nats", [one.kl for one in all_own], [one.kl for one in all_others], name),
    ]


def panel(mine: Sequence[Sequence[Reached]], peers: Sequence[Sequence[Reached]], first: Reached) -> Panel:
    """Score over the root of KL, a line a seed."""
    lines = []
    for name, sides in (("ours", mine), (f"TRL {TRL}", peers)):
        for side in sides:
            points = sorted((max(one.kl, 0.0) ** 0.5, one.score) for one in side)
            lines.append(Line(name, [(0.0, first.score), *points], dots=True))
    return Panel("gold score at the end", "root of KL (nats)", lines)

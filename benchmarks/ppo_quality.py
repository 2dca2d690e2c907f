"""How good is PPO? Against a score that is known, beside TRL's, and where a reward model can be fooled.

    .venv/bin/python benchmarks/ppo_quality.py [--quick] [--json FILE] [--device cpu|cuda]
        [--parts toy peer overoptimisation] [--seeds N] [--pictures FOLDER]

toy               the score rises, KL is held at its target within 5 % and no seed of ten collapses. A run has collapsed
                  if over its last quarter the score is below the start's, entropy below a tenth of the start's, fewer
                  than half of the answers end, or KL is beyond twice the target. The published reproduction of
                  summarisation with 1 B parameters lost two seeds of four (Huang et al. 2024).
peer              the score at equal KL beside TRL 1.12.0, the last release with a PPOTrainer: same policy, score,
                  prompts, episodes, optimiser steps and fixed prices of KL.
overoptimisation  as in Gao et al. 2022: PPO climbs a reward model that few noisy labels taught, and a gold score says
                  what became of it. Beside it an ensemble, scored conservatively, with a budget for KL and an
                  evaluation reward model that ends the run.

Every policy brings short stories to an end; benchmarks/ppo/stories.py has the policy and the gold score,
benchmarks/ppo/settings.py all that was chosen. As many runs go side by side as the machine has cores, or as
OMP_NUM_THREADS says, a thread each.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are not installed

from benchmarks.peer import peer_python
from benchmarks.ppo.against_trl import SHARED, TRL, against_trl
from benchmarks.ppo.figures import Row, show
from benchmarks.ppo.overoptimisation import overoptimisation
from benchmarks.ppo.runs import side_by_side
from benchmarks.ppo.settings import KL_PRICES, PEER, SINGLE, TOY
from benchmarks.ppo.stories import story_policy
from benchmarks.ppo.toy import toy
from benchmarks.quality.fits import prepare
from benchmarks.report import machine, write

PARTS = ("toy", "peer", "overoptimisation")
SEEDS = {"toy": 10, "peer": 2, "overoptimisation": 3}
QUICK_SEEDS = {"toy": 2, "peer": 1, "overoptimisation": 1}
FIRST_SEED = 12
"""The settings were settled on seeds before."""
QUICK = 768
"""Episodes of every run in the short form."""


def measure(
    asked: argparse.Namespace, executor: ProcessPoolExecutor, start: Path, say: Callable[[str], None]
) -> list[Row]:
    """All parts that were asked for."""
    results: list[Row] = []
    for part in asked.parts:
        say(f"{part} ...")
        count = asked.seeds or (QUICK_SEEDS if asked.quick else SEEDS)[part]
        seeds = range(FIRST_SEED, FIRST_SEED + count)
        picture = asked.pictures / f"ppo_{part}.svg" if asked.pictures else None
        if part == "toy":
            settings = replace(TOY, episodes=QUICK) if asked.quick else TOY
            results += toy(executor, start, asked.device, settings, seeds, picture, say)
        elif part == "peer":
            settings = replace(PEER, episodes=QUICK) if asked.quick else PEER
            prices = KL_PRICES[:1] if asked.quick else KL_PRICES
            python = peer_python(f"trl=={TRL}", SHARED)
            results += against_trl(executor, start, asked.device, settings, prices, seeds, python, picture, say)
        else:
            episodes = QUICK if asked.quick else SINGLE.episodes
            results += overoptimisation(executor, start, asked.device, episodes, seeds, picture, say)
    return results


def parsed() -> argparse.Namespace:
    """What is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one or two seeds and short runs: no figures to go by")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="all, where not said")
    parser.add_argument("--seeds", type=int, help="of every part; ten, two and three, where not said")
    parser.add_argument("--pictures", type=Path, help="draw the curves into this folder")
    return parser.parse_args()


def main() -> None:
    """The command."""
    asked, began = parsed(), time.perf_counter()
    gpu = torch.cuda.get_device_name() if asked.device == "cuda" else None
    measured_on, processes = machine(gpu=gpu, torch=torch.__version__), torch.get_num_threads()

    def say(line: str) -> None:
        print(line, flush=True)

    start = story_policy(say)
    prepare()
    with side_by_side(asked.device, processes) as executor:
        results = measure(asked, executor, start, say)
    if asked.json:
        write(asked.json, "ppo_quality", measured_on, results)
    show(results)
    if asked.quick:
        print("A quick run: one or two seeds and short runs, so these are not the figures of the whole.")
    print(f"{time.perf_counter() - began:.0f} s.")


if __name__ == "__main__":
    main()

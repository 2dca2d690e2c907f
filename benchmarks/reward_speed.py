"""How fast does a reward model learn from rankings? TRL's RewardTrainer and ours, the same work in turns.

    .venv/bin/python benchmarks/reward_speed.py [--quick] [--json FILE] [--device cpu|cuda]

Both start from the same random Llama and learn the same rankings of K responses in as many optimiser steps of as many
sets, with the same AdamW, schedule and precision: ours as rankings, TRL as all of their pairs, already tokenized. They
take turns at stretches of steps, so that whatever else the machine does hits both. The first step, which warms caches
up, is not counted, nor is loading.

Which response is better is planted: people like some words, dislike others, and err. Accuracy is on pairs of held-out
sets, against what they would say without erring, for both models by the same code.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForSequenceClassification, LlamaConfig, LlamaForSequenceClassification
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.peer import peer_python  # noqa: E402
from benchmarks.report import Row, machine, show, write  # noqa: E402
from benchmarks.words import WORDS, word_tokenizer  # noqa: E402
from worker.learning.evaluation import bootstrap_ratio  # noqa: E402
from worker.learning.models import pick_device  # noqa: E402
from worker.learning.progress import Progress  # noqa: E402
from worker.learning.records import Judgement, Label, Scale  # noqa: E402
from worker.learning.reward.backbone import load_backbone, load_reward_tokenizer, output_layer  # noqa: E402
from worker.learning.reward.encoding import encode_sets  # noqa: E402
from worker.learning.reward.fitting import RewardSettings, fit_reward_model  # noqa: E402
from worker.learning.reward.forward import Forward  # noqa: E402

TRL = "1.16.0"
GOALS = {2: 1.0, 4: 5.0, 9: 15.0}
STRETCHES = 3
SEED = 5
LIKED, DISLIKED = range(100), range(100, 200)
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Scope:
    """What a device is given to do."""

    config: dict[str, int]
    batch_sets: dict[int, int]  # sets an optimiser step, by K
    pairs_at_once: int  # of TRL's: more a forward are slower on a CPU
    quick: dict[int, int]  # sets in all, by K
    whole: dict[int, int]
    held_out: int


SMALL = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4}
LARGE = {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 16, "num_attention_heads": 16}
SCOPES = {
    "cpu": Scope(SMALL, {2: 8, 4: 4, 9: 2}, 8, {2: 32, 4: 16, 9: 8}, {2: 768, 4: 384, 9: 128}, 200),
    "cuda": Scope(LARGE, {2: 64, 4: 64, 9: 32}, 32, {2: 512, 4: 256, 9: 96}, {2: 6144, 4: 3072, 9: 1024}, 400),
}


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    k: int
    prompt_tokens: int
    precision: Precision

    def __str__(self) -> str:
        return f"k={self.k} prompt={self.prompt_tokens} {self.precision}"


CASES = [Case(k, tokens, precision) for precision in ("fp32", "bf16") for k in (2, 4, 9) for tokens in (40, 200)]


@dataclass(frozen=True)
class Planted:
    """A prompt, responses, how good each is, and the order in which somebody who errs puts them."""

    prompt: str
    responses: tuple[str, ...]
    worth: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def label(self) -> Label:
        """For our trainer."""
        order = Judgement(tuple((index,) for index in self.order), scale=Scale(ties=False))
        return Label(({"role": "user", "content": self.prompt},), self.responses, order)


def plant(case: Case, count: int, seed: int) -> list[Planted]:
    """Sets of random words; responses of 30 to 50. Errors are Gumbel's, so that Bradley-Terry holds."""
    draw = random.Random(f"{seed} {case.k} {case.prompt_tokens}")

    def response() -> tuple[str, int]:
        words = draw.choices(range(200, WORDS), k=draw.randint(30, 50))
        share = draw.random()
        for place in draw.sample(range(len(words)), 12):
            words[place] = draw.choice(LIKED if draw.random() < share else DISLIKED)
        worth = sum((word in LIKED) - (word in DISLIKED) for word in words)
        return " ".join(f"w{word}" for word in words), worth

    sets = []
    for _ in range(count):
        prompt = " ".join(f"w{word}" for word in draw.choices(range(200, WORDS), k=case.prompt_tokens))
        responses, worth = zip(*(response() for _ in range(case.k)), strict=True)
        heard = [own - _gumbel(draw) for own in worth]
        order = sorted(range(case.k), key=lambda index: -heard[index])
        sets.append(Planted(prompt, responses, worth, tuple(order)))
    return sets


def _gumbel(draw: random.Random) -> float:
    return math.log(-math.log(1 - draw.random()))


def new_model(scope: Scope, folder: Path) -> None:
    """A random Llama with a tokenizer of words, and the head that our trainer gives it."""
    tokenizer = word_tokenizer()
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        num_labels=1,
        pad_token_id=0,
        eos_token_id=1,
        **scope.config,
    )
    torch.manual_seed(SEED)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    load_backbone(str(folder), load_reward_tokenizer(str(folder)), SEED).save_pretrained(folder)


@dataclass
class Contest:
    """One training of each, in turns."""

    case: Case
    scope: Scope
    device: str
    model: Path
    taught: list[Planted]
    peer: subprocess.Popen[str]
    ours: list[float] = field(default_factory=list)  # seconds a stretch
    theirs: list[float] = field(default_factory=list)
    began: float = 0.0

    @property
    def batch_sets(self) -> int:
        return self.scope.batch_sets[self.case.k]

    @property
    def stops(self) -> list[int]:
        """The steps after which the other one has its turn; the first is alone."""
        steps = len(self.taught) // self.batch_sets
        return sorted({1 + round((steps - 1) * part / STRETCHES) for part in range(STRETCHES + 1)})

    def rates(self, times: Sequence[float]) -> list[float]:
        """Sets a second in each stretch."""
        steps = [end - begin for begin, end in pairwise(self.stops)]
        return [self.batch_sets * count / seconds for count, seconds in zip(steps, times, strict=True)]

    def hold(self, out: Path) -> Forward:
        """Trains both; ours is returned, TRL's stands in the folder."""
        settings = RewardSettings(
            learning_rate=5e-4, batch_sets=self.batch_sets, precision=self.case.precision, posterior=False
        )
        self._tell(self._work(settings, out))
        fitted = fit_reward_model(
            str(self.model),
            [each.label for each in self.taught],
            [],
            settings,
            SEED,
            self._take_turns,
            pick_device(self.device),
        )
        assert self._answer() == {"saved": str(out)}
        return fitted.reward_model.forward

    def _work(self, settings: RewardSettings, out: Path) -> dict[str, Any]:
        """What TRL is asked for."""
        pairs_a_step = self.batch_sets * math.comb(self.case.k, 2)
        return {
            "model": str(self.model),
            "out": str(out),
            "device": self.device,
            "precision": self.case.precision,
            "pairs": self._pairs(),
            "stops": self.stops,
            "pairs_a_step": pairs_a_step,
            "pairs_at_once": math.gcd(self.scope.pairs_at_once, pairs_a_step),
            "learning_rate": settings.learning_rate,
            "warmup_steps": max(1, round(settings.warmup_share * self.stops[-1])),
            "adam_epsilon": settings.adam_epsilon,
            "max_grad_norm": settings.max_grad_norm,
            "seed": SEED,
        }

    def _pairs(self) -> list[dict[str, list[int]]]:
        """All pairs of all rankings, the better response first."""
        tokenizer = load_reward_tokenizer(str(self.model))
        pairs = []
        for each in self.taught:
            (own,) = encode_sets(tokenizer, 2048, [(each.label.prompt, each.responses)]).sets
            texts = [[*own.prompt_ids, *response] for response in own.response_ids]
            pairs += [
                {"chosen_ids": texts[one], "rejected_ids": texts[two]} for one, two in combinations(each.order, 2)
            ]
        return pairs

    def _take_turns(self, progress: Progress) -> None:
        if progress.phase != "fit_reward_model" or progress.done not in self.stops:
            return
        now = time.perf_counter()
        self._tell({})
        seconds = self._answer()["seconds"]
        if progress.done > 1:
            self.ours.append(now - self.began)
            self.theirs.append(seconds)
        self.began = time.perf_counter()

    def _tell(self, message: dict[str, Any]) -> None:
        assert self.peer.stdin is not None
        print(json.dumps(message), file=self.peer.stdin, flush=True)

    def _answer(self) -> dict[str, Any]:
        assert self.peer.stdout is not None
        if not (line := self.peer.stdout.readline()):
            raise SystemExit("TRL's trainer ended; what it says stands above.")
        answer: dict[str, Any] = json.loads(line)
        return answer


@torch.no_grad()
def right_pairs(forward: Forward, held_out: Sequence[Planted]) -> torch.Tensor:
    """How many pairs of each set a model puts as they are worth; pairs of the same worth are left out [sets]."""
    layer = output_layer(forward.model)
    right = []
    for each in held_out:
        encoded = encode_sets(forward.tokenizer, 2048, [(each.label.prompt, each.responses)])
        scores = layer(forward.features(encoded.sets)).flatten()[encoded.places[0]].tolist()
        right.append(sum((scores[a] > scores[b]) == (each.worth[a] > each.worth[b]) for a, b in judged(each)))
    return torch.tensor(right)


def judged(each: Planted) -> list[tuple[int, int]]:
    """The pairs of which one is worth more."""
    return [(a, b) for a, b in combinations(range(len(each.worth)), 2) if each.worth[a] != each.worth[b]]


def measure(case: Case, scope: Scope, device: str, quick: bool, folder: Path, peer: subprocess.Popen[str]) -> list[Row]:
    """The rows of a case: sets a second, and accuracy after the same epoch."""
    taught = plant(case, (scope.quick if quick else scope.whole)[case.k], SEED)
    held_out = plant(case, scope.held_out // (8 if quick else 1), SEED + 1)
    contest = Contest(case, scope, device, folder / "model", taught, peer)
    out = folder / str(case).replace(" ", "-")
    ours = contest.hold(out)
    theirs = AutoModelForSequenceClassification.from_pretrained(out).eval().to(device)
    asked = sum(len(judged(each)) for each in held_out)
    right, peer_right = (
        right_pairs(forward, held_out) for forward in (ours, Forward(theirs, ours.tokenizer, case.precision))
    )
    ratio = bootstrap_ratio(right, peer_right, SEED)
    rates, peer_rates = contest.rates(contest.ours), contest.rates(contest.theirs)
    name, goal = f"trl {TRL}", GOALS[case.k] if device == "cpu" else None
    accuracies = [float(own.sum()) / asked for own in (right, peer_right)]
    return [
        Row(str(case), "sets/s", rates, peer_rates, name, goal),
        Row(str(case), "accuracy", accuracies[:1], accuracies[1:], name, 1.0, (ratio.low, ratio.high), equal=True),
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps a case: accuracies say little then")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="on cuda with a model of 0.8 billion")
    parser.add_argument("--case", action="append", choices=[str(case) for case in CASES], help="only this; repeatable")
    asked = parser.parse_args()
    disable_progress_bar()
    python = peer_python(f"trl=={TRL}", ("torch", "transformers", "datasets", "accelerate", "tokenizers"))
    scope, rows = SCOPES[asked.device], []
    with tempfile.TemporaryDirectory(prefix="reward-speed-") as name:
        folder = Path(name)
        new_model(scope, folder / "model")
        command = [python, Path(__file__).with_name("reward_peer.py")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            for case in CASES:
                if asked.case is None or str(case) in asked.case:
                    print(f"{case} ...", flush=True)
                    rows += measure(case, scope, asked.device, asked.quick, folder, peer)
            assert peer.stdin is not None
            peer.stdin.close()
    if asked.json:
        measured_on = machine(torch=torch.__version__, threads=torch.get_num_threads())
        write(asked.json, "reward_speed", measured_on, [row.as_json() for row in rows])
    show(rows)


if __name__ == "__main__":
    main()

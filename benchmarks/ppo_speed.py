"""How fast does a policy learn from a reward? TRL's PPOTrainer and GRPOTrainer and ours, the same work in turns.

    .venv/bin/python benchmarks/ppo_speed.py [--quick] [--json FILE] [--device cpu|cuda] [--case CASE ...]

PPO stands beside TRL 1.12.0, the last release that has it, GRPO beside TRL 1.16.0. Each case has two processes, ours
and TRL's. They take turns at rollouts, so that whatever else the machine does hits both; the first one, which warms
caches up, is not counted, nor is loading.

Alike are the weights of the policy, the reference and the reward model, prompts of 40 tokens, the limit of responses,
temperature, episodes in a rollout, passes over it and, counted in both processes, optimiser steps: one a pass, as TRL's
PPO knows no other number. So are fused AdamW, the learning rate and its fall, the KL penalty, and the precision.

Not alike is what each makes of it. TRL's PPO has a second model for values, ours a head on the policy's trunk, unless
the case says "own critic". TRL's PPO takes old log-probabilities from sampling, ours from a pass of its own; it clips
no gradients, ours does. With bf16 TRL learns under autocast and scores in fp32, and its GRPO samples under autocast;
ours scores and learns under autocast and samples in fp32. TRL's PPO would silently stay in fp32 beside this version of
transformers, so autocast is asked for in another way. TRL's micro-batches have a set size, ours sizes its own; TRL's
passes without gradients take a whole rollout at once.

"random" is a policy with random weights, which hardly ever ends: its responses are as long as they may be. "trained"
was taught by our fine-tuning to end as trained policies do: the lengths are geometric, and the limit is 3.5 times their
mean. The answers of Tulu 7B to the instructions of its human evaluation vary as widely: their deviation is 0.99 times
the mean, and 3 in 100 are longer than 3.4 times the mean.

"sample", "score" and "evaluate" are sampling, the reward model, and the other passes without gradients (reference, old
log-probabilities and values); "learn" is all the rest. Memory is the most that the process has beyond its libraries, on
a GPU the most allocated there.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.peer import peer_python  # noqa: E402
from benchmarks.report import Row, machine, show, write  # noqa: E402
from benchmarks.turns import Stretch, Work  # noqa: E402
from benchmarks.words import WORDS, word_tokenizer  # noqa: E402
from worker.learning.corpus import Pair  # noqa: E402
from worker.learning.language_model import finetune  # noqa: E402
from worker.learning.models import pick_device, save_model  # noqa: E402
from worker.learning.reward.model import new_reward_model, save_reward_model  # noqa: E402
from worker.learning.reward.observations import AnswerShape  # noqa: E402
from worker.learning.training import TrainingSettings  # noqa: E402

SEED = 5
PROMPT_TOKENS = 40
PROMPTS = 512
EPOCHS = 4
GROUP = 8
SAID = range(200)
"""Words of which the trained policy's answers are made."""
PHASES = ("sample", "score", "evaluate", "learn")
Kind = Literal["random", "trained"]


@dataclass(frozen=True)
class Case:
    """One contest."""

    trainer: Literal["ppo", "grpo"]
    kind: Kind
    precision: Literal["fp32", "bf16"]
    size: str = ""
    ours: Literal["", "own critic", "plain sampling"] = ""
    """What ours does otherwise than by default."""
    quick: bool = False
    """Whether it is part of the short form."""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.trainer, self.kind, self.precision, self.size, self.ours]))

    @property
    def peer(self) -> str:
        """TRL's version."""
        return "1.12.0" if self.trainer == "ppo" else "1.16.0"

    @property
    def goal(self) -> float:
        """How many times as many episodes a second; the goals are for a CPU."""
        if self.trainer == "grpo":
            return 1.0
        return {("random", "fp32"): 2.0, ("random", "bf16"): 3.5}.get((self.kind, self.precision), 5.0)


@dataclass(frozen=True)
class Scope:
    """What a device is given to do."""

    sizes: dict[str, dict[str, int]]
    """Models: hidden and feed-forward width, layers, heads; the policy's and the reward model's."""
    cases: list[Case]
    episodes: int
    """In a rollout."""
    peer_rows: int
    """Episodes in TRL's micro-batches."""
    new_tokens: dict[Kind, int]
    mean_tokens: float
    """Of what the trained policy is taught; what it writes then comes out shorter by about a ninth."""
    taught: int
    """Responses from which it is taught."""
    learning_rate: float
    """At which it is taught."""
    rollouts: int
    quick_rollouts: int


def shape(hidden: int, feed_forward: int, layers: int, heads: int) -> dict[str, int]:
    """What a Llama's configuration calls its sizes."""
    return {
        "hidden_size": hidden,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


SCOPES = {
    "cpu": Scope(
        sizes={"": shape(256, 1024, 4, 4)},
        cases=[
            Case("ppo", "random", "fp32", quick=True),
            Case("ppo", "random", "bf16"),
            Case("ppo", "trained", "fp32"),
            Case("ppo", "trained", "bf16", quick=True),
            Case("ppo", "trained", "fp32", ours="own critic"),
            Case("grpo", "random", "fp32"),
            Case("grpo", "random", "bf16"),
            Case("grpo", "trained", "fp32"),
            Case("grpo", "trained", "bf16", quick=True),
        ],
        episodes=64,
        peer_rows=16,
        new_tokens={"random": 48, "trained": 112},
        mean_tokens=36,
        taught=600,
        learning_rate=2e-3,
        rollouts=4,
        quick_rollouts=2,
    ),
    "cuda": Scope(
        sizes={"0.1b": shape(768, 3072, 12, 12), "1b": shape(2048, 5632, 20, 16)},
        cases=[
            Case("ppo", "random", "bf16", "0.1b"),
            Case("ppo", "trained", "bf16", "0.1b", quick=True),
            Case("ppo", "trained", "bf16", "0.1b", "plain sampling"),
            Case("ppo", "trained", "bf16", "1b"),
            Case("ppo", "trained", "bf16", "1b", "plain sampling"),
            Case("grpo", "trained", "bf16", "0.1b", quick=True),
            Case("grpo", "trained", "bf16", "1b"),
        ],
        episodes=256,
        peer_rows=32,
        new_tokens={"random": 256, "trained": 448},
        mean_tokens=144,
        taught=2_000,
        learning_rate=2e-4,
        rollouts=3,
        quick_rollouts=2,
    ),
}


def write_prompts(count: int, seed: int) -> list[str]:
    """Random words. The blank at the end is for TRL's GRPO, which puts the response right behind."""
    draw = random.Random(seed)
    return [" ".join(f"w{word}" for word in draw.choices(range(WORDS), k=PROMPT_TOKENS)) + " " for _ in range(count)]


def write_models(scope: Scope, size: str, device: str, folder: Path) -> None:
    """Folders "random", "trained" and "reward", of one size."""
    tokenizer = word_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=2_048, pad_token_id=0, eos_token_id=1, **scope.sizes[size]
    )
    torch.manual_seed(SEED)
    save_model(LlamaForCausalLM(config), tokenizer, folder / "random")
    reward = new_reward_model(str(folder / "random"), SEED, torch.device("cpu"), AnswerShape())
    save_reward_model(reward, folder / "reward")
    settings = TrainingSettings(epochs=1, batch_tokens=512, learning_rate=scope.learning_rate, held_out_share=0)
    taught = finetune(str(folder / "random"), answers(scope), settings, SEED, device=pick_device(device))
    save_model(taught.model, tokenizer, folder / "trained")


def answers(scope: Scope) -> list[Pair]:
    """What the trained policy is taught: responses of random words and of geometric length."""
    draw = random.Random(SEED)
    prompts = write_prompts(scope.taught, SEED + 1)
    lengths = [1 + int(draw.expovariate(1 / scope.mean_tokens)) for _ in prompts]
    return [
        Pair(
            ({"role": "user", "content": prompt},),
            " ".join(f"w{word}" for word in draw.choices(SAID, k=min(length, 4 * scope.new_tokens["trained"]))),
            prompt,
        )
        for prompt, length in zip(prompts, lengths, strict=True)
    ]


@contextmanager
def side(python: str | Path, program: str, work: Work) -> Iterator[subprocess.Popen[str]]:
    """A process that has been told its work and waits for its first turn."""
    command = [python, Path(__file__).with_name(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        print(work, file=process.stdin, flush=True)
        yield process


def take_turn(process: subprocess.Popen[str]) -> Stretch:
    """One rollout of one side."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(file=process.stdin, flush=True)
    if not (line := process.stdout.readline()):
        raise SystemExit("A trainer ended; what it says stands above.")
    return Stretch(**json.loads(line))


def contest(case: Case, work: Work, python: Path) -> tuple[list[Stretch], list[Stretch]]:
    """The rollouts of both, in turns, but for the first.

    Raises:
        SystemExit: if they did not make the same number of optimiser steps.
    """
    program = "ppo_peer.py" if case.trainer == "ppo" else "grpo_peer.py"
    with side(sys.executable, "ppo_ours.py", work) as ours, side(python, program, work) as peer:
        turns = [(take_turn(ours), take_turn(peer)) for _ in range(work.rollouts)]
    steps = {stretch.steps for turn in turns for stretch in turn}
    if steps != {work.epochs}:
        raise SystemExit(f"{case}: {work.epochs} optimiser steps a rollout were asked for, made were {sorted(steps)}.")
    own, theirs = zip(*turns[1:], strict=True)
    return list(own), list(theirs)


def measure(case: Case, scope: Scope, device: str, quick: bool, models: Path, python: Path) -> list[Row]:
    """The rows of a case."""
    work = Work(
        policy=str(models / case.kind),
        reward=str(models / "reward"),
        prompts=write_prompts(PROMPTS, SEED),
        estimator="gae" if case.trainer == "ppo" else "grpo",
        precision=case.precision,
        device="cuda" if device == "cuda" else "cpu",
        rollouts=scope.quick_rollouts if quick else scope.rollouts,
        episodes=scope.episodes,
        group=1 if case.trainer == "ppo" else GROUP,
        epochs=EPOCHS,
        new_tokens=scope.new_tokens[case.kind],
        peer_rows=scope.peer_rows,
        critic="separate" if case.ours == "own critic" else "shared",
        engine="loop" if case.ours == "plain sampling" else "auto",
        seed=SEED,
    )
    return rows_of(case, work, *contest(case, work, python))


def rows_of(case: Case, work: Work, ours: Sequence[Stretch], theirs: Sequence[Stretch]) -> list[Row]:
    """Episodes a second, in all and by phase, the length of responses, and memory."""

    def row(metric: str, read: Callable[[Stretch], float], goal: float | None = None) -> Row:
        values = [[read(turn) for turn in side] for side in (ours, theirs)]
        return Row(str(case), metric, values[0], values[1], f"trl {case.peer}", goal)

    def rate(phase: str) -> Callable[[Stretch], float]:
        return lambda turn: work.episodes / turn.by_phase[phase]

    goal = case.goal if work.device == "cpu" and not case.ours else None
    memory = row("peak memory (MB)", lambda turn: turn.memory)
    return [
        row("episodes/s total", lambda turn: work.episodes / turn.seconds, goal),
        *(row(f"episodes/s {phase}", rate(phase)) for phase in PHASES),
        row("tokens/response", lambda turn: turn.tokens / work.episodes),
        replace(memory, lower=True),
    ]


def main() -> None:
    """The command."""
    names = list(dict.fromkeys(str(case) for scope in SCOPES.values() for case in scope.cases))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cases, one rollout each counted")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="on cuda with models up to a billion")
    parser.add_argument("--case", action="append", choices=names, help="only this; repeatable")
    asked = parser.parse_args()
    disable_progress_bar()
    shared = ("torch", "transformers", "datasets", "accelerate", "tokenizers")
    scope, rows = SCOPES[asked.device], []
    cases = [case for case in scope.cases if (str(case) in asked.case if asked.case else case.quick or not asked.quick)]
    pythons = {version: peer_python(f"trl=={version}", shared) for version in sorted({case.peer for case in cases})}
    with tempfile.TemporaryDirectory(prefix="ppo-speed-") as name:
        for size in dict.fromkeys(case.size for case in cases):
            print(f"Models {size} ...", flush=True)
            write_models(scope, size, asked.device, Path(name) / f"models{size}")
        for case in cases:
            print(f"{case} ...", flush=True)
            models = Path(name) / f"models{case.size}"
            rows += measure(case, scope, asked.device, asked.quick, models, pythons[case.peer])
            if asked.json:
                measured_on = machine(torch=torch.__version__, threads=torch.get_num_threads())
                write(asked.json, "ppo_speed", measured_on, [row.as_json() for row in rows])
    show(rows)


if __name__ == "__main__":
    main()

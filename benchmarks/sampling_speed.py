"""How fast does a policy answer? transformers' plain `generate` and ours, the same model and prompts in turns.

    .venv/bin/python benchmarks/sampling_speed.py [--quick] [--json FILE] [--device cpu|cuda] [--case CASE ...]

Both draw from the whole distribution at temperature 1, all responses in one batch: "n=1" has a prompt for each
response, "n=8" one for every eight. Prompts are 40 random words; the policies are those of ppo_speed.py: "random"
hardly ever ends, "trained" ends as trained policies do, at lengths that vary as widely as their mean. A token counts up
to and with the end; `tokens/response` stands beside, since two samples never have quite the same lengths. They take
turns, so that whatever else the machine does hits both, and the first turn is not counted.

On a CPU ours is the loop of decoding.py. On a GPU the loop and continuous batching stand beside `generate` each, and
the peer's weights are in bf16 where the case is.
"""

import argparse
import copy
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers.utils.logging import disable_progress_bar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.ppo_speed import SCOPES, SEED, Kind, write_models, write_prompts  # noqa: E402
from benchmarks.report import Row, machine, show, write  # noqa: E402
from worker.learning.batches import pad  # noqa: E402
from worker.learning.models import encode_prompt, load_language_model, load_tokenizer, pick_device  # noqa: E402
from worker.learning.records import Prompt  # noqa: E402
from worker.learning.sampling import SamplingSettings, end_token_ids, sample_responses, truncate_after_end  # noqa: E402

TURNS, QUICK_TURNS = 5, 2
Draw = Callable[[int], list[int]]
"""A seed -> the lengths of all responses, in tokens."""


@dataclass(frozen=True)
class Case:
    """One contest."""

    kind: Kind
    precision: Literal["fp32", "bf16"]
    n: int
    engine: Literal["loop", "continuous"] = "loop"
    size: str = ""
    quick: bool = False
    """Whether it is part of the short form."""

    def __str__(self) -> str:
        engine = self.engine if self.engine != "loop" or self.size else ""
        return " ".join(filter(None, [self.kind, self.precision, f"n={self.n}", self.size, engine]))


CASES: dict[str, list[Case]] = {
    "cpu": [Case(kind, "fp32", n, quick=True) for kind in ("random", "trained") for n in (1, 8)]
    + [Case("trained", "bf16", n) for n in (1, 8)],
    "cuda": [
        Case(kind, "bf16", n, engine, size, quick=size == "0.1b" and kind == "trained")
        for size in ("0.1b", "1b")
        for kind in ("random", "trained")
        for n in (1, 8)
        for engine in ("loop", "continuous")
        if size == "0.1b" or kind == "trained"
    ],
}


@dataclass(frozen=True)
class Turn:
    """What one side did."""

    seconds: float
    lengths: list[int]

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(self.lengths) / self.seconds


def ours(model: Any, tokenizer: Any, asked: Sequence[Prompt], case: Case, new_tokens: int) -> Draw:
    """Our sampling, all responses at once."""
    room = max(len(encode_prompt(tokenizer, prompt)) for prompt in asked) + new_tokens
    settings = SamplingSettings(
        max_new_tokens=new_tokens,
        batch_tokens=len(asked) * case.n * room,
        precision=case.precision,
        engine=case.engine,
    )

    def draw(seed: int) -> list[int]:
        drawn = sample_responses(model, tokenizer, asked, case.n, settings, seed)
        return [len(sample.token_ids) for samples in drawn for sample in samples]

    return draw


def theirs(model: Any, tokenizer: Any, asked: Sequence[Prompt], case: Case, new_tokens: int) -> Draw:
    """`generate`, all responses at once."""
    if case.precision == "bf16":
        model = copy.deepcopy(model).to(torch.bfloat16)
    batch = pad([encode_prompt(tokenizer, prompt) for prompt in asked], 0, model.device, side="left")
    ends = end_token_ids(model, tokenizer)

    def draw(seed: int) -> list[int]:
        torch.manual_seed(seed)
        written = model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            num_return_sequences=case.n,
            max_new_tokens=new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=0,
        )
        rows = written[:, batch.input_ids.shape[1] :].tolist()
        return [len(truncate_after_end(row, ends)) for row in rows]

    return draw


def take_turn(draw: Draw, seed: int, device: torch.device) -> Turn:
    """One side, timed."""
    began = time.perf_counter()
    lengths = draw(seed)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Turn(time.perf_counter() - began, lengths)


def measure(case: Case, device: torch.device, turns: int, models: Path) -> list[Row]:
    """The rows of a case: tokens a second, and how long responses were."""
    scope = SCOPES[device.type]
    model, tokenizer = load_language_model(str(models / case.kind), device), load_tokenizer(str(models / case.kind))
    asked: list[Prompt] = [
        [{"role": "user", "content": text}] for text in write_prompts(scope.episodes // case.n, SEED)
    ]
    new_tokens = scope.new_tokens[case.kind]
    sides = [side(model, tokenizer, asked, case, new_tokens) for side in (ours, theirs)]
    taken = [[take_turn(draw, seed, device) for draw in sides] for seed in range(turns + 1)]
    own, peer = zip(*taken[1:], strict=True)
    name = f"transformers {transformers.__version__} generate"
    lengths, peer_lengths = ([sum(turn.lengths) / len(turn.lengths) for turn in side] for side in (own, peer))
    return [
        Row(str(case), "tokens/s", [turn.rate for turn in own], [turn.rate for turn in peer], name),
        Row(str(case), "tokens/response", lengths, peer_lengths, name),
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cases, two turns each")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="on cuda with models up to a billion")
    names = [str(case) for cases in CASES.values() for case in cases]
    parser.add_argument("--case", action="append", choices=names, help="only this; repeatable")
    asked = parser.parse_args()
    disable_progress_bar()
    device, rows = pick_device(asked.device), []
    cases = [
        case
        for case in CASES[device.type]
        if (str(case) in asked.case if asked.case else case.quick or not asked.quick)
    ]
    with tempfile.TemporaryDirectory(prefix="sampling-speed-") as name:
        for size in dict.fromkeys(case.size for case in cases):
            print(f"Models {size} ...", flush=True)
            write_models(SCOPES[device.type], size, device.type, Path(name) / f"models{size}")
        for case in cases:
            print(f"{case} ...", flush=True)
            rows += measure(case, device, QUICK_TURNS if asked.quick else TURNS, Path(name) / f"models{case.size}")
    if asked.json:
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        measured_on = machine(gpu=gpu, torch=torch.__version__, threads=torch.get_num_threads())
        write(asked.json, "sampling_speed", measured_on, [row.as_json() for row in rows])
    show(rows)


if __name__ == "__main__":
    main()

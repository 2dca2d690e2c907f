"""Who writes, and what is a good answer? A small policy that brings stories to an end, and a programmed score of them.

The policy has 375,456 parameters, so that one run of thousands of episodes takes a core about two minutes. It learns
from what the demo's model writes, ten answers to each of the demo's openings, and is sharpened as that model was.
The gold score is the demo's hidden preference, between -2 and 6: it likes speech, warm words, varied wording and a
finished end, each up to what is enough, and dislikes repetition.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from demo.preference import score
from demo.sharpen import sharpen
from worker.learning.language_model import ModelShape, pretrain
from worker.learning.models import load_language_model, load_tokenizer, save_model
from worker.learning.progress import Progress
from worker.learning.records import Message, Prompt
from worker.learning.sampling import SamplingSettings, sample_responses
from worker.learning.training import TrainingSettings

ROOT = Path(__file__).resolve().parent.parent.parent
TEACHER = ROOT / "demo" / "model"
OPENINGS = ROOT / "demo" / "openings.jsonl"
FOLDER = ROOT / ".peers" / "story-policy-1"
"""Counted up when anything that follows changes."""
SEED = 1
ANSWERS = 10
"""To each opening; those that are cut are left out."""
TEMPERATURE = 0.7
SHAPE = ModelShape(vocabulary=1_024, context=192, hidden_size=96, layers=3, heads=3, intermediate_size=192)
TRAINING = TrainingSettings(epochs=4, micro_batch_tokens=4_096, optimiser="muon", learning_rate=6e-3)
SAMPLING = SamplingSettings(max_new_tokens=64)

ZERO, UNIT = 2.75, 1.15
"""Mean and deviation of the small policy's gold scores."""

Messages = tuple[Message, ...]


def gold(_: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    """The programmed score [responses], whatever the prompts."""
    return torch.tensor([score(response) for response in responses])


def normalised_gold(prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
    """The same [responses] on the scale of a reward model's scores, which a policy can climb at once."""
    return (gold(prompts, responses) - ZERO) / UNIT


def openings(*sets: Literal["train", "heldout"]) -> list[Messages]:
    """The prompts of some sets: 300 train and 100 held-out ones."""
    rows = map(json.loads, OPENINGS.read_text().splitlines())
    return [({"role": "user", "content": row["opening"]},) for row in rows if row["set"] in sets]


def story_policy(say: Callable[[str], None]) -> Path:
    """The folder of the policy that all runs start from, made where it is missing: one to two minutes."""
    if FOLDER.is_dir():
        return FOLDER
    say(f"The small policy is taught, once, into {FOLDER.relative_to(ROOT)} ...")
    learned = pretrain(taught_stories(), SHAPE, TRAINING, SEED, _every_epoch(say), device=torch.device("cpu"))
    assert isinstance(learned.model, LlamaForCausalLM)
    sharpen(learned.model, TEMPERATURE)
    save_model(learned.model, learned.tokenizer, FOLDER)
    return FOLDER


def taught_stories() -> list[str]:
    """What the demo's model writes, each answer after its opening."""
    prompts = openings("train", "heldout")
    model, tokenizer = load_language_model(str(TEACHER), torch.device("cpu")), load_tokenizer(str(TEACHER))
    answers = sample_responses(model, tokenizer, prompts, ANSWERS, SAMPLING, SEED)
    return [
        f"{prompt[0]['content']}\n{sample.text}"
        for prompt, samples in zip(prompts, answers, strict=True)
        for sample in samples
        if sample.finish_reason == "ended"
    ]


def _every_epoch(say: Callable[[str], None]) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if "held_out_loss" in progress.metrics:
            say(f"  {progress.done} of {progress.total}: {progress.metrics['held_out_loss']:.2f} nats a token")

    return report

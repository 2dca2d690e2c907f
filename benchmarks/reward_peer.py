"""How does TRL's RewardTrainer do the same work? Run by reward_speed.py in TRL's own environment.

A line on stdin describes a training. It stops at the steps that the line names, says how many seconds the stretch took,
and goes on at the next line, so that the two trainers take turns.
"""

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import RewardConfig, RewardTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are not installed

from benchmarks.trainer_turns import TurnsCallback
from benchmarks.turns import Turns


def train(turns: Turns, asked: dict[str, Any]) -> None:
    """One training, from a folder into another."""
    on_cuda = asked["device"] == "cuda"
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(asked["model"], num_labels=1, dtype="float32"),
        processing_class=AutoTokenizer.from_pretrained(asked["model"]),
        train_dataset=Dataset.from_list(asked["pairs"]),
        callbacks=[TurnsCallback(turns, asked["stops"])],
        args=RewardConfig(
            output_dir=asked["out"],
            num_train_epochs=1,
            per_device_train_batch_size=asked["pairs_at_once"],
            gradient_accumulation_steps=asked["pairs_a_step"] // asked["pairs_at_once"],
            learning_rate=asked["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=asked["warmup_steps"],
            adam_epsilon=asked["adam_epsilon"],
            weight_decay=0.0,
            max_grad_norm=asked["max_grad_norm"],
            optim="adamw_torch_fused",
            bf16=asked["precision"] == "bf16",
            use_cpu=not on_cuda,
            gradient_checkpointing=False,
            max_length=None,
            seed=asked["seed"],
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(asked["out"])
    turns.tell({"saved": asked["out"]})


disable_progress_bar()
turns = Turns()
for line in iter(sys.stdin.readline, ""):
    train(turns, json.loads(line))

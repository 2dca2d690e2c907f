"""How does TRL's GRPOTrainer do the same work? Run by ppo_speed.py in TRL's own environment."""

import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are not installed

from benchmarks.trainer_turns import TurnsCallback
from benchmarks.turns import RolloutTurns


def timed_trainer(turns: RolloutTurns) -> type:
    """The trainer, its time booked by phase."""

    class TimedTrainer(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **named: Any) -> Any:
            written, logprobs = turns.timed("sample", super()._generate_single_turn)(*args, **named)
            turns.tokens += sum(map(len, written))
            return written, logprobs

        def _calculate_rewards(self, *args: Any, **named: Any) -> Any:
            return turns.timed("score", super()._calculate_rewards)(*args, **named)

        def _get_per_token_logps_and_entropies(self, *args: Any, **named: Any) -> Any:
            run = super()._get_per_token_logps_and_entropies
            return (run if torch.is_grad_enabled() else turns.timed("evaluate", run))(*args, **named)

    return TimedTrainer


def train(turns: RolloutTurns) -> None:
    """The whole run."""
    work = turns.work
    steps = work.rollouts * work.epochs
    tokenizer = AutoTokenizer.from_pretrained(work.policy, padding_side="left")
    reward = AutoModelForSequenceClassification.from_pretrained(work.reward, num_labels=1, dtype="float32")
    trainer = timed_trainer(turns)(
        model=work.policy,
        reward_funcs=reward,
        reward_processing_classes=AutoTokenizer.from_pretrained(work.reward),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in work.prompts]),
        callbacks=[TurnsCallback(turns, range(work.epochs, steps + 1, work.epochs))],  # the last step of each rollout
        args=GRPOConfig(
            output_dir=work.policy,
            model_init_kwargs={"dtype": "float32"},
            max_steps=steps,
            per_device_train_batch_size=work.peer_rows,
            gradient_accumulation_steps=work.episodes // work.peer_rows,
            num_generations=work.group,
            num_iterations=work.epochs,
            max_completion_length=work.new_tokens,
            temperature=1.0,
            beta=work.kl_coefficient,
            learning_rate=work.learning_rate,
            adam_epsilon=work.adam_epsilon,
            weight_decay=0.0,
            max_grad_norm=1.0,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            bf16=work.precision == "bf16",
            use_cpu=work.device == "cpu",
            gradient_checkpointing=False,
            seed=work.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


disable_progress_bar()
train(RolloutTurns())

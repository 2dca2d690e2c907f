"""How does TRL's last PPOTrainer do the same work? Run by ppo_speed.py in TRL's own environment."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
)
from transformers.utils.logging import disable_progress_bar
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are not installed

from benchmarks.trainer_turns import TurnsCallback
from benchmarks.turns import RolloutTurns


def book_phases(turns: RolloutTurns, reward: nn.Module) -> None:
    """Times what the trainer's module calls, each by the phase that it belongs to."""
    generate, forward, score = ppo_trainer.batch_generation, ppo_trainer.forward, ppo_trainer.get_reward

    def timed_forward(model: nn.Module, *args: Any) -> Any:
        run = forward if torch.is_grad_enabled() else turns.timed("evaluate", forward)
        return run(model, *args)

    def timed_score(model: nn.Module, *args: Any) -> Any:
        return turns.timed("score" if model is reward else "evaluate", score)(model, *args)

    def counted(*args: Any) -> tuple[Tensor, Tensor]:
        texts, logits = turns.timed("sample", generate)(*args)
        prompts, pad = args[1], args[3]
        turns.tokens += int((texts[:, prompts.shape[1] :] != pad).sum())
        return texts, logits

    ppo_trainer.batch_generation, ppo_trainer.forward, ppo_trainer.get_reward = counted, timed_forward, timed_score


def train(turns: RolloutTurns) -> None:
    """The whole run."""
    work = turns.work
    if work.precision == "bf16":  # this transformers no longer passes its own setting on, and all would go on in fp32
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    tokenizer = AutoTokenizer.from_pretrained(work.policy, padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(work.policy, dtype="float32") for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(work.reward, num_labels=1, dtype="float32") for _ in range(2)
    )
    book_phases(turns, reward)
    prompts = Dataset.from_list([{"input_ids": tokenizer(prompt)["input_ids"]} for prompt in work.prompts])
    args = PPOConfig(
        output_dir=work.policy,
        total_episodes=work.rollouts * work.episodes,
        per_device_train_batch_size=work.peer_rows,
        gradient_accumulation_steps=work.episodes // work.peer_rows,
        local_rollout_forward_batch_size=work.episodes,
        num_ppo_epochs=work.epochs,
        response_length=work.new_tokens,
        stop_token="eos",  # noqa: S106
        missing_eos_penalty=1.0,
        temperature=1.0,
        kl_coef=work.kl_coefficient,
        lam=work.gae_lambda,
        learning_rate=work.learning_rate,
        adam_epsilon=work.adam_epsilon,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        bf16=work.precision == "bf16",
        use_cpu=work.device == "cpu",
        gradient_checkpointing=False,
        seed=work.seed,
        num_sample_generations=0,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=prompts,
        eval_dataset=prompts,
        callbacks=[TurnsCallback(turns, range(1, work.rollouts + 1))],  # a step is a rollout
    )
    assert trainer.accelerator.mixed_precision == ("bf16" if args.bf16 else "no")
    trainer.callback_handler.remove_callback(PrinterCallback)
    trainer.train()


disable_progress_bar()
train(RolloutTurns())

"""What policy does TRL's last PPOTrainer come to on the same task? Run by ppo_quality.py in TRL's own environment.

The run stands as JSON on stdin; the policy is saved into the folder `out`.
"""

import json
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
    PreTrainedTokenizerBase,
    PrinterCallback,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.logging import disable_progress_bar
from trl.experimental.ppo import PPOConfig, PPOTrainer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # the benchmarks are not installed

from demo.preference import score


class ProgrammedBackbone(nn.Module):
    """Has the score of the whole text for a hidden state, at every place: TRL reads it at the last token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, asked: dict[str, Any]) -> None:
        super().__init__()
        self.tokenizer, self.zero, self.unit = tokenizer, asked["zero"], asked["unit"]
        self.prompts = {tokenizer.decode(ids) for ids in asked["prompt_ids"]}

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutput:
        texts = self.tokenizer.batch_decode(input_ids, skip_special_tokens=True)
        scores = torch.tensor([(score(self.response(text)) - self.zero) / self.unit for text in texts])
        return BaseModelOutput(hidden_states=(scores[:, None, None].expand(-1, input_ids.shape[1], 1),))

    def response(self, text: str) -> str:
        """What comes after the prompt, which ends with a line break."""
        return text.removeprefix(max(filter(text.startswith, self.prompts), key=len))


class ProgrammedReward(nn.Module):
    """The programmed score in the form of a sequence classifier, as TRL calls one."""

    base_model_prefix = "backbone"

    def __init__(self, backbone: ProgrammedBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.score = nn.Identity()


def train(asked: dict[str, Any]) -> None:
    """One run."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(asked["policy"], padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(asked["policy"], dtype="float32") for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(asked["policy"], num_labels=1, dtype="float32")
    nn.init.zeros_(value.score.weight)
    prompts = Dataset.from_list([{"input_ids": ids} for ids in asked["prompt_ids"]])
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=asked["out"],
            total_episodes=asked["episodes"],
            per_device_train_batch_size=asked["batch_episodes"],
            gradient_accumulation_steps=1,
            local_rollout_forward_batch_size=asked["batch_episodes"],
            num_ppo_epochs=asked["epochs"],
            response_length=asked["new_tokens"],
            stop_token="eos",  # noqa: S106
            missing_eos_penalty=asked["missing_end_score"],
            temperature=1.0,
            kl_coef=asked["kl_coefficient"],
            lam=asked["gae_lambda"],
            learning_rate=asked["learning_rate"],
            adam_epsilon=asked["adam_epsilon"],
            weight_decay=0.0,
            lr_scheduler_type="linear",
            bf16=False,
            use_cpu=asked["device"] == "cpu",
            gradient_checkpointing=False,
            seed=asked["seed"],
            num_sample_generations=0,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=ProgrammedReward(ProgrammedBackbone(tokenizer, asked)),
        value_model=value,
        train_dataset=prompts,
        eval_dataset=prompts,
    )
    trainer.callback_handler.remove_callback(PrinterCallback)
    trainer.train()
    policy.save_pretrained(asked["out"])
    tokenizer.save_pretrained(asked["out"])


disable_progress_bar()
train(json.loads(sys.stdin.read()))

"""Does TRL use our folder as it is? As the model of its reward trainer, and as the reward of its online trainers."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.peer import peer_python
from tests.planted import liking, rankings
from worker.learning.reward.fitting import RewardSettings, fit_reward_model
from worker.learning.reward.model import normalise, save_reward_model, score_responses

pytestmark = [pytest.mark.learning, pytest.mark.long]

SHARED = ("torch", "transformers", "datasets", "accelerate", "tokenizers")  # as the speed benchmark has them
TRL = """
import json, sys
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer

reward, policy, out, pairs = sys.argv[1], sys.argv[2], sys.argv[3], Dataset.from_list(json.loads(sys.argv[4]))
common = {
    "output_dir": out, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no", "max_steps": 1,
    "per_device_train_batch_size": 4,
}
offline = RewardTrainer(reward, RewardConfig(**common), train_dataset=pairs, eval_dataset=pairs)
evaluated = offline.evaluate()
offline.train()
online = GRPOTrainer(
    policy, reward, GRPOConfig(num_generations=2, max_completion_length=4, logging_steps=1, **common),
    train_dataset=Dataset.from_list([{"prompt": "the cat "}] * 4),
)
online.train()
print(json.dumps({"evaluated": evaluated, "online": online.state.log_history[0]}))
"""


def test_trl_reads_our_scores_and_learns_from_them(tiny_folder: Path, tmp_path: Path) -> None:
    settings = RewardSettings(epochs=2, learning_rate=5e-3, batch_sets=8, precision="fp32")
    fitted = fit_reward_model(str(tiny_folder), rankings(60, 0), [], settings, 0, device=torch.device("cpu"))
    reference = rankings(6, 3)
    model = normalise(fitted.reward_model, [own.prompt for own in reference], [own.responses for own in reference])
    save_reward_model(model, tmp_path / "reward")
    pairs = [sorted(own.responses, key=liking) for own in rankings(6, 9, 2) if len(own.overall.groups) > 1]
    prompts = [own.prompt for own in rankings(6, 9, 2) if len(own.overall.groups) > 1]
    rows = [
        {"prompt": own[0]["content"], "chosen": f" {better}", "rejected": f" {worse}"}
        for own, (worse, better) in zip(prompts, pairs, strict=True)
    ]
    command = [str(peer_python("trl==1.16.0", SHARED)), "-c", TRL]
    arguments = [str(tmp_path / "reward"), str(tiny_folder), str(tmp_path / "out"), json.dumps(rows)]
    run = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True, cwd=tmp_path)
    told = json.loads(run.stdout.splitlines()[-1])
    worse = score_responses(model, prompts, [own for own, _ in pairs])
    better = score_responses(model, prompts, [own for _, own in pairs])
    assert told["evaluated"]["eval_accuracy"] == float((better > worse).float().mean())
    assert told["evaluated"]["eval_margin"] == pytest.approx(float((better - worse).mean()), abs=1e-4)
    highest = float(torch.cat([better, worse]).max()) - model.normalisation.offset
    assert told["evaluated"]["eval_max_reward"] == pytest.approx(highest, abs=1e-4)
    assert told["online"]["rewards/reward/mean"] == pytest.approx(told["online"]["reward"])

"""How do we do the same work? Run by ppo_speed.py in a process of its own, as the peers are."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the benchmarks are not installed

from benchmarks.turns import RolloutTurns, Work  # noqa: E402
from worker.learning.models import load_language_model, load_tokenizer, pick_device  # noqa: E402
from worker.learning.policy.settings import PPOSettings  # noqa: E402
from worker.learning.ppo import improve_policy  # noqa: E402
from worker.learning.progress import Progress  # noqa: E402
from worker.learning.reward.model import load_reward_model  # noqa: E402
from worker.learning.sampling import SamplingSettings  # noqa: E402

PHASES = ("sample", "score", "evaluate")


def settings_for(work: Work) -> PPOSettings:
    """As the peer's; the rest is what we think best."""
    return PPOSettings(
        estimator=work.estimator,
        group_size=work.group,
        episodes=work.rollouts * work.episodes,
        batch_episodes=work.episodes,
        epochs=work.epochs,
        learning_rate=work.learning_rate,
        adam_epsilon=work.adam_epsilon,
        gae_lambda=work.gae_lambda,
        critic=work.critic,
        kl_in="reward" if work.estimator == "gae" else "loss",
        kl_coefficient=work.kl_coefficient,
        epoch_kl_limit=None,
        sampling=SamplingSettings(max_new_tokens=work.new_tokens, engine=work.engine, precision=work.precision),
        precision=work.precision,
    )


def train(turns: RolloutTurns) -> None:
    """The whole run, waiting after each rollout."""
    work = turns.work
    device = pick_device(work.device)
    policy, reference = (load_language_model(work.policy, device) for _ in range(2))
    reward = load_reward_model(Path(work.reward), device, work.precision)

    def take_turns(progress: Progress) -> None:
        if progress.phase != "improve_policy":
            return
        metrics = progress.metrics
        turns.phases |= {name: metrics[f"seconds/{name}"] for name in PHASES}
        turns.tokens = round(metrics["length"] * work.episodes)
        turns.end()
        if progress.done < progress.total:
            turns.begin()

    turns.begin()
    improve_policy(
        policy,
        reference,
        load_tokenizer(work.policy),
        reward,
        [[{"role": "user", "content": prompt}] for prompt in work.prompts],
        settings_for(work),
        work.seed,
        take_turns,
        critic=reward.model if work.critic == "separate" else None,
    )


train(RolloutTurns())

"""How does a round's policy come about? PPO against the training reward model, on train prompts."""

from pathlib import Path

from app.database import transaction
from app.domain import policies, reward_models, rounds, runs
from app.tables import RewardModelPurpose, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.models import save_model
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import improve_policy
from worker.learning.reward.model import load_reward_model
from worker.learning.sampling import SamplingSettings
from worker.learning.seeds import derive_seed
from worker.steps.inputs import RoundInputs, as_messages, load_policy, read_prompts, read_round


def improve_current_policy(attempt: Attempt) -> None:
    """PPO from the round's policy, its KL measured against version 0."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        reward_model = reward_models.reward_models_of_round(session, inputs.round)[RewardModelPurpose.TRAINING]
        prompts = read_prompts(session, inputs.round.project_id, Split.TRAIN)
    model, tokenizer = load_policy(inputs.policy, attempt.device)
    reference, _ = load_policy(inputs.base, attempt.device)
    folder = Path(artifacts.local(reward_model.uri, reward_model.content_hash))
    scorer = load_reward_model(folder, attempt.device, inputs.reward.precision)
    improved = improve_policy(
        model,
        reference,
        tokenizer,
        scorer,
        [as_messages(prompt.messages) for prompt in prompts],
        ppo_settings(inputs),
        derive_seed(inputs.round.seed, "ppo"),
        attempt.named("PPO"),
    )
    attempt.flush()
    artifact = artifacts.store(
        inputs.run, attempt.number, "policy", lambda folder: save_model(improved.policy, tokenizer, folder)
    )
    with transaction() as session:
        round_, run = runs.lock_attempt(session, attempt.run_id, attempt.number)
        policy = policies.add_policy(
            session, round_, run, reward_model=reward_model, uri=artifact.uri, content_hash=artifact.content_hash
        )
        runs.note(run, f"policy version {policy.version} after {len(improved.metrics)} rollouts")
        rounds.finish_step(session, run.id, attempt.number)


def ppo_settings(inputs: RoundInputs) -> PPOSettings:
    """The project's PPO settings. PPO learns from the whole distribution, so the desk's `top_p` is left out."""
    choice = inputs.settings.sampling
    sampling = SamplingSettings(temperature=choice.temperature, max_new_tokens=choice.max_new_tokens)
    return PPOSettings(**inputs.settings.ppo.model_dump(), sampling=sampling)

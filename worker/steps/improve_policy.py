"""How does a round's policy come about? By PPO against the training reward model, fine-tuning on labels, or both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.database import transaction
from app.domain import policies, reward_models, rounds, runs
from app.tables import Prompt, RewardModel, RewardModelPurpose, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.corpus import Pair
from worker.learning.models import save_model
from worker.learning.policy.guards import Ended
from worker.learning.policy.judges import reward_function
from worker.learning.policy.settings import PPOSettings
from worker.learning.ppo import ImprovedPolicy, improve_policy
from worker.learning.reward.model import RewardModel as Scorer
from worker.learning.reward.model import load_reward_model
from worker.learning.sampling import SamplingSettings
from worker.learning.seeds import derive_seed
from worker.steps.fine_tune import FineTuned, fine_tune, read_examples
from worker.steps.inputs import RoundInputs, as_messages, load_policy, named_by, read_prompts, read_round

_ENDED: Mapping[Ended, str] = {
    "done": "all rollouts are done",
    "kl_budget": "KL left its budget: the last policy within it is kept",
    "watched": "the evaluation reward model found it worse and worse: the best policy is kept",
}


@dataclass(frozen=True)
class Source:
    """What a round's policy is made from."""

    inputs: RoundInputs
    prompts: Sequence[Prompt]
    examples: Sequence[Pair]
    """What labels hold up as good; empty where the project does not fine-tune."""
    reward_models: Mapping[RewardModelPurpose, RewardModel]

    @property
    def is_optimised(self) -> bool:
        """Whether a reward model is climbed."""
        return self.inputs.settings.loop.improve_by != "sft"


def improve_current_policy(attempt: Attempt) -> None:
    """The next policy, from the round's one: fine-tuned, improved by PPO, or the one after the other."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        source = Source(
            inputs,
            read_prompts(session, inputs.round.project_id, Split.TRAIN),
            read_examples(session, inputs) if inputs.settings.loop.improve_by != "ppo" else [],
            reward_models.reward_models_of_round(session, inputs.round),
        )
    tuned = fine_tune(attempt, inputs, source.examples) if source.examples else None
    model, tokenizer = (tuned.model, tuned.tokenizer) if tuned else load_policy(inputs.policy, attempt.device)
    improved = _optimised(attempt, source, model, tokenizer) if source.is_optimised else None
    model = improved.policy if improved else model
    attempt.flush()
    artifact = artifacts.store(
        inputs.run, attempt.number, "policy", lambda folder: save_model(model, tokenizer, folder)
    )
    with transaction() as session:
        round_, run = runs.lock_attempt(session, attempt.run_id, attempt.number)
        policy = policies.add_policy(
            session,
            round_,
            run,
            reward_model=source.reward_models[RewardModelPurpose.TRAINING] if source.is_optimised else None,
            uri=artifact.uri,
            content_hash=artifact.content_hash,
        )
        runs.note(run, f"policy version {policy.version} {_in_words(tuned, improved)}")
        rounds.finish_step(session, run.id, attempt.number)
    artifacts.discard_states(inputs.run.id)


def _in_words(tuned: FineTuned | None, improved: ImprovedPolicy | None) -> str:
    said = []
    if tuned is not None:
        said.append(
            f"after SFT on {tuned.pairs} corrections and winning responses, with the weights of epoch {tuned.epoch}"
        )
    if improved is not None:
        said.append(f"after {len(improved.metrics)} rollouts of PPO: {_ENDED[improved.ended]}")
    return "; ".join(said)


def _optimised(
    attempt: Attempt, source: Source, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> ImprovedPolicy:
    """PPO from `model`, in place, its KL measured against version 0."""
    inputs, settings = source.inputs, ppo_settings(source.inputs)
    scorers = {purpose: _load_scorer(attempt, inputs, row) for purpose, row in source.reward_models.items()}
    if settings.watch_patience is not None and RewardModelPurpose.EVALUATION not in scorers:
        raise ValueError(
            "ppo.watch_patience lets the evaluation reward model end the run, and this round has none: label more"
            " validation prompts, or leave watch_patience out"
        )
    # Adapters that are switched off give the policy that they began with: version 0, in a project's first round.
    is_own_reference = settings.lora_rank is not None and inputs.policy.id == inputs.base.id and not source.examples
    reference = None if is_own_reference else load_policy(inputs.base, attempt.device)[0]
    prompts = [as_messages(prompt.messages) for prompt in source.prompts]
    given = [prompts, source.examples, [row.content_hash for row in source.reward_models.values()]]
    training = scorers.pop(RewardModelPurpose.TRAINING)
    return improve_policy(
        model,
        reference,
        tokenizer,
        reward_function(
            [training],
            settings.conservatism,
            settings.conservatism_coefficient,
            derive_seed(inputs.round.seed, "doubt"),
        ),
        prompts,
        settings,
        derive_seed(inputs.round.seed, "ppo"),
        attempt.named("PPO"),
        critic=training.model if settings.critic == "separate" else None,
        watched={purpose.value: scorer for purpose, scorer in scorers.items()},
        checkpoints=artifacts.states(inputs.run, f"ppo-{named_by(*given)}"),
    )


def _load_scorer(attempt: Attempt, inputs: RoundInputs, row: RewardModel) -> Scorer:
    folder = Path(artifacts.local(row.uri, row.content_hash))
    return load_reward_model(folder, attempt.device, inputs.reward.precision)


def ppo_settings(inputs: RoundInputs) -> PPOSettings:
    """The project's PPO settings. PPO learns from the whole distribution, so the desk's `top_p` is left out."""
    choice = inputs.settings.sampling
    sampling = SamplingSettings(temperature=choice.temperature, max_new_tokens=choice.max_new_tokens)
    return PPOSettings(**inputs.settings.ppo.model_dump(), sampling=sampling)

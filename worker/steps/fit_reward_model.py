"""What do the labels prefer? A training reward model for PPO, and an evaluation one that PPO never sees."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.database import transaction
from app.domain import reward_models, rounds, runs, samples, snapshots
from app.language import mark
from app.tables import Prompt, ResponsePurpose, RewardModelPurpose, Snapshot, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.records import Message, Ranking
from worker.learning.reward.fitting import fit_reward_model, pairwise_accuracy, score_rankings, teaches
from worker.learning.reward.model import Normalisation, RewardModel, normalise, save_reward_model
from worker.learning.seeds import derive_seed
from worker.steps.inputs import (
    RoundInputs,
    as_messages,
    as_new_sample,
    as_rankings,
    load_policy,
    read_prompts,
    read_round,
)
from worker.steps.sample_responses import distinct_samples

LEAST_EVALUATION_RANKINGS = 10
"""Rankings of validation prompts below which no evaluation reward model is fitted."""

_IS_FITTED = {
    RewardModelPurpose.TRAINING: mark("the training reward model is fitted"),
    RewardModelPurpose.EVALUATION: mark("the evaluation reward model is fitted"),
}
_REFERENCE_PROMPTS = 64
_REFERENCE_SAMPLES = 4

Rankings = Mapping[Split, Sequence[Ranking]]


@dataclass(frozen=True)
class ReferenceSet:
    """Version 0's responses to train prompts, which give every reward model its zero and its unit."""

    prompts: Sequence[tuple[Message, ...]]
    responses: Sequence[Sequence[str]]
    unstored: Sequence[samples.NewSample] = ()


@dataclass(frozen=True)
class Fitted:
    """What is left of a reward model once it is stored: its scale, its place and its card. Its memory is free again."""

    scale: Normalisation
    artifact: artifacts.Artifact
    card: dict[str, Any]


def fit_reward_models(attempt: Attempt) -> None:
    """Both reward models of the round, from the project's base model, on the round's snapshot."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        rankings = read_rankings(session, inputs)
        stored = _stored_reference(session, inputs)
        train_prompts = read_prompts(session, inputs.round.project_id, Split.TRAIN)
    reference = stored or _sample_reference(attempt, inputs, train_prompts)
    fitted = {RewardModelPurpose.TRAINING: _fit(attempt, inputs, RewardModelPurpose.TRAINING, rankings, reference)}
    enough = sum(map(teaches, rankings[Split.VALIDATION])) >= LEAST_EVALUATION_RANKINGS
    if enough:
        purpose = RewardModelPurpose.EVALUATION
        fitted[purpose] = _fit(attempt, inputs, purpose, rankings, reference)
    else:
        fitted[RewardModelPurpose.TRAINING].card["note"] = (
            f"No evaluation reward model: it needs {LEAST_EVALUATION_RANKINGS} rankings of validation prompts, and"
            f" there are {len(rankings[Split.VALIDATION])}. The round's policies are scored by this model alone, which"
            " PPO climbed; labels of test prompts are never fitted on."
        )
    with transaction() as session:
        round_, run = runs.lock_attempt(session, attempt.run_id, attempt.number)
        samples.store_samples(
            session,
            run,
            inputs.base,
            reference.unstored,
            purpose=ResponsePurpose.EVALUATION,
            sampling=inputs.settings.sampling.model_dump(),
        )
        for purpose, one in fitted.items():
            reward_models.add_reward_model(
                session,
                round_,
                run,
                purpose,
                backbone=inputs.base.uri,
                uri=one.artifact.uri,
                content_hash=one.artifact.content_hash,
                gain=one.scale.gain,
                offset=one.scale.offset,
                card=one.card,
            )
            runs.note(run, f"{purpose} reward model: {_in_words(one.card)}")
        rounds.finish_step(session, run.id, attempt.number)


def read_rankings(session: Session, inputs: RoundInputs) -> dict[Split, list[Ranking]]:
    """The rankings of the round's snapshot, by the split of their prompts.

    Raises ValueError where no train prompt has one that teaches: nothing need be sampled before that is said.
    """
    snapshot = session.get_one(Snapshot, inputs.round.snapshot_id)
    rankings = {
        split: [one for ranked in snapshots.rankings(session, snapshot, split) for one in as_rankings(ranked)]
        for split in Split
    }
    if not any(map(teaches, rankings[Split.TRAIN])):
        raise ValueError(
            "no label of a train prompt puts one response above another, and none corrects one: label more"
            " comparisons, with a form that asks for an order or for corrections"
        )
    return rankings


def _fit(
    attempt: Attempt, inputs: RoundInputs, purpose: RewardModelPurpose, rankings: Rankings, reference: ReferenceSet
) -> Fitted:
    """Fit on train labels with choices on validation ones; the evaluation model on validation labels alone."""
    is_training = purpose is RewardModelPurpose.TRAINING
    taught = rankings[Split.TRAIN if is_training else Split.VALIDATION]
    checked = rankings[Split.VALIDATION] if is_training else ()
    seed = derive_seed(inputs.round.seed, "fit", purpose.value)
    result = fit_reward_model(
        artifacts.local(inputs.base.uri, inputs.base.content_hash),
        taught,
        checked,
        inputs.reward,
        seed,
        attempt.named(_IS_FITTED[purpose]),
        attempt.device,
    )
    attempt.flush()
    model = normalise(result.reward_model, reference.prompts, reference.responses)
    artifact = artifacts.store(
        inputs.run, attempt.number, f"{purpose}-reward-model", lambda folder: save_reward_model(model, folder)
    )
    card = {
        **accuracy_on(model, rankings[Split.TEST], seed),
        "rankings": {
            mark("fitted_on"): len(taught),
            mark("chosen_on"): len(checked),
            "test": len(rankings[Split.TEST]),
        },
        mark("corrections"): sum(one.implied for one in taught),
        "fitted_on": Split.TRAIN if is_training else Split.VALIDATION,
        mark("epochs"): result.epochs,
        "history": result.history,
        "normalised_on": {"prompts": model.normalisation.prompts, "samples": model.normalisation.samples},
        "settings": asdict(inputs.reward),
        mark("seed"): seed,
    }
    return Fitted(model.normalisation, artifact, card)


def accuracy_on(model: RewardModel, test: Sequence[Ranking], seed: int) -> dict[str, float | int | None]:
    """The share of ordered pairs of test prompts that the model puts as people did, with its 95 % interval."""
    checked = [ranking for ranking in test if teaches(ranking)]
    if not checked:
        return {"accuracy": None, "accuracy_low": None, "accuracy_high": None, "accuracy_pairs": 0}
    estimate = pairwise_accuracy(score_rankings(model, checked), checked, seed)
    return {
        "accuracy": estimate.value,
        "accuracy_low": estimate.low,
        "accuracy_high": estimate.high,
        "accuracy_pairs": estimate.count,
    }


def _stored_reference(session: Session, inputs: RoundInputs) -> ReferenceSet | None:
    by_prompt = samples.reference_samples(session, inputs.base)
    if not by_prompt:
        return None
    prompts = [session.get_one(Prompt, prompt_id) for prompt_id in by_prompt]
    return ReferenceSet(
        [as_messages(prompt.messages) for prompt in prompts],
        [[response.text for response in own] for own in by_prompt.values()],
    )


def _sample_reference(attempt: Attempt, inputs: RoundInputs, prompts: Sequence[Prompt]) -> ReferenceSet:
    """Version 0's responses where no earlier run has stored any: the project labels imported responses alone."""
    chosen = prompts[:_REFERENCE_PROMPTS]
    messages = [as_messages(prompt.messages) for prompt in chosen]
    model, tokenizer = load_policy(inputs.base, attempt.device)
    written = distinct_samples(
        model,
        tokenizer,
        messages,
        _REFERENCE_SAMPLES,
        inputs.sampling,
        derive_seed(inputs.round.seed, "reference"),
        attempt.named(mark("version 0 writes the reference set")),
    )
    kept = [index for index, own in enumerate(written) if len(own) > 1]
    return ReferenceSet(
        [messages[index] for index in kept],
        [[sample.text for sample in written[index]] for index in kept],
        [as_new_sample(chosen[index], sample) for index in kept for sample in written[index]],
    )


def _in_words(card: Mapping[str, Any]) -> str:
    if card["accuracy"] is None:
        return "no labels of test prompts to measure it on"
    return f"accuracy {card['accuracy']:.3f} on {card['accuracy_pairs']} pairs of test prompts"

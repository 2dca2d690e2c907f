"""What do the labels prefer? A training reward model for PPO, and an evaluation one that PPO never sees."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.database import transaction
from app.domain import reward_models, rounds, runs, samples, snapshots
from app.language import mark
from app.tables import Prompt, ResponsePurpose, RewardModel, RewardModelPurpose, Snapshot, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.records import Label, Message
from worker.learning.reward.card import reward_card
from worker.learning.reward.curve import reward_learning_curve
from worker.learning.reward.fitting import FittedRewardModel, fit_reward_model
from worker.learning.reward.model import normalise, save_reward_model
from worker.learning.reward.normalisation import Normalisation
from worker.learning.reward.observations import teaches
from worker.learning.seeds import derive_seed
from worker.steps.inputs import (
    RoundInputs,
    as_messages,
    as_new_sample,
    load_policy,
    named_by,
    read_prompts,
    read_round,
)
from worker.steps.sample_responses import distinct_samples
from worker.steps.taught import as_labels

LEAST_EVALUATION_LABELS = 10
"""Labels of validation prompts below which no evaluation reward model is fitted."""

_IS_FITTED = {
    RewardModelPurpose.TRAINING: mark("the training reward model is fitted"),
    RewardModelPurpose.EVALUATION: mark("the evaluation reward model is fitted"),
}
_ON_A_PART = mark("a reward model is fitted on a part of the labels")
_REFERENCE_PROMPTS = 64
_REFERENCE_SAMPLES = 4

Labels = Mapping[Split, Sequence[Label]]


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
    """Both reward models of the round, on the round's snapshot."""
    with transaction() as session:
        inputs = read_round(session, attempt)
        labels = read_labels(session, inputs)
        earlier = reward_models.previous_training_model(session, inputs.round)
        stored = _stored_reference(session, inputs)
        train_prompts = read_prompts(session, inputs.round.project_id, Split.TRAIN)
    reference = stored or _sample_reference(attempt, inputs, train_prompts)
    training, evaluation = RewardModelPurpose.TRAINING, RewardModelPurpose.EVALUATION
    fitted = {training: _fit(attempt, inputs, training, labels, reference, earlier)}
    if len(labels[Split.VALIDATION]) >= LEAST_EVALUATION_LABELS:
        fitted[evaluation] = _fit(attempt, inputs, evaluation, labels, reference)
    else:
        fitted[training].card["note"] = (
            f"No evaluation reward model: it needs {LEAST_EVALUATION_LABELS} labels of validation prompts, and"
            f" there are {len(labels[Split.VALIDATION])}. The round's policies are scored by this model alone, which"
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
    artifacts.discard_states(inputs.run.id)


def read_labels(session: Session, inputs: RoundInputs) -> dict[Split, list[Label]]:
    """What the labels of the round's snapshot teach, by the split of their prompts.

    Raises ValueError where no train prompt has one that teaches: nothing need be sampled before that is said.
    """
    snapshot = session.get_one(Snapshot, inputs.round.snapshot_id)
    labels: dict[Split, list[Label]] = {split: [] for split in Split}
    for ranked in snapshots.each_ranking(session, snapshot):
        weight = ranked.believed if inputs.reward.annotators == "given" else 1.0
        labels[ranked.split] += filter(teaches, as_labels(ranked, weight))
    if not labels[Split.TRAIN]:
        raise ValueError(
            "no label of a train prompt says anything of its responses that counts: label more comparisons, with a form"
            " that asks for an order, for scores or for corrections, by annotators whose labels weigh more than 0"
        )
    return labels


def _fit(
    attempt: Attempt,
    inputs: RoundInputs,
    purpose: RewardModelPurpose,
    labels: Labels,
    reference: ReferenceSet,
    earlier: RewardModel | None = None,
) -> Fitted:
    """Fit on train labels with choices on validation ones; the evaluation model on validation labels alone.

    Only the training model may start from an `earlier` one, which would bring its train labels along.
    """
    is_training = purpose is RewardModelPurpose.TRAINING
    fitted_on = Split.TRAIN if is_training else Split.VALIDATION
    taught, checked = labels[fitted_on], labels[Split.VALIDATION] if is_training else []
    seed = derive_seed(inputs.round.seed, "fit", purpose.value)
    start = earlier if inputs.reward.start != "fresh" else None
    result = _fit_on(attempt, inputs, _IS_FITTED[purpose], taught, checked, seed, start)
    model = normalise(result.reward_model, reference.prompts, reference.responses)
    card = {
        **reward_card(model, labels[Split.TEST], seed),
        "labels": {
            "fitted_on": len(taught),
            "chosen_on": len(checked),
            "test": len(labels[Split.TEST]),
        },
        "annotators": _annotators(taught, model.answers.facts()),
        "corrections": sum(one.implied for one in taught),
        "fitted_on": fitted_on,
        **result.course,
        "start": start.id if start else None,
        "normalised_on": {"prompts": model.normalisation.prompts, "samples": model.normalisation.samples},
        "settings": asdict(inputs.reward),
        "seed": seed,
    }
    if is_training and inputs.settings.loop.learning_curve:
        curve_seed = derive_seed(inputs.round.seed, "curve")
        card["learning_curve"] = reward_learning_curve(
            taught,
            labels[Split.TEST],
            lambda part: _fit_on(attempt, inputs, _ON_A_PART, part, checked, curve_seed),
            card,
            curve_seed,
        )
    artifact = artifacts.store(
        inputs.run, attempt.number, f"{purpose}-reward-model", lambda folder: save_reward_model(model, folder, card)
    )
    return Fitted(model.normalisation, artifact, card)


def _fit_on(
    attempt: Attempt,
    inputs: RoundInputs,
    phase: str,
    taught: Sequence[Label],
    checked: Sequence[Label],
    seed: int,
    start: RewardModel | None = None,
) -> FittedRewardModel:
    """Fit from the project's base model, or from `start`, going on where an earlier attempt of the run was killed."""
    # Named by all that may differ from that attempt: an admin can weigh annotators anew, a label can be withdrawn.
    given = named_by(taught, checked, seed, start and start.content_hash)
    result = fit_reward_model(
        artifacts.local(inputs.base.uri, inputs.base.content_hash),
        taught,
        checked,
        inputs.reward,
        seed,
        attempt.named(phase),
        attempt.device,
        checkpoints=artifacts.states(inputs.run, given),
        start=Path(artifacts.local(start.uri, start.content_hash)) if start else None,
    )
    attempt.flush()
    return result


def _annotators(taught: Sequence[Label], answers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How far each annotator was believed, by pseudonym: the weight of a label, and where it was learned, why."""
    learned = (answers["annotators"] or {"each": {}})["each"]
    count = Counter(label.annotator for label in taught if not label.implied)
    weights = {label.annotator: label.weight for label in taught}
    return [
        {"annotator": name, "labels": count[name], "weight": weights[name], **learned.get(name, {})}
        for name in sorted(weights, key=lambda name: int(name or 0))
    ]


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
    return f"accuracy {card['accuracy']:.3f} on {card['n']} pairs of test prompts"

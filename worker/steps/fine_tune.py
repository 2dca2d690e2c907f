"""What do people hold up as good? Corrections and winning responses, which the round's policy is fine-tuned on."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase

from app.domain import snapshots
from app.domain.filters import one_of
from app.domain.snapshots import RankedSet
from app.tables import FinishReason, Response, Snapshot, Split
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.corpus import Pair, length_of
from worker.learning.language_model import FINE_TUNING, context_of, finetune
from worker.learning.models import load_tokenizer
from worker.learning.seeds import derive_seed
from worker.steps.inputs import RoundInputs, as_messages, named_by


def read_examples(session: Session, inputs: RoundInputs) -> list[Pair]:
    """What the labels of the round's snapshot hold up as good, on train prompts.

    A response that several annotators chose is there once for each of them. Responses that were cut are left out: they
    would teach to stop in the middle.

    Raises:
        ValueError: if there is nothing to learn from.
    """
    snapshot = session.get_one(Snapshot, inputs.round.snapshot_id)
    given = inputs.settings.reward.annotators == "given"
    found = [
        (id_, Pair(as_messages(ranked.messages), text, str(ranked.prompt_id)))
        for ranked in snapshots.each_ranking(session, snapshot, Split.TRAIN)
        if ranked.believed > 0 or not given
        for id_, text in exemplary(ranked)
    ]
    cut = _cut(session, {id_ for id_, _pair in found})
    pairs = [pair for id_, pair in found if id_ not in cut and pair.response.strip()]
    if not pairs:
        raise ValueError(
            "there is nothing to fine-tune on: no label of a train prompt holds a correction, or one response above all"
            " others that has an end and no flag. Label more, ask for corrections in the form, or set loop.improve_by"
            " to ppo"
        )
    return pairs


def exemplary(ranked: RankedSet) -> Iterator[tuple[int, str]]:
    """The responses (id, text) that an answer holds up as good.

    Every correction, and the one response above all others, unless the annotator corrected or flagged it.
    """
    corrected = {place for place, _id, _text in ranked.corrections}
    yield from ((id_, text) for _place, id_, text in ranked.corrections)
    if len(ranked.groups) < 2 or len(ranked.groups[0]) > 1:
        return
    [winner] = ranked.groups[0]
    flags = ranked.answers.get("flags", {}).values()
    flagged = {id_ for of in flags if isinstance(of, list) for id_ in of}
    if winner not in corrected and ranked.responses[winner][0] not in flagged:
        yield ranked.responses[winner]


@dataclass(frozen=True)
class FineTuned:
    """The round's policy after fine-tuning, and how it went."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pairs: int
    """Corrections and winning responses, those that were held out included."""
    epoch: int
    """The one whose weights were kept."""


def fine_tune(attempt: Attempt, inputs: RoundInputs, pairs: Sequence[Pair]) -> FineTuned:
    """Teaches the round's policy the pairs, going on where an earlier attempt of the run was killed.

    Raises:
        ValueError: if no pair is short enough for the model.
    """
    source = artifacts.local(inputs.policy.uri, inputs.policy.content_hash)
    fitting = _short_enough(source, pairs)
    trained = finetune(
        source,
        fitting,
        replace(FINE_TUNING, **inputs.settings.sft.model_dump()),
        derive_seed(inputs.round.seed, "sft"),
        attempt.named("SFT"),
        artifacts.states(inputs.run, f"sft-{named_by(pairs)}"),
        attempt.device,
    )
    attempt.flush()
    return FineTuned(trained.model, trained.tokenizer, len(fitting), trained.best_epoch)


def _short_enough(source: str, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that fit the model's context: people may write longer corrections than it can read."""
    tokenizer, context = load_tokenizer(source), context_of(AutoConfig.from_pretrained(source))
    fitting = [pair for pair in pairs if length_of(tokenizer, pair) <= context]
    if not fitting:
        raise ValueError(f"no correction and no winning response fits the model's context of {context} tokens")
    return fitting


def _cut(session: Session, ids: Collection[int]) -> set[int]:
    """Those of some responses that ended at the length limit."""
    query = select(Response.id).where(one_of(Response.id, list(ids)), Response.finish_reason == FinishReason.CUT)
    return set(session.scalars(query))

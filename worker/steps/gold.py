"""Does a policy prefer what is known to be better? The project's gold comparisons, as a language model reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from app.domain.filters import SHOWS_WITHDRAWN
from app.tables import Comparison, ComparisonResponse, Prompt, Purpose, Response
from worker.learning.corpus import Pair, encode_pair
from worker.learning.evaluation import Estimate, implicit_preference
from worker.learning.language_model import context_of
from worker.learning.likelihood import Dialogue, response_logprobs
from worker.steps.inputs import as_messages


@dataclass(frozen=True)
class Gold:
    """Responses, and pairs of which the better one is known."""

    responses: Sequence[Pair]
    pairs: Sequence[tuple[int, int]]
    """(better, worse): places in `responses`."""


def read_gold(session: Session, project_id: int) -> Gold:
    """All pairs of a project's gold comparisons; those of prompts that hold more than text are left out."""
    query = (
        select(Comparison.id, Comparison.gold_groups, Prompt.messages, Response.id, Response.text)
        .join(Prompt, Prompt.id == Comparison.prompt_id)
        .join(ComparisonResponse, ComparisonResponse.comparison_id == Comparison.id)
        .join(Response, Response.id == ComparisonResponse.response_id)
        .where(
            Comparison.project_id == project_id,
            Comparison.purpose == Purpose.GOLD,
            Comparison.gold_groups.is_not(None),
            ~SHOWS_WITHDRAWN,
        )
        .order_by(Comparison.id, ComparisonResponse.place)
    )
    responses: list[Pair] = []
    places: dict[tuple[int, int], int] = {}
    groups: dict[int, list[list[int]]] = {}
    for comparison_id, known, messages, response_id, text in session.execute(query):
        try:
            prompt = as_messages(messages)
        except ValueError:
            continue
        groups[comparison_id] = known
        places[comparison_id, response_id] = len(responses)
        responses.append(Pair(prompt, text, str(comparison_id)))
    pairs = [
        (places[comparison_id, better], places[comparison_id, worse])
        for comparison_id, known in groups.items()
        for rank, group in enumerate(known)
        for worse in (id_ for below in known[rank + 1 :] for id_ in below)
        for better in group
    ]
    return Gold(responses, pairs)


def gold_logprobs(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, gold: Gold, temperature: float
) -> list[Tensor | None]:
    """The log-probability of each gold response with its end; None for one that is too long for the model."""
    context = context_of(model.config)
    dialogues: dict[int, Dialogue] = {}
    for place, pair in enumerate(gold.responses):
        try:
            sequence = encode_pair(tokenizer, pair, context)
        except ValueError:
            continue
        dialogues[place] = Dialogue(sequence.ids[: sequence.learn_from], sequence.ids[sequence.learn_from :])
    found = response_logprobs(model, list(dialogues.values()), temperature) if dialogues else []
    sums = {place: one.sum() for place, one in zip(dialogues, found, strict=True)}
    return [sums.get(place) for place in range(len(gold.responses))]


def agreement_with_gold(
    gold: Gold, logprobs: Sequence[Tensor | None], base: Sequence[Tensor | None], seed: int
) -> Estimate | None:
    """How often a policy has moved from version 0 towards the better response; None where no pair could be read."""
    moved = [None if own is None or other is None else own - other for own, other in zip(logprobs, base, strict=True)]
    known = [
        (better, worse, int(gold.responses[first].group))
        for first, second in gold.pairs
        if (better := moved[first]) is not None and (worse := moved[second]) is not None
    ]
    if not known:
        return None
    betters, worses, comparisons = zip(*known, strict=True)
    return implicit_preference(torch.stack(betters), torch.stack(worses), torch.tensor(comparisons), seed)

"""Which prompts does a round sample, and which comparisons do its samples become? Draws, responses and mixing."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain import comparisons
from app.domain.texts import sha256
from app.language import mark
from app.tables import (
    Comparison,
    ComparisonState,
    FinishReason,
    Policy,
    Prompt,
    PromptState,
    Purpose,
    Response,
    ResponsePurpose,
    ResponseSource,
    ResponseState,
    Round,
    Run,
    Split,
    Step,
)


@dataclass(frozen=True)
class Draw:
    """A prompt that a round samples, and the probability with which it was drawn."""

    prompt: Prompt
    probability: float


@dataclass(frozen=True)
class NewSample:
    """What a policy wrote for a prompt, as it is stored."""

    prompt_id: int
    text: str
    token_ids: Sequence[int]
    finish_reason: FinishReason
    seed: int


def draw_prompts(session: Session, project_id: int, count: int, seed: int, *, mixed_share: float = 0.0) -> list[Draw]:
    """Draw `count` active prompts: each split keeps its share, prompts with the fewest comparisons come first.

    Among prompts of a split with equally many comparisons each has the same chance. `mixed_share` of each split's
    prompts are drawn from those that were compared before, where there are any: their older responses tie the scales
    of successive policies together, and nothing would while unused prompts are left.
    """
    asked = (
        select(Comparison.prompt_id, func.count().label("times"))
        .where(
            Comparison.project_id == project_id,
            Comparison.purpose == Purpose.TRAIN,
            Comparison.state != ComparisonState.RETIRED,
        )
        .group_by(Comparison.prompt_id)
        .subquery()
    )
    rows = session.execute(
        select(Prompt, func.coalesce(asked.c.times, 0))
        .outerjoin(asked, asked.c.prompt_id == Prompt.id)
        .where(Prompt.project_id == project_id, Prompt.state == PromptState.ACTIVE)
        .order_by(Prompt.id)
    ).all()
    strata: dict[Split, dict[int, list[Prompt]]] = {}
    for prompt, times in rows:
        strata.setdefault(prompt.split, {}).setdefault(times, []).append(prompt)
    sizes = {split: sum(map(len, by_times.values())) for split, by_times in strata.items()}
    chance = random.Random(seed)
    return [
        draw
        for split, quota in share_out(min(count, len(rows)), sizes).items()
        for draw in _draw_from(strata[split], quota, mixed_share, chance)
    ]


def _draw_from(
    by_times: Mapping[int, Sequence[Prompt]], quota: int, mixed_share: float, chance: random.Random
) -> Iterable[Draw]:
    unused = by_times.get(0, [])
    fresh = min(len(unused), quota - round(mixed_share * quota))
    used = {times: stratum for times, stratum in by_times.items() if times > 0}
    from_used = min(quota - fresh, sum(map(len, used.values())))
    yield from _fewest_first({0: unused}, quota - from_used, chance)
    yield from _fewest_first(used, from_used, chance)


def _fewest_first(by_times: Mapping[int, Sequence[Prompt]], quota: int, chance: random.Random) -> Iterable[Draw]:
    for _, stratum in sorted(by_times.items()):
        taken = min(quota, len(stratum))
        yield from (Draw(prompt, taken / len(stratum)) for prompt in chance.sample(stratum, taken))
        quota -= taken


def share_out(count: int, sizes: Mapping[Split, int]) -> dict[Split, int]:
    """Share `count` over the splits by their sizes (largest remainders), at least one each where `count` allows."""
    total = sum(sizes.values())
    if total == 0:
        return dict.fromkeys(sizes, 0)
    exact = {split: count * size / total for split, size in sizes.items()}
    least = 1 if count >= len(sizes) else 0
    shares = {split: max(int(value), least) for split, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda split: (exact[split] - shares[split], sizes[split]), reverse=True)
    while sum(shares.values()) < count:
        room = next(split for split in by_remainder if shares[split] < sizes[split])
        shares[room] += 1
        by_remainder.remove(room)
        by_remainder.append(room)
    while sum(shares.values()) > count:
        shares[max(shares, key=lambda split: shares[split])] -= 1
    return shares


def store_samples(
    session: Session,
    run: Run,
    policy: Policy,
    samples: Iterable[NewSample],
    *,
    purpose: ResponsePurpose,
    sampling: dict[str, Any],
) -> list[Response]:
    """Store what a policy wrote, in the order given; NUL, which Postgres refuses, becomes a replacement character."""
    written = [(sample, sample.text.replace("\0", "\ufffd")) for sample in samples]
    rows = [
        Response(
            project_id=run.project_id,
            prompt_id=sample.prompt_id,
            source=ResponseSource.POLICY,
            purpose=purpose,
            state=ResponseState.ACTIVE,
            policy_id=policy.id,
            run_id=run.id,
            text=text,
            token_ids=list(sample.token_ids),
            finish_reason=sample.finish_reason,
            sampling=sampling,
            seed=sample.seed,
            content_hash=sha256(text),
        )
        for sample, text in written
    ]
    session.add_all(rows)
    session.flush()
    return rows


def open_comparisons(
    session: Session,
    round_: Round,
    draws: Sequence[Draw],
    fresh: Sequence[Response],
    *,
    k: int,
    mixed_share: float,
    seed: int,
) -> list[Comparison]:
    """Open a comparison for every prompt with two distinct fresh responses, or one where the project's form allows it.

    In a share of them half of the fresh responses give way to older ones of the same prompt, which ties the scales
    of successive policies together.
    """
    chance = random.Random(seed)
    by_prompt: dict[int, list[Response]] = {}
    for response in fresh:
        by_prompt.setdefault(response.prompt_id, []).append(response)
    # A prompt may have been retired while the policy wrote.
    is_active = (Prompt.id.in_(by_prompt), Prompt.state == PromptState.ACTIVE)
    active = set(session.scalars(select(Prompt.id).where(*is_active)))
    older = _older_responses(session, round_, list(by_prompt))
    # The share is of all comparisons, though only prompts that were answered before can be mixed.
    mixing = min(1.0, mixed_share * len(by_prompt) / len(older)) if older else 0.0
    fewest = comparisons.fewest_responses(session, round_.project_id)
    items = []
    for draw in draws:
        shown = by_prompt.get(draw.prompt.id, [])
        if len(shown) < fewest or draw.prompt.id not in active:
            continue
        texts = {response.text for response in shown}
        known = [response for response in older.get(draw.prompt.id, []) if response.text not in texts]
        is_mixed = bool(known) and len(shown) > 1 and chance.random() < mixing
        if is_mixed:
            swapped = chance.sample(known, min(len(known), len(shown) // 2))
            shown = [*chance.sample(shown, len(shown) - len(swapped)), *swapped]
        items.append(
            comparisons.NewComparison(
                project_id=round_.project_id,
                prompt_id=draw.prompt.id,
                response_ids=[response.id for response in shown],
                k=k,
                purpose=Purpose.TRAIN,
                selected_because=mark("mixed") if is_mixed else mark("fresh"),
                round_id=round_.id,
                selection_probability=draw.probability,
            )
        )
    return comparisons.create_comparisons(session, items)


def _older_responses(session: Session, round_: Round, prompt_ids: Sequence[int]) -> dict[int, list[Response]]:
    """Active responses to these prompts that the round's policy did not write, one of each text."""
    query = select(Response).where(
        Response.prompt_id.in_(prompt_ids),
        Response.state == ResponseState.ACTIVE,
        Response.purpose == ResponsePurpose.LABELLING,
        Response.policy_id.is_distinct_from(round_.policy_id),
    )
    found: dict[int, dict[str, Response]] = {}
    for response in session.scalars(query.order_by(Response.id)):
        found.setdefault(response.prompt_id, {})[response.text] = response
    return {prompt_id: list(by_text.values()) for prompt_id, by_text in found.items()}


def reference_samples(session: Session, base: Policy) -> dict[int, list[Response]]:
    """The one stored set of version 0's samples on train prompts that all scores are normalised on, by prompt.

    It is what the first run stored that sampled version 0 more than once on train prompts, prompts with a single sample
    left out.
    """
    is_reference = (Response.policy_id == base.id, Prompt.split == Split.TRAIN, Run.step != Step.EVALUATE_POLICY)
    several = (
        select(Run.id)
        .join(Response, Response.run_id == Run.id)
        .join(Prompt, Prompt.id == Response.prompt_id)
        .where(*is_reference)
        .group_by(Run.id, Response.prompt_id)
        .having(func.count() > 1)
    )
    first = select(func.min(several.subquery().c.id))
    query = (
        select(Response)
        .join(Prompt, Prompt.id == Response.prompt_id)
        .join(Run, Run.id == Response.run_id)
        .where(*is_reference, Response.run_id == first.scalar_subquery())
        .order_by(Response.prompt_id, Response.id)
    )
    rows = list(session.scalars(query))
    counts = Counter(response.prompt_id for response in rows)
    by_prompt: dict[int, list[Response]] = {}
    for response in rows:
        if counts[response.prompt_id] > 1:
            by_prompt.setdefault(response.prompt_id, []).append(response)
    return by_prompt

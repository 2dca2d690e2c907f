"""Labels for tests of what they say: texts do not matter, judgements do."""

from collections.abc import Sequence

from worker.learning.records import Judgement, Label, Message

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "hello"},)


def label(
    overall: Judgement = Judgement(),  # noqa: B008 (frozen)
    *,
    count: int | None = None,
    annotator: str | None = None,
    shown: tuple[int, ...] = (),
    weight: float = 1.0,
    implied: bool = False,
    **criteria: Judgement,
) -> Label:
    """A label with as many responses as its judgements speak of, if `count` does not say more."""
    judgements = (overall, *criteria.values())
    needed = max(max((*one.ranked, len(one.scores) - 1)) + 1 for one in judgements if one.ranked or one.scores)
    responses = tuple(f"response {number}" for number in range(count or needed))
    return Label(PROMPT, responses, overall, criteria, annotator, shown, weight, implied)


def one_by_one(labels: Sequence[Label]) -> list[range]:
    """Places of the labels' responses laid end to end."""
    places, start = [], 0
    for one in labels:
        places.append(range(start, start + len(one.responses)))
        start += len(one.responses)
    return places

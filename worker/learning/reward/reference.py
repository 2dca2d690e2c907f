"""Which responses give scores their zero and their unit? Those of a reference, or some of what was learned from."""

import hashlib
from collections.abc import Sequence
from itertools import islice

from worker.learning.records import Prompt
from worker.learning.reward.evaluation import prompt_key
from worker.learning.reward.lines import Line

MOST_PROMPTS = 256
"""Of the labels, where no reference is given: by then zero and unit hardly move."""

Reference = tuple[list[Prompt], list[list[str]]]
"""Prompts, and for each its responses, two or more that differ."""


def whole_reference(lines: Sequence[Line]) -> Reference:
    """All prompts of a reference that have two different responses.

    Raises:
        ValueError: if none has.
    """
    several = _several(lines)
    if not several:
        raise ValueError(
            "the reference has no prompt with two different responses, so scores have no unit: give --reference a file"
            " with some, or leave it out"
        )
    return _unzipped(several)


def some_of(lines: Sequence[Line]) -> Reference:
    """Such prompts of the labels, at most `MOST_PROMPTS`: their hashes choose, so that a longer file changes few."""
    several = _several(lines)
    chosen = sorted(several, key=lambda key: hashlib.sha256(key.encode()).digest())
    return _unzipped({key: several[key] for key in islice(chosen, MOST_PROMPTS)})


def _several(lines: Sequence[Line]) -> dict[str, tuple[Prompt, list[str]]]:
    """By their keys, prompts with all of their different responses where there are two or more."""
    by_prompt: dict[str, tuple[Prompt, dict[str, None]]] = {}
    for line in lines:
        _, texts = by_prompt.setdefault(prompt_key(line.prompt), (line.prompt, {}))
        texts |= dict.fromkeys(line.responses)
    return {key: (prompt, list(texts)) for key, (prompt, texts) in by_prompt.items() if len(texts) > 1}


def _unzipped(several: dict[str, tuple[Prompt, list[str]]]) -> Reference:
    return [prompt for prompt, _ in several.values()], [texts for _, texts in several.values()]

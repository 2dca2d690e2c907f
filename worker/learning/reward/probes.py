"""Does a reward model look at what it should not? At place, length, format, or who wrote a text."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.learning.records import Label, Message
from worker.learning.reward.evaluation import correlation, prompt_key
from worker.learning.reward.judged import JudgedPair, Share, estimate, half_ties, share

Probe = dict[str, Share]

FORMATS = {
    "list": re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+\S", re.MULTILINE),
    "heading": re.compile(r"^#{1,6}\s+\S", re.MULTILINE),
    "code": re.compile(r"^\s*(?:```|~~~)", re.MULTILINE),
    "bold": re.compile(r"\*\*\S(?:[^*\n]*\S)?\*\*|__\S(?:[^_\n]*\S)?__"),
    "table": re.compile(r"^\s*\|?\s*:?-+:?\s*\|[\s:|-]*$", re.MULTILINE),
    "emoji": re.compile("[\U0001f300-\U0001faff\u2600-\u27bf]"),
}
"""What a text has if the pattern is found in it."""


def position_probe(judged: Sequence[JudgedPair], seed: int) -> Probe:
    """Whether the place on the page matters. Only pairs whose order shown is known.

    `chosen_first`: how often people put the one shown first before the other; far from 1/2, the labels are biased.
    `accuracy_first`, `accuracy_last`: the model's accuracy where the one shown first, or last, was the better. The
    model never sees the order shown, so a gap says that the labels it is tested by follow the place.
    """
    known = [pair for pair in judged if pair.label.shown]
    first = [pair for pair in known if pair.label.shown.index(pair.better) < pair.label.shown.index(pair.worse)]
    last = [pair for pair in known if pair.label.shown.index(pair.better) > pair.label.shown.index(pair.worse)]
    return {
        "chosen_first": share([1.0] * len(first) + [0.0] * len(last), first + last, seed),
        "accuracy_first": accuracy(first, seed),
        "accuracy_last": accuracy(last, seed),
    }


def longer_wins(judged: Sequence[JudgedPair], length: Callable[[str], int], seed: int) -> Share:
    """How often the longer of two is the better: the accuracy of a model that sees nothing else; equal lengths half."""
    return share([half_ties(length(pair.texts[0]) - length(pair.texts[1])) for pair in judged], judged, seed)


def length_probe(judged: Sequence[JudgedPair], seed: int) -> Probe:
    """Whether length matters more to the model than to people, in characters; pairs of one length are left out.

    `chosen`, `preferred`: how often people, and the model, prefer the longer one. `accuracy_longer`,
    `accuracy_shorter`: the model's accuracy where the longer, or the shorter, was the better.
    """
    longer = [pair for pair in judged if len(pair.texts[0]) > len(pair.texts[1])]
    shorter = [pair for pair in judged if len(pair.texts[0]) < len(pair.texts[1])]
    return {
        **_preference([*longer, *(pair.turned for pair in shorter)], len(longer), seed),
        "accuracy_longer": accuracy(longer, seed),
        "accuracy_shorter": accuracy(shorter, seed),
    }


def length_correlation(labels: Sequence[Label], scores: Sequence[Tensor]) -> float | None:
    """Pearson's correlation of score and characters within prompts, equal texts of a prompt counting once.

    Args:
        scores: for each label the scores [responses] of its responses.
    """
    by_prompt: dict[str, dict[str, float]] = {}
    for label, own in zip(labels, scores, strict=True):
        by_prompt.setdefault(prompt_key(label.prompt), {}).update(zip(label.responses, own.tolist(), strict=True))
    rows = [_centred(torch.tensor([(len(text), score) for text, score in own.items()])) for own in by_prompt.values()]
    if not rows:
        return None
    lengths, values = torch.cat(rows).unbind(dim=1)
    return correlation(lengths, values)


def format_probe(judged: Sequence[JudgedPair], seed: int) -> dict[str, Probe]:
    """For each of `FORMATS` that one of two texts has and the other has not: who prefers the one that has it?

    `chosen`: how often people do; `preferred`: how often the model does. Formats that no pair differs in are left out.
    """
    probes = {}
    texts = {text for pair in judged for text in pair.texts}
    for name, pattern in FORMATS.items():
        marked = {text for text in texts if pattern.search(text)}
        having = [pair for pair in judged if pair.texts[0] in marked and pair.texts[1] not in marked]
        lacking = [pair for pair in judged if pair.texts[1] in marked and pair.texts[0] not in marked]
        if having or lacking:
            probes[name] = _preference([*having, *(pair.turned for pair in lacking)], len(having), seed)
    return probes


@dataclass(frozen=True)
class Borrowed:
    """A correction, and what it corrected, put behind another prompt beside that prompt's own policy text."""

    prompt: tuple[Message, ...]
    own: str
    correction: str
    corrected: str

    @property
    def responses(self) -> tuple[str, str, str]:
        """The three texts that are scored behind `prompt`."""
        return self.own, self.correction, self.corrected


def borrowed_texts(labels: Sequence[Label]) -> list[Borrowed]:
    """Each correction behind the next prompt that has one; none where all corrections are of one prompt."""
    by_prompt: dict[str, list[tuple[Label, int, int]]] = {}
    for label in labels:
        if label.implied:
            pairs = [(label, *pair) for pair in label.overall.ordered_pairs()]
            by_prompt.setdefault(prompt_key(label.prompt), []).extend(pairs)
    corrected = [own for own in by_prompt.values() if own]
    return [
        Borrowed(other.prompt, other.responses[own], label.responses[better], label.responses[worse])
        for pairs, ((other, _, own), *_) in zip(corrected, [*corrected[1:], *corrected[:1]], strict=True)
        for label, better, worse in pairs
        if len(corrected) > 1
    ]


def written_by_a_person_probe(
    implied: Sequence[JudgedPair], ordered: Sequence[JudgedPair], borrowed: Sequence[Tensor], seed: int
) -> Probe:
    """Whether any text by a person wins, whatever it says: the shortcut that corrections teach.

    `accuracy`: how often the model puts a correction above what it corrected. `sureness`, `sureness_of_orders`: the
    probability that it gives these pairs, and those that people ordered, on average. `borrowed_correction`: how often a
    correction beats the policy's text for another prompt, which it does not answer; `borrowed_response`: how often what
    it corrected does, behind the same prompt. Neither can earn it by what it says: a model that took the shortcut has
    the first far above the second.

    Args:
        implied: pairs of a correction and what it corrected.
        ordered: pairs that people ordered.
        borrowed: for each of `borrowed_texts` the scores [3] of its `responses`.
    """
    places = list(range(len(borrowed)))
    return {
        "accuracy": accuracy(implied, seed),
        "sureness": share([pair.probability for pair in implied], implied, seed),
        "sureness_of_orders": share([pair.probability for pair in ordered], ordered, seed),
        "borrowed_correction": estimate([half_ties(float(own[1] - own[0])) for own in borrowed], places, seed),
        "borrowed_response": estimate([half_ties(float(own[2] - own[0])) for own in borrowed], places, seed),
    }


def accuracy(judged: Sequence[JudgedPair], seed: int) -> Share:
    """The share that the model puts as people did, equal scores counting half."""
    return share([half_ties(pair.difference) for pair in judged], judged, seed)


def _preference(turned: Sequence[JudgedPair], chosen: int, seed: int) -> Probe:
    """Of pairs turned so that what is asked about stands first: how often people, and the model, prefer it.

    The first `chosen` of them are those in which people did.
    """
    return {
        "chosen": share([1.0] * chosen + [0.0] * (len(turned) - chosen), turned, seed),
        "preferred": share([half_ties(pair.difference) for pair in turned], turned, seed),
    }


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=0)

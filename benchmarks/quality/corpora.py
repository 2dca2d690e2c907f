"""Which public judgments is the reward model measured on, and how do they become labels?

UKPConvArg1 (Habernal and Gurevych 2016): pairs of arguments for one side of a debate, and which of the two convinced
five crowd workers. The prompt is the debate's title and the side, the responses are the arguments.

The human evaluation of Tulu 1 (Wang et al. 2023): pairs of answers by language models, compared in five degrees.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from worker.learning.records import Judgement, Label, Message, Scale

FIRST, SECOND, TIE = ((0,), (1,)), ((1,), (0,)), ((0, 1),)
VALUES = {"a1": FIRST, "a2": SECOND, "equal": TIE}
TULU_DEGREES = {
    "a-is-better": (FIRST, 2),
    "a-is-slightly-better": (FIRST, 1),
    "tie": (TIE, None),
    "b-is-slightly-better": (SECOND, 1),
    "b-is-better": (SECOND, 2),
}

Groups = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ArgumentPair:
    """Two arguments for one side of a debate, what five people said of them, and what was made of that."""

    debate: str
    prompt: tuple[Message, ...]
    arguments: tuple[str, str]
    gold: Groups
    """By the source's estimate from the same votes; empty where it has none."""
    is_strict: bool
    """Whether it is one of the clean pairs that published figures are about."""
    votes: tuple[tuple[str, Groups], ...]
    """Worker and answer."""

    @property
    def strict_label(self) -> Label:
        """The gold order on a scale without ties."""
        return Label(self.prompt, self.arguments, Judgement(self.gold, scale=Scale(ties=False)))

    @cached_property
    def majority(self) -> Groups:
        """What most said; a tie where two answers have as many votes."""
        counts = Counter(groups for _, groups in self.votes).most_common()
        return counts[0][0] if len(counts) == 1 or counts[0][1] > counts[1][1] else TIE

    @property
    def majority_label(self) -> Label:
        """One label, ties included."""
        return Label(self.prompt, self.arguments, Judgement(self.majority))

    @property
    def vote_labels(self) -> list[Label]:
        """A label for each vote, by its annotator, who saw the first argument first."""
        return [
            Label(self.prompt, self.arguments, Judgement(groups), annotator=worker, shown=(0, 1))
            for worker, groups in self.votes
        ]


def read_arguments(folder: Path) -> list[ArgumentPair]:
    """All pairs of a folder with arguments.jsonl, pairs.csv and judgments.csv."""
    arguments = {row["arg_id"]: row for row in map(json.loads, _lines(folder / "arguments.jsonl"))}
    votes: dict[tuple[str, str], list[tuple[str, Groups]]] = {}
    for row in csv.DictReader(_lines(folder / "judgments.csv")):
        votes.setdefault((row["topic"], row["pair_id"]), []).append((row["worker"], VALUES[row["value"]]))
    pairs = []
    for row in csv.DictReader(_lines(folder / "pairs.csv")):
        first, second = arguments[row["arg1"]], arguments[row["arg2"]]
        pairs.append(
            ArgumentPair(
                debate=first["debate_title"],
                prompt=(Message(role="user", content=f"{first['debate_title']}\n{first['stance']}"),),
                arguments=(first["text"], second["text"]),
                gold=VALUES.get(row["gold"], ()),
                is_strict=row["in_strict"] == "1",
                votes=tuple(votes.get((row["topic"], row["pair_id"]), ())),
            )
        )
    return pairs


@dataclass(frozen=True)
class Fold:
    """A split of pairs by debate. Two of the training debates can be kept back, one at a time, to calibrate by."""

    number: int
    training: list[ArgumentPair]
    test: list[ArgumentPair]
    kept_back: tuple[str, str]

    def without(self, place: int) -> tuple[list[ArgumentPair], list[ArgumentPair]]:
        """The training pairs without those of a debate that is kept back, and those."""
        debate = self.kept_back[place]
        return (
            [pair for pair in self.training if pair.debate != debate],
            [pair for pair in self.training if pair.debate == debate],
        )


def folds(pairs: Sequence[ArgumentPair], count: int) -> list[Fold]:
    """Every debate is tested once. What is kept back comes from the two folds that follow."""
    debates = sorted({pair.debate for pair in pairs})
    made = []
    for number in range(count):
        test = debates[number::count]
        kept_back = debates[(number + 1) % count :: count][0], debates[(number + 2) % count :: count][-1]
        trained, tested = ([pair for pair in pairs if (pair.debate in test) == side] for side in (False, True))
        made.append(Fold(number + 1, trained, tested, kept_back))
    return made


def strict(pairs: Iterable[ArgumentPair]) -> list[Label]:
    """The labels of the clean pairs."""
    return [pair.strict_label for pair in pairs if pair.is_strict]


def read_answers(folder: Path) -> list[Label]:
    """All judgments of a folder with annotations.jsonl in two grades to either side and a tie."""
    labels = []
    for row in map(json.loads, _lines(folder / "annotations.jsonl")):
        groups, strength = TULU_DEGREES[row["preference"]]
        labels.append(
            Label(
                prompt=(Message(role="user", content=row["prompt"]),),
                responses=(row["completion_a"], row["completion_b"]),
                overall=Judgement(groups, strength, Scale(levels=2)),
                annotator=row["evaluator"],
                shown=(0, 1),
            )
        )
    return labels


def prompt_of(label: Label) -> str:
    """Its one message."""
    return label.prompt[0]["content"]


def with_ties(labels: Iterable[Label]) -> list[Label]:
    """The same answers without their strength: the first, the second, or a tie."""
    return [replace(label, overall=Judgement(label.overall.groups)) for label in labels]


def plain_pairs(labels: Iterable[Label]) -> list[Label]:
    """What a trainer of pairs makes of them: an order without strength, and ties left out."""
    return [
        replace(label, overall=Judgement(label.overall.groups, scale=Scale(ties=False)))
        for label in labels
        if label.overall.ordered_pairs()
    ]


def _lines(file: Path) -> list[str]:
    # Not splitlines, which also splits at characters that may stand inside a text.
    with file.open(encoding="utf-8-sig", newline="") as opened:
        return list(opened)

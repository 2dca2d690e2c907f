"""Labels by people who like "good" and dislike "bad", in every form in which people can say so."""

import random

from worker.learning.records import Judgement, Label, Message, Scale

PLAIN = "cat dog sun rain sat ran the a big small and saw old new".split()  # noqa: SIM905
GRADED = Scale(levels=3, ties=True)


def prompt(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def liking(response: str) -> int:
    """How much they like a response: "good" less "bad"."""
    return response.split().count("good") - response.split().count("bad")


def responses(noise: random.Random, count: int) -> tuple[str, ...]:
    words = [*PLAIN, *["good"] * 4, *["bad"] * 4]
    return tuple(" ".join(noise.choices(words, k=noise.randint(2, 10))) for _ in range(count))


def in_order(likings: list[int]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(index for index, own in enumerate(likings) if own == value)
        for value in sorted(set(likings), reverse=True)
    )


def rankings(count: int, seed: int, size: int = 4) -> list[Label]:
    """Orders of `size` responses of every length, with ties."""
    noise = random.Random(seed)
    labels = []
    for _ in range(count):
        texts = responses(noise, size)
        order = Judgement(in_order([liking(text) for text in texts]))
        labels.append(Label(prompt(" ".join(noise.choices(PLAIN, k=3))), texts, order))
    return labels


def graded_pairs(count: int, seed: int) -> list[Label]:
    """Pairs with one of three grades, or a tie."""
    labels = []
    for label in rankings(count, seed, 2):
        one, other = (liking(text) for text in label.responses)
        strength = min(3, abs(one - other)) or None
        labels.append(Label(label.prompt, label.responses, Judgement(label.overall.groups, strength, GRADED)))
    return labels


def scored(count: int, seed: int, size: int = 1) -> list[Label]:
    """Scores of 1 to 9, of `size` responses, which nobody compared."""
    noise = random.Random(seed)
    labels = []
    for _ in range(count):
        texts = responses(noise, size)
        scores = tuple(float(max(1, min(9, 5 + liking(text)))) for text in texts)
        labels.append(Label(prompt("the cat"), texts, Judgement(scores=scores)))
    return labels


def by_criteria(count: int, seed: int) -> list[Label]:
    """Orders of pairs by what is liked and by what is disliked, none as a whole."""
    labels = []
    for label in rankings(count, seed, 2):
        kind = [text.split().count("good") for text in label.responses]
        harmless = [-text.split().count("bad") for text in label.responses]
        criteria = {"kind": Judgement(in_order(kind)), "harmless": Judgement(in_order(harmless))}
        labels.append(Label(label.prompt, label.responses, criteria=criteria))
    return labels


def misread(labels: list[Label], annotator: str, seed: int) -> list[Label]:
    """The same labels by somebody who orders blindly."""
    noise = random.Random(seed)
    blind = []
    for label in labels:
        groups = [(index,) for index in range(len(label.responses))]
        noise.shuffle(groups)
        blind.append(Label(label.prompt, label.responses, Judgement(tuple(groups)), annotator=annotator))
    return blind

"""Which labels stand in the same optimiser step, and which in the same forward?"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import chain

import torch

from worker.learning.records import Label
from worker.learning.reward.encoding import Encoded, EncodedSet, encode_sets
from worker.learning.reward.forward import Forward
from worker.learning.reward.model import RewardModel
from worker.learning.seeds import generator_for


@dataclass(frozen=True)
class EncodedLabels:
    """Labels and the tokens of all of their texts, each text once. Labels are named by their index."""

    labels: Sequence[Label]
    encoded: Encoded

    @cached_property
    def _homes(self) -> list[tuple[int, int]]:
        """Of each place among all responses: its set, and its index there."""
        return [(home, index) for home, own in enumerate(self.encoded.sets) for index in range(len(own.response_ids))]

    @cached_property
    def texts(self) -> list[dict[int, int]]:
        """The tokens of each text that a label reads: a response by its place, the prompt of set i by ~i."""
        sets = self.encoded.sets
        read = []
        for own in self.encoded.places:
            homes = [(place, *self._homes[place]) for place in own]
            responses = {place: len(sets[home].response_ids[index]) for place, home, index in homes}
            read.append(responses | {~home: len(sets[home].prompt_ids) for _, home, _ in homes})
        return read

    def new_tokens(self, label: int, read: Mapping[int, int]) -> int:
        """How many tokens a label's responses have that are not among the texts read."""
        return sum(tokens for text, tokens in self.texts[label].items() if text >= 0 and text not in read)

    def select(self, chosen: Sequence[int]) -> Encoded:
        """What some labels need: sets with their responses alone, and the places of those in them."""
        wanted = sorted(set(chain.from_iterable(self.encoded.places[label] for label in chosen)))
        members: dict[int, list[int]] = {}
        for place in wanted:  # places rise set by set, so that they stay in order
            home, index = self._homes[place]
            members.setdefault(home, []).append(index)
        sets = [
            EncodedSet(self.encoded.sets[home].prompt_ids, tuple(self.encoded.sets[home].response_ids[i] for i in own))
            for home, own in members.items()
        ]
        new = {place: number for number, place in enumerate(wanted)}
        return Encoded(sets, [[new[place] for place in self.encoded.places[label]] for label in chosen])

    def clusters(self, chosen: Sequence[int]) -> list[list[int]]:
        """Labels put together where they share sets, as they do by their prompt."""
        homes = [[self._homes[place][0] for place in self.encoded.places[label]] for label in chosen]
        return [[chosen[index] for index in group] for group in connected(homes)]


def encode_labels(reward_model: RewardModel, labels: Sequence[Label]) -> EncodedLabels:
    """Tokenizes everything once, for all epochs."""
    sets = [(label.prompt, label.responses) for label in labels]
    return EncodedLabels(labels, encode_sets(reward_model.tokenizer, reward_model.limit, sets))


def connected(members: Sequence[Sequence[int]]) -> list[list[int]]:
    """Puts items together that share a member, directly or through others; in the order of their first items."""
    parent: dict[int, int] = {}

    def root(member: int) -> int:
        while (above := parent.setdefault(member, member)) != member:
            parent[member] = parent[above]
            member = above
        return member

    for own in members:
        for member in own[1:]:
            parent[root(member)] = root(own[0])
    groups: dict[int, list[int]] = {}
    for index, own in enumerate(members):
        groups.setdefault(root(own[0]), []).append(index)
    return list(groups.values())


def shuffled_batches(encoded: Encoded, size: int, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's optimiser steps, each up to `size` labels as indices; every label stands in one of them.

    Labels that share responses stay together: pairs of a set that are spread over steps overfit within an epoch
    (Ouyang et al. 2022, section 3.5), and each response is encoded once, but for a few where a forward has no room for
    all labels of a prompt (`micro_batches`). What is larger than a step is cut, anew every epoch, but not between the
    labels of one comparison.
    """
    generator = generator_for(seed, "epoch", epoch)
    units = list(chain.from_iterable(_cut(unit, encoded, size, generator) for unit in connected(encoded.places)))
    return _filled([units[index] for index in _order(len(units), generator)], size)


def _cut(unit: list[int], encoded: Encoded, size: int, generator: torch.Generator) -> list[list[int]]:
    if len(unit) <= size:
        return [unit]
    comparisons: dict[frozenset[int], list[int]] = {}
    for label in unit:
        comparisons.setdefault(frozenset(encoded.places[label]), []).append(label)
    pieces = [own[at : at + size] for own in comparisons.values() for at in range(0, len(own), size)]
    return _filled([pieces[index] for index in _order(len(pieces), generator)], size)


def _filled(units: Sequence[list[int]], size: int) -> list[list[int]]:
    """Units side by side, as many as fit."""
    batches: list[list[int]] = []
    for unit in units:
        if batches and len(batches[-1]) + len(unit) <= size:
            batches[-1] += unit
        else:
            batches.append(list(unit))
    return batches


def _order(count: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(count, generator=generator).tolist()


def micro_batches(forward: Forward, labels: EncodedLabels, batch: Sequence[int], budget: int) -> list[list[int]]:
    """Splits a step's labels for forwards of at most `budget` tokens; a label alone may be larger.

    The gradients add up to the same however it is split. Labels of one prompt share a forward if that has room.
    """
    alone: list[list[int]] = []  # a label whose longest response needs a shorter prompt stands in several sets
    joint: list[list[int]] = []
    sets: list[EncodedSet] = []
    for group in _small_groups(labels, batch, budget):
        own = labels.select(group).sets
        if len(own) == 1:
            joint.append(group)
            sets += own
        else:
            alone.append(group)
    split = forward.micro_batches(sets, budget) if sets else []
    return [*alone, *([label for index in part for label in joint[index]] for part in split)]


def _small_groups(labels: EncodedLabels, batch: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Labels of one prompt, in parts of at most `budget` tokens where they have more, with few responses in several.

    A part goes on with the label that brings the fewest new tokens, among those that share a response with it.
    """
    places = labels.encoded.places
    for group in labels.clusters(batch):
        waiting = dict.fromkeys(sorted(group, key=places.__getitem__))
        readers: dict[int, list[int]] = defaultdict(list)
        for label in waiting:
            for place in set(places[label]):
                readers[place].append(label)
        while waiting:
            part: list[int] = []
            read: dict[int, int] = {}
            near: list[tuple[int, int]] = []  # new tokens, label; of a label's entries the newest comes first
            while waiting:
                _, label = heappop(near) if near else (0, next(iter(waiting)))
                if label not in waiting:
                    continue
                grown = read | labels.texts[label]
                if part and sum(grown.values()) > budget:
                    break
                del waiting[label]
                part.append(label)
                beside = {one for place in places[label] if place not in read for one in readers[place]}
                read = grown
                for one in beside & waiting.keys():
                    heappush(near, (labels.new_tokens(one, read), one))
            yield part

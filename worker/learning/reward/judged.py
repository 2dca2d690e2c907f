"""Which pairs of held-out responses did people judge, and what does the model think of them?"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from worker.learning.evaluation import bootstrap_mean
from worker.learning.records import Judgement, Label
from worker.learning.reward.evaluation import Pairs, prompt_key

Share = dict[str, float | int | None] | None
"""An estimate as JSON, see `evaluation.Estimate` (`value`, `low`, `high`, `count`); None where nothing was counted."""


@dataclass(frozen=True)
class JudgedPair:
    """Two responses that a label put in an order, or tied.

    `better` and `worse` are indices into the label's responses; in a tie (grade 0) the two names mean nothing. `grade`
    goes to `levels`. `probability` is the model's P(better is better | no tie), `difference` its output for the better
    one less that for the other. `prompt` is a number that pairs of one prompt share, `place` the label's among all.
    """

    label: Label
    place: int
    better: int
    worse: int
    grade: int
    levels: int
    prompt: int
    difference: float = 0.0
    probability: float = 0.5

    @property
    def texts(self) -> tuple[str, str]:
        """The better response and the other one."""
        return self.label.responses[self.better], self.label.responses[self.worse]

    @property
    def turned(self) -> "JudgedPair":
        """The same pair judged the other way round."""
        return replace(
            self,
            better=self.worse,
            worse=self.better,
            difference=-self.difference,
            probability=1 - self.probability,
        )


def judged_pairs(
    labels: Sequence[Label],
    judgements: Callable[[Label], Iterable[Judgement]],
    outputs: Sequence[Tensor],
    probability: Callable[[Tensor], Tensor],
) -> list[JudgedPair]:
    """All pairs that the labels ordered or tied, with what the model thinks of them.

    Args:
        judgements: which of a label's judgements to take.
        outputs: for each label the model's output in their respect [responses].
        probability: from differences of scores [pairs] to P(the first is better | no tie) [pairs].
    """
    prompts: dict[str, int] = {}
    pairs = []
    for place, (label, own) in enumerate(zip(labels, outputs, strict=True)):
        prompt = prompts.setdefault(prompt_key(label.prompt), len(prompts))
        for judgement in judgements(label):
            for better, worse, grade in _graded(judgement):
                difference = float(own[better] - own[worse])
                pairs.append(JudgedPair(label, place, better, worse, grade, judgement.scale.levels, prompt, difference))
    if not pairs:
        return []
    probabilities = probability(torch.tensor([pair.difference for pair in pairs], dtype=torch.float64)).tolist()
    return [replace(pair, probability=own) for pair, own in zip(pairs, probabilities, strict=True)]


def _graded(judgement: Judgement) -> list[tuple[int, int, int]]:
    """All pairs as (better, worse, grade), those that are tied with grade 0."""
    ordered = [(*pair, judgement.strength or 1) for pair in judgement.ordered_pairs()]
    return [*ordered, *((*pair, 0) for pair in judgement.tied_pairs())]


def as_pairs(judged: Sequence[JudgedPair]) -> Pairs:
    """The columns that figures are computed from. Nobody ordered a tie, so there must be none."""
    return Pairs(
        torch.tensor([pair.probability for pair in judged], dtype=torch.float64),
        torch.ones(len(judged), dtype=torch.long),
        torch.tensor([pair.prompt for pair in judged], dtype=torch.long),
    )


def share(values: Iterable[float], judged: Sequence[JudgedPair], seed: int) -> Share:
    """The mean of a value a pair, with a 95 % interval over prompts."""
    return estimate(values, [pair.prompt for pair in judged], seed)


def estimate(values: Iterable[float], prompts: Sequence[int], seed: int) -> Share:
    """The mean of values, with a 95 % interval over prompts, given by a number for each value."""
    if not prompts:
        return None
    return asdict(bootstrap_mean(torch.tensor(list(values), dtype=torch.float64), torch.tensor(prompts), seed))


def half_ties(difference: float) -> float:
    """1 where a difference is positive, 0 where it is negative, 1/2 where it is 0."""
    return 0.5 if difference == 0 else float(difference > 0)

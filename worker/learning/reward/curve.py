"""How much better would a reward model get by more labels? Its accuracy over how many it was fitted on."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from worker.learning.records import Label
from worker.learning.reward.card import held_out_figures
from worker.learning.reward.evaluation import Figures, prompt_key
from worker.learning.reward.fitting import FittedRewardModel
from worker.learning.seeds import generator_for

SHARES = (0.125, 0.25, 0.5)
"""Of all labels, which are the end of the curve: each doubling that helps shows as a step up."""

FitAndMeasure = Callable[[Sequence[Label]], Figures]


def learning_curve(
    labels: Sequence[Label], sizes: Sequence[int], fit_and_measure: FitAndMeasure, seed: int
) -> list[Figures]:
    """One fit a size, on nested random subsets.

    Whole prompts come in one after another, in random order, as they do when people label on; the last one in may be
    cut. So a smaller subset knows fewer prompts, not the same ones less well.

    Args:
        labels: to learn from.
        sizes: numbers of labels; those beyond all labels are taken as all.
        fit_and_measure: fits on the labels given and returns `evaluation.figures` on pairs of other prompts.

    Returns:
        A row a size, the smallest first: `labels`, and of the measurements `accuracy` and `nll` with their intervals
        and `n`.
    """
    by_prompt: dict[str, list[Label]] = {}
    for label in labels:
        by_prompt.setdefault(prompt_key(label.prompt), []).append(label)
    groups = list(by_prompt.values())
    order = torch.randperm(len(groups), generator=generator_for(seed, "curve")).tolist()
    shuffled = [label for index in order for label in groups[index]]
    counts = sorted({min(size, len(shuffled)) for size in sizes})
    return [{"labels": count, **_row(fit_and_measure(shuffled[:count]))} for count in counts if count > 0]


def reward_learning_curve(
    labels: Sequence[Label],
    held_out: Sequence[Label],
    fit: Callable[[Sequence[Label]], FittedRewardModel],
    whole: Mapping[str, Any],
    seed: int,
) -> list[Figures]:
    """The curve of reward models at `SHARES` of the labels: it costs about as much as the fit on all of them.

    Args:
        labels: that the model on all of them was fitted on.
        held_out: labels of other prompts, to measure on. If nothing in them orders two responses, all figures are None.
        fit: fits on the labels given as the model on all of them was.
        whole: the card, or the figures, of that model.
        seed: of the labels' order and of the intervals.
    """

    def fit_and_measure(part: Sequence[Label]) -> Figures:
        return held_out_figures(fit(part).reward_model, held_out, seed)

    sizes = [int(share * len(labels)) for share in SHARES]
    return [*learning_curve(labels, sizes, fit_and_measure, seed), {"labels": len(labels), **_row(whole)}]


def _row(measured: Mapping[str, Any]) -> Figures:
    names = [f"{name}{end}" for name in ("accuracy", "nll") for end in ("", "_low", "_high")]
    return {name: measured[name] for name in (*names, "n")}

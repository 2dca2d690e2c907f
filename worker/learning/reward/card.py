"""What should be known of a reward model before it is trusted? Its card: figures on labels that it never saw."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from worker.learning.records import Judgement, Label
from worker.learning.reward.agreement import by_agreement, noise_ceiling
from worker.learning.reward.encoding import encode_sets
from worker.learning.reward.evaluation import Figures, brief_figures, figures, figures_with_curve, score_errors
from worker.learning.reward.judged import JudgedPair, Share, as_pairs, judged_pairs
from worker.learning.reward.model import RewardModel, read_features
from worker.learning.reward.observations import OVERALL, SCORE, Source, overall_judgements, shape_of, teaches
from worker.learning.reward.probes import (
    borrowed_texts,
    format_probe,
    length_correlation,
    length_probe,
    longer_wins,
    position_probe,
    written_by_a_person_probe,
)
from worker.learning.reward.uncertainty import Posterior, moderated

DEVIATION_BINS = 4
LARGEST_DEVIATION = 100.0
"""In differences: where two scores are alike, their difference may as well be the other way round."""
PAIRS_AT_ONCE = 4_096
"""Pairs whose features are in memory side by side."""


@dataclass(frozen=True)
class HeldOut:
    """Labels that the model never saw, and what it says of their responses: a tensor a label, [responses, ...] each.

    `borrowed` has the overall outputs of the texts that `borrowed_texts` puts behind other prompts.
    """

    labels: Sequence[Label]
    features: Sequence[Tensor]
    outputs: Sequence[Tensor]
    borrowed: Sequence[Tensor]

    def column(self, number: int) -> list[Tensor]:
        """One of the outputs, [responses] a label."""
        return [own[:, number] for own in self.outputs]


def reward_card(reward_model: RewardModel, labels: Sequence[Label], seed: int = 0) -> dict[str, Any]:
    """The card of a reward model, as JSON; what cannot be measured is None or an empty list.

    Ties are left out of every accuracy, and pairs that a correction implies stand in `probes` alone, unless there are
    no others. `measured_on` says what the pairs are from: `orders`, or where the labels have none, `scores` or
    `criteria` (see `shape_of`), or `corrections`. All intervals are of 95 %, over prompts. Keys:

    - of `evaluation.figures_with_curve`: `accuracy` (`_low`, `_high`), `nll`, `ece`, `ece_by_chance`, `n`,
      `reliability`;
    - `by_grade`: rows with `levels` (of the scale), `grade` and the same figures;
    - `by_criterion`: the same figures by name, of the criterion's own output;
    - `by_annotator`: `evaluation.brief_figures` by name;
    - `by_agreement`, `noise_ceiling`: see `agreement`;
    - `longer_wins`: the accuracy of preferring the longer one, by `characters` and by `tokens`;
    - `score_errors`: for each output that predicts scores, see `evaluation.score_errors`;
    - `probes`: `position`, `length`, `format`, `written_by_a_person`, see `probes`;
    - `uncertainty`: see `uncertainty_figures`.

    Args:
        labels: of prompts that the model was neither fitted nor chosen on.
    """
    held_out = read_held_out(reward_model, labels)
    judged = overall_pairs(reward_model, held_out)
    ordered = [pair for pair in judged if pair.grade and not pair.label.implied]
    implied = [pair for pair in judged if pair.grade and pair.label.implied]
    measured = _measured(judged)
    return {
        **figures_with_curve(as_pairs(measured), seed),
        "measured_on": (source_of(held_out) if ordered else "corrections") if measured else None,
        "by_grade": by_grade(ordered, seed),
        "by_criterion": by_criterion(reward_model, held_out, seed),
        "by_annotator": by_annotator(ordered, seed),
        "by_agreement": by_agreement([pair for pair in judged if not pair.label.implied], seed),
        "noise_ceiling": noise_ceiling([pair for pair in judged if not pair.label.implied], seed),
        "longer_wins": length_baselines(reward_model, measured, seed),
        "score_errors": errors_of_scores(reward_model, held_out),
        "probes": {
            "position": position_probe(ordered, seed),
            "length": {
                "correlation": length_correlation(held_out.labels, held_out.column(0)),
                **length_probe(ordered, seed),
            },
            "format": format_probe(ordered, seed),
            "written_by_a_person": written_by_a_person_probe(implied, ordered, held_out.borrowed, seed),
        },
        "uncertainty": uncertainty_figures(reward_model, held_out, measured, seed),
    }


def held_out_figures(reward_model: RewardModel, labels: Sequence[Label], seed: int = 0) -> Figures:
    """The card's first figures alone: those of `evaluation.figures`."""
    judged = overall_pairs(reward_model, read_held_out(reward_model, labels))
    return figures(as_pairs(_measured(judged)), seed)


def _measured(judged: Sequence[JudgedPair]) -> list[JudgedPair]:
    """The pairs that people ordered; where there are none, those that corrections imply."""
    in_order = [pair for pair in judged if pair.grade]
    return [pair for pair in in_order if not pair.label.implied] or in_order


@torch.no_grad()
def read_held_out(reward_model: RewardModel, labels: Sequence[Label]) -> HeldOut:
    """One pass of the model over all texts that the card needs, each encoded once."""
    labels = [label for label in labels if teaches(label)]
    borrowed = borrowed_texts(labels)
    sets = [*((one.prompt, one.responses) for one in labels), *((one.prompt, one.responses) for one in borrowed)]
    encoded = encode_sets(reward_model.tokenizer, reward_model.limit, sets)
    features = read_features(reward_model, encoded.sets, lambda own: own)
    outputs = reward_model.read(features.to(reward_model.model.device)).double().cpu() if sets else features
    by_set = [outputs[places] for places in encoded.places]
    return HeldOut(
        labels,
        [features[places] for places in encoded.places[: len(labels)]],
        by_set[: len(labels)],
        [own[:, 0] for own in by_set[len(labels) :]],
    )


def overall_pairs(reward_model: RewardModel, held_out: HeldOut) -> list[JudgedPair]:
    """All pairs that the labels order or tie as a whole."""
    source = source_of(held_out)
    return judged_pairs(
        held_out.labels,
        lambda label: overall_judgements(label, source),
        held_out.column(0),
        partial(probabilities, reward_model),
    )


def source_of(held_out: HeldOut) -> Source:
    """Which of the labels' answers order their responses as a whole."""
    return shape_of(held_out.labels, annotators=False).overall_from


@torch.no_grad()
def probabilities(reward_model: RewardModel, differences: Tensor, output: str = OVERALL) -> Tensor:
    """P(the first is better | no tie) [pairs] on the CPU."""
    answers = reward_model.answers
    return answers.probability(differences.to(answers.slopes.device), output).double().cpu()


def by_grade(ordered: Sequence[JudgedPair], seed: int) -> list[dict[str, Any]]:
    """Figures for each grade of each scale, the least first: the stronger the preference, the easier it should be."""
    grades = sorted({(pair.levels, pair.grade) for pair in ordered})
    rows = []
    for levels, grade in grades:
        own = [pair for pair in ordered if (pair.levels, pair.grade) == (levels, grade)]
        rows.append({"levels": levels, "grade": grade, **figures_with_curve(as_pairs(own), seed)})
    return rows


def by_annotator(ordered: Sequence[JudgedPair], seed: int) -> dict[str, Figures]:
    """Figures on the orders of each annotator who has a name."""
    groups: dict[str, list[JudgedPair]] = {}
    for pair in ordered:
        if pair.label.annotator is not None:
            groups.setdefault(pair.label.annotator, []).append(pair)
    return {name: brief_figures(as_pairs(groups[name]), seed) for name in sorted(groups)}


def by_criterion(reward_model: RewardModel, held_out: HeldOut, seed: int) -> dict[str, dict[str, Any]]:
    """Figures of each criterion's output on the orders by that criterion, where anybody taught the model any."""
    rows, shape = {}, reward_model.answers.shape
    for number, output in enumerate(reward_model.outputs):
        if output in {OVERALL, SCORE} or not (output in shape.scales or output in shape.scored):
            continue
        judged = judged_pairs(
            held_out.labels,
            partial(_judgements_by, output),
            held_out.column(number),
            partial(probabilities, reward_model, output=output),
        )
        rows[output] = figures_with_curve(as_pairs([pair for pair in judged if pair.grade]), seed)
    return rows


def _judgements_by(criterion: str, label: Label) -> list[Judgement]:
    return [label.criteria[criterion]] if criterion in label.criteria else []


def length_baselines(reward_model: RewardModel, measured: Sequence[JudgedPair], seed: int) -> dict[str, Share]:
    """How often the longer one wins, in characters and in the model's own tokens."""
    texts = sorted({text for pair in measured for text in pair.texts})
    ids = reward_model.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    tokens = {text: len(own) for text, own in zip(texts, ids, strict=True)}
    return {"characters": longer_wins(measured, len, seed), "tokens": longer_wins(measured, tokens.__getitem__, seed)}


@torch.no_grad()
def errors_of_scores(reward_model: RewardModel, held_out: HeldOut) -> dict[str, Figures]:
    """For each output that predicts scores: how far it is from those that people gave, in their unit."""
    errors = {}
    for output in reward_model.answers.shape.scored:
        number = reward_model.outputs.index(output)
        rows = [
            (float(value), score)
            for label, own in zip(held_out.labels, held_out.column(number), strict=True)
            for value, score in zip(own, _scores_of(label, output), strict=False)
            if score is not None
        ]
        values, given = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2).unbind(dim=1)
        expected = reward_model.answers.expected_scores(values.to(reward_model.answers.slopes.device), output)
        errors[output] = score_errors(expected.cpu(), given)
    return errors


def _scores_of(label: Label, output: str) -> Iterable[float | None]:
    judgement = label.overall if output == SCORE else label.criteria.get(output, Judgement())
    return judgement.scores


def uncertainty_figures(
    reward_model: RewardModel, held_out: HeldOut, measured: Sequence[JudgedPair], seed: int
) -> Mapping[str, Any] | None:
    """Whether the model is less right where it says that it is less sure; None without a posterior or pairs.

    `nll` and `ece` of the probabilities that the posterior draws towards 1/2 (`uncertainty.moderated`), to compare with
    those without it. `by_deviation`: rows of equally many pairs by the deviation of their difference of scores, as a
    share of that difference (`low`, `high`, at most `LARGEST_DEVIATION`), with `figures_with_curve`; by the
    deviation itself the surest would come last, since it grows with the difference. `determined`: how many of the
    `width` directions of the head the labels determined, against a prior of `prior_precision`.
    """
    posterior = reward_model.posterior
    if posterior is None or not measured:
        return None
    deviations = pair_deviations(posterior, held_out, measured)
    own = figures(as_pairs(moderated_pairs(reward_model, measured, deviations)), seed)
    return {
        "nll": own["nll"],
        "ece": own["ece"],
        "by_deviation": by_deviation(measured, deviations / _differences(measured).abs(), seed),
        "determined": posterior.determined,
        "width": len(posterior.head),
        "prior_precision": posterior.prior_precision,
    }


def moderated_pairs(reward_model: RewardModel, judged: Sequence[JudgedPair], deviations: Tensor) -> list[JudgedPair]:
    """The same pairs with probabilities drawn towards 1/2 by the deviations of their differences [pairs]."""
    slope = float(reward_model.answers.slopes[0])
    logits = moderated(slope * _differences(judged), slope * deviations)
    drawn = probabilities(reward_model, logits / slope).tolist()
    return [replace(pair, probability=own) for pair, own in zip(judged, drawn, strict=True)]


def _differences(judged: Sequence[JudgedPair]) -> Tensor:
    return torch.tensor([pair.difference for pair in judged], dtype=torch.float64)


def by_deviation(measured: Sequence[JudgedPair], relative: Tensor, seed: int) -> list[dict[str, Any]]:
    """Figures on pairs whose differences are about as sure, the surest first; `relative` is [pairs]."""
    relative = relative.nan_to_num(LARGEST_DEVIATION).clamp(max=LARGEST_DEVIATION)
    rows = []
    for places in torch.tensor_split(relative.argsort(), DEVIATION_BINS):
        if len(places):
            own = as_pairs([measured[place] for place in places.tolist()])
            low, high = float(relative[places[0]]), float(relative[places[-1]])
            rows.append({"low": low, "high": high, **figures_with_curve(own, seed)})
    return rows


def pair_deviations(posterior: Posterior, held_out: HeldOut, judged: Sequence[JudgedPair]) -> Tensor:
    """The deviation of each pair's difference of scores [pairs], on the CPU."""
    features = held_out.features
    parts = [
        posterior.pair_deviations(
            torch.stack([features[pair.place][pair.better] for pair in part]),
            torch.stack([features[pair.place][pair.worse] for pair in part]),
        )
        for part in (judged[start : start + PAIRS_AT_ONCE] for start in range(0, len(judged), PAIRS_AT_ONCE))
    ]
    return torch.cat(parts).cpu()

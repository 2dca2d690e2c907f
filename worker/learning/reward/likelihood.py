"""How likely is what annotators answered, given the reward model's outputs?"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from worker.learning.records import Scale
from worker.learning.reward.annotators import Annotators
from worker.learning.reward.observations import OVERALL, AnswerShape, Observations

SMALLEST_STEP = 1e-3
"""The least distance of two thresholds, so that an answer which was never seen keeps a probability above 0."""
STEP_DEVIATION = 2.0
"""Deviation of the normal prior of a threshold's step about its start, before the softplus."""
SCORE_DEVIATION = 1.0
"""Deviation of the normal priors of a score's level, log slope and log deviation, the scores' own deviation being 1."""
CALIBRATION_DEVIATIONS = (0.5, STEP_DEVIATION, SCORE_DEVIATION, SCORE_DEVIATION, SCORE_DEVIATION)
"""Deviations of the normal priors that hold log slopes, steps and regressions near what they were when calibrating."""


def ordered_log_probabilities(differences: Tensor, cuts: Tensor) -> Tensor:
    """Log-probabilities of the grades -levels..levels [pairs, 2 * levels + 1] in an ordered logit.

    The proportional odds of McCullagh 1980 ("Regression models for ordinal data"), with thresholds that lie
    symmetrically about 0: d + e, e logistic, falls between cuts[k - 1] and cuts[k] for grade k. One cut is Rao and
    Kupper 1967 with eta = log theta = cuts[0]; one cut of 0 is Bradley and Terry 1952, where a tie is impossible.

    Args:
        differences: d [pairs], the log-odds by which the first response is better.
        cuts: [levels], increasing, the first not negative (0 where there are no ties).

    """
    infinite = cuts.new_full((1,), math.inf)
    edges = torch.cat([-infinite, -cuts.flip(0), cuts, infinite])
    return log_interval(differences[:, None], edges[:-1], edges[1:])


def log_interval(differences: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Log-probability P(low < d + e < high) for a logistic e; exact also where either sigmoid rounds to 1.

    From sigma(a) - sigma(b) = sigma(a) sigma(-b) (1 - exp(b - a)), in which only the width, which does not depend on
    d, stands in the difference.
    """
    width = high - low
    is_open = width > 0
    inside = torch.log(-torch.expm1(-torch.where(is_open, width, 1.0)))
    inside = torch.where(is_open, inside, -math.inf)
    return functional.logsigmoid(differences - low) + functional.logsigmoid(high - differences) + inside


class Thresholds(nn.Module):
    """The learned cuts of every output's scales.

    Cuts increase by softplus(steps) + SMALLEST_STEP; on a scale without ties the first cut is 0 and not learned.
    They start where they explain how often each grade was given if no response were better than another: at d = 0 a
    grade of at most k to either side has probability 2 sigma(its upper cut) - 1.
    """

    starts: Tensor

    def __init__(self, shape: AnswerShape) -> None:
        super().__init__()
        self.scales = [scale for _, scale in shape.ladders]
        given = [share for output in shape.outputs for share in shape.shares.get(output, ())]
        self.shares = given or [_alike(scale) for scale in self.scales]
        steps = [
            step
            for scale, share in zip(self.scales, self.shares, strict=True)
            for step in _first_steps(scale, torch.tensor(share).cumsum(0))
        ]
        self.steps = nn.Parameter(torch.tensor(steps))
        self.register_buffer("starts", torch.tensor(steps), persistent=False)

    def cuts(self) -> list[Tensor]:
        """Every scale's cuts [levels]."""
        steps = functional.softplus(self.steps) + SMALLEST_STEP
        own = torch.split(steps, [len(_free(scale)) for scale in self.scales])
        return [
            (step if scale.ties else torch.cat([step.new_zeros(1), step])).cumsum(0)
            for scale, step in zip(self.scales, own, strict=True)
        ]

    def rungs(self) -> Tensor:
        """The edges of all scales, end to end: a scale's tie or grade k lies between its edges k and k + 1."""
        infinite = self.steps.new_full((1,), math.inf)
        ladders = [torch.cat([-cuts[:1], cuts, infinite]) for cuts in self.cuts()]
        return torch.cat(ladders) if ladders else infinite

    @torch.no_grad()
    def set_cuts(self, cuts: list[Tensor]) -> None:
        """Puts every scale's cuts in place."""
        steps = [
            _inverse_softplus(torch.diff(own, prepend=own.new_zeros(1))[_free(scale)] - SMALLEST_STEP)
            for scale, own in zip(self.scales, cuts, strict=True)
        ]
        if steps:
            self.steps.copy_(torch.cat(steps))

    def log_prior(self) -> Tensor:
        """Holds steps that no answer speaks of near their start."""
        return -((self.steps - self.starts) / STEP_DEVIATION).square().sum() / 2


def _alike(scale: Scale) -> tuple[float, ...]:
    """Shares that make all answers equally likely: a grade stands for two, either response being better."""
    shares = [2.0 if grade else float(scale.ties) for grade in range(scale.levels + 1)]
    return tuple(share / sum(shares) for share in shares)


def _free(scale: Scale) -> range:
    """Which of a scale's cuts are learned."""
    return range(0 if scale.ties else 1, scale.levels)


def _first_steps(scale: Scale, shares: Tensor) -> list[float]:
    """The steps with which cuts explain cumulative shares at d = 0."""
    cuts = torch.logit((1 + shares[:-1]) / 2)
    steps = torch.diff(cuts, prepend=cuts.new_zeros(1))[_free(scale)]
    return [float(step) for step in _inverse_softplus(steps - SMALLEST_STEP)]


def _inverse_softplus(values: Tensor) -> Tensor:
    values = values.clamp(min=1e-6)
    return values + torch.log(-torch.expm1(-values))


class ScoreRegressions(nn.Module):
    """Scores as normal about level + slope * output, with a deviation: three numbers for each scored output.

    All in units of the scores' own mean and deviation, which are in the shape: a careless score is standard normal.
    """

    def __init__(self, shape: AnswerShape) -> None:
        super().__init__()
        self.outputs = shape.scored
        self.moments = [shape.moments.get(output, (0.0, 1.0)) for output in shape.scored]
        self.levels = nn.Parameter(torch.zeros(len(shape.scored)))
        self.log_slopes = nn.Parameter(torch.zeros(len(shape.scored)))
        self.log_deviations = nn.Parameter(torch.zeros(len(shape.scored)))

    def log_densities(self, outputs: Tensor, observed: Observations) -> Tensor:
        """Of every score [scores]."""
        values = outputs[observed.response, observed.scored_output]
        expected = self.levels[observed.scored] + self.log_slopes.exp()[observed.scored] * values
        deviations = self.log_deviations[observed.scored]
        return log_normal((observed.score - expected) * torch.exp(-deviations)) - deviations

    def facts(self) -> dict[str, dict[str, float]]:
        """Every scored output's numbers, with the deviation that its outputs leave as `residual`."""
        return {
            output: {"mean": mean, "deviation": deviation, "level": level, "slope": slope, "residual": residual}
            for output, (mean, deviation), level, slope, residual in zip(
                self.outputs,
                self.moments,
                self.levels.tolist(),
                self.log_slopes.double().exp().tolist(),
                self.log_deviations.double().exp().tolist(),
                strict=True,
            )
        }

    @torch.no_grad()
    def set_facts(self, facts: Mapping[str, Mapping[str, float]]) -> None:
        """Puts numbers in place as `facts` gave them."""
        for place, output in enumerate(self.outputs):
            self.levels[place] = facts[output]["level"]
            self.log_slopes[place] = math.log(facts[output]["slope"])
            self.log_deviations[place] = math.log(facts[output]["residual"])

    def log_prior(self) -> Tensor:
        """Holds what no score speaks of near its start."""
        numbers = torch.cat([self.levels, self.log_slopes, self.log_deviations])
        return -(numbers / SCORE_DEVIATION).square().sum() / 2


def log_normal(values: Tensor) -> Tensor:
    """The standard normal's log-density."""
    return -(values.square() + math.log(2 * math.pi)) / 2


class AnswerModel(nn.Module):
    """The likelihood of labels, given the outputs for their responses.

    A pair is graded by an ordered logit of the difference of its two outputs, and scores are a regression on theirs.
    For K > 2 the product over a ranking's pairs, tempered so that all of them weigh 1 or K - 1, stands in for the
    likelihood of the ranking (Ouyang et al. 2022, "InstructGPT", equation 1, for the weight 1): a composite likelihood.

    Where annotators' noise is learned, one latent a label says whether all of it was considered or careless:
    log L = logaddexp(log g + considered, log(1 - g) + careless), with both parts tempered alike, so that a blind
    order of K has its own probability 1 / K! (log2 K! pairs' worth); the whole is then weighted. For K = 2 it is exact.

    `slopes` [outputs] turn differences into log-odds: they stay 1 while the model is fitted, since its head can scale
    itself, and `calibrate` and `rescale` move them.
    """

    def __init__(self, shape: AnswerShape) -> None:
        super().__init__()
        self.shape = shape
        self.slopes = nn.Parameter(torch.ones(len(shape.outputs)), requires_grad=False)
        self.thresholds = Thresholds(shape)
        self.scores = ScoreRegressions(shape)
        self.annotators = Annotators(shape.annotators) if shape.annotators else None

    def label_log_likelihoods(self, outputs: Tensor, observed: Observations) -> Tensor:
        """The weighted log-likelihood of every label [labels], from outputs [responses, outputs]."""
        considered, careless = self._parts(outputs, observed)
        whole = considered if careless is None else torch.logaddexp(considered, careless)
        return observed.label_weight * whole

    def responsibilities(self, outputs: Tensor, observed: Observations) -> Tensor:
        """How probably each label was considered, given what it says [labels]; 1 where no noise was learned."""
        considered, careless = self._parts(outputs, observed)
        return torch.ones_like(considered) if careless is None else torch.sigmoid(considered - careless)

    def log_prior(self) -> Tensor:
        """The log-density of annotators' numbers, and weak priors of the others: of the whole data, so once a pass.

        Constants are left out: it is 0 at the start where nobody's noise is learned.
        """
        prior = self.thresholds.log_prior() + self.scores.log_prior()
        return prior if self.annotators is None else prior + self.annotators.log_prior()

    def probability(self, differences: Tensor, output: str = OVERALL, *, considered: bool = True) -> Tensor:
        """P(the first is better | no tie) [pairs], from differences of outputs [pairs].

        By the most frequent scale of the output; where it has scores alone, P(the first has the higher score).

        Args:
            considered: False for what a label of somebody unknown says, who may have been careless.

        Raises:
            ValueError: if there is no such output, or no answer was about it.

        """
        column = self._column(output)
        own = [
            cuts for cuts, (name, _) in zip(self.thresholds.cuts(), self.shape.ladders, strict=True) if name == output
        ]
        if own:
            scaled, cut = self.slopes[column] * differences, own[0][0]
            better = torch.sigmoid(functional.logsigmoid(scaled - cut) - functional.logsigmoid(-scaled - cut))
        else:
            place = self._scored(output)
            ratio = torch.exp(self.scores.log_slopes[place] - self.scores.log_deviations[place])
            better = torch.special.ndtr(ratio * differences / math.sqrt(2))
        if considered or self.annotators is None:
            return better
        quality = self.annotators.qualities[-1]
        return quality * better + (1 - quality) / 2

    def expected_scores(self, values: Tensor, output: str) -> Tensor:
        """The scores that annotators would give [responses], in their own unit, from an output's values [responses]."""
        place = self._scored(output)
        mean, deviation = self.scores.moments[place]
        return mean + deviation * (self.scores.levels[place] + self.scores.log_slopes[place].exp() * values)

    @torch.no_grad()
    def rescale(self, gain: float | Tensor) -> None:
        """Says that outputs will be multiplied by `gain`: probabilities and densities stay as they were.

        Args:
            gain: above 0; one for all outputs, or one for each [outputs].

        """
        gains = torch.as_tensor(gain, dtype=torch.float64).cpu().expand(len(self.slopes))
        if not bool((gains.isfinite() & (gains > 0)).all()):
            raise ValueError(f"outputs can be multiplied by a number above 0 only, not by {gain}")
        scored = [self.shape.outputs.index(output) for output in self.shape.scored]
        self.slopes.copy_(self.slopes.double().cpu() / gains)
        self.scores.log_slopes.sub_(gains[scored].log().to(self.scores.log_slopes))

    @torch.no_grad()
    def facts(self) -> dict[str, Any]:
        """Everything, as JSON; `from_facts` reads it."""
        shape = self.shape
        scales: dict[str, list[dict[str, Any]]] = {}
        for (output, scale), cuts, shares in zip(
            shape.ladders, self.thresholds.cuts(), self.thresholds.shares, strict=True
        ):
            scales.setdefault(output, []).append(asdict(scale) | {"cuts": cuts.tolist(), "shares": list(shares)})
        return {
            "outputs": list(shape.outputs),
            "overall_from": shape.overall_from,
            "slopes": self.slopes.tolist(),
            "scales": scales,
            "scores": self.scores.facts(),
            "annotators": None if self.annotators is None else self.annotators.facts(),
        }

    @classmethod
    @torch.no_grad()
    def from_facts(cls, facts: Mapping[str, Any]) -> "AnswerModel":
        """The answer model that gave these facts."""
        scales, scores, annotators = facts["scales"], facts["scores"], facts["annotators"]
        answers = cls(
            AnswerShape(
                outputs=tuple(facts["outputs"]),
                scales={
                    output: tuple(Scale(one["levels"], one["ties"]) for one in own) for output, own in scales.items()
                },
                scored=tuple(scores),
                annotators=() if annotators is None else tuple(annotators["each"]),
                shares={output: tuple(tuple(one["shares"]) for one in own) for output, own in scales.items()},
                moments={output: (own["mean"], own["deviation"]) for output, own in scores.items()},
                overall_from=facts["overall_from"],
            )
        )
        answers.slopes.copy_(torch.tensor(facts["slopes"]))
        answers.thresholds.set_cuts(
            [torch.tensor(one["cuts"]) for output in facts["outputs"] for one in scales.get(output, [])]
        )
        answers.scores.set_facts(scores)
        if answers.annotators is not None:
            answers.annotators.set_facts(annotators)
        return answers

    def _column(self, output: str) -> int:
        if output not in self.shape.outputs:
            raise ValueError(f'the reward model has no output "{output}", only {", ".join(self.shape.outputs)}')
        return self.shape.outputs.index(output)

    def _scored(self, output: str) -> int:
        self._column(output)
        if output not in self.shape.scored:
            raise ValueError(f'no label had a score for "{output}": the reward model cannot tell one')
        return self.shape.scored.index(output)

    def _parts(self, outputs: Tensor, observed: Observations) -> tuple[Tensor, Tensor | None]:
        """The log-likelihood of every label [labels]; where noise is learned, the mixture's two parts."""
        outputs = outputs.to(self.slopes.dtype)
        better, worse = (outputs[place, observed.output] for place in (observed.first, observed.second))
        rungs = self.thresholds.rungs()
        low, high = rungs[observed.rung], rungs[observed.rung + 1]
        graded = log_interval(self.slopes[observed.output] * (better - worse), low, high)
        considered = _by_label(graded, self.scores.log_densities(outputs, observed), observed)
        if self.annotators is None:
            return considered, None
        graded = log_interval(self.annotators.careless_differences(observed), low, high)
        careless = _by_label(graded, log_normal(observed.score.to(outputs)), observed)
        return self.annotators.parts(considered, careless, observed)


def _by_label(graded: Tensor, scored: Tensor, observed: Observations) -> Tensor:
    """The weighted sum of pairs [pairs] and scores [scores] over each label [labels]."""
    total = graded.new_zeros(len(observed))
    total = total.index_add(0, observed.pair_label, observed.pair_weight.to(graded) * graded)
    return total.index_add(0, observed.score_label, observed.score_weight.to(scored) * scored)


def calibrate(answers: AnswerModel, outputs: Tensor, observed: Observations) -> None:
    """Fits slopes, cuts and score regressions to held-out labels, in place; annotators stay as they are.

    The maximum a posteriori by L-BFGS in fp64. Its priors are centred at what is there, so that a few labels move
    little, and the likelihood never gets worse.

    Args:
        outputs: of the labels' responses [responses, outputs].

    """
    trial = copy.deepcopy(answers).double()
    outputs = outputs.detach().double()
    log_gains = nn.Parameter(outputs.new_zeros(outputs.shape[1]))
    free = [log_gains, trial.thresholds.steps, *trial.scores.parameters()]
    origins = [one.detach().clone() for one in free]
    total = observed.label_weight.sum().clamp(min=1.0)

    def loss() -> Tensor:
        fit = trial.label_log_likelihoods(outputs * log_gains.exp(), observed).sum()
        moved = [
            ((one - origin) / width).square().sum()
            for one, origin, width in zip(free, origins, CALIBRATION_DEVIATIONS, strict=True)
        ]
        return (torch.stack(moved).sum() / 2 - fit) / total

    optimiser = torch.optim.LBFGS(free, max_iter=100, line_search_fn="strong_wolfe")

    def gradients() -> float:
        optimiser.zero_grad()
        value = loss()
        value.backward(inputs=free)  # type: ignore[no-untyped-call]
        return float(value.detach())

    before = gradients()
    optimiser.step(gradients)  # type: ignore[no-untyped-call]
    if gradients() <= before:
        answers.load_state_dict(trial.state_dict())
        answers.rescale(torch.exp(-log_gains.detach()))

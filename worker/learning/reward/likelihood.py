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
from worker.learning.reward.ordered_logit import STEP_DEVIATION, Thresholds, log_interval
from worker.learning.reward.score_regression import SCORE_DEVIATION, ScoreRegressions, log_normal

CALIBRATION_DEVIATIONS = (0.5, STEP_DEVIATION, SCORE_DEVIATION, SCORE_DEVIATION, SCORE_DEVIATION)
"""Deviations of the normal priors that hold log slopes, steps and regressions near what they were when calibrating."""


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

"""How sure is a score? A Gaussian posterior over the head, given the features below it.

The last-layer Laplace approximation: the trunk is held fixed, and the head's weights w get the normal distribution that
has the fitted head as its mean and the curvature of the log-posterior there as its precision (MacKay 1992, "A practical
Bayesian framework for backpropagation networks"; Daxberger et al. 2021, "Laplace Redux"; Kristiadi et al. 2020, "Being
Bayesian, even just a bit", on why the last layer is enough to be unsure far from the data).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worker.learning.reward.likelihood import AnswerModel
from worker.learning.reward.observations import Observations
from worker.learning.seeds import generator_for


@dataclass(frozen=True)
class Posterior:
    """w ~ N(head, (cholesky cholesky^T)^-1): what the labels leave open about the head of the overall score.

    Everything is in fp64 and in the unit of the head as it is now.
    """

    head: Tensor
    """The mean [width]: the fitted head."""
    cholesky: Tensor
    """The lower factor of the precision [width, width]."""
    centre: Tensor
    """The feature [width] whose score is the zero: the mean over version 0's reference samples."""
    prior_precision: float
    """How narrow the head's prior N(0, 1 / prior_precision) is."""
    determined: float
    """How many of the head's directions the labels determined (MacKay's gamma), of `width`."""

    def deviations(self, features: Tensor) -> Tensor:
        """The standard deviation of each response's normalised score [responses], from features [responses, width]."""
        return self._deviations(features.to(self.cholesky) - self.centre)

    def pair_deviations(self, features: Tensor, other_features: Tensor) -> Tensor:
        """The standard deviation of each difference of two scores [pairs]; both arguments are [pairs, width].

        Much smaller than the two deviations suggest where the responses are alike: what is not known of one is then not
        known of the other either.
        """
        return self._deviations(features.to(self.cholesky) - other_features.to(self.cholesky))

    def _deviations(self, directions: Tensor) -> Tensor:
        whitened: Tensor = torch.linalg.solve_triangular(self.cholesky, directions.T, upper=False)
        return whitened.square().sum(dim=0).sqrt()

    def members(self, count: int, seed: int) -> Tensor:
        """Heads [count, width] drawn from the posterior: an ensemble on one trunk."""
        noise = torch.randn(len(self.head), count, generator=generator_for(seed, "members"), dtype=self.head.dtype)
        steps: Tensor = torch.linalg.solve_triangular(self.cholesky.T, noise.to(self.head.device), upper=True)
        return self.head + steps.T

    def differences(self, features: Tensor, members: Tensor) -> Tensor:
        """What each member [members, width] scores a response [responses, width] above the fitted head's score.

        As every score, each member's has its zero at version 0's samples.

        Returns:
            [responses, members].
        """
        return (features.to(self.centre) - self.centre) @ (members - self.head).T

    def centred(self, features: Tensor, groups: Iterable[int]) -> "Posterior":
        """With the zero at version 0's samples, as `normalise` takes it: the mean over prompts of each one's mean.

        Args:
            features: [samples, width], prompt after prompt.
            groups: how many samples each prompt has.
        """
        means = [own.mean(dim=0) for own in torch.split(features.to(self.head), list(groups))]
        return replace(self, centre=torch.stack(means).mean(dim=0))

    def rescaled(self, gain: float) -> "Posterior":
        """The posterior of a head that was multiplied by `gain`."""
        return replace(
            self,
            head=self.head * gain,
            cholesky=self.cholesky / gain,
            prior_precision=self.prior_precision / gain**2,
        )

    def to(self, device: torch.device | str) -> "Posterior":
        """The same, on another device."""
        return replace(
            self, head=self.head.to(device), cholesky=self.cholesky.to(device), centre=self.centre.to(device)
        )

    def tensors(self) -> dict[str, Tensor]:
        """All of it as named tensors, for safetensors; `from_tensors` reads them back."""
        return {
            "posterior.head": self.head.contiguous(),
            "posterior.cholesky": self.cholesky.contiguous(),
            "posterior.centre": self.centre.contiguous(),
            "posterior.prior": torch.tensor([self.prior_precision, self.determined], dtype=torch.float64),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Posterior | None":
        """What `tensors` gave; None where there is no posterior among them."""
        if "posterior.head" not in tensors:
            return None
        prior_precision, determined = tensors["posterior.prior"].tolist()
        head, cholesky, centre = (tensors[f"posterior.{name}"] for name in ("head", "cholesky", "centre"))
        return cls(head, cholesky, centre, prior_precision, determined)


def posterior_of(head: Tensor, pairs: Iterable[tuple[Tensor, Tensor]]) -> Posterior:
    """The Laplace posterior of a fitted head.

    The precision is sum_i c_i x_i x_i^T + tau I, where x_i is a pair's difference of features and c_i the curvature of
    its -log p in the difference of scores: the Gauss-Newton matrix, which for a linear head is the Hessian itself.
    tau maximises the marginal likelihood (see `evidence_precision`), and is large enough for the sum to have an inverse
    in fp64.

    Args:
        head: w [width].
        pairs: batches of (x [pairs, width], c [pairs]), so that no more than one is in memory; c is
            `pair_curvatures`.
    """
    weights = head.detach().double()
    curvature = torch.zeros(len(head), len(head), dtype=torch.float64, device=head.device)
    for differences, curvatures in pairs:
        rows = differences.detach().to(curvature) * curvatures.detach().to(curvature).sqrt()[:, None]
        curvature.addmm_(rows.T, rows)
    eigenvalues = torch.linalg.eigvalsh(curvature).clamp(min=0)
    lost = float(eigenvalues[-1]) * len(head) * torch.finfo(torch.float64).eps  # too little to change the greatest
    precision = max(evidence_precision(eigenvalues, float(weights.square().sum())), lost)
    determined = float((eigenvalues / (eigenvalues + precision)).sum())
    curvature.diagonal().add_(precision)
    return Posterior(weights, torch.linalg.cholesky(curvature), torch.zeros_like(weights), precision, determined)


def evidence_precision(eigenvalues: Tensor, squared_norm: float, iterations: int = 200) -> float:
    """The prior precision tau of greatest marginal likelihood, by MacKay's fixed point tau = gamma / |w|^2.

    gamma = sum_i lambda_i / (lambda_i + tau) counts the directions that the labels determine (MacKay 1992, "Bayesian
    interpolation", section 4). It needs no labels beside those that were fitted. Validation labels would not do: they
    have chosen the slope of the probabilities already, without the posterior, and would ask of it to vanish. Where no
    pair says anything, the prior is as wide as the head is.

    Args:
        eigenvalues: of the Hessian of the negative log-likelihood [width], none negative.
        squared_norm: |w|^2.
    """
    squared_norm = max(squared_norm, torch.finfo(torch.float64).eps)
    precision = len(eigenvalues) / squared_norm
    for _ in range(iterations if bool((eigenvalues > 0).any()) else 0):
        before = precision
        precision = float((eigenvalues / (eigenvalues + before)).sum()) / squared_norm
        if math.isclose(before, precision, rel_tol=1e-9):
            break
    return precision


@torch.no_grad()
def pair_curvatures(answers: AnswerModel, outputs: Tensor, observed: Observations) -> Tensor:
    """The curvature of -log p in each pair's difference of overall scores [pairs], as `posterior_of` wants it.

    The ordered logit's, times the square of the slope between scores and logits, and times what the pair weighs in the
    likelihood. A label that is probably careless counts as far as it was considered (the curvature of the expected
    log-likelihood, as in expectation maximisation). Pairs of other outputs get 0.

    Args:
        outputs: of all responses [responses, outputs].
    """
    rungs, slope = answers.thresholds.rungs(), answers.slopes[0]
    differences = slope * (outputs[observed.first, 0] - outputs[observed.second, 0])
    curvatures = interval_curvature(differences, rungs[observed.rung], rungs[observed.rung + 1])
    believed = observed.label_weight * answers.responsibilities(outputs, observed)
    weights = observed.pair_weight * believed[observed.pair_label] * (observed.output == 0)
    return weights * slope.square() * curvatures


def interval_curvature(differences: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The second derivative of -log P(low < d + e < high) in d [pairs], e being logistic.

    log P is log sigma(d - low) + log sigma(high - d) + a part without d, so the curvature is sigma'(d - low) +
    sigma'(high - d): never negative, and that of logistic regression where one of the two is infinite.
    """
    return _slope(differences - low) + _slope(high - differences)


def _slope(logits: Tensor) -> Tensor:
    """sigma'(x), which is 0 at both infinities."""
    return torch.sigmoid(logits) * torch.sigmoid(-logits)


def moderated(differences: Tensor, deviations: Tensor) -> Tensor:
    """Differences of logits drawn towards 0 as far as they are uncertain [pairs]: d / sqrt(1 + pi v / 8).

    sigma of it approximates the mean of sigma(d + noise) over noise of variance v (MacKay 1992, "The evidence framework
    applied to classification networks", equation 10), within 0.02 everywhere.
    """
    return differences / (1 + math.pi / 8 * deviations.square()).sqrt()


def conservative(scores: Tensor, deviations: Tensor, coefficient: float) -> Tensor:
    """What a policy may count on [responses]: the score less a multiple of its deviation.

    As uncertainty-weighted optimisation does (Coste et al. 2023, "Reward model ensembles help mitigate
    overoptimization"), there with the variance. Their worst case over an ensemble is of this form as well: the least of
    n heads drawn from the posterior lies 1.03 deviations below the mean for n = 4, and 1.16 for n = 5.
    """
    return scores - coefficient * deviations

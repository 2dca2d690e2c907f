import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from scipy.special import expit

from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.likelihood import AnswerModel
from worker.learning.reward.observations import Weighting, observe, shape_of
from worker.learning.reward.uncertainty import (
    Posterior,
    conservative,
    evidence_precision,
    interval_curvature,
    moderated,
    pair_curvatures,
    posterior_of,
)

pytestmark = pytest.mark.learning

WIDTH = 5


def a_posterior(pairs: int, seed: int = 0) -> tuple[Posterior, Any, Any]:
    """Of a head fitted to pairs of 5 features, with the differences of features and the outcomes."""
    noise = np.random.default_rng(seed)
    differences = noise.normal(size=(pairs, WIDTH))
    truth = np.array([1.0, -0.5, 0.0, 2.0, 0.3])
    outcomes = noise.random(pairs) < expit(differences @ truth)
    fitted = optimize.minimize(nll, np.zeros(WIDTH), args=(differences, outcomes, 0.1)).x
    logits = torch.tensor(differences @ fitted)
    towards = torch.where(torch.tensor(outcomes), logits, -logits)
    curvatures = interval_curvature(towards, torch.zeros(pairs), torch.full((pairs,), math.inf))
    return posterior_of(torch.tensor(fitted), [(torch.tensor(differences), curvatures)]), differences, outcomes


def nll(head: Any, differences: Any, outcomes: Any, ridge: float = 0.0) -> float:
    """Bradley and Terry's, written out in numpy."""
    logits = np.where(outcomes, 1, -1) * (differences @ head)
    return float(np.logaddexp(0, -logits).sum() + ridge / 2 * head @ head)


def numerical_hessian(function: Any, point: Any, step: float = 1e-4) -> Any:
    size = len(point)
    shifts = np.eye(size) * step
    return np.array(
        [
            [
                (function(point + a + b) - function(point + a - b) - function(point - a + b) + function(point - a - b))
                / (4 * step**2)
                for b in shifts
            ]
            for a in shifts
        ]
    )


def test_the_precision_is_the_hessian_of_the_log_posterior() -> None:
    posterior, differences, outcomes = a_posterior(60)
    ours = (posterior.cholesky @ posterior.cholesky.T).numpy()
    numeric = numerical_hessian(lambda head: nll(head, differences, outcomes), posterior.head.numpy())
    np.testing.assert_allclose(ours, numeric + posterior.prior_precision * np.eye(WIDTH), rtol=1e-5, atol=1e-5)


def test_batches_add_up_to_the_whole() -> None:
    posterior, differences, _ = a_posterior(60)
    x, c = torch.tensor(differences), torch.rand(60, dtype=torch.float64)
    whole = posterior_of(posterior.head, [(x, c)])
    parts = posterior_of(posterior.head, [(x[start : start + 7], c[start : start + 7]) for start in range(0, 60, 7)])
    torch.testing.assert_close(whole.cholesky, parts.cholesky)
    assert whole.prior_precision == pytest.approx(parts.prior_precision)


def test_deviations_are_those_of_the_inverse_of_the_precision() -> None:
    posterior, _, _ = a_posterior(60)
    covariance = np.linalg.inv((posterior.cholesky @ posterior.cholesky.T).numpy())
    features = np.random.default_rng(1).normal(size=(8, WIDTH))
    samples = np.random.default_rng(2).normal(size=(5, WIDTH))
    centred = posterior.centred(torch.tensor(samples), [2, 3])
    zero = (samples[:2].mean(axis=0) + samples[2:].mean(axis=0)) / 2
    expected = [math.sqrt((row - zero) @ covariance @ (row - zero)) for row in features]
    np.testing.assert_allclose(centred.deviations(torch.tensor(features)), expected, rtol=1e-10)
    between = [math.sqrt((a - b) @ covariance @ (a - b)) for a, b in zip(features[:4], features[4:], strict=True)]
    ours = centred.pair_deviations(torch.tensor(features[:4]), torch.tensor(features[4:]))
    np.testing.assert_allclose(ours, between, rtol=1e-10)


def test_pairs_curve_as_the_likelihood_weighs_them() -> None:
    """Against the second derivatives of the labels' log-likelihood: a graded pair, a tie, a ranking, a criterion."""
    ranking, pair, tie = Judgement(((2,), (0, 1))), Judgement(((1,), (0,)), 2, Scale(3)), Judgement(((0, 1),))
    prompt = ({"role": "user", "content": "?"},)
    labels = [
        Label(prompt, ("a", "b", "c"), ranking, weight=2.0),
        Label(prompt, ("a", "b"), pair, criteria={"kind": Judgement(((0,), (1,)))}),
        Label(prompt, ("a", "b"), tie),
    ]
    shape = shape_of(labels, annotators=False)
    answers = AnswerModel(shape).double()
    answers.rescale(0.5)
    observed = observe(labels, [[0, 1, 2], [3, 4], [5, 6]], shape, Weighting("k-1"))
    outputs = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def overall_nll(scores: Any) -> float:
        columns = torch.stack([torch.tensor(scores), outputs[:, 1]], dim=1)
        return -float(answers.label_log_likelihoods(columns, observed).sum().detach())

    curvatures = pair_curvatures(answers, outputs, observed)
    incidence = torch.zeros(len(curvatures), 7, dtype=torch.float64)
    rows = torch.arange(len(curvatures))
    incidence[rows, observed.first], incidence[rows, observed.second] = 1.0, -1.0
    ours = incidence.T @ (curvatures[:, None] * incidence)
    np.testing.assert_allclose(ours, numerical_hessian(overall_nll, outputs[:, 0].numpy()), atol=1e-5)
    assert float(curvatures[observed.output == 1]) == 0


def test_careless_labels_say_less_of_the_head() -> None:
    """Of two annotators who answer alike, the one who is believed less."""
    prompt = ({"role": "user", "content": "?"},)
    labels = [Label(prompt, ("a", "b"), Judgement(((0,), (1,))), annotator=name, shown=(0, 1)) for name in ("g", "h")]
    shape = shape_of(labels, annotators=True)
    answers = AnswerModel(shape)
    facts = answers.facts()
    facts["annotators"]["each"]["g"]["quality"] = 0.9
    facts["annotators"]["each"]["h"]["quality"] = 0.2
    answers = AnswerModel.from_facts(facts)
    observed = observe(labels, [[0, 1], [0, 1]], shape, Weighting("1"))
    outputs = torch.tensor([[1.0], [0.0]])
    trusted, doubted = pair_curvatures(answers, outputs, observed).tolist()
    # Considered with probability 0.2, against a blind 0.2-to-0.8 coin that prefers neither.
    cut = float(answers.thresholds.cuts()[0].detach())
    right, blind = expit(1.0 - cut), expit(-cut)
    believed = [quality * right / (quality * right + (1 - quality) * blind) for quality in (0.9, 0.2)]
    assert doubted / trusted == pytest.approx(believed[1] / believed[0], rel=1e-4)


@pytest.mark.parametrize("grade", [-2, -1, 0, 1, 2])
def test_the_curvature_of_a_grade_is_its_second_derivative(grade: int) -> None:
    """The probability of a grade as a difference of two of SciPy's logistic distributions."""
    edges = [-math.inf, -1.3, -0.4, 0.4, 1.3, math.inf]
    lower, upper = edges[grade + 2], edges[grade + 3]

    def minus_log(d: float) -> float:
        return -math.log(stats.logistic.cdf(upper - d) - stats.logistic.cdf(lower - d))

    for d in (-1.7, 0.0, 0.9):
        step = 1e-3
        expected = (minus_log(d + step) - 2 * minus_log(d) + minus_log(d - step)) / step**2
        ours = interval_curvature(*(torch.tensor(value).double() for value in (d, lower, upper)))
        assert float(ours) == pytest.approx(expected, rel=1e-5)


def test_the_prior_has_the_greatest_marginal_likelihood() -> None:
    """Against SciPy's search over log tau of the evidence itself, written out as a determinant."""
    posterior, differences, outcomes = a_posterior(60)
    head = posterior.head.numpy()
    hessian = numerical_hessian(lambda point: nll(point, differences, outcomes), head)

    def minus_log_evidence(log_precision: float) -> float:
        precision = math.exp(log_precision)
        determinant = np.linalg.slogdet(hessian + precision * np.eye(WIDTH))[1]
        return float(precision / 2 * head @ head - WIDTH / 2 * log_precision + determinant / 2)

    best = optimize.minimize_scalar(minus_log_evidence, bounds=(-8, 8), method="bounded").x
    assert posterior.prior_precision == pytest.approx(math.exp(best), rel=1e-3)
    # At the greatest evidence tau |w|^2 = gamma: MacKay's count of the directions that the labels determine.
    assert posterior.determined == pytest.approx(posterior.prior_precision * head @ head, rel=1e-6)


def test_an_undetermined_direction_does_not_count() -> None:
    eigenvalues = torch.tensor([0.0, 1e6, 1e6], dtype=torch.float64)
    assert evidence_precision(eigenvalues, 0.5) == pytest.approx(2 / 0.5, rel=1e-4)


def test_far_responses_are_less_sure_and_more_labels_surer() -> None:
    few, many = a_posterior(20)[0], a_posterior(2_000)[0]
    direction = torch.ones(1, WIDTH, dtype=torch.float64)
    rising = torch.cat([few.deviations(scale * direction) for scale in (1, 2, 8)])
    assert torch.allclose(rising, rising[0] * torch.tensor([1.0, 2.0, 8.0], dtype=torch.float64))
    assert many.deviations(direction) < 0.3 * few.deviations(direction)


def test_members_are_drawn_from_the_posterior() -> None:
    posterior, _, _ = a_posterior(60)
    members = posterior.members(100_000, seed=3).numpy()
    covariance = np.linalg.inv((posterior.cholesky @ posterior.cholesky.T).numpy())
    np.testing.assert_allclose(members.mean(axis=0), posterior.head, atol=4 * math.sqrt(covariance.max() / 1e5))
    np.testing.assert_allclose(np.cov(members.T), covariance, atol=0.03 * covariance.max())
    assert torch.equal(posterior.members(4, seed=3), posterior.members(4, seed=3))


def test_scores_and_deviations_share_the_gain() -> None:
    posterior, _, _ = a_posterior(60)
    features = torch.randn(6, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rescaled = posterior.rescaled(2.5)
    torch.testing.assert_close(features @ rescaled.head, 2.5 * (features @ posterior.head))
    torch.testing.assert_close(rescaled.deviations(features), 2.5 * posterior.deviations(features))
    torch.testing.assert_close(rescaled.members(3, 0), 2.5 * posterior.members(3, 0))


@pytest.mark.parametrize("difference", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("deviation", [0.0, 0.7, 3.0])
def test_moderated_probabilities_are_means_over_the_posterior(difference: float, deviation: float) -> None:
    """Against SciPy's quadrature of sigma over the normal distribution."""

    def integrand(z: float) -> float:
        return float(expit(difference + deviation * z) * stats.norm.pdf(z))

    expected = integrate.quad(integrand, -10, 10)[0]
    ours = torch.sigmoid(moderated(torch.tensor(difference), torch.tensor(deviation)))
    assert float(ours) == pytest.approx(expected, abs=0.02)


def test_the_worst_of_four_heads_is_a_multiple_of_the_deviation() -> None:
    """The mean of the least of four standard normal numbers is -1.0294 (Teichroew 1956, table I)."""
    posterior, _, _ = a_posterior(60)
    feature = torch.ones(1, WIDTH, dtype=torch.float64)
    worst = (posterior.members(80_000, 0) @ feature.T).view(20_000, 4).min(dim=1).values.mean()
    bound = conservative(feature @ posterior.head, posterior.deviations(feature), 1.0294)
    assert float(worst) == pytest.approx(float(bound), abs=0.02 * float(posterior.deviations(feature)))


def test_it_travels_as_tensors() -> None:
    posterior = a_posterior(60)[0].centred(torch.ones(2, WIDTH), [2])
    read = Posterior.from_tensors(posterior.tensors())
    assert read is not None
    features = torch.eye(WIDTH, dtype=torch.float64)
    assert torch.equal(read.deviations(features), posterior.deviations(features))
    assert (read.prior_precision, read.determined) == (posterior.prior_precision, posterior.determined)
    assert Posterior.from_tensors({}) is None


def test_pairs_that_say_nothing_leave_a_prior_as_wide_as_the_head() -> None:
    posterior = posterior_of(torch.tensor([3.0, 0.0, 4.0]), [(torch.zeros(2, 3), torch.ones(2))])
    assert posterior.prior_precision == pytest.approx(3 / 25)
    assert posterior.determined == 0
    features = torch.tensor([[0.0, 2.0, 0.0]])
    assert float(posterior.deviations(features)) == pytest.approx(2 * math.sqrt(25 / 3))


def test_labels_of_any_weight_leave_a_posterior() -> None:
    differences, head = torch.tensor(np.random.default_rng(3).normal(size=(2, WIDTH))), torch.ones(WIDTH)
    for weight in (1e-30, 1e12, 1e18, 1e30):
        posterior = posterior_of(head, [(differences, torch.full((2,), weight, dtype=torch.float64))])
        assert bool(posterior.deviations(differences).isfinite().all())

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from torch import Tensor

from tests.learning.answers import label, one_by_one
from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.likelihood import AnswerModel, calibrate
from worker.learning.reward.observations import AnswerShape, Observations, Weighting, observe, shape_of
from worker.learning.reward.ordered_logit import log_interval

pytestmark = pytest.mark.learning

Groups = tuple[tuple[int, ...], ...]
SEVEN = Scale(levels=3, ties=True)


def observed(labels: Sequence[Label], shape: AnswerShape | None = None) -> Observations:
    return observe(labels, one_by_one(labels), shape or shape_of(labels, annotators=False), Weighting())


def graded_pairs(differences: np.ndarray, cuts: Sequence[float], scale: Scale, seed: int) -> list[Label]:
    """Answers that an ordered logit with these cuts gives to known differences: latent plus logistic noise, cut up."""
    latent = differences + np.random.default_rng(seed).logistic(size=len(differences))
    labels = []
    for value in latent:
        strength = int(np.searchsorted(cuts, abs(value)))
        groups = ((0, 1),) if strength == 0 else ((0,), (1,)) if value > 0 else ((1,), (0,))
        graded = strength if strength and scale.levels > 1 else None
        labels.append(label(Judgement(groups, strength=graded, scale=scale)))
    return labels


def as_outputs(differences: np.ndarray) -> Tensor:
    """Outputs of two responses each, the first better by the difference."""
    return torch.tensor(np.stack([differences / 2, -differences / 2], axis=1).reshape(-1, 1))


def grade_log_probabilities(differences: Tensor, cuts: Tensor) -> Tensor:
    """Of the grades -levels..levels [pairs, 2 * levels + 1], each between its two thresholds."""
    infinite = cuts.new_full((1,), math.inf)
    edges = torch.cat([-infinite, -cuts.flip(0), cuts, infinite])
    return log_interval(differences[:, None], edges[:-1], edges[1:])


def test_rao_and_kupper_by_hand() -> None:
    """Rao and Kupper 1967: worths 3 and 1, theta 2: win 3/(3+2), lose 1/(1+6), tie 3(4-1)/((3+2)(6+1))."""
    logs = grade_log_probabilities(torch.tensor([math.log(3)]), torch.tensor([math.log(2)]))
    assert logs.exp().tolist()[0] == pytest.approx([1 / 7, 9 / 35, 3 / 5])


def test_bradley_and_terry_by_hand() -> None:
    """Bradley and Terry 1952: worths 3 and 1 win 3/4 and 1/4 of their pairs, and never tie."""
    logs = grade_log_probabilities(torch.tensor([math.log(3)]), torch.tensor([0.0]))
    assert logs.exp().tolist()[0] == pytest.approx([1 / 4, 0, 3 / 4])


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.floats(-30, 30), min_size=1, max_size=5),
    st.lists(st.floats(0.01, 5), min_size=1, max_size=4),
)
def test_grades_have_the_logistic_probabilities_of_scipy(differences: list[float], steps: list[float]) -> None:
    cuts = np.cumsum(steps)
    edges = np.concatenate([[-np.inf], -cuts[::-1], cuts, [np.inf]])
    expected = np.diff(stats.logistic.cdf(edges[None] - np.array(differences)[:, None]), axis=1)
    got = grade_log_probabilities(torch.tensor(differences, dtype=torch.float64), torch.tensor(cuts)).exp()
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(got.sum(dim=1).numpy(), 1, atol=1e-12)


@pytest.mark.parametrize("cuts", [[0.0], [0.5], [0.0, 1.0, 2.0], [0.001, 0.002, 9.0]])
def test_far_differences_keep_their_precision_and_their_gradient_in_fp32(cuts: list[float]) -> None:
    differences = torch.tensor([1e4, -1e4, 88.0, 0.0], requires_grad=True)
    logs = grade_log_probabilities(differences, torch.tensor(cuts, requires_grad=True))
    possible = logs[logs > -math.inf]
    assert possible.isfinite().all()
    assert logs[0, 0].item() == pytest.approx(-1e4 - cuts[-1])  # the far wrong end costs as much as the log-odds
    assert logs[0, -1].item() == 0
    possible.sum().backward()
    assert differences.grad is not None
    assert differences.grad.isfinite().all()
    assert differences.grad[0].item() == pytest.approx(-differences.grad[1].item())


def test_labels_on_several_scales_are_as_likely_as_scipy_says() -> None:
    """A ranking with a tie, which weighs as two pairs; grades and a tie of seven; a criterion without ties; scores."""
    no_ties = Scale(ties=False)
    labels = [
        label(Judgement(((2,), (0, 1))), weight=2.0),
        label(Judgement(((1,), (0,)), strength=2, scale=SEVEN)),
        label(Judgement(((0, 1),), scale=SEVEN), kind=Judgement(((1,), (0,)), scale=no_ties)),
        label(Judgement(scores=(1.0, 5.0))),
    ]
    shape = shape_of(labels, annotators=False)
    seen = observe(labels, one_by_one(labels), shape, Weighting("k-1", criteria_weight=0.5, score_weight=0.25))
    answers = AnswerModel(shape)
    cuts = {Scale(): [0.6], SEVEN: [0.3, 1.1, 2.5], no_ties: [0.0]}
    answers.thresholds.set_cuts([torch.tensor(cuts[scale]) for _, scale in shape.ladders])
    answers.slopes.copy_(torch.tensor([1.5, 1.0, 0.7]))
    assert shape.outputs == ("overall", "score", "kind")
    outputs = torch.randn(9, 3, generator=torch.Generator().manual_seed(4))
    own, score, kind = outputs.double().numpy().T

    def between(low: float, high: float, difference: float) -> float:
        return float(np.log(np.diff(stats.logistic.cdf([low, high], loc=difference)))[0])

    won = [between(-math.inf, -0.6, 1.5 * (own[other] - own[2])) for other in (0, 1)]
    expected = [
        2.0 * 2 / 3 * (sum(won) + between(-0.6, 0.6, 1.5 * (own[0] - own[1]))),
        between(1.1, 2.5, 1.5 * (own[4] - own[3])),
        between(-0.3, 0.3, 1.5 * (own[5] - own[6])) + 0.5 * between(0, math.inf, 0.7 * (kind[6] - kind[5])),
        0.25 / 2 * stats.norm.logpdf([-1.0, 1.0], loc=score[7:]).sum(),  # 1 and 5 in their own deviations about 3
    ]
    np.testing.assert_allclose(answers.label_log_likelihoods(outputs, seen).tolist(), expected, rtol=1e-5)


def test_the_gradient_is_that_of_finite_differences() -> None:
    differences = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64, requires_grad=True)
    low = torch.tensor([-0.7, 0.7, 1.5], dtype=torch.float64, requires_grad=True)
    high = torch.tensor([0.7, 1.5, math.inf], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda one, other: log_interval(one, other, high), (differences, low))


def test_the_whole_likelihood_has_the_gradient_of_finite_differences() -> None:
    labels = [
        label(Judgement(((2,), (0, 1)), scores=(1.0, None, 4.0)), annotator="ann", shown=(2, 0, 1)),
        label(Judgement(((1,), (0,)), strength=2, scale=SEVEN), annotator="bob", shown=(0, 1)),
        label(helpful=Judgement(((0, 1),), scale=SEVEN), honest=Judgement(scores=(3.0, 1.0))),
    ]
    shape = shape_of(labels, annotators=True)
    seen = observe(labels, one_by_one(labels), shape, Weighting("k-1"))
    answers = AnswerModel(shape).double()
    outputs = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    names = [name for name, parameter in answers.named_parameters() if parameter.requires_grad]
    values = [answers.get_parameter(name).detach().clone().requires_grad_() for name in names]

    def likelihood(outputs: Tensor, *values: Tensor) -> Tensor:
        own = dict(zip(names, values, strict=True))
        result = torch.func.functional_call(Likelihood(answers), prefixed(own), (outputs, seen))
        assert isinstance(result, Tensor)
        return result

    assert torch.autograd.gradcheck(likelihood, (outputs, *values))


class Likelihood(torch.nn.Module):
    """Lets `functional_call` reach the likelihood."""

    def __init__(self, answers: AnswerModel) -> None:
        super().__init__()
        self.answers = answers

    def forward(self, outputs: Tensor, seen: Observations) -> Tensor:
        return torch.cat([self.answers.label_log_likelihoods(outputs, seen), self.answers.log_prior()[None]])


def prefixed(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"answers.{name}": value for name, value in values.items()}


def test_thresholds_start_where_they_explain_the_shares_of_grades() -> None:
    """Without any difference between responses a seven-grade scale starts at the shares that were seen."""
    shares = (0.1, 0.4, 0.3, 0.2)
    shape = AnswerShape(scales={"overall": (SEVEN,)}, shares={"overall": (shares,)})
    cuts = AnswerModel(shape).thresholds.cuts()[0]
    probabilities = grade_log_probabilities(torch.zeros(1), cuts).exp()[0]
    assert probabilities.tolist() == pytest.approx([0.1, 0.15, 0.2, 0.1, 0.2, 0.15, 0.1], abs=1e-6)


@pytest.mark.parametrize("scale", [Scale(), Scale(ties=False), SEVEN, Scale(levels=4, ties=False)])
def test_cuts_increase_and_begin_at_0_only_without_ties(scale: Scale) -> None:
    cuts = AnswerModel(AnswerShape(scales={"overall": (scale,)})).thresholds.cuts()[0]
    assert len(cuts) == scale.levels
    assert (cuts[0] > 0) == scale.ties
    assert (cuts.diff() > 0).all()


@pytest.mark.parametrize(
    ("scale", "cuts"),
    [(Scale(), [0.8]), (SEVEN, [0.3, 1.1, 2.6]), (Scale(levels=3, ties=False), [0.0, 0.9, 2.0])],
)
def test_planted_thresholds_are_recovered(scale: Scale, cuts: list[float]) -> None:
    differences = np.random.default_rng(1).normal(0, 2, 4_000)
    labels = graded_pairs(differences, cuts, scale, seed=2)
    answers = AnswerModel(shape_of(labels, annotators=False))
    calibrate(answers, as_outputs(differences), observed(labels))
    assert answers.thresholds.cuts()[0].tolist() == pytest.approx(cuts, abs=0.12)
    assert answers.slopes.tolist() == pytest.approx([1], abs=0.1)


def test_a_scale_on_which_nobody_tied_stays_finite() -> None:
    labels = [label(Judgement(((0,), (1,)))) for _ in range(50)]
    answers = AnswerModel(shape_of(labels, annotators=False))
    calibrate(answers, as_outputs(np.ones(50)), observed(labels))
    [cuts] = answers.thresholds.cuts()
    assert 0 < cuts[0] < 0.05
    tied = [label(Judgement(((0, 1),)))]
    likelihood = answers.label_log_likelihoods(as_outputs(np.ones(1)), observed(tied, answers.shape))
    assert likelihood.isfinite().all()


def test_the_prior_holds_every_number_where_it_starts() -> None:
    answers = AnswerModel(shape_of(rich_labels(), annotators=False))
    assert answers.log_prior().item() == 0
    for parameter in answers.parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.add_(0.5)
    expected = -3 * (0.5 / 2) ** 2 / 2 - 3 * 2 * 0.5**2 / 2  # steps of Rao and Kupper's and of two scales of three
    assert answers.log_prior().item() == pytest.approx(expected - 2 * (0.5 / 2) ** 2 / 2, rel=1e-5)


def test_scores_are_normal_about_a_line_on_their_output() -> None:
    ordered = label(Judgement(((0,), (1,))))  # without it the order of the scores would count too
    labels = [label(Judgement(scores=(2.0, None, 7.0))), label(Judgement(scores=(6.0, 1.0)))]
    answers = AnswerModel(shape_of([*labels, ordered], annotators=False))
    with torch.no_grad():
        answers.scores.levels[0], answers.scores.log_slopes[0], answers.scores.log_deviations[0] = 0.5, 0.2, -0.4
    outputs = torch.tensor([[0.0, 0.3], [0.0, 9.0], [0.0, -1.0], [0.0, 0.7], [0.0, 0.1]])
    given = np.array([2.0, 7.0, 6.0, 1.0])
    standard = (given - given.mean()) / given.std()
    expected = 0.5 + math.exp(0.2) * np.array([0.3, -1.0, 0.7, 0.1])
    logs = stats.norm.logpdf(standard, expected, math.exp(-0.4))
    likelihoods = answers.label_log_likelihoods(outputs, observed(labels, answers.shape))
    assert likelihoods.tolist() == pytest.approx([logs[:2].mean(), logs[2:].mean()], rel=1e-5)
    scores = answers.expected_scores(outputs[:1, 1], "score")
    assert scores.item() == pytest.approx(given.mean() + given.std() * expected[0], rel=1e-5)


def test_a_probability_leaves_ties_out_and_knows_its_output() -> None:
    labels = [label(Judgement(((0,), (1,))), helpful=Judgement(scores=(1.0, 2.0)))]
    answers = AnswerModel(shape_of(labels, annotators=False))
    with torch.no_grad():
        answers.thresholds.set_cuts([torch.tensor([math.log(2)])])
        answers.scores.log_deviations.fill_(math.log(0.5))
    got = answers.probability(torch.tensor([math.log(3)])).item()
    assert got == pytest.approx((3 / 5) / (3 / 5 + 1 / 7), rel=1e-5)  # Rao and Kupper's, as above
    higher = answers.probability(torch.tensor([0.3]), "helpful").item()
    assert higher == pytest.approx(stats.norm.cdf(0.3 / (0.5 * math.sqrt(2))), rel=1e-5)
    with pytest.raises(ValueError, match='no output "honest", only overall, helpful'):
        answers.probability(torch.tensor([0.3]), "honest")
    with pytest.raises(ValueError, match='no label had a score for "overall"'):
        answers.expected_scores(torch.tensor([0.3]), "overall")


def test_the_probability_of_anybodys_label_counts_careless_ones_in() -> None:
    labels = [label(Judgement(((0,), (1,)), scale=Scale(ties=False)), annotator="ann")]
    answers = AnswerModel(shape_of(labels, annotators=True))
    likely = answers.probability(torch.tensor([math.log(3)]), considered=False).item()
    assert likely == pytest.approx(0.8 * 3 / 4 + 0.2 / 2)


def rich_labels() -> list[Label]:
    return [
        label(Judgement(((0,), (1, 2)), scores=(5.0, 2.0, None)), annotator="ann", shown=(1, 0, 2)),
        label(Judgement(((1,), (0,)), strength=3, scale=SEVEN), helpful=Judgement(((0,), (1,)), scores=(1.0, 3.0))),
        label(Judgement(((1,), (0,)), strength=1, scale=SEVEN), annotator="bob", shown=(1, 0)),
    ]


@pytest.mark.parametrize("gain", [0.2, 7.0, torch.tensor([2.0, 0.5, 3.0])])
def test_rescaled_outputs_have_the_same_likelihood(gain: float | Tensor) -> None:
    labels = rich_labels()
    shape = shape_of(labels, annotators=True)
    answers, outputs = AnswerModel(shape), torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    before = answers.label_log_likelihoods(outputs, observed(labels, shape))
    answers.rescale(gain)
    after = answers.label_log_likelihoods(outputs * gain, observed(labels, shape))
    torch.testing.assert_close(after, before)


@pytest.mark.parametrize("gain", [0.0, -1.0, math.inf, math.nan])
def test_outputs_can_only_be_multiplied_by_what_keeps_their_order(gain: float) -> None:
    with pytest.raises(ValueError, match="above 0 only"):
        AnswerModel(AnswerShape()).rescale(gain)


def test_the_facts_are_json_and_give_the_same_model_again() -> None:
    labels = rich_labels()
    shape = shape_of(labels, annotators=True)
    answers = AnswerModel(shape)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in answers.parameters():
            parameter.add_(0.3 * torch.rand(parameter.shape, generator=noise))
    again = AnswerModel.from_facts(json.loads(json.dumps(answers.facts())))
    outputs = torch.randn(7, 3, generator=noise)
    torch.testing.assert_close(
        again.label_log_likelihoods(outputs, observed(labels, shape)),
        answers.label_log_likelihoods(outputs, observed(labels, shape)),
    )
    torch.testing.assert_close(again.log_prior(), answers.log_prior())
    assert again.shape == answers.shape
    assert again.facts()["annotators"]["each"].keys() == {"ann", "bob"}


def test_calibration_finds_the_maximum_that_scipy_finds() -> None:
    """Slope and one cut, with the documented priors, by Nelder and Mead on Rao and Kupper's own formula."""
    rng = np.random.default_rng(4)
    differences = rng.normal(0, 1, 300)
    labels = graded_pairs(2.5 * differences, [0.7], Scale(), seed=5)
    grades = np.array([0 if len(one.overall.groups) == 1 else 1 - 2 * one.overall.groups[0][0] for one in labels])
    answers = AnswerModel(shape_of(labels, annotators=False))
    start = answers.thresholds.steps.item()

    def loss(numbers: np.ndarray) -> float:
        worth, theta = np.exp(np.exp(numbers[0]) * differences), np.exp(np.log1p(np.exp(numbers[1])) + 0.001)
        win, lose = worth / (worth + theta), 1 / (1 + theta * worth)
        likelihood = np.log(np.select([grades > 0, grades < 0], [win, lose], 1 - win - lose)).sum()
        return float((numbers[0] / 0.5) ** 2 / 2 + ((numbers[1] - start) / 2.0) ** 2 / 2 - likelihood)

    best = optimize.minimize(loss, [0.0, start], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).x
    calibrate(answers, as_outputs(differences), observed(labels))
    assert math.log(answers.slopes.item()) == pytest.approx(best[0], abs=1e-3)
    assert answers.thresholds.steps.item() == pytest.approx(best[1], abs=1e-3)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_calibration_recovers_the_slope_from_any_start(size: float) -> None:
    differences = np.random.default_rng(6).normal(0, 2, 3_000)
    labels = graded_pairs(differences, [0.0], Scale(ties=False), seed=7)
    answers = AnswerModel(shape_of(labels, annotators=False))
    calibrate(answers, size * as_outputs(differences), observed(labels))
    assert answers.slopes.item() * size == pytest.approx(1, abs=0.12)


def test_calibration_on_one_pair_stays_near_where_it_was() -> None:
    labels = [label(Judgement(((0,), (1,))))]
    answers = AnswerModel(shape_of(labels, annotators=False))
    calibrate(answers, as_outputs(np.array([3.0])), observed(labels))
    assert 1 <= answers.slopes.item() < 1.2


ANSWERS = st.sampled_from([((0,), (1,)), ((1,), (0,)), ((0, 1),)])


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(-50, 50), ANSWERS), max_size=6))
def test_calibration_never_makes_the_likelihood_worse(answered: list[tuple[float, Groups]]) -> None:
    labels = [label(Judgement(groups)) for _, groups in answered]
    answers = AnswerModel(shape_of(labels, annotators=False))
    outputs = as_outputs(np.array([difference for difference, _ in answered], dtype=np.float64))
    before = answers.label_log_likelihoods(outputs, observed(labels)).sum().item()
    calibrate(answers, outputs, observed(labels))
    after = answers.label_log_likelihoods(outputs, observed(labels)).sum().item()
    assert after >= before - 1e-4 * (1 + abs(before))
    assert all(parameter.isfinite().all() for parameter in answers.parameters())

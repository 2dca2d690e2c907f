import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from tests.learning.answers import PROMPT, label, one_by_one
from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.annotators import Annotators
from worker.learning.reward.likelihood import AnswerModel
from worker.learning.reward.observations import Observations, Weighting, observe, shape_of

pytestmark = pytest.mark.learning

DATA = Path("../shared/data")
NO_TIES = Scale(ties=False)


def sigma(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def observed(labels: Sequence[Label], weighting: Weighting | None = None) -> tuple[AnswerModel, Observations]:
    shape = shape_of(labels, annotators=True)
    return AnswerModel(shape), observe(labels, one_by_one(labels), shape, weighting or Weighting())


def fit(answers: AnswerModel, seen: Observations, outputs: Tensor, deviation: float | None = None) -> None:
    """The maximum a posteriori of the answers' numbers and, with a deviation of their prior, of the outputs."""
    free = [one for one in answers.parameters() if one.requires_grad] + [outputs] * (deviation is not None)
    optimiser = torch.optim.LBFGS(free, max_iter=150, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -answers.label_log_likelihoods(outputs, seen).sum() - answers.log_prior()
        if deviation is not None:
            value = value + (outputs / deviation).square().sum() / 2
        (value / len(seen)).backward()
        return value / len(seen)

    optimiser.step(loss)


def set_numbers(answers: AnswerModel, qualities: Sequence[float], biases: Sequence[float]) -> None:
    annotators = answers.annotators
    assert annotators is not None
    with torch.no_grad():
        annotators.quality_logits.copy_(torch.tensor(special.logit(qualities)))
        annotators.position_biases.copy_(torch.tensor(biases))


def test_a_pair_is_the_mixture_of_a_considered_and_a_careless_answer() -> None:
    """g sigma(d) + (1 - g) sigma(+-b), the noisy Bradley-Terry model, with the bias towards what was shown first."""
    chosen = Judgement(((0,), (1,)), scale=NO_TIES)
    labels = [
        label(chosen, annotator="ann", shown=(0, 1)),
        label(chosen, annotator="ann", shown=(1, 0)),
        label(chosen, annotator="bob"),
        label(chosen),
    ]
    answers, seen = observed(labels)
    set_numbers(answers, [0.9, 0.6, 0.7], [0.8, -2.0, 1.0])
    outputs = torch.tensor([[1.2], [0.0]]).repeat(4, 1)
    considered = sigma(1.2)
    expected = [
        0.9 * considered + 0.1 * sigma(0.8),
        0.9 * considered + 0.1 * sigma(-0.8),
        0.6 * considered + 0.4 * 0.5,
        0.7 * considered + 0.3 * 0.5,
    ]
    assert answers.label_log_likelihoods(outputs, seen).exp().tolist() == pytest.approx(expected, rel=1e-5)
    believed = [0.9 * considered / expected[0], 0.9 * considered / expected[1]]
    assert answers.responsibilities(outputs, seen).tolist()[:2] == pytest.approx(believed, rel=1e-5)


def test_one_coin_is_tossed_for_all_that_a_label_says() -> None:
    """A pair, a criterion's pair and a score: considered all three, or none."""
    pair = Judgement(((0,), (1,)), scale=NO_TIES)
    scored = Judgement(((1,), (0,)), scale=NO_TIES, scores=(1.0, 3.0))
    answers, seen = observed([label(pair, helpful=scored, annotator="ann", shown=(1, 0))])
    set_numbers(answers, [0.7, 0.8], [0.5, 0.0])
    outputs = torch.tensor([[0.4, -0.3], [0.0, 0.9]])
    normal = stats.norm.pdf
    scores = math.sqrt(normal(-1 + 0.3) * normal(1 - 0.9))  # the two share the weight of one
    blind = math.sqrt(normal(-1) * normal(1))
    expected = 0.7 * sigma(0.4) * sigma(1.2) * scores + 0.3 * sigma(-0.5) * sigma(0.5) * blind
    assert answers.label_log_likelihoods(outputs, seen).exp().tolist() == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_a_blind_order_of_k_has_its_own_probability(count: int) -> None:
    order = Judgement(tuple((place,) for place in range(count)), scale=NO_TIES)
    answers, seen = observed([label(order, annotator="ann")])
    set_numbers(answers, [1e-12, 0.5], [0.0, 0.0])
    weighed = answers.label_log_likelihoods(torch.randn(count, 1), seen) / seen.label_weight
    assert weighed.item() == pytest.approx(-math.lgamma(count + 1), rel=1e-5)


@pytest.mark.parametrize(("set_weight", "expected"), [("1", 1.0), ("k-1", 3.0)])
def test_a_trusted_annotators_ranking_counts_as_without_noise(set_weight: Literal["1", "k-1"], expected: float) -> None:
    order = Judgement(((1,), (3,), (0,), (2,)), scale=NO_TIES)
    answers, seen = observed([label(order, annotator="ann")], Weighting(set_weight))
    set_numbers(answers, [1 - 1e-7, 0.5], [0.0, 0.0])
    outputs = torch.tensor([[0.3], [1.9], [-1.0], [0.8]])
    pairs = [math.log(sigma(float(outputs[one] - outputs[other]))) for one, other in order.ordered_pairs()]
    got = answers.label_log_likelihoods(outputs, seen).item()
    assert got == pytest.approx(expected * sum(pairs) / 6, rel=1e-4)


def test_the_prior_is_a_beta_about_the_typical_quality_and_a_normal() -> None:
    annotators = Annotators(["ann", "bob"])
    assert annotators.qualities.tolist() == pytest.approx([0.8] * 3)
    qualities, biases = np.array([0.9, 0.4, 0.75]), np.array([0.3, -1.0, 2.0])
    annotators.set_facts(
        {
            "each": {
                name: {"quality": qualities[place], "position_bias": biases[place]}
                for place, name in enumerate(["ann", "bob"])
            },
            "others": {"quality": qualities[2], "position_bias": biases[2]},
        }
    )
    means = np.array([0.75, 0.75, 0.8])
    jacobian = np.log(qualities * (1 - qualities))
    expected = (stats.beta.logpdf(qualities, 10 * means, 10 * (1 - means)) + jacobian).sum() - (biases**2).sum() / 2
    assert annotators.log_prior().item() == pytest.approx(expected, rel=1e-5)


def simulated(
    count: int, people: int, seed: int, scores: np.ndarray
) -> tuple[list[Label], Tensor, np.ndarray, np.ndarray]:
    """Rankings of responses with these scores [sets, count], by people of planted qualities and biases.

    A considered order is Plackett and Luce's; a careless one follows from positions alone, drawn pair by pair until it
    is an order.
    """
    rng = np.random.default_rng(seed)
    qualities, biases = np.linspace(0.35, 0.98, people), rng.permutation(np.linspace(-2, 2, people))
    labels = []
    for number, own in enumerate(scores):
        person, shown = number % people, rng.permutation(count)
        order = np.argsort(-own - rng.gumbel(size=count))
        if rng.random() > qualities[person]:
            order = shown[careless_order(count, biases[person], rng)]
        groups = tuple((int(place),) for place in order)
        labels.append(label(Judgement(groups, scale=NO_TIES), annotator=f"{person:02}", shown=tuple(map(int, shown))))
    return labels, torch.tensor(scores.reshape(-1, 1)), qualities, biases


def careless_order(count: int, bias: float, rng: np.random.Generator) -> np.ndarray:
    """Positions, the best first: every earlier one beats every later one with the same probability."""
    while True:
        earlier_wins = np.triu(rng.random((count, count)) < sigma(bias), 1)
        wins = earlier_wins.sum(1) + (np.triu(~earlier_wins, 1)).sum(0)
        if len(set(wins.tolist())) == count:
            return np.argsort(-wins)


@pytest.mark.parametrize(("count", "set_weight"), [(2, "1"), (4, "1"), (4, "k-1")])
def test_planted_qualities_and_biases_are_recovered(count: int, set_weight: Literal["1", "k-1"]) -> None:
    labels, outputs, qualities, biases = simulated(
        count, people=12, seed=0, scores=np.random.default_rng(0).normal(0, 2, (4_800, count))
    )
    answers, seen = observed(labels, Weighting(set_weight))
    fit(answers, seen, outputs)
    assert answers.annotators is not None
    learned = answers.annotators.qualities.detach().numpy()[:-1]
    leanings = answers.annotators.position_biases.detach().numpy()[:-1]
    often = qualities < 0.85  # who is hardly ever careless hardly ever shows a bias
    assert np.corrcoef(learned, qualities)[0, 1] > 0.95
    assert np.abs(learned - qualities).mean() < 0.08
    assert np.corrcoef(leanings[often], biases[often])[0, 1] > 0.9
    assert answers.annotators.qualities[-1].item() == pytest.approx(qualities.mean(), abs=0.1)


def test_careless_rankings_are_told_from_considered_ones() -> None:
    """The share of labels that were considered, among those believed, is as high as the belief says."""
    labels, outputs, qualities, _ = simulated(
        4, people=6, seed=1, scores=np.random.default_rng(1).normal(0, 2, (2_400, 4))
    )
    answers, seen = observed(labels)
    fit(answers, seen, outputs)
    with torch.no_grad():
        believed = answers.responsibilities(outputs, seen)
    own = np.array([believed[person::6].mean().item() for person in range(6)])
    assert np.corrcoef(own, qualities)[0, 1] > 0.95
    reversed_orders = [
        Label(PROMPT, one.responses, Judgement(one.overall.groups[::-1], scale=NO_TIES), annotator=one.annotator)
        for one in labels
    ]
    _, turned = observed(reversed_orders)
    with torch.no_grad():
        assert answers.responsibilities(outputs, turned).mean() < believed.mean() - 0.2


def test_learned_noise_makes_a_better_reward_of_the_same_labels() -> None:
    """A linear reward and the annotators' numbers, by Adam together, against Adam that believes everybody alike."""
    rng = np.random.default_rng(5)
    planted = rng.normal(0, 0.5, 32)
    features = rng.normal(0, 1, (600, 4, 32))
    labels, _, qualities, _ = simulated(4, people=10, seed=5, scores=features @ planted)
    rewards, learned = {}, np.zeros(0)
    for annotators in (False, True):
        shape = shape_of(labels, annotators)
        answers, seen = AnswerModel(shape), observe(labels, one_by_one(labels), shape, Weighting())
        reward = torch.nn.Linear(32, 1, bias=False)
        torch.nn.init.zeros_(reward.weight)
        free = [one for one in answers.parameters() if one.requires_grad]
        optimiser = torch.optim.Adam([{"params": reward.parameters(), "lr": 1e-2}, {"params": free, "lr": 5e-2}])
        for _ in range(200):
            optimiser.zero_grad()
            outputs = reward(torch.tensor(features, dtype=torch.float32).reshape(-1, 32))
            loss = -answers.label_log_likelihoods(outputs, seen).sum() - answers.log_prior()
            loss.backward()
            optimiser.step()
        weights = reward.weight.detach().numpy()[0]
        rewards[annotators] = weights @ planted / np.linalg.norm(weights) / np.linalg.norm(planted)
        if answers.annotators is not None:
            learned = answers.annotators.qualities.detach().numpy()[:-1]
    assert 1 - rewards[True] < 0.8 * (1 - rewards[False])  # the angle to the planted reward is smaller
    assert np.corrcoef(learned, qualities)[0, 1] > 0.9


def fit_free_scores(
    labels: Sequence[Label], places: Sequence[tuple[int, int]], deviation: float
) -> tuple[dict[str, float], Tensor]:
    """Every annotator's quality by name, and the scores [responses] that were learned with them, free of any text."""
    shape = shape_of(labels, annotators=True)
    answers, seen = AnswerModel(shape), observe(labels, places, shape, Weighting())
    outputs = torch.zeros(1 + max(map(max, places)), 1, requires_grad=True)
    fit(answers, seen, outputs, deviation)
    assert answers.annotators is not None
    qualities = answers.annotators.qualities.tolist()[:-1]
    return dict(zip(shape.annotators, qualities, strict=True)), outputs.detach()[:, 0]


def read_rows(file: str, delimiter: str = ",") -> list[dict[str, str]]:
    with (DATA / file).open() as lines:
        return list(csv.DictReader(lines, delimiter=delimiter))


@pytest.mark.skipif(not (DATA / "snow2008").is_dir(), reason="needs ../shared/data/snow2008, which is absent")
def test_qualities_learned_without_gold_follow_the_agreement_with_gold() -> None:
    """Snow et al. 2008, textual entailment: two answers an item, by 164 workers."""
    rows = read_rows("snow2008/rte.standardized.tsv", "\t")
    items = {item: place for place, item in enumerate(sorted({row["item"] for row in rows}))}
    labels, places = [], []
    for row in rows:
        better = int(row["response"])
        judged = Judgement(((better,), (1 - better,)), scale=NO_TIES)
        labels.append(Label(PROMPT, ("does not follow", "follows"), judged, annotator=row["worker"]))
        places.append((2 * items[row["item"]], 2 * items[row["item"]] + 1))
    qualities, scores = fit_free_scores(labels, places, deviation=3.0)
    total = Counter(row["worker"] for row in rows)
    right = Counter(row["worker"] for row in rows if row["response"] == row["gold"])
    often = [worker for worker in total if total[worker] >= 40]  # the others answered 20 items
    agreement = [right[worker] / total[worker] for worker in often]
    assert len(often) == 40
    assert np.corrcoef([qualities[worker] for worker in often], agreement)[0, 1] > 0.8
    gold = {row["item"]: row["gold"] == "1" for row in rows}
    wrong = [item for item, place in items.items() if (scores[2 * place + 1] > scores[2 * place]) != gold[item]]
    assert len(wrong) / len(items) < 0.08  # a majority vote errs in 10.3 % of items, Dawid and Skene's model in 7.25 %


@pytest.mark.skipif(not (DATA / "ukp_convarg1").is_dir(), reason="needs ../shared/data/ukp_convarg1, which is absent")
def test_qualities_learned_from_pairs_with_ties_follow_another_estimator() -> None:
    """Habernal and Gurevych 2016: 50,365 judgments of arguments, beside MACE's competence of each worker."""
    rows = read_rows("ukp_convarg1/judgments.csv")
    groups = {"a1": ((0,), (1,)), "a2": ((1,), (0,)), "equal": ((0, 1),)}
    arguments: dict[tuple[str, str], int] = {}
    labels, places = [], []
    for row in rows:
        one, other = (arguments.setdefault((row["topic"], name), len(arguments)) for name in row["pair_id"].split("_"))
        labels.append(
            Label(PROMPT, ("first", "second"), Judgement(groups[row["value"]]), annotator=row["worker"], shown=(0, 1))
        )
        places.append((one, other))
    qualities, _ = fit_free_scores(labels, places, deviation=2.0)
    total = Counter(row["worker"] for row in rows)
    competence = {row["worker"]: float(row["mace_competence"]) for row in rows if row["mace_competence"]}
    often = [worker for worker in competence if total[worker] >= 100]
    assert len(often) > 60
    pairs = [(qualities[worker], competence[worker]) for worker in often]
    assert stats.spearmanr(pairs).statistic > 0.6

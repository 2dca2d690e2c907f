import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit

from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.backbone import output_layer
from worker.learning.reward.card import reward_card
from worker.learning.reward.encoding import encode_sets
from worker.learning.reward.model import RewardModel, all_outputs, new_reward_model, read_features
from worker.learning.reward.observations import AnswerShape, shape_of
from worker.learning.reward.uncertainty import Posterior

pytestmark = pytest.mark.learning

TEXTS = ("the good dog ran", "bad cat", "a big sun and rain", "old", "new small dog sat and ran")


def texts_of(number: int) -> tuple[str, str, str]:
    return tuple(TEXTS[(number + step) % 5] for step in range(3))  # type: ignore[return-value]


def some_labels() -> list[Label]:
    """Rankings, graded pairs with scores and a criterion, doubles and corrections, of a dozen prompts."""
    labels = []
    for number in range(12):
        prompt = ({"role": "user", "content": f"the dog {'big ' * number}"},)
        best = number % 3
        others = tuple(index for index in range(3) if index != best)
        ranking = Judgement(((best,), others) if number % 2 else ((best,), others[:1], others[1:]))
        labels.append(Label(prompt, texts_of(number), ranking, annotator="ada", shown=(2, 0, 1)))
        graded = Judgement(((1,), (0,)), 1 + number % 2, Scale(2), scores=(float(number), 5.0))
        kind = Judgement(((0,), (1,)))
        labels.append(Label(prompt, texts_of(number)[:2], graded, {"kind": kind}, annotator="bob", shown=(0, 1)))
        if number % 4 == 0:
            correction = Judgement(((1,), (0,)))
            labels.append(Label(prompt, (texts_of(number)[0], "the new sun"), correction, implied=True))
    return labels


@pytest.fixture
def reward_model(tiny_folder: Path) -> RewardModel:
    """Not fitted: the card describes any model."""
    torch.manual_seed(0)
    shape = shape_of(some_labels(), annotators=False)
    return new_reward_model(str(tiny_folder), 0, torch.device("cpu"), shape, precision="fp32")


def with_posterior(reward_model: RewardModel, precision: float) -> RewardModel:
    head = output_layer(reward_model.model).weight[0].detach().double()
    cholesky = math.sqrt(precision) * torch.eye(len(head), dtype=torch.float64)
    return replace(reward_model, posterior=Posterior(head, cholesky, torch.zeros_like(head), precision, 3.5))


def overall(reward_model: RewardModel, labels: list[Label]) -> list[Any]:
    """Each label's overall outputs, all from one call."""
    flat = all_outputs(reward_model, [(label.prompt, label.responses) for label in labels])
    return list(torch.split(flat, [len(label.responses) for label in labels]))


def test_the_card_by_hand(reward_model: RewardModel) -> None:
    labels = some_labels()
    card = reward_card(reward_model, labels)
    outputs = overall(reward_model, labels)
    cut = float(reward_model.answers.thresholds.cuts()[0][0].detach())
    differences = np.array(
        [
            float(own[better, 0] - own[worse, 0])
            for label, own in zip(labels, outputs, strict=True)
            if not label.implied
            for better, worse in label.overall.ordered_pairs()
        ]
    )
    won, lost = expit(differences - cut), expit(-differences - cut)
    assert card["accuracy"] == pytest.approx((differences > 0).mean())
    assert card["nll"] == pytest.approx(-np.log(won / (won + lost)).mean(), rel=1e-5)
    assert card["n"] == len(differences) == 6 * 2 + 6 * 3 + 12
    assert card["accuracy_low"] <= card["accuracy"] <= card["accuracy_high"]
    assert card["measured_on"] == "orders"
    assert sum(row["count"] for row in card["reliability"]) == len(differences)
    assert {(row["levels"], row["grade"]): row["n"] for row in card["by_grade"]} == {(1, 1): 30, (2, 1): 6, (2, 2): 6}
    assert {name: row["n"] for name, row in card["by_annotator"].items()} == {"ada": 30, "bob": 12}
    # Both ordered the first two responses, except where ada tied them: in 2 of the 6 prompts with ties.
    assert card["noise_ceiling"]["another_annotator"]["count"] == 2 * 10
    assert card["probes"]["written_by_a_person"]["accuracy"]["count"] == 3
    assert card["probes"]["written_by_a_person"]["borrowed_correction"]["count"] == 3


def test_every_part_has_its_calibration(reward_model: RewardModel) -> None:
    """By hand on the six pairs of the strongest grade, so few that each has a bin: |1 - sureness| or the sureness."""
    labels = some_labels()
    card = reward_card(with_posterior(reward_model, 2.0), labels)
    cut = float(reward_model.answers.thresholds.cuts()[0][0].detach())
    gaps = [
        float(own[better, 0] - own[worse, 0])
        for label, own in zip(labels, overall(reward_model, labels), strict=True)
        if label.overall.strength == 2
        for better, worse in label.overall.ordered_pairs()
    ]
    won, lost = expit(np.array(gaps) - cut), expit(-np.array(gaps) - cut)
    right = won / (won + lost)
    sure = np.maximum(right, 1 - right)
    (strongest,) = [row for row in card["by_grade"] if (row["levels"], row["grade"]) == (2, 2)]
    assert strongest["ece"] == pytest.approx(np.abs((right > 0.5) - sure).mean(), rel=1e-5)
    assert [row["probability"] for row in strongest["reliability"]] == pytest.approx(sorted(sure), rel=1e-5)
    parts = [*card["by_grade"], *card["by_criterion"].values(), *card["by_agreement"]]
    assert len(parts) == 3 + 1 + len(card["by_agreement"]) > 4
    for part in [*parts, *card["uncertainty"]["by_deviation"]]:
        assert 0 <= part["ece_low"] <= part["ece_high"]
        assert part["ece_by_chance"] > 0
        assert sum(row["count"] for row in part["reliability"]) == part["n"]


def test_a_criterion_that_nobody_taught_the_model_is_not_measured(tiny_folder: Path) -> None:
    """Models of old have outputs for criteria by which no label judged."""
    shape = AnswerShape(outputs=("overall", "kind"))
    untaught = new_reward_model(str(tiny_folder), 0, torch.device("cpu"), shape, precision="fp32")
    card = reward_card(untaught, some_labels())
    assert card["by_criterion"] == {}
    assert card["n"] > 0


def test_criteria_and_scores_are_measured_by_their_own_outputs(reward_model: RewardModel) -> None:
    labels = some_labels()
    card = reward_card(reward_model, labels)
    outputs = [own for label, own in zip(labels, overall(reward_model, labels), strict=True) if label.criteria]
    graded = [label for label in labels if label.criteria]
    kind, score = reward_model.outputs.index("kind"), reward_model.outputs.index("score")
    assert card["by_criterion"]["kind"]["accuracy"] == pytest.approx(
        np.mean([float(own[0, kind]) > float(own[1, kind]) for own in outputs])
    )
    given = np.array([value for label in graded for value in label.overall.scores], dtype=float)
    raw = torch.cat([own[:, score] for own in outputs])
    with torch.no_grad():
        predicted = reward_model.answers.expected_scores(raw, "score").numpy()
    assert card["score_errors"]["score"]["rmse"] == pytest.approx(np.sqrt(np.mean((predicted - given) ** 2)), rel=1e-5)
    expected = stats.spearmanr(predicted, given).statistic
    assert card["score_errors"]["score"]["rank_correlation"] == pytest.approx(expected, abs=1e-6)
    assert card["score_errors"]["score"]["n"] == 24


def test_the_card_is_json_and_the_same_each_time(reward_model: RewardModel) -> None:
    card = reward_card(with_posterior(reward_model, 2.0), some_labels())
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert reward_card(with_posterior(reward_model, 2.0), some_labels()) == card


def test_less_is_sure_where_the_posterior_is_wide(reward_model: RewardModel) -> None:
    assert reward_card(reward_model, some_labels())["uncertainty"] is None
    narrow, wide = (reward_card(with_posterior(reward_model, own), some_labels()) for own in (1e12, 1e-12))
    assert narrow["uncertainty"]["nll"] == pytest.approx(narrow["nll"], rel=1e-4)
    assert wide["uncertainty"]["nll"] == pytest.approx(math.log(2), rel=1e-4)
    assert {row["low"] for row in wide["uncertainty"]["by_deviation"]} == {100.0}


def test_pairs_are_parted_by_how_sure_their_difference_is(reward_model: RewardModel) -> None:
    """With a precision of 2 I the deviation is |difference of features| / sqrt(2)."""
    labels = [label for label in some_labels() if not label.implied]
    rows = reward_card(with_posterior(reward_model, 2.0), labels)["uncertainty"]["by_deviation"]
    encoded = encode_sets(reward_model.tokenizer, 64, [(label.prompt, label.responses) for label in labels])
    features = read_features(reward_model, encoded.sets, lambda own: own).double().numpy()
    head = output_layer(reward_model.model).weight[0].detach().numpy()
    apart = [
        features[own[better]] - features[own[worse]]
        for label, own in zip(labels, encoded.places, strict=True)
        for better, worse in label.overall.ordered_pairs()
    ]
    parts = np.array_split(sorted((np.linalg.norm(x) / math.sqrt(2) / abs(x @ head), x @ head > 0) for x in apart), 4)
    assert [row["n"] for row in rows] == [11, 11, 10, 10]
    for row, part in zip(rows, parts, strict=True):
        assert (row["low"], row["high"]) == pytest.approx((min(part[0][0], 100), min(part[-1][0], 100)), rel=1e-3)
        assert row["accuracy"] == pytest.approx(part[:, 1].mean())


def test_corrections_alone_are_measured_and_named(reward_model: RewardModel) -> None:
    card = reward_card(reward_model, [label for label in some_labels() if label.implied])
    assert (card["measured_on"], card["n"]) == ("corrections", 3)
    assert card["by_grade"] == []


def test_a_card_without_labels_says_so(reward_model: RewardModel) -> None:
    card = reward_card(reward_model, [])
    assert (card["accuracy"], card["n"], card["nll"], card["measured_on"]) == (None, 0, None, None)
    assert card["noise_ceiling"] is None
    assert card["longer_wins"] == {"characters": None, "tokens": None}
    json.dumps(card, allow_nan=False)


def test_orders_are_read_from_scores_where_nobody_ordered(reward_model: RewardModel) -> None:
    prompt = ({"role": "user", "content": "the dog"},)
    scored = Label(prompt, texts_of(0), Judgement(scores=(1.0, 3.0, None)))
    card = reward_card(reward_model, [scored])
    (own,) = overall(reward_model, [scored])
    assert (card["measured_on"], card["n"]) == ("scores", 1)
    assert card["accuracy"] == float(own[1, 0] > own[0, 0])


def test_without_any_overall_answer_the_criteria_are_measured_on_and_named(reward_model: RewardModel) -> None:
    prompt = ({"role": "user", "content": "the dog"},)
    judged = Label(prompt, texts_of(0), criteria={"kind": Judgement(((2,), (0,)))})
    card = reward_card(reward_model, [judged])
    (own,) = overall(reward_model, [judged])
    assert (card["measured_on"], card["n"]) == ("criteria", 1)
    assert card["accuracy"] == float(own[2, 0] > own[0, 0])

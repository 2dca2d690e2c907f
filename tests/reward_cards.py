"""A reward model's card as the worker writes it, and rows that carry it, for the tests of pages and of the API."""

from typing import Any

from sqlalchemy.orm import Session

from app.domain import reward_models, rounds, runs, snapshots
from app.tables import Project, RewardModel, RewardModelPurpose
from tests.admin_project import AdminProject, make_comparisons, make_label


def estimate(value: float, spread: float = 0.06, count: int = 400) -> dict[str, float | int]:
    """A share with its interval."""
    return {"value": value, "low": value - spread, "high": value + spread, "count": count}


def figures(value: float, nll: float = 0.58, n: int = 400) -> dict[str, float | int]:
    """Accuracy and likelihood on some pairs."""
    ends = {"accuracy_low": value - 0.06, "accuracy_high": value + 0.06, "nll_low": nll - 0.05, "nll_high": nll + 0.05}
    return {"accuracy": value, "nll": nll, "n": n, **ends}


RELIABILITY = [
    {
        "low": place - 0.04,
        "high": place + 0.04,
        "probability": place,
        "right": right,
        "right_low": right - 0.12,
        "right_high": min(1.0, right + 0.12),
        "count": 103,
    }
    for place, right in ((0.54, 0.49), (0.64, 0.66), (0.77, 0.74), (0.91, 0.94))
]


def part(value: float, ece: float = 0.08, n: int = 400) -> dict[str, Any]:
    """All figures on a part of the pairs, with its curve."""
    calibration = {"ece": ece, "ece_low": ece - 0.03, "ece_high": ece + 0.03, "ece_by_chance": 0.07}
    return {**figures(value, n=n), **calibration, "reliability": RELIABILITY}


CARD: dict[str, Any] = {
    **figures(0.71, 0.56, 412),
    "ece": 0.031,
    "ece_low": 0.0,
    "ece_high": 0.06,
    "ece_by_chance": 0.045,
    "measured_on": "orders",
    "reliability": RELIABILITY,
    "by_grade": [
        {"levels": 1, "grade": 1, **part(0.69, n=300)},
        {"levels": 3, "grade": 1, **part(0.64, n=60)},
        {"levels": 3, "grade": 3, **part(0.88, 0.153, n=52)},
    ],
    "by_criterion": {"helpful": part(0.74), "brief": part(0.91)},
    "by_annotator": {"2": figures(0.75), "30": figures(0.58)},
    "by_agreement": [{"low": 0.0, "high": 0.75, **part(0.55)}, {"low": 1.0, "high": 1.0, **part(0.83)}],
    "noise_ceiling": {
        "another_annotator": estimate(0.73),
        "majority_of_others": estimate(0.78),
        "model": estimate(0.72),
    },
    "longer_wins": {"characters": estimate(0.58), "tokens": estimate(0.57)},
    "score_errors": {"brief": {"rmse": 0.81, "rank_correlation": 0.6, "n": 90}},
    "probes": {
        "position": {
            "chosen_first": estimate(0.57, 0.04),
            "accuracy_first": estimate(0.74),
            "accuracy_last": estimate(0.66),
        },
        "length": {
            "correlation": 0.41,
            "chosen": estimate(0.58),
            "preferred": estimate(0.76, 0.05),
            "accuracy_longer": estimate(0.86),
            "accuracy_shorter": estimate(0.49),
        },
        "format": {"list": {"chosen": estimate(0.55, 0.1, 40), "preferred": estimate(0.58, 0.1, 40)}},
        "written_by_a_person": {
            "accuracy": estimate(0.9, 0.05, 60),
            "sureness": estimate(0.8, 0.05, 60),
            "sureness_of_orders": estimate(0.66),
            "borrowed_correction": estimate(0.44, 0.1, 60),
            "borrowed_response": estimate(0.42, 0.1, 60),
        },
    },
    "uncertainty": {
        "nll": 0.57,
        "ece": 0.03,
        "by_deviation": [{"low": 0.1, "high": 0.4, **part(0.8)}, {"low": 0.4, "high": 1.2, **part(0.62)}],
        "determined": 12.4,
        "width": 64,
        "prior_precision": 1.0,
    },
    "learning_curve": [{"labels": labels, **figures(right)} for labels, right in ((50, 0.6), (100, 0.66), (200, 0.71))],
    "labels": {"fitted_on": 1200, "chosen_on": 130, "test": 210},
    "annotators": [
        {"annotator": "2", "labels": 700, "weight": 1.0, "quality": 0.94, "position_bias": 0.03},
        {"annotator": "30", "labels": 500, "weight": 1.0, "quality": 0.41, "position_bias": 1.27},
    ],
    "corrections": 31,
    "fitted_on": "train",
    "epochs": 2,
    "history": [{"epoch": 1, "loss": 0.6}],
    "choices": [
        {"set_weight": "1", "start": "fresh", "epochs": 2, "validation/nll": 0.561, "kept": True},
        {"set_weight": "k-1", "start": "fresh", "epochs": 1, "validation/nll": 0.584, "kept": False},
    ],
    "start": None,
    "normalised_on": {"prompts": 64, "samples": 256},
    "settings": {"epochs": 2},
    "seed": 11,
}
"""One with everything that there is to say."""


def make_reward_model(
    session: Session,
    place: AdminProject,
    card: dict[str, Any],
    purpose: RewardModelPurpose = RewardModelPurpose.TRAINING,
) -> RewardModel:
    """A reward model of the project's round, which is started where there is none yet."""
    project = session.get_one(Project, place.project.id)
    known = rounds.list_rounds(session, project.id)
    if not known:
        make_comparisons(session, project, 12)
        make_label(session, place)
        rounds.start_round(session, project, by=None, seed=1)
        known = rounds.list_rounds(session, project.id)
    round_ = known[0]
    round_.snapshot_id = snapshots.take_snapshot(session, project.id).id
    session.flush()
    return reward_models.add_reward_model(
        session,
        round_,
        runs.list_runs(session, project.id)[0],
        purpose,
        backbone="tiny",
        uri=f"{purpose}/1",
        content_hash="ab" * 32,
        gain=1.0,
        offset=0.0,
        card=card,
    )

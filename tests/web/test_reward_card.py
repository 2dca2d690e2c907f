"""Does a reward model's page say in words and numbers what its card holds, to admins alone?"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects
from app.tables import Person, RewardModel, RewardModelPurpose
from app.web import reward_card
from tests.admin_project import AdminProject, make_admin_project
from tests.reward_cards import CARD, estimate, figures, make_reward_model
from tests.web.reading import english_of
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]
FORM = {
    "criteria": [
        {"key": "helpful", "name": "Of use", "required": False},
        {"key": "brief", "name": "Short", "required": False},
    ]
}
EMPTY = {
    "accuracy": None,
    "n": 0,
    "nll": None,
    "ece": None,
    "reliability": [],
    "by_grade": [],
    "by_criterion": {},
    "by_annotator": {},
    "by_agreement": [],
    "noise_ceiling": None,
    "longer_wins": {"characters": None, "tokens": None},
    "score_errors": {},
    "probes": {
        "position": {"chosen_first": None, "accuracy_first": None, "accuracy_last": None},
        "length": {"correlation": None, "chosen": None, "preferred": None},
        "format": {},
        "written_by_a_person": {"accuracy": None},
    },
    "uncertainty": None,
}


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        projects.new_version(
            session, place.project, guidelines="", consent_text="", judgement_form=FORM | {"correction": "no"}, by=None
        )
        return place


def shown(committed: Committed, place: AdminProject, visitor: Visitor, card: dict[str, object]) -> str:
    """The page of a reward model with this card, in one line, the dash of ranges written as a hyphen."""
    with committed.begin() as session:
        model = make_reward_model(session, place, card)
    page = visitor.get(f"{place.root}/reward-models/{model.id}")
    assert page.status_code == 200
    return " ".join(page.text.split()).replace("\u2013", "-")


def test_the_card_is_told_in_words(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    page = shown(committed, place, visit_as(place.admin), CARD)
    for said in (
        "it prefers the one that people prefer in 71% (65%-77%).",
        "Always taking the longer one would be right in 58%: it knows more than that.",
        "Two people agree in 73% (67%-79%) of the pairs that both judged.",
        "Its certainty is as right as 412 pairs can tell.",
        "People prefer the response that they were shown first in 57% (53%-61%) of pairs.",
        "People prefer the longer response in 58% (52%-64%) of pairs, the model in 76% (71%-81%).",
        "Within a prompt, score and length correlate by +0.41.",
        "Where only one of two has a list, people prefer it in 55% (45%-65%) of pairs",
        "It prefers a correction to what was corrected in 90% (85%-95%).",
        "beats the response in 44% (34%-54%)",
    ):
        assert said in page
    assert "0.560" in page  # the likelihood
    assert "0.031" in page  # the calibration error
    assert page.count("look at this") == 2  # position and length
    assert page.count("nothing found") == 2  # format and corrections


def test_every_part_of_the_pairs_has_its_row(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    page = shown(committed, place, visit_as(place.admin), CARD)
    for row in ("better, not graded", "grade 3 of 3", "Of use", "Short", "all agreed", "0% to 75% agreed"):
        assert row in page
    assert "Error of scores: Short" in page
    assert "0.81" in page
    strongest = page.split("grade 3 of 3</th>")[1].split("</tr>")[0]
    assert "0.153 (0.123-0.183)" in strongest
    assert "by chance: 0.070" in strongest
    drawn = page.split("The curve of each part")[1].split("</details>")[0]
    assert drawn.count("<svg") == 3 + 2 + 2 + 2
    assert "<title>91% sure, right in 94% (82%-100%)</title>" in drawn


def test_parts_of_cards_from_before_have_no_curve(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    old = CARD | {"by_grade": [{"levels": 3, "grade": 2, **figures(0.7)}], "by_agreement": [], "uncertainty": None}
    page = shown(committed, place, visit_as(place.admin), old | {"by_criterion": {}})
    assert "70% (64%-76%)" in page.split("grade 2 of 3</th>")[1].split("</tr>")[0]
    assert "The curve of each part" not in page


def test_annotators_stand_there_by_pseudonym(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    page = shown(committed, place, visit_as(place.admin), CARD)
    row = page.split("annotator 30</a>")[1].split("</tr>")[0]
    assert "41%" in row
    assert "+1.27" in row
    assert "58% (52%-64%)" in row
    assert place.annotator.name not in page


def test_drawings_have_the_same_numbers_in_words(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    page = shown(committed, place, visit_as(place.admin), CARD)
    drawn = page.split('aria-labelledby="reliability-title reliability-description"')[1].split("</svg>")[0]
    assert "<title>91% sure, right in 94% (82%-100%)</title>" in drawn
    assert drawn.count("<circle") == 4
    table = page.split("</figure>")[1].split("</table>")[0]
    assert "94% (82%-100%)" in table
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_points_lie_where_their_numbers_are() -> None:
    drawn = reward_card.reliability(CARD)
    assert drawn is not None
    assert [tick.text for tick in drawn.across] == ["50%", "60%", "70%", "80%", "90%", "100%"]
    assert [tick.text for tick in drawn.up] == ["100%", "80%", "60%", "40%"]  # the lowest interval begins at 37%
    width, height = drawn.across[-1].at - drawn.across[0].at, drawn.up[-1].at - drawn.up[0].at
    for point, row in zip(drawn.points, CARD["reliability"], strict=True):
        assert point.x == pytest.approx(drawn.left + (row["probability"] - 0.5) / 0.5 * width, abs=0.2)
        assert point.y == pytest.approx(drawn.top + (1 - row["right"]) / 0.6 * height, abs=0.2)
        assert drawn.top <= point.high < point.y < point.low <= drawn.bottom  # upwards is less in an SVG


def test_a_card_of_which_nothing_was_measured_is_a_page_too(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    page = shown(committed, place, visit_as(place.admin), EMPTY)
    assert "Its accuracy is not known" in page
    assert "<svg" not in page.split("<h1>")[1]


def test_a_card_from_before_has_a_page_too(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    old = {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, "accuracy_pairs": 90, "rankings": {"test": 9}}
    assert "70% (60%-80%)" in shown(committed, place, visit_as(place.admin), old)


def test_what_is_no_better_than_length_is_told(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    card = CARD | {"longer_wins": {"characters": estimate(0.69)}, "ece": 0.2}
    page = shown(committed, place, visit_as(place.admin), card)
    assert "would be right in 69%: it is not surely better." in page
    assert "Its certainty is off by 20% on average" in page


def test_models_are_listed_and_found_from_their_round(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    admin = visit_as(place.admin)
    assert "None yet" in admin.get(f"{place.root}/reward-models").text
    with committed.begin() as session:
        model = make_reward_model(session, place, CARD)
        judge = make_reward_model(session, place, EMPTY, RewardModelPurpose.EVALUATION)
        session.execute(update(RewardModel).where(RewardModel.id == judge.id).values(tainted_at=model.created_at))
    listed = " ".join(admin.get(f"{place.root}/reward-models").text.split())
    assert f"/reward-models/{model.id}" in listed
    assert "1,200" in listed
    assert "withdrawn labels" in listed
    assert f"/reward-models/{model.id}" in admin.get(f"{place.root}/rounds/1").text
    assert "labels that were withdrawn" in admin.get(f"{place.root}/reward-models/{judge.id}").text
    assert admin.get(f"{place.root}/reward-models/999").status_code == 404


def without_intervals(value: Any) -> Any:
    """The same card as it is of one prompt alone."""
    if isinstance(value, list):
        return [without_intervals(one) for one in value]
    if not isinstance(value, dict):
        return value
    is_range = "levels" not in value and "value" not in value  # of a row, not of an estimate
    return {
        name: None if name.endswith(("_low", "_high")) or (name in {"low", "high"} and not is_range) else own
        for name, own in ((name, without_intervals(own)) for name, own in value.items())
    }


def test_a_card_of_one_prompt_has_no_intervals(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    card = without_intervals(CARD)
    page = shown(committed, place, visit_as(place.admin), card)
    assert "it prefers the one that people prefer in 71%." in page
    assert "would be right in 58%: it is not surely better." in page
    assert "0.153 <" in page.split("grade 3 of 3</th>")[1].split("</tr>")[0]
    assert "plot-whisker" not in page
    assert "strip-interval" not in page
    assert "look at this" not in page  # without an interval nobody can say
    assert "None" not in page.split("The whole card")[0]
    admin = visit_as(place.admin)
    assert "71%" in admin.get(f"{place.root}/reward-models").text
    in_short = " ".join(admin.get(f"{place.root}/rounds/1").text.split())
    assert '<strong>0.710</strong> <span class="quiet"> (412 pairs)' in in_short


def test_annotators_and_strangers_never_see_a_card(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    with committed.begin() as session:
        model = make_reward_model(session, place, CARD)
    for path in ("", f"/{model.id}"):
        assert visit_as(place.annotator).get(f"{place.root}/reward-models{path}").status_code == 403
        assert visit_as(place.stranger).get(f"{place.root}/reward-models{path}").status_code == 404


def test_the_page_is_chinese_for_those_who_ask_for_it(
    place: AdminProject, committed: Committed, visit_as: VisitAs
) -> None:
    with committed.begin() as session:
        project = projects.get_project(session, str(place.project.id))
        form = {
            "criteria": [
                {"key": "helpful", "name": "有用", "required": False},
                {"key": "brief", "name": "简短", "required": False},
            ]
        }
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
        model = make_reward_model(session, place, CARD)
        empty = make_reward_model(session, place, EMPTY, RewardModelPurpose.EVALUATION)
    admin = visit_as(place.admin)
    for path in ("/reward-models", f"/reward-models/{model.id}", f"/reward-models/{empty.id}", "/rounds/1"):
        assert english_of(admin.get(place.root + path, **{"Accept-Language": "zh-CN"}).text) == [], path

"""Whole answers are read on the pages: one's own labels, the admin's list, and a comparison's."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.domain import labels
from app.domain.judgement import parse_form
from app.tables import LabelRank, LabelRevision, Person
from app.web.answer_words import Line, answer_lines
from tests.admin_project import AdminProject
from tests.web.visitor import Visitor
from tests.whole_answers import FORM, make_whole_answers

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]


def revision(shown: list[int], groups: list[list[int]], answers: dict[str, Any]) -> LabelRevision:
    row = LabelRevision(shown_order=shown, answers=answers)
    ranks = [LabelRank(response_id=id_, rank=rank) for rank, group in enumerate(groups, start=1) for id_ in group]
    row.__dict__["ranks"] = ranks
    return row


def test_an_order_with_ties_and_what_was_left_out() -> None:
    row = revision([30, 10, 20, 40], [[20], [10, 30]], {})
    assert answer_lines(row, parse_form(FORM)) == [Line(groups=[["3"], ["1", "2"]], words="left out: 4")]
    letters = {10: "A", 20: "B", 30: "C", 40: "D"}
    assert answer_lines(row, parse_form(FORM), letters) == [Line(groups=[["B"], ["A", "C"]], words="left out: D")]


@pytest.mark.parametrize(
    ("scale", "strength", "words"),
    [("better", 1, "better"), ("llama2", 3, "significantly better"), ("anthropic", 4, "far better")],
)
def test_the_grade_of_a_pair(scale: str, strength: int, words: str) -> None:
    asked = parse_form({"overall": "pair", "pair": {"scale": scale}})
    row = revision([30, 10], [[10], [30]], {"strength": strength})
    assert answer_lines(row, asked) == [Line(groups=[["2"], ["1"]], words=words)]


def test_everything_else_line_by_line() -> None:
    answers = {
        "all_bad": True,
        "scores": {"10": 4.2, "30": 5},
        "criteria": {"helpful": {"scores": {"10": 3}}, "safe": {"groups": [[30, 10], [20]]}},
        "flags": {"harmful": [10, 30]},
        "corrections": {"20": {"text": "Better.", "response_id": 9}},
        "written": {"text": "Best.", "response_id": 10},
        "rationale": "Because.",
    }
    assert answer_lines(revision([30, 10, 20], [], answers), parse_form(FORM)) == [
        Line(groups=[], words="all are bad"),
        Line("Score", scores=[("1", "5"), ("2", "4.2")]),
        Line("Helpful", scores=[("2", "3")]),
        Line("Safe", groups=[["1", "2"], ["3"]]),
        Line("Flag", words="Harmful: 1, 2"),
        Line("Correction of response 3", text="Better."),
        Line("Written answer", text="Best."),
        Line("Rationale", text="Because."),
    ]
    excused = revision([30, 10], [], {"flags": {"cannot_judge": True}})
    assert answer_lines(excused, parse_form(FORM)) == [Line("Flag", words="I cannot judge this")]
    assert answer_lines(revision([10], [], {}), parse_form(FORM)) == [Line(words="nothing to say")]


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        return make_whole_answers(session)


def read(page: str) -> str:
    """The text of a page, white space made one."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page)))


def test_an_admin_reads_whole_answers(place: AdminProject, visit_as: VisitAs, committed: Committed) -> None:
    admin = visit_as(place.admin)
    page = admin.get(f"{place.root}/labels").text
    text = read(page)
    assert "B \u203a better than A left out: C, D" in text
    assert "Score A 4.2" in text
    assert "Safe A \u203a better than C = as good as D left out: B" in text
    assert "Flag I cannot judge this" in text
    assert "Because <i>it</i> is short." in text
    assert "<b>Line one" not in page
    (link,) = re.findall(rf'href="({place.root}/comparisons/\d+)"', page)[:1]
    of_comparison = read(admin.get(link).text)
    assert "Correction of response C <b>Line one.</b>" in of_comparison
    assert "Whole answers" in of_comparison


def test_of_a_withdrawn_label_nothing_is_shown(place: AdminProject, visit_as: VisitAs, committed: Committed) -> None:
    with committed.begin() as session:
        labels.withdraw_annotator(session, session.merge(place.annotator_member))
    for path in (f"{place.root}/labels", f"/projects/{place.project.slug}/labels"):
        page = visit_as(place.admin if "admin" in path else place.annotator).get(path)
        assert page.status_code == 200
        assert "withdrawn" in page.text
        assert "it is short" not in read(page.text)
        assert "Line one" not in read(page.text)


def test_ones_own_labels_call_responses_by_their_numbers(place: AdminProject, visit_as: VisitAs) -> None:
    text = read(visit_as(place.annotator).get(f"/projects/{place.project.slug}/labels").text)
    assert re.search(r"\d . better than \d left out: \d, \d", text)
    assert re.search(r"Score \d 4.2", text)
    assert re.search(r"Correction of response \d <b>Line one.</b>", text)

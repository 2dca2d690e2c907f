"""The desk's form is read as the answer that it shows, and a stored answer fills the same fields."""

from typing import Any

import pytest

from app.domain import answers
from app.domain.judgement import parse_form
from app.domain.queue import ShownResponse
from app.errors import Invalid, InvalidRanking
from app.tables import LabelRank, LabelRevision
from app.web.answer_form import fields_of, read_answer, read_seconds, sent_fields

THREE = [ShownResponse(id_, text, None) for id_, text in ((30, "thirty"), (10, " ten\nlines"), (20, "twenty"))]
TWO = THREE[:2]
ONE = THREE[1:2]

RANKING = parse_form({})
PAIR = parse_form({"overall": "pair"})
EXCUSABLE = parse_form(
    {
        "all_bad": True,
        "criteria": [{"key": "safe", "name": "Safe", "kind": "ranking"}],
        "flags": [{"key": "cannot_judge", "name": "I cannot", "of": "comparison", "excuses": True}],
    }
)
EVERYTHING = parse_form(
    {
        "overall": "pair",
        "all_bad": True,
        "score": {},
        "criteria": [
            {"key": "helpful", "name": "Helpful"},
            {"key": "safe", "name": "Safe", "kind": "pair"},
            {"key": "clear", "name": "Clear", "kind": "ranking"},
        ],
        "correction": "optional",
        "flags": [{"key": "harmful", "name": "Harmful"}, {"key": "odd", "name": "Odd", "of": "comparison"}],
        "rationale": "optional",
    }
)


def test_places_become_groups() -> None:
    sent = {"csrf": "x", "seconds": "1", "rank_10": " 2", "rank_20": "7", "rank_30": "2"}
    assert read_answer(RANKING, THREE, sent) == ([[30, 10], [20]], {})
    assert read_answer(RANKING, THREE, {"rank_10": "1", "rank_20": ""}) == ([[10]], {})


@pytest.mark.parametrize("place", ["x", "1.5", "-1", "1000", "\u0661"])
def test_a_place_is_a_number(place: str) -> None:
    with pytest.raises(InvalidRanking, match="place"):
        read_answer(RANKING, THREE, {"rank_10": place, "rank_20": "1", "rank_30": "2"})


def test_a_scale_says_both_sides() -> None:
    assert read_answer(PAIR, TWO, {"strength": "10:3"}) == ([[10], [30]], {"strength": 3})
    assert read_answer(PAIR, TWO, {"strength": "tie"}) == ([[30, 10]], {})
    assert read_answer(PAIR, TWO, {}) == ([], {})
    for bad in ("10", "99:1", "10:0", "10:x", "10:12", ":1"):
        with pytest.raises(InvalidRanking, match="scale"):
            read_answer(PAIR, TWO, {"strength": bad})


def test_all_the_rest() -> None:
    sent = {
        "strength": "30:1",
        "score_10": "4,5",
        "score_30": "2",
        "criterion_helpful_score_10": "3",
        "criterion_helpful_score_30": "4",
        "criterion_safe_strength": "tie",
        "criterion_clear_rank_10": "1",
        "criterion_clear_rank_30": "2",
        "correction_10": "ten\r\nlines ",
        "correction_30": "thirty-one",
        "written": " mine ",
        "flag_harmful_10": "1",
        "flag_odd": "1",
        "rationale": "because",
    }
    assert read_answer(EVERYTHING, TWO, sent) == (
        [[30], [10]],
        {
            "strength": 1,
            "scores": {10: 4.5, 30: 2.0},
            "criteria": {
                "helpful": {"scores": {10: 3.0, 30: 4.0}},
                "safe": {"groups": [[30, 10]]},
                "clear": {"groups": [[10], [30]]},
            },
            "corrections": {30: "thirty-one"},
            "written": "mine",
            "flags": {"harmful": [10], "odd": True},
            "rationale": "because",
        },
    )


def test_a_text_as_the_browser_sends_it_back_is_no_correction() -> None:
    """A form's field ends every line with a carriage return and a line feed, whichever of them the text had."""
    shown = [TWO[0], ShownResponse(10, "one\rtwo\r\nthree\n\rfour", None)]
    sent = {"strength": "tie", "correction_10": "one\r\ntwo\r\nthree\r\n\r\nfour"}
    assert read_answer(EVERYTHING, shown, sent)[1] == {}


def test_a_score_is_a_number() -> None:
    for bad in ("good", "nan", "1e999", "1.2.3"):
        with pytest.raises(Invalid, match="number"):
            read_answer(EVERYTHING, TWO, {"strength": "tie", "score_10": bad})


def test_what_stands_instead_of_an_order_lets_go_of_one_that_was_only_begun() -> None:
    begun = {"rank_10": "1", "criterion_safe_rank_10": "1"}
    assert read_answer(EXCUSABLE, THREE, begun)[0] == [[10]]
    assert read_answer(EXCUSABLE, THREE, begun | {"all_bad": "1"}) == (
        [],
        {"all_bad": True, "criteria": {"safe": {"groups": [[10]]}}},
    )
    excused = {"flags": {"cannot_judge": True}}
    assert read_answer(EXCUSABLE, THREE, begun | {"flag_cannot_judge": "1"}) == ([], excused)
    whole = {"rank_10": "1", "rank_20": "2", "rank_30": "3", "flag_cannot_judge": "1"}
    assert read_answer(EXCUSABLE, THREE, whole) == ([[10], [20], [30]], excused)


@pytest.mark.parametrize(
    "name",
    ["rank_99", "score_10", "rationale", "flag_harmful_10", "criterion_safe_rank_10", "correction_10", "written"],
)
def test_a_filled_field_that_nobody_asked_for_is_not_lost_in_silence(name: str) -> None:
    whole = {"rank_10": "1", "rank_20": "2", "rank_30": "3"}
    shown = {response.id: response.text for response in THREE}
    with pytest.raises(Invalid, match="not ask"):
        answers.check(RANKING, shown, *read_answer(RANKING, THREE, whole | {name: "1"}))
    assert read_answer(RANKING, THREE, whole | {name: " "}) == ([[10], [20], [30]], {})


STORED: list[tuple[Any, Any, Any, Any]] = [
    (RANKING, THREE, [[20], [10, 30]], {}),
    (RANKING, TWO, [[10, 30]], {}),
    (PAIR, TWO, [[10, 30]], {}),
    (PAIR, TWO, [[10], [30]], {"strength": 2}),
    (parse_form({"ranking": {"partial": True}}), THREE, [[20], [10]], {}),
    (parse_form({"all_bad": True}), THREE, [], {"all_bad": True}),
    (parse_form({"overall": "none", "score": {}}), ONE, [], {"scores": {"10": 4.2}}),
    (
        EVERYTHING,
        TWO,
        [[10], [30]],
        {
            "strength": 1,
            "scores": {"10": 4.5, "30": 2},
            "criteria": {
                "helpful": {"scores": {"10": 3, "30": 4}},
                "safe": {"groups": [[10], [30]], "strength": 3},
                "clear": {"groups": [[10, 30]]},
            },
            "corrections": {"10": {"text": "eleven", "response_id": 77}},
            "written": {"text": "mine", "response_id": 78},
            "flags": {"harmful": [10, 30], "odd": True},
            "rationale": "because",
        },
    ),
]


@pytest.mark.parametrize(("asked", "shown", "groups", "stored"), STORED)
def test_a_stored_answer_fills_the_fields_that_would_say_it(asked: Any, shown: Any, groups: Any, stored: Any) -> None:
    revision = LabelRevision(shown_order=[response.id for response in shown], answers=stored)
    ranks = [LabelRank(response_id=id_, rank=rank) for rank, group in enumerate(groups, start=1) for id_ in group]
    revision.__dict__["ranks"] = ranks
    read = read_answer(asked, shown, fields_of(revision))
    checked = answers.check(asked, {response.id: response.text for response in shown}, *read)
    assert checked.ranks == {rank.response_id: rank.rank for rank in ranks}
    assert checked.answers == answers.without_response_ids(stored)


def test_a_refused_form_is_shown_with_what_was_filled() -> None:
    sent = {"csrf": "x", "seconds": "3", "rank_10": "1", "flag_odd": "1", "written": "x", "file": object()}
    assert sent_fields(sent) == {"rank_10": "1", "flag_odd": "1", "written": "x"}


@pytest.mark.parametrize(
    ("said", "seconds"), [("12.5", 12.5), ("", None), ("x", None), ("nan", None), ("-1", None), ("1e9", 86_400.0)]
)
def test_seconds(said: str, seconds: float | None) -> None:
    assert read_seconds({"seconds": said}) == seconds

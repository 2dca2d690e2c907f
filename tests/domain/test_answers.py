"""An answer follows its form or is refused by name, and what was taken once is taken again as the same."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.answers import CheckedAnswer, check, without_response_ids
from app.domain.judgement import JudgementForm, parse_form
from app.errors import Invalid, InvalidRanking

SHOWN = {30: "thirty", 10: "ten\r\nlines ", 20: "twenty"}
TWO = {30: "thirty", 10: "ten"}
ONE = {10: "ten"}

RANKING = parse_form({"ranking": {"ties": True}})
PAIR = parse_form({"overall": "pair", "pair": {"scale": "llama2"}})
SCORE = parse_form({"overall": "none", "score": {"lowest": 1, "highest": 5, "step": 0.1}})
EVERYTHING = parse_form(
    {
        "ranking": {"partial": True},
        "all_bad": True,
        "score": {"required": False},
        "criteria": [
            {"key": "helpful", "name": "Helpful", "kind": "score", "highest": 4, "required": False},
            {"key": "safe", "name": "Safe", "kind": "ranking", "required": False},
            {"key": "honest", "name": "Honest", "kind": "pair", "required": False},
        ],
        "correction": "optional",
        "flags": [
            {"key": "harmful", "name": "Harmful"},
            {"key": "cannot_judge", "name": "I cannot", "of": "comparison", "excuses": True},
        ],
        "rationale": "optional",
    }
)
REQUIRED = parse_form(
    {
        "score": {},
        "criteria": [{"key": "helpful", "name": "Helpful"}],
        "correction": "required",
        "flags": [{"key": "cannot_judge", "name": "I cannot", "of": "comparison", "excuses": True}],
        "rationale": "required",
    }
)
ALL = [[10], [20, 30]]


def said(asked: JudgementForm, answers: Any = None, groups: Any = (), shown: dict[int, str] = SHOWN) -> CheckedAnswer:
    return check(asked, shown, list(groups), {} if answers is None else answers)


def refused(asked: JudgementForm, answers: Any, groups: Any = (), shown: dict[int, str] = SHOWN) -> Invalid:
    with pytest.raises(Invalid) as error:
        said(asked, answers, groups, shown)
    return error.value


def test_a_ranking_gives_every_response_its_place() -> None:
    assert said(RANKING, groups=[[20], [30, 10]]) == CheckedAnswer({20: 1, 10: 2, 30: 2}, {})


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ([], "without one: 1, 2, 3"),
        ([[10], [20]], "without one: 1"),
        ([[10], [20], [30], [10]], "twice"),
        ([[10, 10], [20], [30]], "twice"),
        ([[10], [], [20, 30]], "leave it out"),
        ([[10], [20], [99]], "no responses of this comparison"),
        ([["10"], [20], [30]], "whole numbers"),
        ([[True], [20], [30]], "whole numbers"),
        ([[10.0], [20], [30]], "whole numbers"),
        ([10, 20, 30], "list response ids"),
        ("10>20>30", "list of lists"),
        ({"10": 1}, "list of lists"),
    ],
)
def test_a_ranking_is_a_partition_of_the_responses(groups: Any, says: str) -> None:
    with pytest.raises(InvalidRanking, match=says) as error:
        check(RANKING, SHOWN, groups, {})
    assert error.value.details["field"] == "groups"


def test_ties_only_where_the_form_allows_them() -> None:
    strict = parse_form({"ranking": {"ties": False}})
    assert said(strict, groups=[[10], [20], [30]]).ranks == {10: 1, 20: 2, 30: 3}
    assert "without ties" in str(refused(strict, {}, ALL))


def test_a_partial_ranking_needs_two_places() -> None:
    partial = parse_form({"ranking": {"partial": True}})
    assert said(partial, groups=[[20], [10]]).ranks == {20: 1, 10: 2}
    assert said(partial, groups=[[20, 10]]).ranks == {20: 1, 10: 1}
    for groups in ([], [[10]]):
        assert "at least two" in str(refused(partial, {}, groups))
    assert "no responses" in str(refused(partial, {}, [[10], [99]]))


@pytest.mark.parametrize(("scale", "levels"), [("better", 1), ("llama2", 3), ("anthropic", 4)])
def test_a_pair_has_a_strength_on_its_scale(scale: str, levels: int) -> None:
    asked = parse_form({"overall": "pair", "pair": {"scale": scale}})
    for strength in range(1, levels + 1):
        taken = said(asked, {"strength": strength}, [[10], [30]], TWO)
        assert taken == CheckedAnswer({10: 1, 30: 2}, {"strength": strength})
    for bad in (0, levels + 1, -1, True, 1.0, "1", [1], 10**400):
        assert refused(asked, {"strength": bad}, [[10], [30]], TWO).details["field"] == "strength"
    if scale == "better":
        assert said(asked, {}, [[10], [30]], TWO).answers == {"strength": 1}
    else:
        assert f"1 to {levels}" in str(refused(asked, {}, [[10], [30]], TWO))


def test_a_tie_of_a_pair_has_no_strength() -> None:
    assert said(PAIR, {}, [[30, 10]], TWO) == CheckedAnswer({10: 1, 30: 1}, {})
    assert "neither response is better" in str(refused(PAIR, {"strength": 1}, [[30, 10]], TWO))
    anthropic = parse_form({"overall": "pair", "pair": {"scale": "anthropic"}})
    assert "which one is better" in str(refused(anthropic, {}, [[30, 10]], TWO))


def test_a_pair_is_whole_and_of_more_than_two_it_is_a_ranking() -> None:
    partial = parse_form({"overall": "pair", "ranking": {"partial": True}})
    assert "which response is better" in str(refused(partial, {}, [[10]], TWO))
    assert "which response is better" in str(refused(PAIR, {}, [], TWO))
    assert "which response is better" in str(refused(PAIR, {"strength": 1}, [], TWO))
    assert said(PAIR, {}, ALL).ranks == {10: 1, 20: 2, 30: 2}
    assert "not asked" in str(refused(PAIR, {"strength": 1}, ALL))


def test_all_bad_stands_instead_of_the_order() -> None:
    asked = parse_form({"all_bad": True, "rationale": "required"})
    assert said(asked, {"all_bad": True, "rationale": "no"}) == CheckedAnswer({}, {"all_bad": True, "rationale": "no"})
    assert said(asked, {"all_bad": True, "rationale": "no"}, ALL).ranks == {10: 1, 20: 2, 30: 2}
    assert said(asked, {"all_bad": False, "rationale": "no"}, ALL).answers == {"rationale": "no"}
    assert "why" in str(refused(asked, {"all_bad": True}))
    assert "say true" in str(refused(asked, {"all_bad": 1, "rationale": "no"}))
    assert "without one: 2" in str(refused(asked, {"all_bad": True, "rationale": "no"}, [[20], [30]]))
    assert "not asked" in str(refused(RANKING, {"all_bad": True}, ALL))


def test_scores_lie_on_their_steps() -> None:
    taken = said(SCORE, {"scores": {"10": 4.2, "20": 1, 30: 0.1 * 3 + 1}}).answers
    assert taken == {"scores": {"10": 4.2, "20": 1, "30": 1.3}}
    assert json.dumps(taken["scores"]) == '{"10": 4.2, "20": 1, "30": 1.3}'
    odd = parse_form({"overall": "none", "score": {"lowest": 0, "highest": 5, "step": 2}})
    assert said(odd, {"scores": {"10": 4}}, shown=ONE).answers == {"scores": {"10": 4}}
    assert refused(odd, {"scores": {"10": 5}}, shown=ONE).details["response_id"] == 10


@pytest.mark.parametrize(
    "bad",
    [4.25, 0.9, 5.1, -1, "4", True, None, [4], {}, math.nan, math.inf, 1e308, 10**400, -(10**400)],
    ids=lambda bad: repr(bad)[:12],
)
def test_what_is_no_score_is_refused(bad: Any) -> None:
    refused(SCORE, {"scores": {"10": bad, "20": 1, "30": 1}})


def test_every_response_needs_its_score_unless_the_form_says_otherwise() -> None:
    error = refused(SCORE, {"scores": {"10": 1}})
    assert "without a score: 1, 3" in str(error)
    assert error.details == {"field": "scores", "missing": [20, 30]}
    free = parse_form({"overall": "none", "score": {"required": False}})
    assert said(free, {"scores": {"10": 1}}).answers == {"scores": {"10": 1}}
    assert said(free, {"scores": {}}) == CheckedAnswer({}, {})
    assert "no response of this comparison" in str(refused(free, {"scores": {"99": 1}}))
    assert "no response of this comparison" in str(refused(free, {"scores": {"010": 1}}))
    assert "once" in str(refused(free, {"scores": {"10": 1, 10: 2}}))


def test_each_criterion_is_judged_in_its_way() -> None:
    judged = {
        "helpful": {"scores": {"10": 4}},
        "safe": {"groups": [[30], [20, 10]]},
        "honest": {"groups": [[10], [20]]},
    }
    stored = judged | {"safe": {"groups": [[30], [10, 20]]}}
    assert said(EVERYTHING, {"criteria": judged}, ALL).answers == {"criteria": stored}
    pair = {"honest": {"groups": [[30], [10]], "strength": 3}}
    assert said(EVERYTHING, {"criteria": pair}, [[10], [30]], TWO).answers == {"criteria": pair}
    assert said(EVERYTHING, {"criteria": {"helpful": {}, "safe": {"groups": []}}}, ALL).answers == {}


@pytest.mark.parametrize(
    ("criteria", "field"),
    [
        ({"funny": {}}, "criteria"),
        ({"helpful": {"scores": {"10": 5}}}, "criteria.helpful.scores"),
        ({"helpful": {"scores": {"10": 1.5}}}, "criteria.helpful.scores"),
        ({"helpful": {"groups": ALL}}, "criteria.helpful"),
        ({"helpful": 4}, "criteria.helpful"),
        ({"safe": {"groups": [[10]]}}, "criteria.safe.groups"),
        ({"safe": {"groups": ALL, "strength": 1}}, "criteria.safe"),
        ({"honest": {"groups": [[10], [99]]}}, "criteria.honest.groups"),
        ([], "criteria"),
    ],
)
def test_a_criterion_is_refused_by_name(criteria: Any, field: str) -> None:
    assert refused(EVERYTHING, {"criteria": criteria}, ALL).details["field"] == field


def test_corrections_and_written_answers_are_texts_of_their_own() -> None:
    taken = said(
        EVERYTHING,
        {"corrections": {"10": " ten\r\nmore ", 20: {"text": "21", "response_id": 7}}, "written": {"text": "mine"}},
        ALL,
    )
    assert taken.answers == {
        "corrections": {"10": {"text": "ten\nmore"}, "20": {"text": "21"}},
        "written": {"text": "mine"},
    }
    stored = {"corrections": {"10": {"text": "x", "response_id": 5}}, "written": {"text": "y", "response_id": 6}}
    assert without_response_ids(stored) == {"corrections": {"10": {"text": "x"}}, "written": {"text": "y"}}
    assert said(EVERYTHING, stored, ALL).answers == without_response_ids(stored)


@pytest.mark.parametrize(
    "bad",
    [
        {"corrections": {"10": "ten\nlines"}},
        {"corrections": {"10": " \n"}},
        {"corrections": {"10": {"text": "x", "author": "me"}}},
        {"corrections": {"10": {"text": "x", "response_id": "7"}}},
        {"corrections": {"10": {}}},
        {"corrections": {"99": "x"}},
        {"corrections": ["x"]},
        {"corrections": {"10": 4}},
        {"written": ""},
        {"written": "twenty"},
        {"written": ["x"]},
        {"written": "x" * 200_001},
    ],
    ids=lambda bad: json.dumps(bad)[:60],
)
def test_a_correction_that_corrects_nothing_is_refused(bad: Any) -> None:
    refused(EVERYTHING, bad, ALL)


def test_flags_are_raised_of_what_they_are_said_of() -> None:
    taken = said(EVERYTHING, {"flags": {"harmful": [30, 10, 30], "cannot_judge": False}}, ALL)
    assert taken.answers == {"flags": {"harmful": [10, 30]}}
    for bad in ({"harmful": True}, {"harmful": [99]}, {"harmful": ["10"]}, {"cannot_judge": [10]}, {"rude": True}, [1]):
        refused(EVERYTHING, {"flags": bad}, ALL)


def test_an_excusing_flag_makes_the_rest_optional() -> None:
    excused = {"flags": {"cannot_judge": True}}
    assert said(REQUIRED, excused) == CheckedAnswer({}, excused)
    assert "place" in str(refused(REQUIRED, excused, [[10]]))


def test_all_that_is_required_is_asked_for() -> None:
    whole = {
        "scores": {"10": 1, "20": 1, "30": 1},
        "criteria": {"helpful": {"scores": {"10": 1, "20": 1, "30": 1}}},
        "written": "better",
        "rationale": "because",
    }
    assert said(REQUIRED, whole, ALL).answers == whole | {"written": {"text": "better"}}
    for part in whole:
        error = refused(REQUIRED, {key: value for key, value in whole.items() if key != part}, ALL)
        assert str(error.details["field"]).split(".")[0] in {part, "corrections"}


def test_of_one_response_nothing_is_ranked() -> None:
    asked = parse_form({"overall": "none", "score": {}, "criteria": [{"key": "kind", "name": "Kind"}]})
    whole = {"scores": {"10": 2.5}, "criteria": {"kind": {"scores": {"10": 5}}}}
    assert said(asked, whole, shown=ONE) == CheckedAnswer({}, whole)
    assert "nothing is ranked" in str(refused(asked, whole, [[10]], ONE))


@pytest.mark.parametrize("answers", [[], "x", 1, True, {"why": "warm"}, {"rationale": "x"}, {"flags": {"a": True}}])
def test_what_the_form_does_not_ask_is_refused(answers: Any) -> None:
    refused(RANKING, answers, ALL)


def test_what_cannot_be_kept_is_refused() -> None:
    deep: Any = "x"
    for _ in range(30):
        deep = [deep]
    for bad in ("a\x00b", "\ud800", "x" * 20_001, 5, deep):
        refused(EVERYTHING, {"rationale": bad}, ALL)


names = "strength all_bad scores criteria corrections written flags rationale helpful safe honest harmful cannot_judge"
keys = st.sampled_from([*names.split(), "groups", "text", "response_id", "10", "20", "30", "99"])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 35)
    | st.sampled_from([10, 20, 30])
    | st.floats()
    | st.text(max_size=5)
    | st.integers()
)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys | st.text(max_size=3), inner, max_size=6),
    max_leaves=20,
)
scores = st.dictionaries(st.sampled_from(["10", "20", "30"]), st.floats(0.9, 5.1) | st.integers(0, 6), max_size=3)
orders = st.lists(st.lists(st.sampled_from([10, 20, 30]), min_size=1, max_size=2), max_size=3)
likely = st.fixed_dictionaries(
    {},
    optional={
        "all_bad": st.booleans(),
        "strength": st.integers(0, 4),
        "scores": scores,
        "criteria": st.fixed_dictionaries(
            {},
            optional={
                "helpful": st.fixed_dictionaries({"scores": scores}),
                "safe": st.fixed_dictionaries({"groups": orders}),
            },
        ),
        "corrections": st.dictionaries(st.sampled_from(["10", "20"]), st.text(min_size=1, max_size=4), max_size=2),
        "written": st.text(max_size=4),
        "flags": st.fixed_dictionaries(
            {}, optional={"harmful": orders.map(lambda o: o[0] if o else []), "cannot_judge": st.booleans()}
        ),
        "rationale": st.text(max_size=6),
    },
)


@given(
    asked=st.sampled_from([RANKING, PAIR, SCORE, EVERYTHING, REQUIRED]),
    shown=st.sampled_from([SHOWN, TWO, ONE]),
    groups=orders | anything,
    answers=likely | anything,
)
def test_any_json_is_refused_or_comes_back_in_one_shape(
    asked: JudgementForm, shown: dict[int, str], groups: Any, answers: Any
) -> None:
    try:
        once = check(asked, shown, groups, answers)
    except Invalid:
        return
    stored = json.loads(json.dumps(once.answers))
    assert stored == once.answers
    by_rank = [[id_ for id_ in once.ranks if once.ranks[id_] == rank] for rank in sorted(set(once.ranks.values()))]
    assert check(asked, shown, by_rank, stored) == once
    assert set(once.ranks) <= set(shown)
    assert sorted(set(once.ranks.values())) == list(range(1, len(set(once.ranks.values())) + 1))

import pytest

from worker.learning.records import Message, Ranking

pytestmark = pytest.mark.learning

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "hello"},)


def test_ordered_pairs_follow_the_groups_and_leave_ties_out() -> None:
    ranking = Ranking(PROMPT, ("a", "b", "c", "d"), ((2,), (0, 3), (1,)))
    assert sorted(ranking.ordered_pairs()) == [(0, 1), (2, 0), (2, 1), (2, 3), (3, 1)]


def test_a_ranking_of_ties_alone_has_no_pairs() -> None:
    assert Ranking(PROMPT, ("a", "b"), ((0, 1),)).ordered_pairs() == []


@pytest.mark.parametrize(
    ("responses", "groups", "weight", "reason"),
    [
        (("a",), ((0,),), 1.0, "at least two responses"),
        (("a", "b"), ((0,),), 1.0, "each of the responses 0 to 1 once"),
        (("a", "b"), ((0,), (0, 1)), 1.0, "each of the responses 0 to 1 once"),
        (("a", "b"), ((0,), (2,)), 1.0, "each of the responses 0 to 1 once"),
        (("a", "b"), ((0, 1), ()), 1.0, "every group needs"),
        (("a", "b"), ((0,), (1,)), -1.0, "not negative"),
        (("a", "b"), ((0,), (1,)), float("nan"), "finite"),
    ],
)
def test_a_bad_ranking_says_what_is_wrong(
    responses: tuple[str, ...], groups: tuple[tuple[int, ...], ...], weight: float, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        Ranking(PROMPT, responses, groups, weight)

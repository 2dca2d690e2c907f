import math

import pytest

from worker.learning.records import Judgement, Label, Message, Scale

pytestmark = pytest.mark.learning

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "hello"},)
PAIR = ((0,), (1,))


def test_ordered_pairs_follow_the_groups_and_tied_pairs_share_one() -> None:
    judgement = Judgement(((2,), (0, 3, 5), (1,)))
    ordered = [(0, 1), (2, 0), (2, 1), (2, 3), (2, 5), (3, 1), (5, 1)]
    assert sorted(judgement.ordered_pairs()) == ordered
    assert sorted(judgement.tied_pairs()) == [(0, 3), (0, 5), (3, 5)]
    assert judgement.ranked == (2, 0, 3, 5, 1)


def test_a_judgement_may_say_nothing() -> None:
    assert Judgement().ranked == ()
    assert Judgement().ordered_pairs() == Judgement().tied_pairs() == []


@pytest.mark.parametrize("levels", [0, -1])
def test_a_scale_has_a_grade(levels: int) -> None:
    with pytest.raises(ValueError, match="at least one grade"):
        Scale(levels=levels)


@pytest.mark.parametrize(
    ("groups", "strength", "scale", "scores", "reason"),
    [
        (((0,), ()), None, Scale(), (), "every group needs at least one response"),
        (((0,), (0, 1)), None, Scale(), (), "name each response once at most"),
        (((0,),), None, Scale(), (), "at least two responses"),
        (((0, 1),), None, Scale(ties=False), (), "have a tie, and their scale has none"),
        (PAIR, None, Scale(levels=3), (), "a scale of 3 grades needs a strength"),
        (PAIR, 4, Scale(levels=3), (), "between 1 and 3, not be 4"),
        (PAIR, 0, Scale(levels=3), (), "between 1 and 3, not be 0"),
        (((0, 1),), 1, Scale(levels=3), (), "how much better one of two is"),
        (((0,), (1,), (2,)), 1, Scale(levels=3), (), "how much better one of two is"),
        (((0,), (1,), (2,)), None, Scale(levels=3), (), "only a pair is graded"),
        ((), None, Scale(), (1.0, math.nan), "a score must be finite"),
        ((), None, Scale(), (1.0, math.inf), "a score must be finite"),
    ],
)
def test_a_bad_judgement_says_what_is_wrong(
    groups: tuple[tuple[int, ...], ...],
    strength: int | None,
    scale: Scale,
    scores: tuple[float | None, ...],
    reason: str,
) -> None:
    with pytest.raises(ValueError, match=reason):
        Judgement(groups, strength, scale, scores)


@pytest.mark.parametrize(
    ("groups", "strength", "scale"),
    [
        (PAIR, None, Scale()),
        (PAIR, 1, Scale()),
        (PAIR, 3, Scale(levels=3, ties=False)),
        (((0, 1),), None, Scale(levels=3)),
        (((0, 1), (2,)), None, Scale()),
    ],
)
def test_what_a_scale_has_can_be_answered(
    groups: tuple[tuple[int, ...], ...], strength: int | None, scale: Scale
) -> None:
    assert Judgement(groups, strength, scale).groups == groups


def test_a_label_is_ordinary_unless_it_says_otherwise() -> None:
    label = Label(PROMPT, ("a", "b"), Judgement(PAIR))
    assert (label.weight, label.implied, label.annotator, label.shown, dict(label.criteria)) == (1, False, None, (), {})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"responses": ()}, "at least one response"),
        ({"overall": Judgement(((0,), (2,)))}, "must name the responses 0 to 1"),
        ({"overall": Judgement(((-1,), (0,)))}, "must name the responses 0 to 1"),
        ({"criteria": {"helpful": Judgement(((0,), (2,)))}}, "must name the responses 0 to 1"),
        ({"overall": Judgement(scores=(1.0,))}, "1 scores do not match 2 responses"),
        ({"criteria": {"helpful": Judgement(scores=(1.0, None, 2.0))}}, "3 scores do not match 2 responses"),
        ({"shown": (0,)}, "each of the responses 0 to 1 once"),
        ({"shown": (0, 0)}, "each of the responses 0 to 1 once"),
        ({"weight": -1.0}, "not negative"),
        ({"weight": math.nan}, "finite"),
    ],
)
def test_a_bad_label_says_what_is_wrong(said: dict[str, object], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Label(**({"prompt": PROMPT, "responses": ("a", "b")} | said))  # type: ignore[arg-type]

"""Which prompts does a round draw? Shares by split, counted by hand."""

import pytest
from sqlalchemy.orm import Session

from app.domain.samples import draw_prompts, share_out
from app.tables import Split
from tests.factories_labelling import make_comparisons
from tests.factories_loop import make_loop_project


@pytest.mark.parametrize(
    ("count", "sizes", "shares"),
    [
        (200, (320, 40, 40), (160, 20, 20)),
        (10, (8, 1, 1), (8, 1, 1)),
        (3, (97, 2, 1), (1, 1, 1)),  # every split gets one where there are enough
        (2, (97, 2, 1), (2, 0, 0)),
        (7, (3, 3, 1), (3, 3, 1)),
        (5, (10, 7, 3), (2, 2, 1)),  # exact 2.5, 1.75, 0.75: the largest remainders, 0.75, go up
        (0, (5, 2, 1), (0, 0, 0)),
    ],
)
def test_shares(count: int, sizes: tuple[int, int, int], shares: tuple[int, int, int]) -> None:
    splits = (Split.TRAIN, Split.VALIDATION, Split.TEST)
    assert share_out(count, dict(zip(splits, sizes, strict=True))) == dict(zip(splits, shares, strict=True))


def test_a_draw_is_repeated_by_its_seed_and_says_its_probability(session: Session) -> None:
    project = make_loop_project(session, sizes={Split.TRAIN: 8, Split.TEST: 4})
    first, again, other = (draw_prompts(session, project.id, 6, seed) for seed in (1, 1, 2))
    assert first == again
    assert {draw.prompt.id for draw in first} != {draw.prompt.id for draw in other}
    assert [draw.prompt.split for draw in first] == [Split.TRAIN] * 4 + [Split.TEST] * 2
    assert {draw.probability for draw in first} == {0.5}


def test_more_than_there_are_is_all_of_them(session: Session) -> None:
    project = make_loop_project(session, sizes={Split.TRAIN: 2, Split.TEST: 1})
    draws = draw_prompts(session, project.id, 100, seed=1)
    assert (len(draws), {draw.probability for draw in draws}) == (3, {1.0})
    assert draw_prompts(session, make_loop_project(session, sizes={}).id, 5, seed=1) == []


def test_a_share_of_the_draw_was_compared_before_though_unused_prompts_are_left(session: Session) -> None:
    project = make_loop_project(session, sizes={Split.TRAIN: 40})
    used = {comparison.prompt_id for comparison in make_comparisons(session, project, 10)}  # of prompts of their own
    drawn = {draw.prompt.id for draw in draw_prompts(session, project.id, 10, seed=3, mixed_share=0.2)}
    assert (len(drawn), len(drawn & used)) == (10, 2)
    assert not {draw.prompt.id for draw in draw_prompts(session, project.id, 10, seed=3)} & used

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.ppo import against_trl, overoptimisation, toy
from benchmarks.ppo.curves import Line, Panel, draw, ticks
from benchmarks.ppo.figures import Reached, gains_at_equal_kl, has_collapsed, last_quarter, row
from benchmarks.ppo.overoptimisation import Climb
from benchmarks.ppo.runs import Measured
from benchmarks.ppo.settings import TOY
from benchmarks.ppo.stories import UNIT, ZERO, gold, normalised_gold, openings

pytestmark = pytest.mark.learning


def rollout(score: float = 1.0, entropy: float = 1.0, ended: float = 1.0, kl: float = 6.0) -> dict[str, float]:
    return {
        "objective/scores": score,
        "policy/entropy": entropy,
        "ended_rate": ended,
        "objective/kl": kl,
        "objective/kl_coef": 0.1,
    }


def test_the_last_quarter_is_rounded_down_and_never_empty() -> None:
    history = [rollout(score=float(step)) for step in range(11)]
    assert last_quarter(history, "objective/scores") == 9.5  # the last two of eleven
    assert last_quarter(history[:3], "objective/scores") == 2.0


@pytest.mark.parametrize(
    ("end", "collapsed"),
    [
        (rollout(score=2.0), False),
        (rollout(score=0.9), True),  # below the start
        (rollout(score=math.nan), True),
        (rollout(entropy=0.11), False),
        (rollout(entropy=0.09), True),
        (rollout(ended=0.49), True),
        (rollout(kl=11.9), False),
        (rollout(kl=12.1), True),  # beyond twice the target
        (rollout(kl=math.nan), True),
    ],
)
def test_what_counts_as_a_collapse(end: dict[str, float], collapsed: bool) -> None:
    assert has_collapsed([rollout(), *[rollout()] * 5, end, end], kl_target=6.0) is collapsed


def test_scores_are_read_at_equal_kl() -> None:
    """By hand: ours rises by 1 a root of a nat, theirs by 1/2; both reached KL 1 to 4, so roots 1, 1.25, ... 2."""
    ours = [Reached(9.0, 5.0), Reached(1.0, 3.0)]
    others = [Reached(1.0, 2.5), Reached(4.0, 3.0)]
    mine, theirs = gains_at_equal_kl(ours, others, start=2.0)
    assert mine == pytest.approx(1.5)
    assert theirs == pytest.approx(0.75)


def test_where_no_range_is_shared_both_are_read_at_the_lesser_kl() -> None:
    """By hand: ours goes from the start at 0 to 3 at a root of 3, theirs to 2 at a root of 2."""
    gains = gains_at_equal_kl([Reached(9.0, 3.0)], [Reached(4.0, 2.5)], start=0.0)
    assert gains == pytest.approx((2.0, 2.5))


def test_a_policy_that_went_nowhere_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="stayed where it started"):
        gains_at_equal_kl([Reached(9.0, 3.0)], [Reached(-0.1, 2.0)], start=0.0)


def test_a_row_says_whether_its_goal_is_met() -> None:
    assert row("a", "b", [2.0, 4.0, 3.0], [2.0, 2.0, 2.0], "peer", goal=1.5) == {
        "case": "a",
        "metric": "b",
        "ours": 3.0,
        "peer": 2.0,
        "peer_name": "peer",
        "ours_runs": [2.0, 4.0, 3.0],
        "peer_runs": [2.0, 2.0, 2.0],
        "ratio": 1.5,
        "spread": [1.0, 2.0],
        "goal": 1.5,
        "met": True,
    }
    assert row("a", "b", [0.06, 0.04], at_most=0.05)["met"] is True
    assert row("a", "b", [0.07, 0.04], at_most=0.05)["met"] is False
    assert row("a", "b", [1.0])["met"] is None


def test_the_rows_of_the_toy() -> None:
    settings = replace(TOY, kl_target=6.0)
    good = [rollout(score=0.0, kl=0.0), *[rollout(score=1.0, kl=6.3)] * 7]
    bad = [rollout(score=0.0, kl=0.0), *[rollout(score=-1.0, kl=6.6)] * 7]
    score, error, _, collapsed = toy.rows([good, bad], settings)
    assert score["ours_runs"] == [toy.raw(1.0), toy.raw(-1.0)]
    assert error["ours_runs"] == [0.05, 0.1]
    assert error["met"] is False
    assert (collapsed["ours"], collapsed["ours_runs"], collapsed["met"]) == (1.0, [0.0, 1.0], False)


def measured(gold_score: float, kl: float = 1.0) -> Measured:
    return Measured(kl, {"gold": gold_score, "proxy": 2.0}, {"gold": 0.1, "proxy": 0.1})


def test_the_fall_from_the_best_is_told_in_its_standard_errors() -> None:
    fallen = Climb("single", 1, [measured(3.0), measured(4.0), measured(3.5)], "done")
    kept = Climb("ours", 1, [measured(3.0), measured(4.0), measured(3.95)], "watched")
    rows = {(one["case"], one["metric"]): one for one in overoptimisation.rows([fallen, kept])}
    assert rows["single, fall from its best", "standard errors"]["ours"] == pytest.approx(5.0)
    most = rows["ours, the seed that falls most", "standard errors"]
    assert most["ours"] == pytest.approx(0.5)
    assert most["met"] is True
    panels = overoptimisation.panels([fallen, kept])
    assert [panel.title for panel in panels] == ["single", "ours"]
    assert panels[0].lines[0].points[1][1] == pytest.approx((4.0 - ZERO) / UNIT)
    beside = rows["gold at the end", "ours beside single"]
    assert (beside["ours"], beside["peer"], beside["met"]) == (3.95, 3.5, True)


def test_the_rows_beside_the_peer() -> None:
    mine = [[Reached(1.0, 3.0), Reached(4.0, 4.0)]]
    [equal, *_] = against_trl.rows(mine, [[Reached(1.0, 3.0), Reached(4.0, 4.0)]], Reached(0.0, 2.0))
    assert equal["ratio"] == 1.0
    assert equal["met"] is True


def test_ticks_are_round_and_hold_the_range() -> None:
    assert ticks(0.0, 6.3) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert ticks(0.11, 0.29) == [0.1, 0.15, 0.2, 0.25, 0.3]
    assert ticks(2.0, 2.0)[0] <= 2.0 <= ticks(2.0, 2.0)[-1]


def test_a_drawing_is_an_svg_with_every_line(tmp_path: Path) -> None:
    target = Line("target", [(0, 6), (64, 6)], dashed=True)
    panel = Panel("KL < 6", "episodes", [Line("a seed", [(0, 0), (64, 3)]), target])
    draw(tmp_path / "curves.svg", [panel, panel])
    tree = ET.fromstring((tmp_path / "curves.svg").read_text())
    lines = tree.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 4
    assert lines[0].get("points") == "50.0,186.0 302.3,110.0"


def test_gold_is_the_same_on_either_scale() -> None:
    stories = ['"We did it," said Mina. She was happy.', ""]
    prompts = openings("heldout")[:2]
    assert (len(openings("train")), len(openings("heldout")), len(openings("train", "heldout"))) == (300, 100, 400)
    assert [toy.raw(score) for score in normalised_gold(prompts, stories).tolist()] == pytest.approx(
        gold(prompts, stories).tolist(), abs=1e-5
    )

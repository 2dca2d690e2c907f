"""Does the score rise, does KL stay where it should, and does any seed collapse? PPO on the gold score itself."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.ppo.curves import Line, Panel, draw
from benchmarks.ppo.figures import Row, has_collapsed, last_quarter, row
from benchmarks.ppo.runs import History, Measured, all_done, climb_gold
from benchmarks.ppo.stories import UNIT, ZERO
from worker.learning.policy.settings import PPOSettings

KL_ERROR = 0.05


def toy(
    executor: ProcessPoolExecutor,
    start: Path,
    device: str,
    settings: PPOSettings,
    seeds: Sequence[int],
    picture: Path | None,
    say: Callable[[str], None],
) -> list[Row]:
    """Runs all seeds, draws their curves, and says what came out."""

    def told(number: int, result: tuple[History, Measured]) -> None:
        history, end = result
        say(
            f"  seed {seeds[number]}: score {end.scores['gold']:.2f} on held-out openings, KL"
            f" {last_quarter(history, 'objective/kl'):.2f}"
        )

    results = all_done(executor, climb_gold, [(start, device, settings, seed) for seed in seeds], told)
    histories = [history for history, _ in results]
    if picture is not None:
        draw(picture, panels(histories, settings))
    return rows(histories, settings)


def rows(histories: Sequence[History], settings: PPOSettings) -> list[Row]:
    """Scores at the start and over the last quarter, how far KL lay off over that quarter, and what collapsed."""
    start, end = ([raw(score) for score in scores] for scores in _scores(histories))
    kls = [last_quarter(history, "objective/kl") for history in histories]
    collapsed = [float(has_collapsed(history, settings.kl_target)) for history in histories]
    made = row("toy seeds that collapsed", "runs", [sum(collapsed)], at_most=0.0)
    made["ours_runs"] = collapsed
    return [
        row("toy score", "gold", end, start, "the start", goal=1.0),
        row("toy KL", "relative error", [abs(kl / settings.kl_target - 1) for kl in kls], at_most=KL_ERROR),
        row("toy KL", "nats", kls),
        made,
    ]


def raw(score: float) -> float:
    """The gold score that was normalised for the policy."""
    return score * UNIT + ZERO


def _scores(histories: Sequence[History]) -> tuple[list[float], list[float]]:
    return (
        [history[0]["objective/scores"] for history in histories],
        [last_quarter(history, "objective/scores") for history in histories],
    )


def panels(histories: Sequence[History], settings: PPOSettings) -> list[Panel]:
    """Score, KL and its price, a line a seed."""
    size = settings.batch_episodes
    across = "episodes"
    last = len(histories[0]) * size
    drawn = {
        metric: [
            Line("a seed", [(step * size, scale(row[metric])) for step, row in enumerate(history)], faint=True)
            for history in histories
        ]
        for metric, scale in (("objective/scores", raw), ("objective/kl", float), ("objective/kl_coef", float))
    }
    target = Line("the target", [(0, settings.kl_target), (last, settings.kl_target)], dashed=True)
    return [
        Panel("gold score", across, drawn["objective/scores"]),
        Panel("KL, nats a sequence", across, [*drawn["objective/kl"], target]),
        Panel("price of KL (beta)", across, drawn["objective/kl_coef"]),
    ]

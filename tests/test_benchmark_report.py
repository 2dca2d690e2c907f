import json
from pathlib import Path

import pytest

from benchmarks.report import Row, machine, show, write

FAST = Row("k=4", "sets/s", [30.0, 36.0, 33.0], [6.0, 6.0, 5.5], "peer 1.0", goal=5.0)


def test_a_row_compares_medians_and_neighbouring_runs() -> None:
    shown = FAST.as_json()
    assert (shown["ours"], shown["peer"], shown["ratio"]) == (33.0, 6.0, 5.5)
    assert shown["spread"] == [5.0, 6.0]
    assert shown["met"] is True


def test_a_goal_is_met_by_the_ratio_and_not_by_the_best_run() -> None:
    assert Row("", "", [29.0, 36.0, 29.0], [6.0, 6.0, 6.0], "peer", goal=5.0).met is False
    assert Row("", "", [1.0], [1.0], "peer").met is None


def test_where_lower_is_better_the_ratio_is_turned_over() -> None:
    memory = Row("", "MB", [100.0, 80.0], [300.0, 160.0], "peer", goal=2.5, lower=True)
    assert (memory.ratio, memory.spread, memory.met) == (pytest.approx(230 / 90), (2.0, 3.0), True)


@pytest.mark.parametrize(("interval", "met"), [((0.93, 1.01), True), ((0.90, 0.99), False), ((1.1, 1.2), True)])
def test_equal_means_not_certainly_less(interval: tuple[float, float], met: bool) -> None:
    assert Row("", "accuracy", [0.70], [0.72], "peer", 1.0, interval, equal=True).met is met


def test_a_report_names_machine_and_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    write(file, "speed", machine(threads=2), [FAST.as_json()])
    show([FAST])
    report = json.loads(file.read_text())
    assert report["benchmark"] == "speed"
    assert report["machine"].keys() >= {"cpu", "cores", "load", "threads"}
    assert report["commit"]
    assert report["results"] == [FAST.as_json()]
    assert "5 to 6" in capsys.readouterr().out

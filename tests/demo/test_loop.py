"""The loop in miniature over real processes: rank over HTTP, fit, PPO, and fresh comparisons stand in the queue."""

import importlib.util
import json
from dataclasses import fields
from io import StringIO
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from app import config
from tests.learning.conftest import tiny_folder  # noqa: F401 - a fixture

pytestmark = pytest.mark.learning
if importlib.util.find_spec("torch") is None:  # the web half is tested without the worker's extra
    pytest.skip("needs torch", allow_module_level=True)

SETTINGS = {
    "responses_per_prompt": 3,
    "test_share": 0.3,
    "validation_share": 0.2,
    "sampling": {"max_new_tokens": 8},
    "reward": {"epochs": 1, "learning_rate": 1e-3},
    "ppo": {"episodes": 16, "batch_episodes": 8, "epochs": 1, "learning_rate": 1e-3},
    "loop": {"prompts_per_round": 30, "trigger_labels": 25, "evaluation_samples": 1, "promote_winrate": 0.0},
}


@pytest.fixture
def own_home(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for logs, weights and the report; the database is the test's own."""
    monkeypatch.setenv("PREFLOOP_HOME", str(tmp_path))
    monkeypatch.setenv("PREFLOOP_THREADS", "1")
    monkeypatch.setenv("PREFLOOP_BASE_URL", "")  # given back afterwards
    config.settings.cache_clear()
    return tmp_path


def test_the_loop_turns(own_home: Path, tiny_folder: Path) -> None:  # noqa: F811 - the fixture
    from demo.check import Pair, Report
    from demo.main import run_demo
    from demo.project import Plan

    plan = Plan(
        seed=3, rounds=1, annotators=3, base_model=str(tiny_folder), most_openings=40, pairs=20, settings=SETTINGS
    )
    printed = StringIO()
    code = run_demo(plan, own_home, Console(file=printed, width=120))
    text = printed.getvalue()
    assert (own_home / "report.json").exists(), text
    report = json.loads((own_home / "report.json").read_text())
    assert set(report) == {field.name for field in fields(Report)}
    assert report["rounds"] == 1
    assert report["labels"] >= 25
    assert report["lineage_ok"] is True, text
    assert report["fresh_comparisons_in_queue"] > 0
    assert report["exported_rows"] > 25
    assert len(report["kl"]) == len(report["oracle_winrate_by_round"]) == len(report["reward_heldout_accuracy"]) == 1
    pairs = [json.loads(line) for line in (own_home / "pairs.jsonl").read_text().splitlines()]
    assert len(pairs) == 20
    assert all(set(pair) == {field.name for field in fields(Pair)} for pair in pairs)
    # Random words win nothing: the demo says so and ends with an error.
    assert code == 1
    assert "Failed: the final policy wins" in text
    assert not [child for child in psutil.Process().children(recursive=True) if "worker" in " ".join(child.cmdline())]

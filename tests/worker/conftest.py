"""A loop in miniature: a random Llama of two dozen words, a project that is done in seconds."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app import config
from app.tables import Project, Split
from tests.factories_loop import make_loop_project
from tests.learning.conftest import tiny_folder  # noqa: F401 - a fixture

if importlib.util.find_spec("torch") is None:  # the web half is tested without the worker's extra
    collect_ignore_glob = ["test_*.py"]

SIZES = {Split.TRAIN: 12, Split.VALIDATION: 12, Split.TEST: 6}
SETTINGS: dict[str, Any] = {
    "responses_per_prompt": 3,
    "sampling": {"max_new_tokens": 6},
    "reward": {"epochs": 2, "learning_rate": 1e-3, "batch_sets": 4},
    "ppo": {"episodes": 16, "batch_episodes": 8, "epochs": 1, "learning_rate": 1e-3},
    "loop": {"prompts_per_round": 30, "trigger_labels": 20, "evaluation_samples": 2, "promote_winrate": 0.0},
}


def small_project(session: Session, base_model: Path, **settings: Any) -> Project:
    """A project of thirty prompts; `settings` replace the small ones, group by group."""
    chosen = {
        key: value | settings.get(key, {}) if isinstance(value, dict) else settings.get(key, value)
        for key, value in SETTINGS.items()
    }
    others = {key: value for key, value in settings.items() if key not in chosen}
    return make_loop_project(session, sizes=SIZES, base_model=str(base_model), **chosen, **others)


@pytest.fixture
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where this test's weights lie."""
    folder = tmp_path / "artifacts"
    monkeypatch.setenv("PREFLOOP_ARTIFACTS", str(folder))
    monkeypatch.setenv("PREFLOOP_DEVICE", "cpu")
    monkeypatch.setenv("PREFLOOP_THREADS", "1")
    config.settings.cache_clear()
    yield folder
    config.settings.cache_clear()

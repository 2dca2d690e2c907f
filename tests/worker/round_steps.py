"""How does a test bring a round forward? Each step in this process, whole or up to a kill."""

from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy.orm import Session, sessionmaker

from app import config
from app.domain import rounds
from app.tables import Project, Round, Step, Trigger
from tests.factories import make_member
from tests.factories_loop import claim, label_all
from tests.killed import Killed, killed_at
from tests.worker.conftest import small_project
from worker.attempt import Attempt
from worker.steps import STEPS

Committed = sessionmaker[Session]
CPU = torch.device("cpu")


def start(committed: Committed, base_model: Path, **settings: Any) -> tuple[int, int]:
    """A small project and its first round, by id."""
    with committed.begin() as session:
        project = small_project(session, base_model, **settings)
        return project.id, rounds.start_round(session, project, by=None, seed=1).id


def execute(committed: Committed, round_id: int) -> int:
    """Execute the round's waiting run; its id."""
    step, attempt = _begin(committed, round_id)
    STEPS[step](attempt)
    return attempt.run_id


def execute_until(
    committed: Committed, round_id: int, monkeypatch: pytest.MonkeyPatch, at: int, phase: str | None = None
) -> int:
    """Execute the round's waiting run and be killed where it reports `at`, in any phase or in one; the run's id."""
    kill = killed_at(at, phase)
    step, attempt = _begin(committed, round_id)
    with monkeypatch.context() as patched:
        patched.setattr(Attempt, "report", lambda _attempt, progress: kill(progress))
        with pytest.raises(Killed):
            STEPS[step](attempt)
    return attempt.run_id


def _begin(committed: Committed, round_id: int) -> tuple[Step, Attempt]:
    with committed.begin() as session:
        run, number = claim(session, session.get_one(Round, round_id))
    return run.step, Attempt(run.id, number, CPU)


def label_and_fire(committed: Committed, project_id: int, round_id: int, annotators: int = 1) -> None:
    """Annotators label all there is, and the round's next step begins to wait."""
    with committed.begin() as session:
        project = session.get_one(Project, project_id)
        label_all(session, project, [make_member(session, project) for _ in range(annotators)])
        rounds.fire(session, session.get_one(Round, round_id), Trigger.HAND)


def states() -> list[Path]:
    """Where steps that were killed can go on."""
    return sorted((config.settings().home / "states").glob("*/*/step-*"))

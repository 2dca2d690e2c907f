"""What survives `kill -9`? Real workers on a real database are killed in every step; the round ends whole."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session, sessionmaker

from app.domain import rounds
from app.tables import (
    Comparison,
    ComparisonResponse,
    Label,
    Policy,
    PolicyScore,
    Project,
    Response,
    ResponsePurpose,
    RewardModel,
    Round,
    RoundState,
    Run,
    RunState,
    Snapshot,
    Step,
)
from tests.factories_loop import label_all
from tests.worker.conftest import small_project
from worker.learning.checkpoints import hash_folder

Committed = sessionmaker[Session]
pytestmark = pytest.mark.timeout(900)  # some 90 seconds where nothing else runs
PATIENCE = 240.0  # seconds for any one thing to happen


class Workers:
    """A `learn` and a `light` worker, killed and started again at will."""

    def __init__(self) -> None:
        self._running = {queue: self._start(queue) for queue in ("learn", "light")}

    def _start(self, queue: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "worker", "--queue", queue], stdin=subprocess.DEVNULL)

    def kill(self, *queues: str) -> None:
        """kill -9, and start anew."""
        for queue in queues:
            self._running[queue].kill()
            self._running[queue].wait()
            self._running[queue] = self._start(queue)

    def step_processes(self) -> list[psutil.Process]:
        """The processes that execute a step for one of these workers; what a library starts is none."""
        children = psutil.Process(self._running["learn"].pid).children()
        return [child for child in children if "worker.step" in command_of(child)]

    def stop(self) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.wait(PATIENCE)


@contextmanager
def workers() -> Iterator[Workers]:
    both = Workers()
    try:
        yield both
    finally:
        both.stop()


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether a process still works; one that ended and was not collected is a zombie."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(happened: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.03)


@pytest.fixture(autouse=True)
def quick_recovery(monkeypatch: pytest.MonkeyPatch, artifacts: Path) -> None:
    monkeypatch.setenv("PREFLOOP_HEARTBEAT_SECONDS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def the_run(committed: Committed, step: Step) -> Run | None:
    with committed() as session:
        return session.scalar(select(Run).where(Run.step == step))


def is_running(committed: Committed, step: Step, attempt: int) -> bool:
    run = the_run(committed, step)
    return run is not None and run.state is RunState.RUNNING and run.attempt >= attempt


def has_progress(committed: Committed, step: Step, attempt: int) -> bool:
    run = the_run(committed, step)
    return run is not None and (run.state is RunState.DONE or (run.attempt >= attempt and run.done > 0))


def kill_in_every_way(committed: Committed, both: Workers, step: Step) -> None:
    """Kill as soon as the run is claimed, then, in the next attempt, when it has begun to work."""
    wait_until(lambda: is_running(committed, step, 1), f"{step} to begin")
    orphans = both.step_processes()
    both.kill("learn", "light")
    wait_until(lambda: not any(map(lives, orphans)), "the step to follow its worker")
    wait_until(lambda: has_progress(committed, step, 2), f"{step} to work again")
    both.kill("learn")


def state_of(committed: Committed, round_id: int) -> RoundState:
    with committed() as session:
        return session.get_one(Round, round_id).state


def test_a_round_survives_kill_9_in_every_step(committed: Committed, tiny_folder: Path, artifacts: Path) -> None:
    with committed.begin() as session:
        project = small_project(session, tiny_folder, ppo={"episodes": 64})
        project_id, round_id = project.id, rounds.start_round(session, project, by=None, seed=1).id
    with workers() as both:
        kill_in_every_way(committed, both, Step.SAMPLE_RESPONSES)
        wait_until(lambda: state_of(committed, round_id) is RoundState.LABELLING, "the labellers' turn")
        with committed.begin() as session:
            labelled = label_all(session, session.get_one(Project, project_id))
        for step in (Step.FIT_REWARD_MODEL, Step.IMPROVE_POLICY, Step.EVALUATE_POLICY):
            kill_in_every_way(committed, both, step)
        wait_until(lambda: state_of(committed, round_id) is RoundState.PROMOTED, "the promotion")
        wait_until(lambda: no_jobs(committed), "the queue to be empty")
    with committed() as session:
        check_whole(session, artifacts, labelled)


def no_jobs(committed: Committed) -> bool:
    with committed() as session:
        query = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'run_step'"
        return session.scalar(text(query)) == 0


def check_whole(session: Session, artifacts: Path, labelled: int) -> None:
    """Nothing lost, nothing doubled."""
    runs = session.scalars(select(Run)).all()
    assert Counter(run.step for run in runs) == dict.fromkeys(Step, 1)
    assert {run.state for run in runs} == {RunState.DONE}
    assert all(run.attempt >= 2 and run.failures == 0 for run in runs), "\n".join(run.log for run in runs)
    count = {table: session.scalar(select(func.count()).select_from(table)) for table in (Snapshot, RewardModel, Label)}
    assert count == {Snapshot: 1, RewardModel: 2, Label: labelled}
    assert sorted(session.scalars(select(Policy.version))) == [0, 1]
    assert session.scalar(select(func.count()).select_from(PolicyScore)) == 4
    prompts = session.scalars(select(Comparison.prompt_id)).all()
    assert len(prompts) == len(set(prompts)) == labelled
    check_responses(session)
    stored = [*session.scalars(select(RewardModel)), *session.scalars(select(Policy).where(Policy.version == 1))]
    assert all(hash_folder(Path(row.uri)) == row.content_hash for row in stored)
    kept = {path.parent for path in artifacts.rglob("config.json")}
    assert kept == {Path(row.uri) for row in stored}


def check_responses(session: Session) -> None:
    """Every fresh response is compared once; on test prompts there are as many samples as were asked for."""
    fresh = session.scalars(select(Response.id).where(Response.purpose == ResponsePurpose.LABELLING)).all()
    compared = session.scalars(select(ComparisonResponse.response_id)).all()
    assert len(compared) == len(set(compared))
    assert set(compared) <= set(fresh)
    uncompared = session.execute(
        select(Response.prompt_id, func.count())
        .where(Response.id.in_(set(fresh) - set(compared)))
        .group_by(Response.prompt_id)
    ).all()
    assert all(number == 1 for _, number in uncompared)  # the only distinct answer to its prompt
    measured = session.execute(
        select(Response.policy_id, func.count())
        .where(Response.purpose == ResponsePurpose.EVALUATION)
        .group_by(Response.policy_id)
    ).all()
    assert [number for _, number in measured] == [12, 12]


def test_a_step_that_is_killed_alone_is_tried_again(committed: Committed, tiny_folder: Path) -> None:
    with committed.begin() as session:
        project = small_project(session, tiny_folder)
        round_id = rounds.start_round(session, project, by=None, seed=1).id
    with workers() as both:
        wait_until(lambda: bool(both.step_processes()), "a step's process")
        both.step_processes()[0].kill()
        wait_until(lambda: state_of(committed, round_id) is RoundState.LABELLING, "the labellers' turn")
    run = the_run(committed, Step.SAMPLE_RESPONSES)
    assert run is not None
    assert (run.attempt, run.failures) == (2, 1)
    assert "ended by SIGKILL" in run.log


def test_sigterm_hands_the_run_back_and_cancelling_ends_it(committed: Committed, tiny_folder: Path) -> None:
    with committed.begin() as session:
        project = small_project(session, tiny_folder)
        round_id = rounds.start_round(session, project, by=None, seed=1).id
    with workers() as both:
        wait_until(lambda: bool(both.step_processes()), "a step's process")
        orphans = both.step_processes()
    assert not any(map(lives, orphans))
    run = the_run(committed, Step.SAMPLE_RESPONSES)
    assert run is not None
    assert (run.state, run.failures) == (RunState.WAITING, 0)
    assert "the worker stops" in run.log
    with workers() as both:
        wait_until(lambda: bool(both.step_processes()), "the step's process again")
        orphans = both.step_processes()
        with committed.begin() as session:
            from tests.factories import make_person

            rounds.cancel_round(session, session.get_one(Round, round_id), make_person(session))
        wait_until(lambda: not any(map(lives, orphans)), "the step to end")
        wait_until(lambda: no_jobs(committed), "the queue to be empty")
    run = the_run(committed, Step.SAMPLE_RESPONSES)
    assert run is not None
    assert run.state is RunState.CANCELLED
    with committed() as session:
        assert session.scalar(select(func.count()).select_from(Response)) == 0

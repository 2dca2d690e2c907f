"""`prefloop simulate` labels a project over HTTP, on a real server, through pages and forms alone."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.commands import create_command
from app.domain import imports
from app.tables import Assignment, AssignmentState, Label, LabelRank, Project
from demo.preference import score
from demo.processes import Processes, free_port, wait_for
from tests.factories import make_project, make_prompt, make_responses

STORIES = [
    '"Come in," said the baker. "You look cold." They ate bread together, and both of them were happy and warm.',
    "He went away. He went away. He went away. He went away. He went away and he went",
]


@pytest.fixture
def address(database_url: str, tmp_path: Path) -> Iterator[str]:
    processes = Processes(tmp_path / "logs")
    port = free_port()
    try:
        processes.start("server", "app.commands", "serve", "--port", str(port))
        wait_for(f"http://127.0.0.1:{port}", processes)
        yield f"http://127.0.0.1:{port}"
    finally:
        processes.stop()


@pytest.fixture
def project(committed: sessionmaker[Session]) -> Project:
    """Twelve comparisons of a story that the preference likes and one that it does not, k = 2."""
    with committed.begin() as session:
        project = make_project(session, name="Simulated")
        rows = [make_responses(session, make_prompt(session, project), STORIES) for _ in range(12)]
        imports.open_comparisons(session, project, rows, 2)
        return project


def simulate(*arguments: str) -> str:
    result = CliRunner().invoke(create_command(), ["simulate", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_annotators_label_until_the_queue_is_empty(
    address: str, project: Project, committed: sessionmaker[Session]
) -> None:
    assert score(STORIES[0]) - score(STORIES[1]) > 3
    assert "10 labels by 4 annotators" in simulate(
        project.slug, "--annotators", "4", "--labels", "10", "--url", address
    )
    assert "14 labels by 4 annotators" in simulate(project.slug, "--annotators", "4", "--url", address)
    with committed() as session:
        per_annotator = Counter(session.scalars(select(Label.annotator_id)))
        places = Counter(session.execute(select(LabelRank.response_id, LabelRank.rank)).all())
        live = select(func.count()).select_from(Assignment).where(Assignment.state == AssignmentState.LIVE)
        assert session.scalar(live) == 0
    assert sum(per_annotator.values()) == 24
    assert len(per_annotator) == 8  # each run brings people of its own
    better = sum(times for (response_id, rank), times in places.items() if response_id % 2 == 1 and rank == 1)
    assert better >= 17  # all but the careless one's


def test_a_project_that_is_not_there_is_a_clear_error(address: str) -> None:
    result = CliRunner().invoke(create_command(), ["simulate", "nowhere", "--url", address])
    assert result.exit_code == 1
    assert "There is no project 'nowhere'" in result.output


def test_a_server_that_is_not_there_is_a_clear_error(project: Project) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(create_command(), ["simulate", project.slug, "--url", url])
    assert result.exit_code == 1
    assert url in result.output
    assert "prefloop up" in result.output


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_help_has_examples(command: str) -> None:
    result = CliRunner().invoke(create_command(), [command, "--help"])
    assert result.exit_code == 0
    assert "Examples:" in result.output

"""Does the command `prefloop` do what it says? Real processes, on a real database."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import httpx
import psutil
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app import embedded_postgres
from app.commands import create_command
from app.domain import people, sign_in
from tests.factories import make_person, make_project
from tests.factories_labelling import make_comparisons
from tests.factories_loop import label_all

Committed = sessionmaker[Session]
PATIENCE = 120.0  # seconds
NAMES = {"up", "down", "serve", "worker", "migrate", "import", "export", "user", "token", "demo", "simulate"}


def prefloop(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "app.commands", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def leaves(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, f"{path} {name}".strip())
    else:
        yield path, command


def test_every_command_has_help_and_an_example() -> None:
    command = create_command()
    assert set(command.list_commands(click.Context(command))) >= NAMES
    for name, leaf in leaves(command):
        assert leaf.help, name
        assert f"prefloop {name}" in (leaf.epilog or ""), f"prefloop {name} shows no example"


def test_commands_of_the_server_do_not_wait_for_torch() -> None:
    program = "import sys; from app.commands import main; sys.argv = ['prefloop', 'serve', '--help']; main()"
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    )
    assert "prefloop serve" in shown.stdout
    assert "torch" not in shown.stderr


def test_people_and_tokens(committed: Committed) -> None:
    made = prefloop("user", "create", "ada@example.org", "--name", "Ada", "--owner")
    assert made.returncode == 0, made.stderr
    assert prefloop("user", "list").stdout == "ada@example.org\tAda\towner\n"
    secret = re.search(r"/link/(\S+)", made.stdout)
    assert secret
    with committed.begin() as session:
        assert sign_in.use_sign_in_link(session, secret[1]).name == "Ada"
    assert prefloop("user", "set-password", "ada@example.org", given="a long secret\na long secret\n").returncode == 0
    token = prefloop("token", "create", "ada@example.org", "--name", "notebook").stdout.strip()
    with committed.begin() as session:
        person = sign_in.person_of_token(session, token)
    assert person is not None
    assert person.name == "Ada"
    listed = prefloop("token", "list", "ada@example.org").stdout
    number = listed.split("\t")[0]
    assert listed.split("\t")[2] == "notebook"
    assert token not in listed
    assert prefloop("token", "revoke", "ada@example.org", number).returncode == 0
    with committed.begin() as session:
        assert sign_in.person_of_token(session, token) is None


def test_owners_are_invited_and_people_erased(committed: Committed) -> None:
    for email in ("ada@example.org", "bob@example.org"):
        assert prefloop("user", "create", email, "--owner").returncode == 0
    link = prefloop("user", "invite", "ada@example.org").stdout
    with committed.begin() as session:
        assert people.read_invite(session, link.strip().rsplit("/", 1)[1]).project_id is None
    assert prefloop("user", "erase", "bob@example.org", "--yes").returncode == 0
    assert "bob" not in prefloop("user", "list").stdout
    assert "last owner" in prefloop("user", "erase", "ada@example.org", "--yes").stderr


def test_refusals_are_sentences(database_url: str) -> None:
    refused = prefloop("user", "link", "nobody@example.org")
    assert refused.returncode == 1
    assert refused.stderr == "Error: There is nobody with the address nobody@example.org: see `prefloop user list`.\n"


def test_a_database_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    refused = prefloop("user", "list")
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: The database does not answer:")


def test_import_says_line_and_reason_and_takes_what_was_chosen(committed: Committed, tmp_path: Path) -> None:
    with committed.begin() as session:
        slug = make_project(session).slug
    file = tmp_path / "prompts.jsonl"
    good = [json.dumps({"prompt": f"Question {number}?", "responses": ["one", "two"]}) for number in range(3)]
    file.write_text("\n".join([*good, '{"prompt": "x", "responses": [true]}', "{"]))
    preview = prefloop("import", str(file), "--project", slug, "--preview")
    assert preview.returncode == 0, preview.stderr
    assert "3 prompts, 6 responses, 3 comparisons, 2 errors" in preview.stdout
    assert re.findall(r"line (\d+): \S+", preview.stderr) == ["4", "5"]
    refused = prefloop("import", str(file), "--project", slug)
    assert refused.returncode == 1
    assert "Nothing was taken" in refused.stderr
    taken = prefloop("import", str(file), "--project", slug, "--only-good-rows", "--k", "2")
    assert "Taken: 3 prompts, 6 responses, 3 comparisons." in taken.stdout


def test_export_writes_a_snapshot(committed: Committed, tmp_path: Path) -> None:
    with committed.begin() as session:
        project = make_project(session, make_person(session, is_owner=True))
        make_comparisons(session, project, 2, responses=3)
        label_all(session, project)
        slug = project.slug
    pairs = prefloop("export", slug)
    assert pairs.returncode == 0, pairs.stderr
    rows = [json.loads(line) for line in pairs.stdout.splitlines()]
    assert len(rows) == 2 * 3
    assert {"prompt", "chosen", "rejected"} <= set(rows[0])
    file = tmp_path / "rankings.jsonl"
    assert prefloop("export", slug, "--format", "rankings", "--snapshot", "1", "--output", str(file)).returncode == 0
    assert len(file.read_text().splitlines()) == 2
    missing = prefloop("export", slug, "--snapshot", "9")
    assert (missing.returncode, missing.stderr) == (1, "Error: The project has no snapshot 9.\n")


def test_a_database_of_another_version_is_refused(committed: Committed) -> None:
    with committed.begin() as session:
        session.connection().exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    refused = prefloop("serve", "--port", "1")
    assert refused.returncode == 1
    assert "run `prefloop migrate`" in refused.stderr


# up and down


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, in which `up` brings its own database."""
    # Short, so that the database's socket fits into it.
    folder = Path(tempfile.mkdtemp(prefix="pl-"))
    folder.chmod(0o755)
    monkeypatch.setenv("PREFLOOP_HOME", str(folder))
    monkeypatch.setenv("PREFLOOP_HEARTBEAT_SECONDS", "1")
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("PREFLOOP_BASE_URL", raising=False)
    yield folder
    embedded_postgres.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


class Up:
    """A running `prefloop up`."""

    def __init__(self, home: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.log = home / "up.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.commands", "up", "--port", str(port)],
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def wait_for_answer(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                assert httpx.get(f"{self.address}/healthz").text == "ok"
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def live(processes: list[psutil.Process]) -> list[int]:
    """Those that still work; the embedded database is not among them."""

    def works(process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and "python" in process.name()
        except psutil.NoSuchProcess:
            return False

    return [process.pid for process in processes if works(process)]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + PATIENCE
    while live(processes):
        assert time.monotonic() < deadline, live(processes)
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgres_of(home: Path) -> bool:
    return (home / "postgres" / "postmaster.pid").exists()


@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("torch") is None, reason="`up` starts workers where torch is")
def test_up_runs_everything_and_takes_it_all_down_again(own_home: Path) -> None:
    up = Up(own_home, free_port())
    up.wait_for_answer()
    link = re.search(rf"{up.address}/link/\S+", up.log.read_text())
    assert link, up.log.read_text()
    with httpx.Client(follow_redirects=False) as browser:
        assert browser.get(link[0]).status_code in {200, 303}
    second = prefloop("up", "--port", str(free_port()))
    assert second.returncode == 1
    assert "runs already" in second.stderr
    deadline = time.monotonic() + PATIENCE
    while prefloop("worker", "--check").returncode != 0:
        assert time.monotonic() < deadline, up.log.read_text()
    started = up.children()
    assert len(live(started)) == 3, started
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(PATIENCE) == 0, up.log.read_text()
    wait_until_gone(started)
    assert not postgres_of(own_home)
    assert prefloop("down").stdout == "Nothing was running here.\n"


@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("torch") is None, reason="`up` starts workers where torch is")
def test_nothing_outlives_an_up_that_was_killed_but_the_database(own_home: Path) -> None:
    up = Up(own_home, free_port())
    up.wait_for_answer()
    started = up.children()
    up.process.kill()
    up.process.wait()
    wait_until_gone(started)
    assert postgres_of(own_home)
    assert prefloop("down").stdout == "Ended the embedded database.\n"
    assert not postgres_of(own_home)


def test_the_demo_project_comes_once(own_home: Path) -> None:
    """`up --demo` creates it where there is no project; here without the processes."""
    program = """
from app import schema
from app.commands.processes import _create_demo_project
schema.migrate()
_create_demo_project()
_create_demo_project()
from app.database import transaction
from app.tables import Project
from sqlalchemy import select
with transaction() as session:
    print([project.slug for project in session.scalars(select(Project))])
"""
    made = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert made.stdout == "['stories']\n", made.stderr

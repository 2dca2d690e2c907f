"""Which processes make a running prefloop? The database, a server and two workers, together or one by one."""

import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from importlib.util import find_spec

import click
import psutil
import uvicorn
from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from app import children, embedded_postgres, schema
from app.config import settings
from app.database import engine, transaction
from app.domain import people, sign_in
from app.jobs import LEARN, LIGHT
from app.tables import Person, Project

_LOOK_EVERY = 0.5  # seconds
_RESTART_AFTER = 2.0
_STOPPING_MAY_TAKE = 30.0
_FIRST_OWNER = "owner@prefloop.invalid"


@click.command(
    epilog="""\b
Examples:
  prefloop up
  prefloop up --demo --port 9000
  DATABASE_URL=postgresql://user:password@host/name prefloop up
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
@click.option("--demo", is_flag=True, help="Create the demo project where there is no project yet.")
def up(host: str, port: int, demo: bool) -> None:
    """Run everything in this terminal: database, migrations, server and workers. Ctrl-C ends it all.

    Where nobody can sign in yet, it prints a one-time link for the first owner.
    """
    home = settings().home
    pid_file = home / "up.pid"
    if (running := _running_up()) is not None:
        raise click.ClickException(f"`prefloop up` runs already, as process {running.pid}: see `prefloop down`.")
    schema.migrate()
    if demo:
        _create_demo_project()
    home.mkdir(parents=True, exist_ok=True)
    pid_file.write_text(str(os.getpid()))
    children.exit_on_signals()
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        _announce(port)
        _keep_running(host, port, started)
    finally:
        children.end(*started.values())
        engine().dispose()
        if settings().database_url is None:
            embedded_postgres.stop(home)
        pid_file.unlink(missing_ok=True)


def _keep_running(host: str, port: int, started: dict[str, subprocess.Popen[bytes]]) -> None:
    """Start server and workers; a worker that ends is started again, a server that ends ends it all."""
    commands: dict[str, tuple[str, ...]] = {"server": ("app.commands", "serve", "--host", host, "--port", str(port))}
    if find_spec("torch") is None:
        click.echo("No torch here, so no worker is started: pip install 'prefloop[worker]', or run one elsewhere.")
    else:
        commands |= {queue: ("worker", "--queue", queue) for queue in (LEARN, LIGHT)}
    for name, command in commands.items():
        started[name] = children.start(*command)
    while True:
        for name, child in started.items():
            if child.poll() is None:
                continue
            if name == "server":
                raise click.ClickException(f"The server ended with code {child.returncode}; its message is above.")
            click.echo(f"The {name} worker ended with code {child.returncode}; starting it again.", err=True)
            time.sleep(_RESTART_AFTER)
            started[name] = children.start(*commands[name])
        time.sleep(_LOOK_EVERY)


def _announce(port: int) -> None:
    address = settings().base_url if "PREFLOOP_BASE_URL" in os.environ else f"http://127.0.0.1:{port}"
    click.echo(f"prefloop runs on {address}")
    with transaction() as session:
        owner = _owner_without_password(session)
        if owner is not None:
            secret = sign_in.create_sign_in_link(session, owner)
            click.echo(f"Sign in as {owner.name} with this link, once, within the hour:\n  {address}/link/{secret}")
    click.echo("Ctrl-C ends it.")


def _owner_without_password(session: Session) -> Person | None:
    """The first owner, made where there is nobody; None as soon as any owner has a password to sign in with."""
    owner = select(Person).where(Person.is_owner, Person.erased_at.is_(None)).order_by(Person.id)
    if session.scalar(select(exists(owner.where(Person.password_hash.is_not(None)).subquery()))):
        return None
    first = session.scalar(owner.limit(1))
    return first or people.create_person(session, email=_FIRST_OWNER, name="Owner", is_owner=True)


def _create_demo_project() -> None:
    with transaction() as session:
        if session.scalar(select(Project.id).limit(1)) is None:
            # By name: the server's code knows nothing of the demo.
            project = import_module("demo.project")
            project.create(session, project.Plan())


@click.command(
    epilog="""\b
Examples:
  prefloop down
"""
)
def down() -> None:
    """End what `prefloop up` started here, and the embedded database."""
    process = _running_up()
    if process is not None:
        process.terminate()
        try:
            process.wait(_STOPPING_MAY_TAKE)
        except psutil.TimeoutExpired:
            process.kill()
        click.echo("Ended `prefloop up`.")
    if settings().database_url is None and embedded_postgres.stop(settings().home):
        click.echo("Ended the embedded database.")
    elif process is None:
        click.echo("Nothing was running here.")


def _running_up() -> psutil.Process | None:
    """The process of `prefloop up` in this home, if it lives."""
    try:
        process = psutil.Process(int((settings().home / "up.pid").read_text()))
        is_ours = process.status() != psutil.STATUS_ZOMBIE and "up" in process.cmdline()
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    return process if is_ours and process.pid != os.getpid() else None


@click.command(
    epilog="""\b
Examples:
  prefloop serve
  prefloop serve --host 0.0.0.0 --port 80
"""
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(1, 65535))
def serve(host: str, port: int) -> None:
    """Run one server; it keeps no state, so run as many as you like."""
    schema.require_current()
    children.when_parent_ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    uvicorn.run("app.main:create_app", factory=True, host=host, port=port, log_level="warning", proxy_headers=True)


@click.command(
    epilog="""\b
Examples:
  prefloop worker
  prefloop worker --queue learn
  PREFLOOP_DEVICE=cuda:1 prefloop worker --queue learn
"""
)
@click.option("--queue", type=click.Choice([LEARN, LIGHT, "all"]), default="all", show_default=True)
@click.option("--check", is_flag=True, help="Start nothing: end with code 0 if a worker is alive, else with 1.")
def worker(queue: str, check: bool) -> None:
    """Run one worker: learning steps come from `learn`, periodic work from `light`."""
    if queue != LIGHT and not check and find_spec("torch") is None:
        raise click.ClickException("A worker that learns needs torch: pip install 'prefloop[worker]'.")
    if not check:
        schema.require_current()
    arguments = [sys.executable, "-m", "worker", "--queue", queue, *(["--check"] if check else [])]
    os.execv(sys.executable, arguments)  # noqa: S606 - the same process, so that signals reach the worker itself


@click.command(
    epilog="""\b
Examples:
  prefloop migrate
"""
)
def migrate() -> None:
    """Bring the database to the schema of this version."""
    schema.migrate()
    click.echo("The database has the schema of this version.")

"""What can be tried out? `prefloop demo` proves the loop, `prefloop simulate` labels a project like people would."""

import os
import shutil
import sys
import time
from pathlib import Path
from threading import Event

import click
import httpx
from rich.console import Console
from rich.progress import Progress

from app import config, database, embedded_postgres
from app.domain import people, projects
from app.errors import Conflict
from app.tables import Role
from demo.annotators import join_all, label_all


@click.command(
    epilog="""\b
Examples:
  prefloop demo
  prefloop demo --seed 7 --no-stay
"""
)
@click.option("--seed", default=1, show_default=True, help="Of everything that is drawn.")
@click.option("--port", type=int, help="Where the server listens; left out: a free port.")
@click.option(
    "--stay/--no-stay", default=None, help="Leave the server up at the end; left out: if a terminal is attached."
)
def demo(seed: int, port: int | None, stay: bool | None) -> None:
    """Turn the whole loop twice with simulated annotators, then check what came out.

    Starts an embedded database, a server and workers of its own below .prefloop/demo, replacing the last demo's. At the
    end report.json and pairs.jsonl lie there, and the database is kept. Ends with code 1 if a check fails.
    """
    from demo.main import run_demo
    from demo.project import Plan

    is_attached = sys.stdin.isatty() and sys.stdout.isatty()
    sys.exit(
        run_demo(Plan(seed=seed), _fresh_home(), Console(), port=port, stays=is_attached if stay is None else stay)
    )


@click.command(
    epilog="""\b
Examples:
  prefloop simulate my-project --labels 200
  prefloop simulate my-project --annotators 20 --url https://labels.example.org --invite https://.../invites/...
"""
)
@click.argument("project")
@click.option("--annotators", default=8, show_default=True, type=click.IntRange(1, 200), help="How many label at once.")
@click.option("--labels", type=click.IntRange(1), help="Stop after so many; left out: when the queue is empty.")
@click.option("--url", help="The server's address; left out: PREFLOOP_BASE_URL.")
@click.option("--invite", help="An invite link for that many people; left out: one is made in the database.")
@click.option("--seed", default=1, show_default=True, help="Of the annotators' noise.")
def simulate(project: str, annotators: int, labels: int | None, url: str | None, invite: str | None, seed: int) -> None:
    """Label PROJECT (its slug) over HTTP like a browser without JavaScript, by the demo's preference.

    For load and for trying a project out: the labels are real rows and count. The server must be running.
    """
    address = url or config.settings().base_url
    link = invite or f"{address}/invites/{_invite(project, annotators)}"
    began = time.monotonic()
    try:
        everybody = join_all(address, project, link, annotators, seed)
        with Progress() as progress:
            bar = progress.add_task("labels", total=labels)
            done = label_all(everybody, Event(), lambda: progress.advance(bar), labels)
    except httpx.TransportError as error:
        raise click.ClickException(f"{address} does not answer ({error}): is `prefloop up` running?") from error
    seconds = time.monotonic() - began
    click.echo(f"{done} labels by {annotators} annotators in {seconds:.1f} s ({done / seconds:.1f} a second)")


def _invite(slug: str, annotators: int) -> str:
    """An invite for that many annotators, in the name of the project's creator; returns its secret."""
    with database.transaction() as session:
        project = projects.get_project(session, slug)
        if project.created_by_id is None:
            raise Conflict(f"Nobody is named as the creator of {slug}: make an invite link and pass it as --invite.")
        by = people.get_person(session, project.created_by_id)
        _, secret = people.create_invite(
            session, project_id=project.id, role=Role.ANNOTATOR, created_by=by, max_uses=annotators, days=1
        )
    return secret


def _fresh_home() -> Path:
    """An empty `.prefloop/demo`, which this process and its children call home."""
    home = (config.settings().home / "demo").resolve()
    if home.exists():
        embedded_postgres.stop(home)
        for leftover in ("postgres", "artifacts", "states", "logs", "report.json", "pairs.jsonl", "export.jsonl"):
            path = home / leftover
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    os.environ["PREFLOOP_HOME"] = str(home)
    for name in ("DATABASE_URL", "PREFLOOP_ARTIFACTS"):
        os.environ.pop(name, None)
    config.settings.cache_clear()
    database.engine.cache_clear()
    database._sessions.cache_clear()
    return home


demo_commands = [demo, simulate]

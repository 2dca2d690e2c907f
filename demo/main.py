"""What happens in `make demo`? The whole loop, from an empty folder to a report that has checked itself."""

import time
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import httpx
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from app import database, embedded_postgres, schema
from app.domain import projects, sign_in
from demo import check
from demo import project as demo_project
from demo.annotators import join_all
from demo.check import Pair, Report
from demo.loop import Api, Loop, LoopFailed, bars
from demo.processes import ProcessEnded, Processes, free_port, serving
from demo.project import DemoProject, Plan

_SHOWN_PAIRS = 3


def run_demo(plan: Plan, home: Path, console: Console, *, port: int | None = None, stays: bool = False) -> int:
    """Turn the loop as planned and check it; return the exit code. `home` is empty, and PREFLOOP_HOME names it."""
    began = time.monotonic()
    try:
        schema.migrate()
        with database.transaction() as session:
            created = demo_project.create(session, plan)
        with serving(home, port or free_port()) as (processes, address):
            console.print(f"The server is at {address}, its logs in {home / 'logs'}.")
            report, pairs = _turn_and_measure(plan, created, address, processes, console, home)
            report = replace(report, seconds=round(time.monotonic() - began, 1))
            check.write(home, report, pairs)
            _show(console, report, pairs)
            failures = check.failures(report, plan.rounds)
            for failure in failures:
                console.print(f"[bold red]Failed:[/] {failure}.")
            if stays:
                _stay(console, created, address, processes)
    except (LoopFailed, ProcessEnded, httpx.HTTPError) as error:
        console.print(f"[bold red]The demo broke off.[/] {escape(str(error))}\nThe logs are in {home / 'logs'}.")
        return 1
    except KeyboardInterrupt:
        console.print("Stopped.")
        return 130
    finally:
        database.engine().dispose()
        embedded_postgres.stop(home)
    if not failures:
        console.print(f"[bold green]The loop is closed.[/] How well: {home / 'report.json'}, pairs.jsonl beside it.")
    return 1 if failures else 0


def _turn_and_measure(
    plan: Plan, created: DemoProject, address: str, processes: Processes, console: Console, home: Path
) -> tuple[Report, list[Pair]]:
    """Let the annotators join, turn the loop, and measure what came out."""
    slug = created.project.slug
    annotators = join_all(address, slug, f"{address}/invites/{created.invite}", plan.annotators, plan.seed)
    with closing(Api(address, slug, created.token)) as api, bars(console) as progress:
        Loop(api, annotators, processes, progress).turn(plan.rounds)
        exported_rows = _export(api, home / "export.jsonl")
        return _measure(plan, slug, exported_rows, progress)


def _export(api: Api, path: Path) -> int:
    """Save everything that was labelled in TRL's preference format; return the number of rows."""
    number = api.post("snapshots")["number"]
    lines = api.lines(f"snapshots/{number}/export", format="trl")
    path.write_text("".join(f"{line}\n" for line in lines))
    return len(lines)


def _measure(plan: Plan, slug: str, exported_rows: int, progress: Progress) -> tuple[Report, list[Pair]]:
    bar = progress.add_task("the hidden preference compares", total=None, phase="")

    def tick(done: int, total: int) -> None:
        progress.update(bar, completed=done, total=total)

    with database.reading() as session:
        project = projects.get_project(session, slug)
        measured = check.measure(session, project, plan.pairs, plan.seed, tick)
        return check.report(session, project, measured, exported_rows, plan.seed), measured.pairs()


def _show(console: Console, report: Report, pairs: list[Pair]) -> None:
    """Print the report as a table, and some typical pairs."""
    table = Table("what", "value", title="The loop, checked")
    low, high = report.oracle_winrate_ci95
    for what, value in {
        "rounds": str(report.rounds),
        "labels / comparisons": f"{report.labels} / {report.comparisons}",
        "reward model's accuracy on test prompts": _figures(report.reward_heldout_accuracy),
        "wins over version 0, by the hidden preference": f"{report.oracle_winrate:.3f}  [{low:.3f}, {high:.3f}]",
        "the same, round by round": _figures(report.oracle_winrate_by_round),
        "KL to version 0, nats a story": _figures(report.kl),
        "stories that end, before and after": _figures(report.ended_rate.values()),
        "length after / before": f"{report.length_ratio:.2f}",
        "different word pairs, before and after": _figures(report.distinct_2.values()),
        "fresh comparisons in the queue": str(report.fresh_comparisons_in_queue),
        "exported rows": str(report.exported_rows),
        "weights lead back to labels": "yes" if report.lineage_ok else "NO",
        "seconds": f"{report.seconds:.0f}",
    }.items():
        table.add_row(what, value)
    console.print(table)
    for pair in _typical(pairs):
        console.rule()
        console.print(f"[bold]{escape(pair.opening)}[/]")
        console.print(f"[dim]before, {pair.before_score:.1f}:[/] {escape(' '.join(pair.before.split()))}")
        console.print(f"[dim]after, {pair.after_score:.1f}:[/] {escape(' '.join(pair.after.split()))}")


def _figures(values: Iterable[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _typical(pairs: list[Pair]) -> list[Pair]:
    """Pairs at the quartiles of what was gained: neither the best nor the worst."""
    ordered = sorted(pairs, key=lambda pair: pair.after_score - pair.before_score)
    return [ordered[len(ordered) * (place + 1) // (_SHOWN_PAIRS + 1)] for place in range(_SHOWN_PAIRS)]


def _stay(console: Console, created: DemoProject, address: str, processes: Processes) -> None:
    """Keep everything up for a look, until Ctrl-C."""
    with database.transaction() as session:
        secret = sign_in.create_sign_in_link(session, created.admin)
    console.print(f"Have a look: [bold]{address}/link/{secret}[/] signs you in as the admin. Ctrl-C ends the demo.")
    with suppress(KeyboardInterrupt):
        while True:
            processes.check()
            time.sleep(1)

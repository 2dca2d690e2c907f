"""How do files come in and go out without a page? Imports of prompts, exports of labels."""

from pathlib import Path
from typing import TextIO

import click

from app.database import reading, transaction
from app.domain import exports, imports, projects, snapshots
from app.errors import InvalidImport, NotFound
from app.tables import Import

_SHOWN_ERRORS = 20


@click.command(
    "import",
    epilog="""\b
Examples:
  prefloop import prompts.jsonl --project stories
  prefloop import answers.jsonl --project stories --only-good-rows --k 3
  prefloop import answers.jsonl --project stories --preview
""",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--project", "slug", required=True, help="The project's slug.")
@click.option("--only-good-rows", is_flag=True, help="Take the good rows although others are bad.")
@click.option("--k", type=click.IntRange(1), help="Labels wanted for each comparison; left out: the project's own.")
@click.option("--preview", is_flag=True, help="Say what would be taken, and take nothing.")
def import_prompts(file: Path, slug: str, only_good_rows: bool, k: int | None, preview: bool) -> None:
    """Read prompts, with responses where they have them, from a JSONL FILE (docs/formats.md)."""
    with transaction() as session:
        project = projects.get_project(session, slug)
        import_ = imports.preview_import(session, project, file.name, file.read_bytes(), None)
        _show(import_)
        if preview:
            imports.discard_import(session, import_, None)
            return
        if import_.report["errors"] and not only_good_rows:
            raise InvalidImport("Nothing was taken. Mend these lines, or take the others with --only-good-rows.")
        taken = imports.take_import(session, import_, only_good_rows=only_good_rows, by=None, k=k)
    click.echo(f"Taken: {taken.prompts} prompts, {taken.responses} responses, {taken.comparisons} comparisons.")


def _show(import_: Import) -> None:
    report = import_.report
    click.echo(
        f"{report['rows']} rows: {report['prompts']} prompts, {report['responses']} responses,"
        f" {report['comparisons']} comparisons, {len(report['errors'])} errors"
    )
    for error in report["errors"][:_SHOWN_ERRORS]:
        click.echo(f"  line {error['line']}: {error['reason']}", err=True)
    if len(report["errors"]) > _SHOWN_ERRORS:
        click.echo(f"  and {len(report['errors']) - _SHOWN_ERRORS} more", err=True)


_FORMATS = [one.value for one in exports.Format]


@click.command(
    "export",
    epilog="""\b
Examples:
  prefloop export stories > pairs.jsonl
  prefloop export stories --format rankings --output rankings.jsonl
  prefloop export stories --snapshot 3
""",
)
@click.argument("project")
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="trl", show_default=True)
@click.option("--snapshot", "number", type=int, help="An older snapshot's number; left out: one is taken now.")
@click.option("--output", type=click.File("w", encoding="utf-8", atomic=True), default="-", help="Left out: stdout.")
def export_labels(project: str, format_: str, number: int | None, output: TextIO) -> None:
    """Write the labels of PROJECT (its slug) as JSONL that trainers read, frozen in a snapshot."""
    with transaction() as session:
        project_id = projects.get_project(session, project).id
        if number is None:
            number = snapshots.take_snapshot(session, project_id).number
    with reading() as session:
        snapshot = next((row for row in snapshots.list_snapshots(session, project_id) if row.number == number), None)
        if snapshot is None:
            raise NotFound(f"The project has no snapshot {number}.")
        lines = 0
        for line in exports.lines(session, snapshot, exports.Format(format_)):
            output.write(line.rstrip("\n") + "\n")
            lines += 1
    click.echo(f"{lines} lines from snapshot {number}, {snapshot.content_hash[:12]}", err=True)

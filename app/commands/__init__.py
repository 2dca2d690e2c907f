"""What does the command `prefloop` do? Everything that the pages do not: processes, people, files."""

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click
from sqlalchemy.exc import OperationalError

from app.commands.files import export_labels, import_prompts
from app.commands.people import token, user
from app.commands.processes import down, migrate, serve, up, worker
from app.errors import PrefloopError


class _Group(click.Group):
    """Shows refusals as they stand, without a traceback; reads others' sub-commands only where they are asked for.

    Learning's bring torch, which takes seconds that `prefloop serve` need not wait for.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        for entry in _others():
            self._take(entry)
        return super().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in _others():
            if cmd_name in self.commands:
                break
            self._take(entry)
        return super().get_command(ctx, cmd_name)

    def _take(self, entry: EntryPoint) -> None:
        try:
            for command in entry.load():
                self.add_command(command)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] in {"app", "worker", "demo"}:
                raise
            self.add_command(_missing(entry.name, error.name))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PrefloopError as error:
            raise click.ClickException(str(error)) from error
        except OperationalError as error:
            raise click.ClickException(f"The database does not answer: {error.orig}") from error


server_commands = [up, down, serve, worker, migrate, import_prompts, export_labels, user, token]


def create_command() -> click.Group:
    """The command with all its sub-commands, those of the worker and the demo included where they can be loaded."""
    group = _Group(
        "prefloop",
        help="People rank what a model writes; the model learns from it; people rank what it writes next.",
        epilog="Settings are environment variables, listed in docs/settings.md. Begin with `prefloop up`.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    for command in server_commands:
        group.add_command(command)
    return group


def _others() -> list[EntryPoint]:
    """Who else brings sub-commands, by name: the demo before learning, which takes longest to read."""
    entries = entry_points(group="prefloop.commands")
    return sorted((entry for entry in entries if entry.name != "server"), key=lambda entry: entry.name)


def _missing(name: str, module: str) -> click.Command:
    """Stands in for commands whose libraries are not installed, and says so."""
    anything = {"ignore_unknown_options": True}

    @click.command(name, help=f"Needs {module}: pip install 'prefloop[worker]'.", context_settings=anything)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def missing(arguments: tuple[str, ...]) -> None:  # noqa: ARG001
        raise click.ClickException(f"This needs {module}: pip install 'prefloop[worker]'.")

    return missing


def main() -> None:
    """Entry point of `prefloop`."""
    create_command()(prog_name="prefloop")

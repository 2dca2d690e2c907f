"""Where do weights lie? In folders below one URI, written aside before any row names them."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fsspec

from app.config import settings
from app.tables import Run
from worker.learning.checkpoints import hash_folder, written_aside


@dataclass(frozen=True)
class Artifact:
    """A stored folder: where it lies, and the sha256 over its files."""

    uri: str
    content_hash: str


def store(run: Run, attempt: int, name: str, write: Callable[[Path], None]) -> Artifact:
    """Keep what `write` puts into the folder that it is given.

    The folder's name holds run and attempt, so no attempt ever writes into what another one has stored.
    """
    uri = f"{_attempt_uri(run, attempt)}/{name}"
    if _is_local(uri):
        folder = _path(uri)
        write(folder)
        return Artifact(str(folder), hash_folder(folder))
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside) / name
        write(folder)
        files, place = fsspec.core.url_to_fs(uri)
        files.put(f"{folder}/", f"{place}/", recursive=True)
        return Artifact(uri, hash_folder(folder))


def discard_earlier(run: Run, attempt: int) -> None:
    """Remove what earlier attempts of a run stored and no row came to name."""
    for earlier in range(1, attempt):
        files, place = fsspec.core.url_to_fs(_attempt_uri(run, earlier))
        if files.exists(place):
            files.rm(place, recursive=True)


def states(run: Run, name: str) -> Path:
    """The folder of this machine where a run keeps what its next attempt goes on from."""
    return _states() / str(run.id) / name


def runs_with_states() -> list[int]:
    """The ids of the runs that keep something here for their next attempt."""
    return [int(folder.name) for folder in _states().glob("*") if folder.name.isdecimal()]


def discard_states(run_id: int) -> None:
    """Remove what a run that has ended kept for its next attempt."""
    shutil.rmtree(_states() / str(run_id), ignore_errors=True)


def local(uri: str, content_hash: str | None = None) -> str:
    """What `from_pretrained` loads: a hub name or local folder as it is, anything remote from a local copy of it.

    Raises ValueError where the copy is not what was stored.
    """
    if _is_local(uri):
        return str(_path(uri)) if uri.startswith("file://") else uri
    name = content_hash or uri.rsplit("/", 1)[-1]
    folder = (settings().home / "cache" / name).resolve()
    if not folder.exists():
        with written_aside(folder) as aside:
            files, place = fsspec.core.url_to_fs(uri)
            files.get(f"{place}/", f"{aside}/", recursive=True)
    if content_hash is not None and hash_folder(folder) != content_hash:
        raise ValueError(f"the files of {uri} are not those that were stored: their hash differs")
    return str(folder)


def _states() -> Path:
    return settings().home.absolute() / "states"


def _attempt_uri(run: Run, attempt: int) -> str:
    return f"{settings().artifacts_uri}/project-{run.project_id}/{run.step}-{run.id}-{attempt}"


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://")).absolute()

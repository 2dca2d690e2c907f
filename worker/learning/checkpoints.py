"""How are folders and files written so that a kill at any instant loses nothing? Aside, fsync, rename."""

import glob
import hashlib
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

STATE_TENSORS = "state.safetensors"
STATE_FACTS = "state.json"
_STATES = "step-" + "[0-9]" * 8


@contextmanager
def written_aside(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write into; it takes the place of `folder` when the block ends well.

    Whoever looks at `folder` finds what stood there before or everything new, never a part. A
    block that raises changes nothing. What a killed process left aside is removed by the next
    writer on the same machine. An old folder is moved away first, since no system call swaps two
    full folders everywhere: a kill between these two renames leaves nothing at `folder`, and
    running again writes it. Where `folder` is a link, the folder that it leads to is written.
    """
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder.parent, glob.escape(folder.name))
    aside = _beside(folder, "new")
    aside.mkdir()
    try:
        yield aside
        sync_folder(aside)
        old = _beside(folder, "old")
        with suppress(FileNotFoundError):
            folder.rename(old)
        aside.rename(folder)
        _sync(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_whole(file: Path, text: str) -> None:
    """Writes a text so that whoever looks finds what stood there before or all of it, also after a kill."""
    aside = file.with_name(f".{file.name}.new")
    with aside.open("w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    aside.replace(file)


def sync_folder(folder: Path) -> None:
    """Forces every file and folder below `folder`, and itself, to the disk."""
    for path in sorted(folder.rglob("*")):
        _sync(path)
    _sync(folder)


def hash_folder(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below a folder, as hexadecimal digits.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{content}  {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()


def state_folder(folder: Path, step: int) -> Path:
    """Where the state after a step stands."""
    return folder / f"step-{step:08d}"


def save_state(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Writes a resumable training state to `folder/step-00000123` and drops the older ones.

    No two of the tensors may share memory; `facts` are what JSON can hold.
    """
    place = state_folder(folder, step)
    with written_aside(place) as aside:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, aside / STATE_TENSORS)
        (aside / STATE_FACTS).write_text(json.dumps({"step": step, **facts}, indent=2) + "\n")
    for older in _states(folder):
        if older != place:
            shutil.rmtree(older)
    return place


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The tensors, on the CPU, and facts of the newest state in `folder`; None if there is none."""
    states = _states(folder)
    if not states:
        return None
    facts: dict[str, Any] = json.loads((states[-1] / STATE_FACTS).read_text())
    return load_file(states[-1] / STATE_TENSORS), facts


def remove_states(folder: Path, below: Sequence[str] = ()) -> None:
    """Removes the training states in `folder`, and the folder if nothing else is in it.

    Args:
        folder: where states stand, or stood.
        below: patterns of the names of folders in it, and in these, that hold states of their own.
    """
    for pattern in below:
        for inner in folder.glob(pattern):
            remove_states(inner, below)
    _remove_leftovers(folder, _STATES)
    for state in _states(folder):
        shutil.rmtree(state)
    with suppress(OSError):
        folder.rmdir()


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything an optimiser remembers of its parameters, as named tensors: "7.exp_avg"."""
    remembered = optimiser.state_dict()["state"]
    return {f"{index}.{name}": value for index, state in remembered.items() for name, value in state.items()}


def restore_optimiser(
    optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor], *, complete: bool = True
) -> None:
    """Puts back what `optimiser_tensors` gave.

    Args:
        optimiser: of the same parameters.
        tensors: by name.
        complete: whether it remembered all of its parameters; it knows none of which it has never seen a gradient.

    Raises:
        ValueError: if the tensors belong to another set of parameters.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = value
    parameters = sum(len(group["params"]) for group in optimiser.param_groups)
    if max(state, default=-1) >= parameters or (complete and len(state) != parameters):
        raise ValueError(f"the state of {len(state)} parameters does not fit an optimiser of {parameters}")
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def _states(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(_STATES) if path.is_dir())


def _beside(folder: Path, kind: str) -> Path:
    """A hidden name next to `folder` that tells which process on which machine made it."""
    return folder.parent / f".{folder.name}.{kind}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"


def _remove_leftovers(parent: Path, pattern: str) -> None:
    """Removes what dead processes of this machine left in `parent` beside folders of this name."""
    for kind in ("new", "old"):
        for path in parent.glob(f".{pattern}.{kind}.{glob.escape(socket.gethostname())}.*.*"):
            process = path.name.split(".")[-2]
            if process.isdecimal() and not _lives(int(process)):
                shutil.rmtree(path, ignore_errors=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""May a command write its model where it is told to? That is known before the work, and one process alone may."""

import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WITHOUT_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}
"""What file systems answer that lock no files: work goes on there as if it were alone."""


@contextmanager
def reserved(out: Path, sign: str, what: str) -> Iterator[Path]:
    """Gives the folder for checkpoints beside `out`; until the block ends no other process gets it, or `out`.

    Where `out` is a link, the folder that it leads to is the one that is meant. The kernel lets go of what a killed
    process had reserved.

    Args:
        out: the folder that will be written as a whole.
        sign: a file that tells that what stands there now may be replaced.
        what: is then there, in words.

    Raises:
        ValueError: if it cannot be written, holds something else, or another process writes there.
    """
    folder = out.resolve()
    _check_replaceable(out, sign, what)
    _check_writable(out, folder)
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _locked(folder.with_name(f".{folder.name}.lock"), out):
            yield checkpoints_beside(out)
    finally:
        for parent in missing:  # what is refused leaves nothing behind
            with suppress(OSError):
                parent.rmdir()


def checkpoints_beside(out: Path) -> Path:
    """The folder in which work on `out` is kept until it is done."""
    folder = out.resolve()
    return folder.with_name(f"{folder.name}.checkpoints")


def _check_replaceable(out: Path, sign: str, what: str) -> None:
    """The folder is replaced as a whole, so it must not hold anything else."""
    if out.is_dir() and any(out.iterdir()) and not (out / sign).is_file():
        raise ValueError(f"{out} holds other things than {what}, and would be replaced: name another folder")


def _check_writable(out: Path, folder: Path) -> None:
    if folder.is_mount():
        raise ValueError(f"{out} is a mount point, which no other folder can replace: name a folder in it")
    there = next(parent for parent in folder.parents if parent.exists())
    if not there.is_dir():
        raise ValueError(f"{out} cannot be written: {there} is a file")
    try:
        Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=there)).rmdir()
    except OSError as error:
        raise ValueError(f"{out} cannot be written, since nothing can be in {there}: {error.strerror}") from error


@contextmanager
def _locked(file: Path, out: Path) -> Iterator[None]:
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, out)
            if not _is_at(descriptor, file):
                continue  # the one who had it has just removed it
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ValueError(f"another process is writing {out}: wait for it to end, or name another folder") from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise


def _is_at(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False

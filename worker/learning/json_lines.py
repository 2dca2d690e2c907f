"""What stands in a file of JSON Lines, plain or gzipped, which of its lines cannot be read, and how is one written?"""

import gzip
import json
import os
import re
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

SHOWN_ERRORS = 10
LONGEST_REASON = 300  # characters; it may quote the line
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_GZIP = b"\x1f\x8b"
_HALF_CHARACTER = re.compile(rb"\\u[dD][89abAB]")

Json = Any
Row = Mapping[str, Json]
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class LineError:
    """A line that cannot be read: its number, 1 first, and why."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.reason}"


def refusal(path: Path, bad: Sequence[LineError]) -> str:
    """One sentence for all bad lines, the first ten by name."""
    shown = "\n".join(f"  {one}" for one in bad[:SHOWN_ERRORS])
    more = f"\n  and {len(bad) - SHOWN_ERRORS:,} more" if len(bad) > SHOWN_ERRORS else ""
    count = "1 line" if len(bad) == 1 else f"{len(bad):,} lines"
    return f"{path}: {count} cannot be read, and nothing was done\n{shown}{more}"


def each_line(path: Path, parse: Callable[[Json], Parsed]) -> Iterator[tuple[Row, Parsed | LineError]]:
    """Every line that is not blank, as it stands and as what it says; what cannot be read is given with its reason.

    Args:
        path: JSON Lines, plain or gzipped.
        parse: reads the value of a line, and raises ValueError with a sentence where it cannot.

    Raises:
        ValueError: if the file itself cannot be read.
    """
    for number, content in _numbered(path):
        try:
            row = _decode(content)
            yield row, parse(row)
        except ValueError as error:
            yield {}, LineError(number, shorten(str(error), LONGEST_REASON, placeholder=" ..."))
        except RecursionError:
            yield {}, LineError(number, "it is nested too deeply")


def _numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with _opened(path) as file:
            for number, content in enumerate(file, start=1):
                if number == 1 and content.startswith(_UTF16):
                    raise ValueError(f"{path} is UTF-16: save it as UTF-8")
                content = content.removeprefix(_BOM) if number == 1 else content  # noqa: PLW2901
                if content.strip():
                    yield number, content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is a broken gzip file ({error}): write it again") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


@contextmanager
def _opened(path: Path) -> Iterator[BufferedIOBase]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == _GZIP
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if is_gzip else file


def _decode(content: bytes) -> Json:
    try:
        row = json.loads(content.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start + 1}") from error
    except json.JSONDecodeError as error:
        if content.lstrip().startswith(b"["):
            raise ValueError("it begins a JSON array: write one object a line instead") from error
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
    if _HALF_CHARACTER.search(content):
        _check_characters(row)
    return row


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows: write null where there is none")


def _check_characters(row: Json) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"it holds {half!a}, half of a surrogate pair, which is no character") from error


@contextmanager
def written_lines(out: Path) -> Iterator[Callable[[Row], None]]:
    """Gives a function that writes a line; the file takes the place of `out` when the block ends well.

    A block that raises leaves nothing. The file is gzipped if its name ends so. Where `out` is a link, the file that it
    leads to is written.
    """
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        with aside.open("xb") as file:
            if out.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    yield _writer(packed)
            else:
                yield _writer(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)


def _writer(file: BufferedIOBase) -> Callable[[Row], None]:
    def write(row: Row) -> None:
        file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())

    return write

"""Where do labels come from where there is no server, and where do scores go? JSON Lines, plain or gzipped."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from worker.learning.json_lines import Json, LineError, Row, each_line, refusal, written_lines
from worker.learning.progress import Progress, Report, silent
from worker.learning.records import Label, Prompt
from worker.learning.reward.lines import Line, is_scored, parse_line
from worker.learning.reward.model import Scored

EXAMPLE = 'a line is {"prompt": "...", "responses": ["...", "..."], "ranking": [[0], [1]]}'
SCORED_AT_ONCE = 512

Scorer = Callable[[Sequence[Prompt], Sequence[str]], Scored]
"""What is said of responses, each to its own prompt."""
ADDED = ("scores", "deviations", "outputs")
"""The keys of a line that scoring writes."""

Read = tuple[Row, Line | LineError]
"""A line as it stands and what it says; without the former where it cannot be read."""


# Reading


def labels_of(lines: Sequence[Line]) -> list[Label]:
    """The labels of all lines, in their order."""
    return list(chain.from_iterable(line.labels for line in lines))


def read_lines(
    path: Path, skipped: list[LineError] | None = None, parse: Callable[[Json], Line] = parse_line
) -> list[Line]:
    """The lines of a file; those that cannot be read are put into `skipped` where it is given.

    Args:
        path: JSON Lines; docs/reward.md says what a line may hold.
        parse: as `parse_line`; it may refuse more.

    Raises:
        ValueError: if a line cannot be read, naming the first ten that cannot, or if there is none.
    """
    lines: list[Line] = []
    bad: list[LineError] = []
    for _row, line in each_line(path, parse):
        if isinstance(line, LineError):
            bad.append(line)
        else:
            lines.append(line)
    if skipped is not None:
        skipped += bad
    elif bad:
        raise ValueError(refusal(path, bad))
    if not lines:
        raise ValueError(f"{path} has no line that can be read: {EXAMPLE}")
    return lines


# Scoring


def score_file(path: Path, out: Path, score: Scorer, report: Report = silent) -> int:
    """Writes every line of a file with what is said of its responses, and says how many lines there are.

    `scores` and `deviations` have a number a response, and so has each of the `outputs`. What people wrote under
    these keys is kept as `given_scores` and so on; `given_scores` is null where they gave none, and so tells that a
    model has scored the line. The file is read twice, so that nothing is written where a line is bad, and in pieces,
    so that it may be larger than memory. `out` appears when it is complete; it is gzipped if its name ends
    so, and may be the file itself.

    Raises:
        ValueError: if a line cannot be read, or there is none.
    """
    total = _count(path)
    done = 0
    with written_lines(out) as write:
        for lines in _pieces(each_line(path, parse_line), SCORED_AT_ONCE):
            for row in _scored(lines, score):
                write(row)
            done += len(lines)
            report(Progress("score", done, total))
    return done


def _count(path: Path) -> int:
    """The lines of a file, once all are known to be good."""
    total, bad = 0, []
    for _row, line in each_line(path, parse_line):
        total += 1
        if isinstance(line, LineError):
            bad.append(line)
    if bad:
        raise ValueError(refusal(path, bad))
    if not total:
        raise ValueError(f"{path} is empty: {EXAMPLE}")
    return total


def _pieces(lines: Iterator[Read], size: int) -> Iterator[list[Read]]:
    while piece := list(islice(lines, size)):
        yield piece


def _scored(lines: Sequence[Read], score: Scorer) -> Iterator[dict[str, Json]]:
    asked = [(line.prompt, response) for _row, line in lines if isinstance(line, Line) for response in line.responses]
    said = score(*zip(*asked, strict=True))
    start = 0
    for row, line in lines:
        if not isinstance(line, Line):
            raise ValueError(f"a line has changed while the file was scored: {line}")  # noqa: TRY004
        own = slice(start, start := start + len(line.responses))
        yield _kept(row) | _said(said, own)


def _kept(row: Row) -> dict[str, Json]:
    """A line without what an earlier scoring added; what people wrote under the same keys is `given_` from now on."""
    kept = {key: value for key, value in row.items() if key not in ADDED}
    if not is_scored(row):
        kept |= {f"given_{key}": row[key] for key in ADDED if row.get(key) is not None}
    return {**kept, "given_scores": kept.get("given_scores")}


def _said(said: Scored, own: slice) -> dict[str, Json]:
    """What is added to a line."""
    scores = said.scores[own].tolist()
    deviations = [None] * len(scores) if said.deviations is None else said.deviations[own].tolist()
    outputs = {output: values[own].tolist() for output, values in said.outputs.items()}
    return {"scores": scores, "deviations": deviations} | ({"outputs": outputs} if outputs else {})

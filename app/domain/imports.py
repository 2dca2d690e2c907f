"""What comes in by file? An upload is read and checked first, then taken or thrown away, as an admin decides."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from app.config import settings
from app.domain import audit, comparisons, prompts
from app.domain.filters import one_of
from app.domain.formats import LineError, Row, parse_lines
from app.domain.projects import settings_of
from app.domain.writable import require_writable
from app.errors import Conflict, Invalid, InvalidImport, NotFound
from app.language import gettext as _
from app.language import grouped
from app.tables import (
    Comparison,
    ComparisonResponse,
    ComparisonState,
    Import,
    ImportState,
    Person,
    Project,
    Purpose,
    Response,
)

T = TypeVar("T")

_LISTED_ERRORS = 500
_SHOWN_ROWS = 5
_SHOWN_CHARACTERS = 500


@dataclass(frozen=True)
class TakenImport:
    """What an import added: prompts, responses and comparisons that were not there before."""

    prompts: int
    responses: int
    comparisons: int


def preview_import(session: Session, project: Project, filename: str, content: bytes, by: Person | None) -> Import:
    """Keep an upload and say what is in it; nothing is taken yet. Raises Invalid where it is empty or too large.

    The report: `rows` (lines with something in them), `good_rows`, `prompts`, `responses` and `comparisons` in the
    good rows, `bad_rows`, `errors` (the first 500, each with `line` and `reason`), and a `sample` of the first rows.
    """
    require_writable(session, project.id)
    if len(content) > settings().max_upload_mb * 1_000_000:
        raise Invalid(
            _(
                "The file is larger than %(megabytes)s MB: split it, or raise PREFLOOP_MAX_UPLOAD_MB.",
                megabytes=settings().max_upload_mb,
            )
        )
    report = _report(content, comparisons.fewest_responses(session, project.id))
    if not report["rows"]:
        raise Invalid(_("The file is empty: there is no line with a prompt in it."))
    kept = Import(
        project_id=project.id,
        filename=_shown_name(filename),
        content=content,
        state=ImportState.PREVIEWED,
        report=report,
        created_by_id=by.id if by else None,
    )
    session.add(kept)
    session.flush()
    return kept


def _shown_name(filename: str) -> str:
    return "".join(character for character in filename if character.isprintable())[-200:].strip() or "upload.jsonl"


def _report(content: bytes, fewest: int) -> dict[str, Any]:
    counted = ("rows", "good_rows", "bad_rows", "prompts", "responses", "comparisons")
    report: dict[str, Any] = dict.fromkeys(counted, 0)
    errors: list[dict[str, Any]] = []
    sample: list[dict[str, Any]] = []
    for row in parse_lines(content):
        report["rows"] += 1
        if isinstance(row, LineError):
            report["bad_rows"] += 1
            if len(errors) < _LISTED_ERRORS:
                errors.append({"line": row.line, "reason": row.reason})
            continue
        report["good_rows"] += 1
        report["prompts"] += len(row.prompts)
        report["responses"] += sum(len(prompt.responses) for prompt in row.prompts)
        report["comparisons"] += sum(len(parts(prompt.responses, fewest)) for prompt in row.prompts)
        if len(sample) < _SHOWN_ROWS:
            sample.append(_shown_row(row))
    return report | {"errors": errors, "sample": sample}


def _shown_row(row: Row) -> dict[str, Any]:
    prompt = row.prompts[0]
    return {
        "line": row.line,
        "messages": [
            {"role": message["role"], "content": str(message["content"])[:_SHOWN_CHARACTERS]}
            for message in prompt.messages
        ],
        "responses": [
            {"system": response.system, "text": response.text[:_SHOWN_CHARACTERS]} for response in prompt.responses
        ],
    }


def parts(responses: Sequence[T], fewest: int = 2) -> list[Sequence[T]]:
    """Responses to one prompt as comparisons: none for fewer than `fewest`, several of even size for more than nine."""
    if len(responses) < fewest:
        return []
    count = -(-len(responses) // comparisons.MOST)
    cuts = [place * len(responses) // count for place in range(count + 1)]
    return [responses[start:end] for start, end in pairwise(cuts)]


def take_import(
    session: Session, import_: Import, *, only_good_rows: bool, by: Person | None, k: int | None = None
) -> TakenImport:
    """Store a previewed file's prompts and responses and open a comparison for each set of 2 to 9 responses.

    Where the project's form judges each response by itself, one is enough. `k` labels are wanted for each comparison,
    the project's own number where none is given. What the project has already is not doubled. Raises InvalidImport
    where lines are bad and `only_good_rows` is not set; Conflict where it was taken or discarded already.
    """
    content = _lock_previewed(session, import_)
    project = session.get_one(Project, import_.project_id)
    require_writable(session, project.id)
    rows = list(parse_lines(content))
    errors = [{"line": row.line, "reason": row.reason} for row in rows if isinstance(row, LineError)]
    if errors and not only_good_rows:
        raise InvalidImport(
            _(
                "%(bad)s of %(all)s lines cannot be taken: mend them, or take only the good rows.",
                bad=grouped(len(errors)),
                all=grouped(len(rows)),
            ),
            details={"errors": errors[:_LISTED_ERRORS]},
        )
    if len(errors) == len(rows):
        raise InvalidImport(_("No line of the file can be taken."), details={"errors": errors[:_LISTED_ERRORS]})
    good = (prompt for row in rows if isinstance(row, Row) for prompt in row.prompts)
    added = prompts.add_prompts(session, project, good, import_id=import_.id)
    opened = open_comparisons(session, project, added.responses, settings_of(project).k if k is None else k)
    taken = TakenImport(added.added, added.added_responses, opened)
    import_.state = ImportState.TAKEN
    import_.content = None
    import_.report = import_.report | {"taken": asdict(taken)}
    audit.record(session, "import.take", project_id=project.id, by=by, subject_id=import_.id, details=asdict(taken))
    session.flush()
    return taken


def _lock_previewed(session: Session, import_: Import) -> bytes:
    session.refresh(import_, with_for_update=True)
    if import_.state is not ImportState.PREVIEWED or import_.content is None:
        raise Conflict(_("This upload was %(state)s already.", state=_(import_.state)))
    return import_.content


def open_comparisons(session: Session, project: Project, responses: Sequence[Sequence[Response]], k: int) -> int:
    """Open the comparisons that are not there yet; return how many."""
    # In one order, so that rows that list the same responses differently are one comparison.
    fewest = comparisons.fewest_responses(session, project.id)
    wanted = [
        tuple(sorted(response.id for response in part)) for of_prompt in responses for part in parts(of_prompt, fewest)
    ]
    prompt_of = {response.id: response.prompt_id for of_prompt in responses for response in of_prompt}
    known = _compared_sets(session, project.id, set(prompt_of.values()))
    new = [ids for ids in dict.fromkeys(wanted) if frozenset(ids) not in known]
    opened = comparisons.create_comparisons(
        session,
        [
            comparisons.NewComparison(
                project_id=project.id,
                prompt_id=prompt_of[ids[0]],
                response_ids=ids,
                k=k,
                purpose=Purpose.TRAIN,
                selected_because="imported",
            )
            for ids in new
        ],
    )
    return len(opened)


def _compared_sets(session: Session, project_id: int, prompt_ids: set[int]) -> set[frozenset[int]]:
    """Which responses to these prompts stand in a comparison together; importing again brings back a retired one."""
    query = (
        select(ComparisonResponse.comparison_id, ComparisonResponse.response_id)
        .join(Comparison, Comparison.id == ComparisonResponse.comparison_id)
        .where(
            Comparison.project_id == project_id,
            Comparison.state != ComparisonState.RETIRED,
            one_of(Comparison.prompt_id, list(prompt_ids)),
        )
    )
    sets: dict[int, set[int]] = {}
    for comparison_id, response_id in session.execute(query):
        sets.setdefault(comparison_id, set()).add(response_id)
    return {frozenset(ids) for ids in sets.values()}


def discard_import(session: Session, import_: Import, by: Person | None) -> None:
    """Throw a previewed upload away. Raises Conflict where it was taken or discarded already."""
    _lock_previewed(session, import_)
    import_.state = ImportState.DISCARDED
    import_.content = None
    audit.record(session, "import.discard", project_id=import_.project_id, by=by, subject_id=import_.id)
    session.flush()


def get_import(session: Session, project_id: int, import_id: int) -> Import:
    """An upload of the project. Raises NotFound."""
    found = session.scalar(
        select(Import).where(Import.project_id == project_id, Import.id == import_id).options(defer(Import.content))
    )
    if found is None:
        raise NotFound(_("There is no import %(number)s in this project.", number=import_id))
    return found


def list_imports(session: Session, project_id: int, limit: int = 50) -> Sequence[Import]:
    """The project's uploads, newest first."""
    return session.scalars(
        select(Import)
        .where(Import.project_id == project_id)
        .order_by(Import.id.desc())
        .limit(limit)
        .options(defer(Import.content))
    ).all()

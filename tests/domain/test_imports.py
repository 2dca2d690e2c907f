"""What comes in by file: preview, all or only the good rows, nothing twice."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session, selectinload, sessionmaker

from app.config import settings as app_settings
from app.domain import imports, projects, prompts
from app.domain.imports import TakenImport
from app.errors import Conflict, Invalid, InvalidImport, NotFound, PrefloopError
from app.tables import Comparison, Import, ImportState, Project, ProjectState, Prompt, Purpose, Response
from tests.factories import make_person, make_project

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")

GOOD = {"prompt": "Why?", "responses": [{"text": "A", "system": "m1"}, "B", "C"]}


def lines(*rows: Any) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def take(session: Session, project: Project, content: bytes, *, only_good_rows: bool = False) -> TakenImport:
    upload = imports.preview_import(session, project, "rows.jsonl", content, None)
    return imports.take_import(session, upload, only_good_rows=only_good_rows, by=None)


def count(session: Session, table: type[Prompt | Response | Comparison]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_preview_reports_and_takes_nothing(session: Session) -> None:
    project = make_project(session)
    content = lines(GOOD, {"prompt": "Alone"}, {"prompt": "Ten", "responses": list("abcdefghij")}) + b"\n{\n"
    upload = imports.preview_import(session, project, "rows.jsonl", content, make_person(session))
    report = upload.report
    assert {key: report[key] for key in ("rows", "good_rows", "bad_rows", "prompts", "responses", "comparisons")} == {
        "rows": 4,
        "good_rows": 3,
        "bad_rows": 1,
        "prompts": 3,
        "responses": 13,
        "comparisons": 3,
    }
    assert [error["line"] for error in report["errors"]] == [4]
    assert report["sample"][0]["responses"][0] == {"system": "m1", "text": "A"}
    assert (upload.state, upload.content) == (ImportState.PREVIEWED, content)
    assert count(session, Prompt) == 0
    assert imports.list_imports(session, project.id) == [upload]
    assert imports.get_import(session, project.id, upload.id) is upload
    with pytest.raises(NotFound):
        imports.get_import(session, make_project(session).id, upload.id)


def test_taking_stores_prompts_responses_and_comparisons(session: Session) -> None:
    project = make_project(session, k=2)
    upload = imports.preview_import(session, project, "rows.jsonl", lines(GOOD, {"prompt": "Alone"}), None)
    assert imports.take_import(session, upload, only_good_rows=False, by=None) == TakenImport(2, 3, 1)
    assert (upload.state, upload.content) == (ImportState.TAKEN, None)
    assert upload.report["taken"] == {"prompts": 2, "responses": 3, "comparisons": 1}
    comparison = session.scalars(select(Comparison).options(selectinload(Comparison.members))).one()
    assert (comparison.k, comparison.openings, comparison.purpose) == (2, 2, Purpose.TRAIN)
    assert comparison.selected_because == "imported"
    assert len(comparison.members) == 3
    stored = session.scalars(select(Response).order_by(Response.id)).all()
    assert [(row.text, row.system, row.import_id) for row in stored] == [
        ("A", "m1", upload.id),
        ("B", None, upload.id),
        ("C", None, upload.id),
    ]
    for act in (imports.discard_import, lambda *a: imports.take_import(*a[:2], only_good_rows=True, by=None)):
        with pytest.raises(Conflict, match="taken already"):
            act(session, upload, None)


def test_an_upload_is_taken_in_a_later_request(session: Session) -> None:
    project = make_project(session)
    upload_id = imports.preview_import(session, project, "x", lines(GOOD), None).id
    session.expunge_all()
    upload = imports.get_import(session, project.id, upload_id)
    assert "content" not in upload.__dict__  # a list of uploads does not load their files
    assert imports.take_import(session, upload, only_good_rows=False, by=None) == TakenImport(1, 3, 1)


def test_bad_rows_take_nothing_unless_only_the_good_are_asked_for(session: Session) -> None:
    project = make_project(session)
    content = lines(GOOD, {"prompt": "Bad", "responses": ["A", True]}, {"responses": []}, {"prompt": "Good"})
    upload = imports.preview_import(session, project, "rows.jsonl", content, None)
    with pytest.raises(InvalidImport, match="2 of 4 lines cannot be taken") as refusal:
        imports.take_import(session, upload, only_good_rows=False, by=None)
    errors = refusal.value.details["errors"]
    assert errors == [
        {"line": 2, "reason": "a response is true, not a text"},
        {"line": 3, "reason": 'it has no "prompt"'},
    ]
    assert (count(session, Prompt), upload.state) == (0, ImportState.PREVIEWED)
    assert imports.take_import(session, upload, only_good_rows=True, by=None) == TakenImport(2, 3, 1)


def test_a_thousand_errors_are_counted_and_the_first_listed(session: Session) -> None:
    project = make_project(session)
    upload = imports.preview_import(session, project, "x", b"{\n" * 1_000, None)
    assert (upload.report["bad_rows"], upload.report["rows"]) == (1_000, 1_000)
    assert [error["line"] for error in upload.report["errors"]] == list(range(1, 501))
    with pytest.raises(InvalidImport, match=r"1,000 of 1,000 lines"):
        imports.take_import(session, upload, only_good_rows=False, by=None)


def test_a_file_without_a_good_row_is_refused(session: Session) -> None:
    project = make_project(session)
    with pytest.raises(InvalidImport, match="No line"):
        take(session, project, b"{\n[", only_good_rows=True)
    for empty in (b"", b"\n\n", b"\xef\xbb\xbf\r\n"):
        with pytest.raises(Invalid, match="empty"):
            imports.preview_import(session, project, "x", empty, None)


def test_discarding_forgets_the_content(session: Session) -> None:
    project = make_project(session)
    upload = imports.preview_import(session, project, "x", lines(GOOD), None)
    imports.discard_import(session, upload, None)
    assert (upload.state, upload.content) == (ImportState.DISCARDED, None)
    with pytest.raises(Conflict, match="discarded already"):
        imports.take_import(session, upload, only_good_rows=False, by=None)


def test_the_same_file_again_adds_nothing(session: Session) -> None:
    project = make_project(session)
    assert take(session, project, lines(GOOD, GOOD)) == TakenImport(1, 3, 1)
    assert take(session, project, lines(GOOD)) == TakenImport(0, 0, 0)
    more = {"prompt": "Why?", "responses": ["A", "D"]}
    assert take(session, project, lines(more)) == TakenImport(0, 1, 1)
    assert take(session, make_project(session), lines(GOOD)) == TakenImport(1, 3, 1)


def test_more_than_nine_responses_become_several_comparisons(session: Session) -> None:
    for number, sizes in ((2, [2]), (9, [9]), (10, [5, 5]), (19, [6, 6, 7]), (1, []), (0, [])):
        assert [len(part) for part in imports.parts(range(number))] == sizes
        assert [item for part in imports.parts(range(number)) for item in part] == list(range(number if sizes else 0))
    project = make_project(session)
    assert take(session, project, lines({"prompt": "p", "responses": list("abcdefghij")})) == TakenImport(1, 10, 2)


def test_uploads_have_bounds(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(session)
    monkeypatch.setattr(app_settings(), "max_upload_mb", 1)
    with pytest.raises(Invalid, match="larger than 1 MB"):
        imports.preview_import(session, project, "x", b"x" * 1_000_001, None)
    upload = imports.preview_import(session, project, "a\x00\n\ud800" + "b" * 300, lines(GOOD), None)
    assert upload.filename == "b" * 200
    assert imports.preview_import(session, project, "\n", lines(GOOD), None).filename == "upload.jsonl"
    projects.set_state(session, project, ProjectState.ARCHIVED, None)
    for act in (lambda: take(session, project, lines(GOOD)), lambda: take_again(session, upload)):
        with pytest.raises(Conflict, match="read only"):
            act()


def take_again(session: Session, upload: Import) -> None:
    imports.take_import(session, upload, only_good_rows=True, by=None)


def test_two_admins_take_an_upload_once(committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        project = make_project(session)
        upload = imports.preview_import(session, project, "x", lines(GOOD), None)
        twin = imports.preview_import(session, project, "x", lines(GOOD), None)

    def act(import_id: int) -> bool:
        try:
            with committed.begin() as session:
                imports.take_import(session, session.get_one(Import, import_id), only_good_rows=False, by=None)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(act, [upload.id, upload.id, twin.id, upload.id]))
    assert sum(taken) == 2
    with committed() as session:
        assert (count(session, Prompt), count(session, Response), count(session, Comparison)) == (1, 3, 1)


TEXTS = st.text(min_size=1, max_size=20) | st.sampled_from(["%s", "\u2028", "\u202e", "\\u0000", "\x7f", "'; --"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"prompt": TEXTS},
            optional={
                "responses": st.lists(TEXTS | st.booleans(), max_size=4),
                "id": TEXTS | st.integers(),
                "group": TEXTS,
                "details": st.dictionaries(TEXTS, TEXTS | st.floats() | st.integers(), max_size=2),
            },
        )
        | st.binary(max_size=10).map(lambda raw: {"prompt": raw.decode("utf-8", "surrogateescape")}),
        min_size=1,
        max_size=4,
    )
)
def test_what_the_preview_calls_good_can_be_stored(session: Session, rows: list[Any]) -> None:
    content = lines(*rows)
    project = make_project(session)
    upload = imports.preview_import(session, project, "x", content, None)
    good = upload.report["good_rows"]
    try:
        imports.take_import(session, upload, only_good_rows=True, by=None)
    except PrefloopError:
        assert good == 0
    else:
        assert good + len(upload.report["errors"]) == upload.report["rows"]
        assert 0 < prompts.count_prompts(session, project.id) <= good


def joined_vicuna() -> bytes:
    """The 80 questions with the answers of six models, each a file of its own, in the documented shape."""

    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (DATA / "vicuna80" / name).read_text(encoding="utf-8").splitlines()]

    answers: dict[int, list[dict[str, str]]] = {}
    for file in sorted((DATA / "vicuna80").glob("answer__*.jsonl")):
        for answer in read(file.name):
            given = {"text": answer["text"], "system": answer["model_id"]}
            answers.setdefault(answer["question_id"], []).append(given)
    return lines(
        *(
            {
                "prompt": question["text"],
                "id": question["question_id"],
                "details": {"category": question["category"]},
                "responses": answers[question["question_id"]],
            }
            for question in read("question.jsonl")
        )
    )


@needs_data
def test_eighty_questions_and_six_models(session: Session) -> None:
    project = make_project(session, k=2)
    upload = imports.preview_import(session, project, "vicuna.jsonl", joined_vicuna(), None)
    # One model answered question 74 with nothing.
    assert upload.report["errors"] == [{"line": 74, "reason": "a response is empty"}]
    taken = imports.take_import(session, upload, only_good_rows=True, by=None)
    assert taken == TakenImport(prompts=79, responses=474, comparisons=79)


@needs_data
def test_tulu_pairs_of_one_instruction_meet_in_one_prompt(session: Session) -> None:
    project = make_project(session)
    content = (DATA / "tulu1_human_eval" / "eval_instances_tulu_1.jsonl").read_bytes()
    with pytest.raises(InvalidImport, match="35 of 996 lines"):
        take(session, project, content)
    taken = take(session, project, content, only_good_rows=True)
    rows = [json.loads(line) for line in content.decode().splitlines()]
    pairs = {(row["prompt"], frozenset(c["completion"] for c in row["completions"])) for row in rows}
    pairs = {pair for pair in pairs if len(pair[1]) == 2}
    assert taken.prompts == len({prompt for prompt, _ in pairs})
    assert taken.comparisons == len(pairs)
    assert take(session, project, content, only_good_rows=True) == TakenImport(0, 0, 0)


def test_a_large_import_takes_few_statements(session: Session) -> None:
    project = make_project(session)
    content = lines(*({"prompt": f"p {n}", "responses": [f"r {n} {m}" for m in range(4)]} for n in range(2_000)))
    statements = []
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert take(session, project, content) == TakenImport(2_000, 8_000, 2_000)
    assert len(statements) < 60

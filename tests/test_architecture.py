"""Does the house stand as the design says? Rooms, sizes, and words that must not appear."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = sorted(
    path
    for room in ("app", "worker", "demo", "benchmarks")
    for path in (ROOT / room).rglob("*.py")
    if "__pycache__" not in path.parts
)
LONGEST_FILE = 400
LONGEST_FUNCTION = 60
ALL = CODE + sorted(
    path for room in ("tests", "migrations") for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts
)
LONG_FILES = {
    "migrations/versions/0001_first_tables.py",  # the first schema stands whole, and a released migration never changes
    "tests/browser/test_desk.py",  # one desk in one browser: its tests share its project and its way of ranking
    "tests/browser/test_flow.py",  # one way from comparison to comparison: each test breaks it at another place
    "tests/domain/test_rounds.py",  # one state machine: its moves, triggers and ends share their set-up
    "tests/worker/test_steps.py",  # the steps of one round, each starting from where the one before ended
}
LONG_FUNCTIONS = {
    "migrations/versions/0001_first_tables.py:upgrade",  # one statement a table, in the order of their references
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_rooms_import_only_what_they_may() -> None:
    linted = subprocess.run(
        [Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert linted.returncode == 0, linted.stdout


def test_files_stay_short() -> None:
    long = {name_of(path) for path in ALL if path.read_text().count("\n") > LONGEST_FILE}
    assert long == LONG_FILES


def test_functions_stay_short() -> None:
    long = {
        f"{name_of(path)}:{node.name}"
        for path in ALL
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno > LONGEST_FUNCTION
    }
    assert long == LONG_FUNCTIONS


@pytest.mark.parametrize("path", CODE, ids=name_of)
def test_every_module_says_what_it_answers(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{name_of(path)} begins without a sentence on what it is for"


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty_names = {"utils", "helpers", "manager", "managers", "service", "services", "common", "misc"}
    assert not [name_of(path) for path in CODE if path.stem in empty_names]


def test_web_half_starts_without_torch() -> None:
    """A fresh interpreter that refuses every learning library still builds the whole server."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        learning = {"torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "worker"}
        if name.split(".")[0] in learning:
            raise ImportError(f"the web half must not need {name}")
sys.meta_path.insert(0, Refuse())
from app.main import create_app
assert create_app().routes
import app.commands
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)

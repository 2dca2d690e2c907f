"""Does the one call for a GPU say when there is none, go on when a step fails, and show all that came out?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.report import Row, write

ROOT = Path(__file__).parent.parent.parent

# Stands in for a Python on a machine with a GPU: one benchmark fails, the others write what they are given.
PYTHON = """#!/usr/bin/env bash
case "$*" in
  *gpu_table.py*) exec {python} "$@" ;;
  *ppo_speed.py*) echo "out of memory"; exit 5 ;;
  *--json*) cp {report} "${{@: -1}}" ;;
esac
"""


def call(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """benchmarks/gpu.sh of this folder."""
    return subprocess.run(
        [folder / "benchmarks" / "gpu.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_without_a_gpu_it_says_so_and_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    done = call(ROOT, OUT=str(tmp_path / "out"))
    assert done.returncode == 3
    assert "No GPU is here" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A checkout with nothing but the script, and a Python that stands in for a machine with a GPU."""
    benchmarks, binaries = tmp_path / "project" / "benchmarks", tmp_path / "project" / ".venv" / "bin"
    benchmarks.mkdir(parents=True)
    binaries.mkdir(parents=True)
    for name in ("gpu.sh", "gpu_table.py"):
        shutil.copy(ROOT / "benchmarks" / name, benchmarks / name)
    report = tmp_path / "report.json"
    row = Row("trained bf16 n=8", "tokens/s", [300.0], [100.0], "generate", 2.0)
    write(report, "sampling_speed", {}, [row.as_json()])
    python = binaries / "python"
    python.write_text(PYTHON.format(python=sys.executable, report=report))
    python.chmod(0o755)
    return tmp_path / "project"


def test_a_step_that_fails_is_named_and_the_others_are_shown(machine: Path) -> None:
    done = call(machine, OUT="out")
    assert done.returncode == 1
    assert "out of memory" in done.stdout
    table = done.stdout[done.stdout.index("benchmark ") :]
    rows, _, steps = table.partition("\n\n")
    assert [line.split() for line in rows.splitlines()] == [
        ["benchmark", "case", "metric", "ours", "peer", "ratio", "met", "beside"],
        *[["sampling_speed", "trained", "bf16", "n=8", "tokens/s", "300", "100", "3", "yes", "generate"]] * 2,
    ]
    assert [(line.split()[0], " ".join(line.split()[2:])) for line in steps.splitlines()] == [
        ("step", "ended"),
        ("checks", "ok"),
        ("sampling_speed", "ok"),
        ("ppo_speed", "FAILED with 5, see ppo_speed.log"),
        ("reward_speed", "ok"),
        ("reward_quality", "left out: its data are not in ../shared/data"),
    ]


def test_where_all_ends_well_it_exits_with_zero(machine: Path) -> None:
    python = machine / ".venv" / "bin" / "python"
    python.write_text(python.read_text().replace("exit 5", "exit 0"))
    assert call(machine).returncode == 0
    assert (machine / "benchmarks-gpu" / "steps.tsv").exists(), "the folder that is used where none is named"

"""Does `prefloop reward fit` write its model where it is told to, and lose nothing else that stands there?"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from tests.planted import rankings
from worker.commands.reward import reward
from worker.learning.checkpoints import hash_folder

QUICK = ["--set", "posterior=false", "--set", "precision=fp32", "--device", "cpu"]
OTHER = "name another folder"
PATIENCE = 240.0  # seconds


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [
        {"prompt": label.prompt[0]["content"], "responses": label.responses, "ranking": label.overall.groups}
        for label in [*rankings(8, 1), *rankings(8, 2, size=3)]
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def asked(labels: Path, backbone: Path, out: Path, *more: object) -> list[str]:
    return ["fit", *map(str, ("--data", labels, "--backbone", backbone, "--out", out, *QUICK, *more))]


def fit(*arguments: Any) -> Result:
    return CliRunner().invoke(reward, asked(*arguments))


def process(*arguments: Any) -> list[str]:
    return [sys.executable, "-m", "app.commands", "reward", *asked(*arguments)]


def alone() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}


def said(run: Result) -> str:
    """The error of a command that failed, behind what its bar left, its lines joined."""
    return " ".join(run.stderr.partition("Error: ")[2].split())


def wait_for(child: subprocess.Popen[bytes], happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happens():
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_stands_among_the_checkpoints_stays(labels: Path, tiny_folder: Path, tmp_path: Path) -> None:
    checkpoints = tmp_path / "out.checkpoints"
    checkpoints.mkdir()
    (checkpoints / "notes.txt").write_text("years of work")
    settings = ("checkpoint_seconds=0", "set_weight=validation", "averaged_fits=2")
    more = [word for setting in settings for word in ("--set", setting)]
    run = fit(labels, tiny_folder, tmp_path / "out", "--held-out-share", "0.5", *more)
    assert run.exit_code == 0, run.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert len(card["choices"]) == 2
    assert [path.name for path in checkpoints.rglob("*")] == ["notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "file/out"], "file/out cannot be written: {here}/file is a file"),
        (["--out", "/sys/out"], "/sys/out cannot be written, since nothing can be in /sys: "),
        (["--reference", "alike.jsonl"], "the reference has no prompt with two different responses"),
    ],
)
def test_what_would_fail_in_the_end_is_said_before_the_fit(
    arguments: list[str],
    sentence: str,
    labels: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "alike.jsonl").write_text('{"prompt": "the cat", "responses": ["good", "good"]}\n')
    before = sorted(tmp_path.rglob("*"))
    run = fit(labels, tiny_folder, Path("new/out"), "--set", "checkpoint_seconds=0", *arguments)
    assert run.exit_code == 1
    assert sentence.format(here=tmp_path) in said(run)
    assert "loss" not in run.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_the_folder_that_a_link_leads_to_gets_the_model(labels: Path, tiny_folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large"
    (large / "reward").mkdir(parents=True)
    link = tmp_path / "link"
    link.symlink_to(large / "reward")
    for _ in range(2):
        assert fit(labels, tiny_folder, link).exit_code == 0
    assert link.is_symlink()
    assert (large / "reward" / "reward.json").is_file()
    assert [path.name for path in large.iterdir()] == ["reward"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.jsonl", "large", "link"]


def test_two_at_once_do_not_write_one_folder(labels: Path, tiny_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    long = ["--set", "epochs=1000", "--set", "checkpoint_seconds=0"]
    first = subprocess.Popen(process(labels, tiny_folder, out, *long), env=alone(), stderr=subprocess.DEVNULL)
    try:
        wait_for(first, lambda: any((tmp_path / "out.checkpoints").glob("step-*")))
        run = fit(labels, tiny_folder, out, "--seed", "2")
        assert (run.exit_code, said(run)) == (1, f"another process is writing {out}: wait for it to end, or {OTHER}")
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    run = fit(labels, tiny_folder, out, "--seed", "2")  # what was killed holds nothing any more
    assert "the checkpoints in" in said(run)
    shutil.rmtree(tmp_path / "out.checkpoints")
    assert fit(labels, tiny_folder, out, "--seed", "2").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.jsonl", "out"]


def test_a_learning_curve_that_is_killed_goes_on_to_the_same_bytes(
    labels: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    more = ["--set", "epochs=8", "--set", "checkpoint_seconds=0", "--held-out-share", "0.5", "--learning-curve"]
    assert fit(labels, tiny_folder, tmp_path / "whole", *more).exit_code == 0
    child = subprocess.Popen(
        process(labels, tiny_folder, tmp_path / "killed", *more), env=alone(), stderr=subprocess.DEVNULL
    )
    wait_for(child, lambda: any((tmp_path / "killed.checkpoints").glob("curve-*/step-*")))
    child.kill()
    child.wait()
    assert fit(labels, tiny_folder, tmp_path / "killed", *more).exit_code == 0
    assert hash_folder(tmp_path / "killed") == hash_folder(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "labels.jsonl", "whole"]


def test_a_disk_that_fails_ends_in_one_line(labels: Path, tiny_folder: Path, tmp_path: Path) -> None:
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "bash"]  # KiB in a file; the weights are larger
    run = subprocess.run(
        [*limited, *process(labels, tiny_folder, tmp_path / "out")],
        env=alone(),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    error = " ".join(run.stderr.partition("Error: ")[2].split())
    assert "File too large" in error
    assert error.endswith("; the same command goes on from its last checkpoint (one a minute)")
    assert not (tmp_path / "out").exists()

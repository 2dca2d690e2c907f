"""Does `prefloop reward fit` write its model where it is told to, and lose nothing else that stands there?"""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.planted import rankings
from worker.commands.reward import reward

QUICK = ["--set", "posterior=false", "--set", "precision=fp32", "--device", "cpu"]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    rows = [
        {"prompt": label.prompt[0]["content"], "responses": label.responses, "ranking": label.overall.groups}
        for label in [*rankings(8, 1), *rankings(8, 2, size=3)]
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def fit(labels: Path, backbone: Path, out: Path, *more: object) -> Result:
    arguments = ("--data", labels, "--backbone", backbone, "--out", out, *QUICK, *more)
    return CliRunner().invoke(reward, ["fit", *map(str, arguments)])


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

import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from worker.learning.checkpoints import (
    hash_folder,
    load_state,
    optimiser_tensors,
    remove_states,
    restore_optimiser,
    save_state,
    written_aside,
)

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent.parent

WRITER = """
import sys
from pathlib import Path
from worker.learning.checkpoints import written_aside
folder, number = Path(sys.argv[1]), 0
while True:
    number += 1
    with written_aside(folder) as aside:
        for name in "abc":
            (aside / name).write_text(f"{number} " * 100_000)
    print(number, flush=True)
"""


def write(folder: Path, text: str) -> None:
    with written_aside(folder) as aside:
        (aside / "weights").write_text(text)


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "model"
    write(folder, "old")
    (folder / "extra").write_text("only the old one has this")
    write(folder, "new")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"weights": "new"}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failing_writer_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "model", "old")
    with pytest.raises(RuntimeError, match="disk"), written_aside(tmp_path / "model") as aside:  # noqa: PT012
        (aside / "weights").write_text("half")
        raise RuntimeError("disk full")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_killed_writer_leaves_a_whole_folder_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for attempt in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "1\n"
        time.sleep(random.Random(attempt).uniform(0, 0.1))
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        # Between the two renames there is nothing at the place, which running again mends; never a part.
        assert not folder.exists() or {path.name for path in folder.iterdir()} == {"a", "b", "c"}
        if folder.exists():
            texts = {path.read_text() for path in folder.iterdir()}
            assert len(texts) == 1, "the files are of different writings"
            assert len(texts.pop().split()) == 100_000
    write(folder, "after")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    with written_aside(tmp_path / "model") as first:
        write(tmp_path / "model", "second")
        (first / "weights").write_text("first")
    assert (tmp_path / "model" / "weights").read_text() == "first"


def test_the_hash_is_the_one_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"\x00\x01")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c").write_text("text")
    listed = subprocess.run(
        "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum",
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    before = hash_folder(tmp_path)
    assert before == listed.stdout.split()[0]
    (tmp_path / "b").rename(tmp_path / "d")
    assert hash_folder(tmp_path) != before
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        hash_folder(tmp_path / "missing")


def test_the_newest_state_comes_back_and_older_ones_go(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    assert load_state(tmp_path / "missing") is None
    for step in (2, 10):
        save_state(tmp_path, step, {"weight": torch.full((2, 3), float(step))}, {"losses": [0.1, 1 / 3]})
    state = load_state(tmp_path)
    assert state is not None
    tensors, facts = state
    assert torch.equal(tensors["weight"], torch.full((2, 3), 10.0))
    assert facts == {"step": 10, "losses": [0.1, 1 / 3]}
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010"]
    remove_states(tmp_path)
    assert not tmp_path.exists()


def test_only_states_go_and_what_else_stands_beside_them_stays(tmp_path: Path) -> None:
    folder = tmp_path / "model.checkpoints"
    for place in (folder, folder / "fit-1", folder / "1-fresh" / "fit-2"):
        save_state(place, 1, {"weight": torch.ones(2)}, {})
    kept = [folder / "notes.txt", folder / "step-1" / "mine.txt", folder / "fit-1" / "notes.txt"]
    for file in kept:
        file.parent.mkdir(exist_ok=True)
        file.write_text("years of work")
    host, dead = socket.gethostname(), 2**22 + 1  # above the highest number that Linux gives a process
    (folder / f".step-00000002.new.{host}.{dead}.0a1b2c3d").mkdir()
    save_state(folder, 2, {"weight": torch.ones(2)}, {})
    remove_states(folder, ["1-fresh", "fit-[0-9]*"])
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(kept)
    assert sorted(path.name for path in folder.iterdir()) == ["fit-1", "notes.txt", "step-1"]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Muon])
def test_an_optimiser_goes_on_as_if_it_had_never_stopped(kind: type[torch.optim.Optimizer]) -> None:
    def step(parameter: torch.nn.Parameter, optimiser: torch.optim.Optimizer, number: int) -> None:
        parameter.grad = torch.arange(6.0).reshape(2, 3).sin() * number
        optimiser.step()

    going = torch.nn.Parameter(torch.ones(2, 3))
    optimiser = kind([going], lr=0.1)  # type: ignore[call-arg]
    step(going, optimiser, 1)
    stopped = torch.nn.Parameter(going.detach().clone())
    other = kind([stopped], lr=0.1)  # type: ignore[call-arg]
    restore_optimiser(other, {name: value.clone() for name, value in optimiser_tensors(optimiser).items()})
    step(going, optimiser, 2)
    step(stopped, other, 2)
    assert torch.equal(going, stopped)
    with pytest.raises(ValueError, match="does not fit"):
        restore_optimiser(other, {})

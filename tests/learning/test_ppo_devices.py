"""Do several processes come to what one comes to? Real ones, started by torchrun, on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from worker.learning.policy.devices import check_alike, gathered, is_first, joined, shared_out, sum_gradients

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 240.0  # seconds


def torchrun(program: Path, *arguments: object, processes: int = 2) -> "subprocess.CompletedProcess[str]":
    """What `torchrun --nproc-per-node` does, on a port that is free."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*command, str(program), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


SHARES = """
import json, sys
from pathlib import Path
import torch
from torch import nn
from worker.learning.policy import devices

with devices.joined("cpu") as device:
    devices.SUMMED_AT_ONCE = 4  # numbers, so that there are several buckets
    rank = torch.distributed.get_rank()
    own = devices.shared_out(range(7))
    everything = devices.gathered([(number, torch.full((2,), float(number))) for number in own])
    few = devices.gathered(devices.shared_out(["only one"]))
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(1))]
    weights[0].grad = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
    if rank == 1:
        weights[1].grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    devices.sum_gradients(weights)
    devices.check_alike("a constant", 1)
    try:
        devices.check_alike("the rank", rank)
        told = None
    except ValueError as error:
        told = str(error)
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps({
        "device": str(device), "first": devices.is_first(), "own": own, "few": few, "told": told,
        "everything": [[number, tensor.tolist()] for number, tensor in everything],
        "gradients": [weight.grad.tolist() for weight in weights],
    }))
"""


def test_work_is_shared_out_and_comes_back_in_order(tmp_path: Path) -> None:
    program = tmp_path / "shares.py"
    program.write_text(SHARES)
    run = torchrun(program, tmp_path)
    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first.pop("first"), second.pop("first")) == (True, False)
    assert (first.pop("own"), second.pop("own")) == ([0, 2, 4, 6], [1, 3, 5])
    assert first == second
    assert first["device"] == "cpu"
    assert first["few"] == ["only one"]
    assert first["everything"] == [[number, [float(number)] * 2] for number in range(7)]
    assert first["gradients"] == [[3.0, 6.0, 9.0], [[1.0, 2.0], [3.0, 4.0]], [0.0]]
    assert "the rank is not the same in all processes: give all of them the same command" in first["told"]


FAILING = """
import sys, time
from worker.learning.policy import devices

with devices.joined("cpu"):
    if not devices.is_first():
        raise ValueError("the second one found a mistake")
    devices.gathered([1])
"""


def test_what_fails_in_one_process_ends_all(tmp_path: Path) -> None:
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    began = time.monotonic()
    run = torchrun(program)
    assert run.returncode != 0
    assert "the second one found a mistake" in run.stderr
    assert time.monotonic() - began < 120


def test_alone_all_is_given_back() -> None:
    with joined("cpu") as device:
        weight = nn.Parameter(torch.zeros(2))
        sum_gradients([weight])
        assert (device, weight.grad, is_first()) == (torch.device("cpu"), None, True)
        assert gathered(shared_out([3, 1, 2])) == [3, 1, 2]
        check_alike("anything", object())


def test_processes_do_not_share_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="all processes would share cuda:0: say cuda"), joined("cuda:0"):
        pass
    with pytest.raises(ValueError, match='no device "cuda:1": this machine has 1 CUDA'), joined("auto"):
        pass

"""Do several processes come to what one comes to? Real ones, started by torchrun, on the CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
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


ON_CUDA = """
import torch
from torch import nn
from worker.learning.policy import devices

with devices.joined("auto") as device:
    rank, count = torch.distributed.get_rank(), devices.process_count()
    assert (device.type, device.index) == ("cuda", rank)
    weight = nn.Parameter(torch.zeros(3, device=device))
    weight.grad = torch.full((3,), float(rank + 1), device=device)
    devices.sum_gradients([weight])
    assert weight.grad.tolist() == [count * (count + 1) / 2] * 3
    assert [int(tensor) for tensor in devices.gathered([torch.tensor(rank)])] == list(range(count))
"""


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_gradients_are_summed_between_cuda_devices(tmp_path: Path) -> None:
    program = tmp_path / "cuda.py"
    program.write_text(ON_CUDA)
    run = torchrun(program, processes=torch.cuda.device_count())
    assert run.returncode == 0, run.stderr


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


CHOICES: dict[str, dict[str, Any]] = {
    "gae": {"minibatches": 2},
    "grpo": {"estimator": "grpo", "group_size": 4, "kl_in": "loss"},
    "adapters": {"lora_rank": 2, "value_warmup": 1},
}
RUNS = """
import json, sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import torch
from safetensors.torch import save_file
from tests.learning.ppo_runs import PROMPTS, QUICK, count_good
from worker.learning.models import load_language_model, load_tokenizer
from worker.learning.policy import devices
from worker.learning.ppo import improve_policy

folder, out, choices = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
with devices.joined("cpu") as device:
    for name, choice in choices.items():
        counts, samples = {"scored": 0, "learned": 0}, []

        def counted(prompts, responses):
            counts["scored"] += len(responses)
            return count_good(prompts, responses)

        def count(_module, _arguments, given, _output):
            counts["learned"] += given["input_ids"].numel() if torch.is_grad_enabled() else 0

        def keep(rollout, _step):
            samples.extend(sample.token_ids for sample in rollout.samples)

        model = load_language_model(folder, device)
        reference = None if "lora_rank" in choice else deepcopy(model)
        model.base_model.register_forward_hook(count, with_kwargs=True)
        settings, tokenizer = replace(QUICK, **choice), load_tokenizer(folder)
        improved = improve_policy(model, reference, tokenizer, counted, PROMPTS, settings, 0, keep=keep)
        place = out / name / ("first" if devices.is_first() else "second")
        place.mkdir(parents=True)
        save_file(dict(improved.policy.named_parameters()), place / "weights.safetensors")
        facts = {"counts": counts, "samples": samples, "metrics": improved.metrics}
        (place / "facts.json").write_text(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def runs(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with every choice, in the folder "1" by one process and in "2" by two."""
    folder = tmp_path_factory.mktemp("runs")
    program = folder / "runs.py"
    program.write_text(RUNS)
    for processes in (1, 2):
        run = torchrun(program, tiny_folder, folder / str(processes), json.dumps(CHOICES), processes=processes)
        assert run.returncode == 0, run.stderr
    return folder


@pytest.mark.parametrize("choice", CHOICES)
def test_two_processes_come_to_what_one_comes_to(choice: str, runs: Path) -> None:
    """The same samples over four rollouts and the same weights but for rounding, each with half of the work."""
    places = [runs / "1" / choice / "first", runs / "2" / choice / "first", runs / "2" / choice / "second"]
    alone, first, second = (json.loads((place / "facts.json").read_text()) for place in places)
    assert alone["samples"] == first["samples"] == second["samples"]
    assert len(alone["samples"]) == 256
    assert alone["counts"]["scored"] == 256
    for one in (first, second):
        assert one["counts"]["scored"] == 128
        assert 0.35 < one["counts"]["learned"] / alone["counts"]["learned"] < 0.65
    for name in ("objective/scores", "objective/kl", "objective/kl_coef", "loss/policy", "grad_norm", "policy/steps"):
        expected = [row[name] for row in alone["metrics"]]
        assert [row[name] for row in first["metrics"]] == pytest.approx(expected, abs=1e-5), name
    whole, half, other_half = (load_file(place / "weights.safetensors") for place in places)
    for name, weight in whole.items():
        torch.testing.assert_close(half[name], weight, atol=1e-5, rtol=0)
        assert torch.equal(half[name], other_half[name]), name


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

"""Does `prefloop ppo run` do what docs/ppo.md says? A small model, real processes."""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.planted import rankings
from worker.commands.policy import ppo
from worker.commands.settings import names_of
from worker.learning.policy.settings import PPOSettings
from worker.learning.reward.fitting import fit_reward_model
from worker.learning.reward.model import load_reward_model, save_reward_model
from worker.learning.reward.settings import RewardSettings

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "ppo.md").read_text()
PATIENCE = 240.0  # seconds
WORDS = "cat dog sun rain sat ran the a big small saw old new".split()  # noqa: SIM905
QUICK = [
    *("-s", "episodes=96", "-s", "batch_episodes=32", "-s", "learning_rate=2e-3", "-s", "sampling.max_new_tokens=8"),
    *("-s", "kl_coefficient=0.02", "-s", "precision=fp32", "--device", "cpu"),
]

Row = dict[str, Any]


def written(file: Path, rows: Sequence[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def lines(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(ppo, ["run", *map(str, arguments)])


def said(run: Result) -> str:
    """The error of a command that failed, behind what its bar left, its lines joined."""
    return " ".join(run.stderr.partition("Error: ")[2].split())


def process(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "app.commands", "ppo", "run", *map(str, arguments)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the children: sums over several threads are rounded in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def alike() -> dict[str, str]:
    """A child that computes with one thread, and reaches no network."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module")
def folder(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, and a reward model that likes "good" and dislikes "bad", twice."""
    folder = tmp_path_factory.mktemp("run")
    chance = random.Random(0)
    prompts = [{"prompt": " ".join(chance.choices(WORDS, k=4)), "id": number} for number in range(10)]
    written(folder / "prompts.jsonl", prompts)
    settings = RewardSettings(epochs=3, learning_rate=5e-3, batch_sets=8, precision="fp32")
    for name, seed in (("reward", 0), ("other", 1)):
        fitted = fit_reward_model(str(tiny_folder), rankings(60, seed), (), settings, seed, device=torch.device("cpu"))
        save_reward_model(fitted.reward_model, folder / name)
    return folder


def test_a_policy_learns_what_a_reward_model_likes(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"episodes": 640, "epoch_kl_limit": None, "sampling": {"max_new_tokens": 9}}))
    out = tmp_path / "out"
    run = command(
        *("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", folder / "prompts.jsonl", "--out", out),
        *("--watch", folder / "other", *QUICK[2:6], *QUICK[8:], "--settings", settings, "--seed", 3),
    )
    assert run.exit_code == 0, run.output
    assert run.stdout == ""
    assert "score" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json", "out"]
    facts, metrics, samples = json.loads((out / "ppo.json").read_text()), *map(lines, out.glob("*.jsonl"))
    if "picked" in metrics[0]:
        metrics, samples = samples, metrics
    assert facts["settings"]["sampling"]["max_new_tokens"] == 9
    assert (facts["seed"], facts["ended"], facts["policy"]) == (3, "done", str(tiny_folder))
    assert set(facts["versions"]) == {"prefloop", "torch", "transformers"}
    assert facts["prompts"]["count"] == 10
    assert [{"rollout": number} | row for number, row in enumerate(facts["history"], start=1)] == metrics
    assert metrics[-1]["objective/scores"] > metrics[0]["objective/scores"] + 0.5
    assert {"watched/other", "objective/kl", "episodes_per_second"} <= metrics[0].keys()
    assert [sum(row["rollout"] == number for row in samples) for number in range(1, 21)] == [6] * 20
    for number in (1, 20):
        own = [row for row in samples if row["rollout"] == number]
        assert max(own, key=lambda row: row["score"])["picked"] == "highest"
        assert min(own, key=lambda row: row["score"])["picked"] == "lowest"
    judge = load_reward_model(folder / "reward", torch.device("cpu"))
    [score] = judge([samples[-1]["prompt"]], [samples[-1]["response"]]).tolist()
    assert score == pytest.approx(samples[-1]["score"], abs=0.05)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.vocab_size == len(tokenizer)


def test_every_kind_of_run_can_be_asked_for(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    common = ("--policy", tiny_folder, "--prompts", folder / "prompts.jsonl", "--reward", folder / "reward", *QUICK)
    kinds: dict[str, list[Any]] = {
        "adapters": ["-s", "lora_rank=2", "-s", "critic=separate"],
        "ensemble": ["--reward", folder / "other", "-s", "conservatism=worst", "--reference", tiny_folder],
        "rloo": ["-s", "estimator=rloo", "-s", "group_size=4", "-s", "conservatism=uncertainty"],
    }
    for kind, asked in kinds.items():
        run = command(*common, "--out", tmp_path / kind, *asked)
        assert run.exit_code == 0, (kind, run.output)
        before, after = load_file(tiny_folder / "model.safetensors"), load_file(tmp_path / kind / "model.safetensors")
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-s", "learning_rates=1"], "there is no setting learning_rates. Is learning_rate meant? Known are "),
        (["-s", "sampling.temprature=1"], "Is sampling.temperature meant?"),
        (["-s", "sampling=5"], "there is no setting sampling."),
        (["-s", "sampling.temperature=0"], "PPO needs top_p = 1 and a temperature above 0"),
        (["-s", "estimator=rloo"], "rloo compares the responses to a prompt: group_size must be at least 2"),
        (["-s", "episodes=8"], "8 episodes do not fill a rollout of 32"),
        (["-s", "epochs=many"], "settings: epochs: "),
        (["-s", "watch_patience=3"], "name it with --watch"),
        (["-s", "sampling.max_new_tokens=61"], "2 lines cannot be read, and nothing was done line 1: the prompt's 4"),
        (["--prompts", "bad.jsonl"], 'bad.jsonl: 1 line cannot be read, and nothing was done line 2: "prompt" is the'),
        (["--prompts", "empty.jsonl"], 'empty.jsonl has no prompt: a line is {"prompt": "..."}'),
        (["--policy", "./nowhere"], 'there is no model in "./nowhere": it is no folder here'),
        (["--reward", "full"], "full is no reward model of ours: it has no reward.json"),
        (["--watch", "full"], "full is no reward model of ours: it has no reward.json"),
        (["--reference", "./nowhere"], 'there is no model in "./nowhere": it is no folder here'),
        (["--out", "full"], "full holds other things than a policy of a run"),
        (["--device", "tpu"], 'there is no device "tpu"'),
    ],
)
def test_what_cannot_be_run_is_said(
    arguments: list[str],
    sentence: str,
    folder: Path,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    written(tmp_path / "prompts.jsonl", [{"prompt": "the big old cat"}, {"prompt": "sun and rain saw"}])
    written(tmp_path / "bad.jsonl", [{"prompt": "the cat"}, {"prompt": 7}])
    (tmp_path / "empty.jsonl").write_text("\n")
    before = sorted(tmp_path.rglob("*"))
    given = ("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", "prompts.jsonl", "--out", "out")
    run = command(*given, *QUICK, *arguments)
    assert run.exit_code == 1, run.output
    assert sentence in said(run)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_a_run_begins_with_is_not_replaced(folder: Path, tiny_folder: Path) -> None:
    given = ("--reward", folder / "reward", "--prompts", folder / "prompts.jsonl")
    run = command("--policy", tiny_folder, *given, "--out", tiny_folder)
    assert "would be replaced: name another folder" in said(run)


def finished(*arguments: object) -> None:
    run = command(*arguments)
    assert run.exit_code == 0, run.output


def started(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(process(*arguments), env=alike(), stderr=subprocess.PIPE, text=True)


def wait_for(pattern: str, folder: Path, child: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert child.poll() is None, child.stderr
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.timeout(900)
def test_a_run_that_is_killed_goes_on_to_the_same_bits(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """Killed after the first checkpoint, and again in the rollout behind a later one; then stopped by Ctrl-C."""

    def arguments(out: str) -> list[object]:
        steady = ("-s", "checkpoint_seconds=0", "-s", "episodes=640", "-s", "kl_horizon=200")
        given = ("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", folder / "prompts.jsonl")
        return [*given, "--out", tmp_path / out, *QUICK, *steady]

    finished(*arguments("whole"))
    for pattern, how in (
        ("step-*", signal.SIGKILL),
        ("step-0000000[3-9]/answers.json", signal.SIGKILL),
        ("step-0000001*", signal.SIGINT),
    ):
        child = started(*arguments("killed"))
        wait_for(pattern, tmp_path / "killed.checkpoints", child)
        child.send_signal(how)
        _, error = child.communicate(timeout=PATIENCE)
        assert child.returncode != 0
        assert not (tmp_path / "killed").exists()
    assert "stopped; the same command goes on from its last checkpoint" in " ".join(error.split())
    finished(*arguments("killed"))
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]
    for file in ("model.safetensors", "config.json", "tokenizer.json", "samples.jsonl"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes(), file
    one, other = (lines(out / "metrics.jsonl") for out in (whole, killed))
    assert [row["rollout"] for row in other] == list(range(1, 21))
    for name in ("objective/scores", "objective/kl", "objective/kl_coef", "loss/policy", "grad_norm", "length"):
        assert [row[name] for row in one] == [row[name] for row in other], name


def test_another_run_does_not_go_on_with_these_checkpoints(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    given = ("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", folder / "prompts.jsonl")
    rest = ("--out", tmp_path / "out", *QUICK, "-s", "checkpoint_seconds=0", "-s", "episodes=6400")
    child = started(*given, *rest)
    wait_for("step-0000000[2-9]", tmp_path / "out.checkpoints", child)
    child.kill()
    child.communicate()
    run = command(*given, *rest, "-s", "kl_target=5", "--seed", "2")
    assert run.exit_code == 1
    assert "out.checkpoints holds another run, which did not come to its end: " in said(run)
    assert "seed was 1 and is 2, settings.kl_target was 6.0 and is 5.0. Give the same as then" in said(run)
    kept = [row["rollout"] for row in lines(tmp_path / "out.checkpoints" / "metrics.jsonl")]
    assert kept == list(range(1, len(kept) + 1)) != []


@pytest.mark.timeout(900)
def test_two_processes_write_the_policy_of_one(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    """As near as scores in bf16 are; `test_ppo_devices` has them exact."""
    given = ("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", folder / "prompts.jsonl")
    finished(*given, "--out", tmp_path / "one", *QUICK)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    child = subprocess.run(
        [*torchrun, *process(*given, "--out", tmp_path / "two", *QUICK)[1:]],
        env=alike(),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert child.returncode == 0, child.stderr
    assert " ".join(child.stderr.split()).count("3 rollouts; it ended after all rollouts") == 1
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=5e-3, rtol=0)
    read, others = (lines(tmp_path / name / "samples.jsonl") for name in ("one", "two"))
    assert [row["rollout"] for row in read] == [row["rollout"] for row in others]
    assert [row["response"] for row in read[:2]] == [row["response"] for row in others[:2]]


# Documents


def test_every_option_is_documented() -> None:
    table = "\n".join(re.findall(r"^\| `--.*", DOCS, re.MULTILINE))
    options = {one.opts[0] for one in ppo.commands["run"].params if isinstance(one, click.Option)}
    assert set(re.findall(r"^\| `(--[a-z-]+)`", table, re.MULTILINE)) == options


def test_every_setting_is_documented_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `([\w.]+)` \|.*\| `?([^|`]*)`? \|$", DOCS[DOCS.index("| setting | ") :], re.MULTILINE))
    names = names_of(PPOSettings)
    settings = dataclasses.asdict(PPOSettings())
    words = {None: "none", True: "true", False: "false"}
    for name in names:
        outer, _dot, inner = name.partition(".")
        default = settings[outer][inner] if inner else settings[outer]
        is_word = default is None or isinstance(default, bool)
        assert rows[name] == (words[default] if is_word else str(default)), name
    assert set(names) <= rows.keys()


def test_every_metric_and_every_key_is_documented(folder: Path, tiny_folder: Path, tmp_path: Path) -> None:
    given = ("--policy", tiny_folder, "--reward", folder / "reward", "--prompts", folder / "prompts.jsonl")
    run = command(*given, "--watch", folder / "other", "--out", tmp_path / "out", *QUICK)
    assert run.exit_code == 0, run.output
    documented = set(re.findall(r"`([\w/]+)`", DOCS[DOCS.index("## What comes out") :]))
    for file in ("metrics.jsonl", "samples.jsonl"):
        names = {name.replace("watched/other", "watched/NAME") for name in lines(tmp_path / "out" / file)[-1]}
        assert names - {"rollout"} <= documented, file
    assert set(json.loads((tmp_path / "out" / "ppo.json").read_text())) <= documented

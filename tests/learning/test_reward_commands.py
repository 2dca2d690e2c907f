"""Do `prefloop reward fit`, `score` and `evaluate` do what docs/reward.md says? Small models, real processes."""

import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from click.testing import CliRunner, Result
from transformers import AutoModelForSequenceClassification

from worker.commands.reward import reward
from worker.learning.checkpoints import hash_folder
from worker.learning.records import Message
from worker.learning.reward.files import ADDED
from worker.learning.reward.lines import parse_line
from worker.learning.reward.model import load_reward_model, score_responses
from worker.learning.reward.settings import RewardSettings

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT.parent / "shared" / "data"
DOCS = (ROOT / "docs" / "reward.md").read_text()
PATIENCE = 240.0  # seconds
QUICK = ["--set", "epochs=4", "--set", "learning_rate=3e-3", "--device", "cpu"]
PLAIN = "cat dog sun rain sat ran the a big small saw old new".split()  # noqa: SIM905

Row = dict[str, Any]


def planted(count: int, seed: int, **more: Any) -> list[Row]:
    """Rankings of four by how often they say "good": what a reward model is to find out."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        goods = chance.sample(range(6), 4)
        rows.append(
            {
                "prompt": " ".join(chance.choices(PLAIN, k=5)),
                "responses": [
                    " ".join([*chance.choices(PLAIN, k=3), *["good"] * good, *["bad"] * (5 - good)]) for good in goods
                ],
                "ranking": sorted(range(4), key=lambda place, goods=goods: -goods[place]),  # type: ignore[misc]
                "annotator": number % 3,
                **more,
            }
        )
    return rows


def written(file: Path, rows: Sequence[Row]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def command(*arguments: object) -> Result:
    return CliRunner().invoke(reward, [str(argument) for argument in arguments])


def said(run: Result) -> str:
    """The error of a command that failed, behind what its bar left."""
    return run.stderr.partition("Error: ")[2]


def process(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "app.commands", "reward", *map(str, arguments)]


def alike() -> dict[str, str]:
    """A child that computes as this process does, and reaches no network."""
    return os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("labels") / "labels.jsonl", planted(100, seed=1))


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path, labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "reward"
    run = command("fit", "--data", labels, "--backbone", tiny_folder, "--out", out, *QUICK)
    assert run.exit_code == 0, run.output
    assert run.stdout == ""
    assert "accuracy" in run.stderr
    return out


# fit


def test_a_fit_finds_the_planted_preference_and_says_how_it_went(fitted: Path) -> None:
    card = json.loads((fitted / "card.json").read_text())
    assert card["accuracy"] > 0.9
    assert card["measured_prompts"] == "validation"
    assert card["labels"]["train"] + card["labels"]["validation"] == 100
    assert card["labels"]["validation"] in range(3, 25)
    assert card["n"] == 6 * card["labels"]["validation"]
    assert card["normalised_on"] == {"responses_of": "labels", "prompts": 100 - card["labels"]["validation"]} | {
        "samples": 4 * card["labels"]["train"]
    }
    assert card["settings"]["epochs"] == 4
    assert [path.name for path in fitted.parent.iterdir()] == ["reward"]
    model = AutoModelForSequenceClassification.from_pretrained(fitted)
    assert model.config.num_labels == 1


def test_lines_say_which_side_they_are_on(tiny_folder: Path, tmp_path: Path) -> None:
    rows = planted(30, 2) + planted(8, 3, split="validation") + planted(12, 4, split="test")
    validation = written(tmp_path / "more.jsonl", planted(5, 5))
    run = command(
        *("fit", "--data", written(tmp_path / "rows.jsonl", rows), "--backbone", tiny_folder),
        *("--out", tmp_path / "out", "--validation", validation, "--set", "posterior=false", *QUICK),
    )
    assert run.exit_code == 0, run.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["labels"] == {"train": 30, "validation": 13, "test": 12}
    assert (card["measured_prompts"], card["n"]) == ("test", 72)
    run = command("score", "--model", tmp_path / "out", "--data", validation, "--out", tmp_path / "scored.jsonl")
    assert run.exit_code == 0, run.output
    assert "without a posterior" in run.stderr
    assert json.loads((tmp_path / "scored.jsonl").read_text().splitlines()[0])["deviations"] == [None] * 4


def test_everything_that_can_be_said_is_learned_from(tiny_folder: Path, tmp_path: Path) -> None:
    graded = {"prompt": "the cat", "responses": ["good", "bad"], "ranking": [0, 1], "strength": 2}
    rows: list[Row] = [
        *planted(12, 6, criteria={"brief": {"scores": [1, 2, 3, None]}, "kind": {"ranking": [[0, 1], 2]}}),
        *planted(6, 7, scores=[1, 2, 3, 4], shown=[3, 2, 1, 0], group="g"),
        *[graded | {"prompt": f"the {word}"} for word in PLAIN],
        *[graded | {"prompt": f"a {word}", "ranking": [[0, 1]], "strength": 0} for word in PLAIN],
        {"prompt": "the dog", "chosen": "good good", "rejected": "bad", "implied": True},
    ]
    settings = tmp_path / "settings.toml"
    settings.write_text('epochs = 1\nset_weight = "k-1"\nannotators = "learned"\nlora_rank = 2\n')
    reference = written(tmp_path / "reference.jsonl", [{"prompt": "sun", "responses": ["good", "bad", "the"]}])
    run = command(
        *("fit", "--data", written(tmp_path / "rows.jsonl", rows), "--backbone", tiny_folder),
        *("--out", tmp_path / "out", "--settings", settings, "--held-out-share", "0.3"),
        *("--reference", reference, "--learning-curve", "--set", "epochs=2", "--device", "cpu"),
    )
    assert run.exit_code == 0, run.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["settings"]["epochs"], card["settings"]["lora_rank"]) == (2, 2)
    assert card["normalised_on"] == {"responses_of": "reference", "prompts": 1, "samples": 3}
    assert set(card["by_criterion"]) == {"brief", "kind"}
    assert {(row["levels"], row["grade"]) for row in card["by_grade"]} <= {(1, 1), (2, 2)}
    assert [row["labels"] for row in card["learning_curve"]][-1] == card["labels"]["train"]
    model = load_reward_model(tmp_path / "out", torch.device("cpu"))
    prompt = (Message(role="user", content="sun"),)
    scores = score_responses(model, [prompt] * 3, ["good", "bad", "the"])
    torch.testing.assert_close(scores.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.std(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_what_was_left_out_and_what_was_not_compared_is_said(tiny_folder: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", [*planted(4, 9), {"prompt": "a", "responses": "b"}])
    run = command(
        *("fit", "--data", data, "--backbone", tiny_folder, "--out", tmp_path / "out", "--only-good-rows"),
        *("--set", "set_weight=validation", "--set", "posterior=false", "--device", "cpu"),
    )
    assert run.exit_code == 0, run.output
    told = " ".join(run.stderr.split())
    assert "left out, since they could not be read: 1, the first line 5" in told
    assert "no label was held out to choose by, so nothing was compared" in told
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["labels"]["train"], [way["set_weight"] for way in card["choices"]]) == (4, ["1"])


def test_an_earlier_model_is_gone_on_from_and_replaced(fitted: Path, tiny_folder: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", planted(20, 8))
    arguments = (
        "fit",
        "--data",
        data,
        "--backbone",
        tiny_folder,
        "--out",
        tmp_path / "out",
        "--start",
        fitted,
    )
    for _ in range(2):
        run = command(*arguments, "--set", "learning_rate=1e-6", "--held-out-share", "0.3", "--device", "cpu")
        assert run.exit_code == 0, run.output
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert (card["start"], card["settings"]["start"]) == (str(fitted), "warm")
    assert card["accuracy"] > 0.9  # one slow epoch alone learns nothing


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "epoch=3"], "there is no setting epoch. Is epochs meant? Known are epochs, "),
        (["--set", "epochs"], "epochs is no NAME=VALUE, such as epochs=2"),
        (["--set", "epochs=many"], "settings: epochs: "),
        (["--set", "epochs=0"], "epochs must be a number above 0, not 0"),
        (["--set", "checkpoint_seconds=nan"], "checkpoint_seconds must be a number that is not negative, not nan"),
        (["--set", "checkpoint_seconds=-5"], "checkpoint_seconds must be a number that is not negative, not -5"),
        (["--settings", "true.json"], "settings: epochs: Input should be a valid integer"),
        (["--validation", "data.jsonl", "--held-out-share", "0.9"], "since there are 4 validation lines"),
        (["--set", "learning_rate=nan"], "learning_rate must be a number above 0 or left out, not nan"),
        (["--set", "weight_decay=inf"], "weight_decay must be a number that is not negative, not inf"),
        (["--set", "set_weight=2"], "settings: set_weight: "),
        (["--set", "start=better"], "name the reward model to start from with --start"),
        (["--settings", "list.json"], "list.json must hold one object"),
        (["--settings", "broken.toml"], "broken.toml cannot be read as toml"),
        (["--validation", "bad.jsonl"], 'line 2: "responses" is a text, and must be a list'),
        (["--reference", "bad.jsonl"], 'line 2: "responses" is a text, and must be a list'),
        (["--device", "tpu"], 'there is no device "tpu"'),
        (["--backbone", "./nowhere"], 'there is no model in "./nowhere": it is no folder here'),
        (["--backbone", "models/no/where"], 'there is no model in "models/no/where"'),
        (["--backbone", "no where"], 'there is no model "no where": it is no folder here, nor is it the name of'),
        (["--start", "nowhere"], "nowhere is no reward model"),
        (["--out", "full"], "full holds other things than a reward model"),
        (["--data", "tests.jsonl"], "tests.jsonl has no line to learn from"),
        (["--data", "odd.jsonl"], 'line 2: "split" is "dev", and known are train, validation, test'),
        (["--data", "silent.jsonl"], "there is nothing to fit"),
        (["--learning-curve"], "a learning curve needs held-out labels"),
    ],
)
def test_what_cannot_be_fitted_is_said(
    arguments: list[str], sentence: str, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "true.json").write_text('{"posterior": false, "epochs": true}')
    (tmp_path / "broken.toml").write_text("epochs =")
    written(tmp_path / "data.jsonl", planted(4, 9))
    written(tmp_path / "bad.jsonl", [*planted(1, 9), {"prompt": "a", "responses": "b"}])
    written(tmp_path / "tests.jsonl", planted(2, 9, split="test"))
    written(tmp_path / "odd.jsonl", planted(1, 9) + planted(2, 9, split="dev"))
    written(tmp_path / "silent.jsonl", [{"prompt": "a", "responses": ["b", "c"]}])
    before = sorted(tmp_path.rglob("*"))
    run = command("fit", "--data", "data.jsonl", "--backbone", tiny_folder, "--out", "out", *arguments)
    assert run.exit_code == 1
    assert sentence in said(run)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.timeout(900)
def test_a_fit_that_is_killed_goes_on_to_the_same_bytes(tiny_folder: Path, labels: Path, tmp_path: Path) -> None:
    def arguments(out: str) -> list[str]:
        steady = ("--set", "checkpoint_seconds=0", "--set", "epochs=8", "--device", "cpu")
        return process("fit", "--data", labels, "--backbone", tiny_folder, "--out", tmp_path / out, *steady)

    subprocess.run(arguments("whole"), env=alike(), check=True, timeout=PATIENCE, capture_output=True)
    killed = subprocess.Popen(arguments("killed"), env=alike(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not list((tmp_path / "killed.checkpoints").glob("step-*")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed").exists()
    subprocess.run(arguments("killed"), env=alike(), check=True, timeout=PATIENCE, capture_output=True)
    assert hash_folder(tmp_path / "killed") == hash_folder(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


# score and evaluate


def test_every_line_gets_the_scores_that_the_model_gives(fitted: Path, labels: Path, tmp_path: Path) -> None:
    out = tmp_path / "scored.jsonl"
    run = command("score", "--model", fitted, "--data", labels, "--out", out, "--device", "cpu")
    assert run.exit_code == 0, run.output
    given, rows = (list(map(json.loads, file.read_text().splitlines())) for file in (labels, out))
    assert [{key: row[key] for key in row if key not in ADDED} for row in rows] == [
        {**row, "given_scores": None} for row in given
    ]
    right = [sorted(range(4), key=lambda place, row=row: -row["scores"][place]) == row["ranking"] for row in rows]  # type: ignore[misc]
    assert sum(right) > 80
    assert all(deviation > 0 for row in rows for deviation in row["deviations"])
    model = load_reward_model(fitted, torch.device("cpu"))
    prompt = (Message(role="user", content=rows[0]["prompt"]),)
    scores = score_responses(model, [prompt] * 4, rows[0]["responses"])
    torch.testing.assert_close(torch.tensor(rows[0]["scores"]), scores, atol=0.05, rtol=0)


def test_a_measurement_prints_json_alone(fitted: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", planted(30, 10, split="test") + planted(5, 11))
    measured = subprocess.run(
        process("evaluate", "--model", fitted, "--data", data, "--split", "test", "--device", "cpu"),
        env=alike(),
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert measured.returncode == 0, measured.stderr
    card = json.loads(measured.stdout)
    assert card["n"] == 30 * 6
    assert card["accuracy"] > 0.9
    assert card["accuracy_low"] <= card["accuracy"] <= card["accuracy_high"]
    assert 0 < card["nll"] < 0.6931
    assert 0 <= card["ece"] < 0.3


def test_labels_that_order_nothing_measure_nothing(fitted: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "rows.jsonl", [{"prompt": "a", "responses": ["b", "c"], "ranking": [[0, 1]]}])
    run = command("evaluate", "--model", fitted, "--data", data, "--device", "cpu")
    assert run.exit_code == 0, run.output
    card = json.loads(run.stdout)
    assert (card["n"], card["accuracy"], card["nll"], card["ece"]) == (0, None, None, None)


def test_what_cannot_be_scored_or_measured_is_said(fitted: Path, labels: Path, tmp_path: Path) -> None:
    bad = written(tmp_path / "bad.jsonl", [*planted(1, 9), {"prompt": "a", "responses": [True]}])
    reason = f'{bad}: 1 line cannot be read, and nothing was done\n  line 2: "responses"[0] is true, not a text\n'
    run = command("score", "--model", fitted, "--data", bad, "--out", tmp_path / "out.jsonl")
    assert (run.exit_code, said(run)) == (1, reason)
    assert not (tmp_path / "out.jsonl").exists()
    run = command("evaluate", "--model", fitted, "--data", bad)
    assert (run.exit_code, run.stdout, said(run)) == (1, "", reason)
    run = command("evaluate", "--model", fitted, "--data", bad, "--only-good-rows", "--device", "cpu")
    assert json.loads(run.stdout)["n"] == 6
    run = command("evaluate", "--model", tmp_path, "--data", labels)
    assert "is no reward model" in run.stderr
    run = command("evaluate", "--model", fitted, "--data", labels, "--split", "test")
    assert 'has no line with the "split" test' in run.stderr


# Documents


def test_every_example_of_a_line_can_be_read() -> None:
    examples = [line for block in re.findall(r"```json\n(.*?)```", DOCS, re.DOTALL) for line in block.splitlines()]
    lines = [json.loads(line) for line in examples if "learning_rate" not in line]
    assert len(lines) > 14
    for line in lines:
        parse_line(line)


def test_every_option_is_documented() -> None:
    for name, sub in reward.commands.items():
        section = DOCS[DOCS.index(f"\n## {name}") :].split("\n## ")[1]
        documented = set(re.findall(r"`(--[a-z-]+)`", "\n".join(re.findall(r"^\| `--.*", section, re.MULTILINE))))
        options = {one.opts[0] for one in sub.params if isinstance(one, click.Option)}
        assert documented - {"--data", "--start"} == options - {"--data", "--start"}, name


def test_every_setting_is_documented_with_its_default() -> None:
    table = DOCS[DOCS.index("| setting | ") : DOCS.index("### The folder")]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| `?([^|`]*)`? \|$", table, re.MULTILINE))
    defaults = {field.name: field.default for field in dataclasses.fields(RewardSettings)}
    assert rows.keys() == defaults.keys()
    words = {None: "none", True: "true", False: "false"}
    for name, default in defaults.items():
        is_word = default is None or isinstance(default, bool)
        assert rows[name] == (words[default] if is_word else str(default)), name  # type: ignore[index]


def test_every_key_of_a_card_is_documented(fitted: Path) -> None:
    documented = set(re.findall(r"`([a-z_]+)`", DOCS[DOCS.index("### The card") :]))
    assert set(json.loads((fitted / "card.json").read_text())) <= documented

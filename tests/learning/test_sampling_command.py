"""Does `prefloop sample` do what docs/sampling.md says? Real processes, small models, a real server."""

import gzip
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from app.commands import create_command
from worker.commands.sampling import OF_OTHER_RESPONSES, sample
from worker.learning.reward.shapes import read_shape

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent.parent
DOCS = (ROOT / "docs" / "sampling.md").read_text()
LINES: list[dict[str, Any]] = [
    {"prompt": "the cat", "id": 7, "split": "train"},
    {"prompt": [{"role": "user", "content": "a big old dog"}], "note": "日本"},
    {"prompt": "rain", "responses": ["old", "new"], "ranking": [[0], [1]], "annotator": "ada"},
]
SHORT = ("--max-new-tokens", "6", "--device", "cpu")


def prefloop(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.commands", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)


def run(*arguments: str | Path) -> Any:
    """The same in this process: torch need not be loaded again."""
    return CliRunner().invoke(create_command(), [str(argument) for argument in arguments])


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in LINES))
    return file


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_line_comes_out_with_its_responses(tiny_folder: Path, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "responses.jsonl"
    done = prefloop("sample", "--policy", tiny_folder, "--prompts", prompts, "--n", "3", "--out", out, *SHORT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "9 responses to 3 prompts" in " ".join(done.stderr.split())
    written = rows(out)
    for row, line in zip(written, LINES, strict=True):
        assert row["prompt"] == line["prompt"]
        assert len(row["responses"]) == len(row["finish_reasons"]) == len(row["seeds"]) == 3
        assert set(row["finish_reasons"]) <= {"ended", "cut"}
        assert list(read_shape(row).responses) == row["responses"]
    assert written[0]["id"] == 7
    assert written[1]["note"] == "日本"
    assert "日本" in out.read_text()
    assert written[2]["annotator"] == "ada"
    assert "ranking" not in written[2]
    assert list(out.parent.iterdir()) == [out]


def test_reward_models_score_it_as_it_is(tiny_folder: Path, prompts: Path, tmp_path: Path) -> None:
    labels, out, scored = tmp_path / "labels.jsonl", tmp_path / "responses.jsonl", tmp_path / "scored.jsonl"
    label = {"prompt": "the cat", "responses": ["sat", "ran"], "ranking": [[0], [1]]}
    labels.write_text("".join(json.dumps({**label, "group": str(number)}) + "\n" for number in range(4)))
    model = tmp_path / "reward"
    fitted = run("reward", "fit", "--data", labels, "--backbone", tiny_folder, "--out", model, "--device", "cpu")
    assert fitted.exit_code == 0, fitted.output
    assert run("sample", "--policy", tiny_folder, "--prompts", prompts, "--out", out, *SHORT, "--n", "2").exit_code == 0
    done = run("reward", "score", "--model", model, "--data", out, "--out", scored, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert [len(row["scores"]) for row in rows(scored)] == [2, 2, 2]


def test_the_same_seed_writes_the_same_file_gzipped_too(tiny_folder: Path, prompts: Path, tmp_path: Path) -> None:
    common = ("sample", "--policy", tiny_folder, "--prompts", prompts, "--n", "2", *SHORT)
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl", "d.jsonl")]
    for file, seed in zip(files, ("1", "1", "2", "1"), strict=True):
        precision = "bf16" if file.name == "d.jsonl" else "fp32"
        assert run(*common, "--out", file, "--seed", seed, "--precision", precision).exit_code == 0
    assert files[0].read_bytes() == gzip.decompress(files[1].read_bytes())
    assert files[0].read_bytes() != files[2].read_bytes()
    assert rows(files[0])[0]["seeds"] == rows(files[3])[0]["seeds"]


def test_engines_agree_without_noise(tiny_folder: Path, prompts: Path, tmp_path: Path) -> None:
    found = []
    for engine in ("loop", "continuous"):
        out = tmp_path / f"{engine}.jsonl"
        common = ("sample", "--policy", tiny_folder, "--prompts", prompts, "--out", out, *SHORT)
        done = run(*common, "--temperature", "0", "--precision", "fp32", "--engine", engine)
        assert done.exit_code == 0, done.output
        found.append([row["responses"] for row in rows(out)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", r"line 2: it is not JSON"),
        ('{"question": 3}', r'line 2: "question" is the number 3'),
        ('{"text": "x"}', r'line 2: it has no "prompt"'),
        (json.dumps({"prompt": "the " * 70}), r"line 2: a prompt of 70 tokens and 6 new ones do not fit"),
    ],
)
def test_bad_lines_are_named_and_nothing_is_written(
    tiny_folder: Path, tmp_path: Path, line: str, sentence: str
) -> None:
    file, out = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    out.write_text("what was there")
    file.write_text(f'{{"prompt": "the cat"}}\n{line}\n')
    done = run("sample", "--policy", tiny_folder, "--prompts", file, "--out", out, *SHORT)
    assert done.exit_code == 1
    assert re.search(sentence, done.output), done.output
    assert str(file) in done.output
    assert out.read_text() == "what was there"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "either --policy or --server"),
        (("--policy", "x", "--server", "http://y"), "either --policy or --server"),
        (("--server", "http://y"), "name the --model as the server calls it"),
        (("--policy", "x", "--model", "y"), "--model and --extra are for a --server"),
        (("--server", "y:8000", "--model", "m"), "is no address of a server"),
        (("--server", "http://y", "--model", "m", "--extra", "{"), "--extra is not JSON"),
        (("--server", "http://y", "--model", "m", "--extra", "[1]"), "--extra must be an object"),
        (("--policy", "/nowhere"), 'there is no model in "/nowhere"'),
        (("--policy", "x", "--temperature", "-1"), "temperature must not be negative"),
        (("--policy", "x", "--top-p", "0"), "top_p must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said(prompts: Path, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    done = run("sample", "--prompts", prompts, "--out", tmp_path / "out.jsonl", *arguments)
    assert done.exit_code == 1
    assert sentence in done.output
    assert not (tmp_path / "out.jsonl").exists()


class Answering(BaseHTTPRequestHandler):
    """Repeats the last message, and fails at the word "rain" where the extra fields ask for it."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = asked["messages"][-1]["content"]
        if asked.get("fail_at") == text:
            self.send_error(400, "no")
            return
        choices = [{"message": {"content": f"{text}!"}, "finish_reason": "length"} for _ in range(asked["n"])]
        body = json.dumps({"choices": choices}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()
    thread.join()


def test_a_server_answers_in_the_policys_place(address: str, prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    asked = ("sample", "--server", address, "--model", "m", "--prompts", prompts, "--n", "2", "--out", out)
    assert run(*asked).exit_code == 0
    assert [row["responses"] for row in rows(out)] == [["the cat!"] * 2, ["a big old dog!"] * 2, ["rain!"] * 2]
    assert [row["finish_reasons"] for row in rows(out)] == [["cut"] * 2] * 3
    before = out.read_bytes()
    failed = run(*asked, "--extra", '{"fail_at": "rain"}')
    assert failed.exit_code == 1
    assert "refuses the request: 400" in failed.output
    assert out.read_bytes() == before


# docs/sampling.md


def test_every_option_is_documented_with_its_default() -> None:
    table = dict(re.findall(r"^\| `(--[a-z-]+)` \| [^|]* \| ?([^|]*?) ?\|$", DOCS, re.MULTILINE))
    options = {option.opts[0]: option for option in sample.params if isinstance(option, click.Option)}
    assert set(table) == set(options)
    for name, option in options.items():
        expected = "needed" if option.required else f"`{option.default}`" if option.show_default else ""
        assert table[name] == expected, name


def test_every_key_that_is_left_out_is_documented() -> None:
    [told] = re.findall(r"are left out: (.*?)\.\n", DOCS, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", told)) == OF_OTHER_RESPONSES


def test_the_commands_in_the_docs_can_be_read() -> None:
    commands = re.findall(r"^    (prefloop sample .*)$", DOCS, re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        given = [part for part in shlex.split(command)[2:] if part.startswith("--")]
        assert set(given) <= {name for option in sample.params for name in option.opts}, command

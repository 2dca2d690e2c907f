import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM, AutoTokenizer

from worker.commands import pretrain as pretrain_command
from worker.commands import sft as sft_command
from worker.learning.corpus import (
    Pair,
    encode_document,
    encode_pair,
    is_held_out,
    read_documents,
    read_pairs,
    train_tokenizer,
)
from worker.learning.course import rate_at
from worker.learning.language_model import ModelShape, TrainedModel, finetune, new_language_model, pretrain
from worker.learning.models import load_tokenizer, save_model
from worker.learning.packing import IGNORED, packed_batch
from worker.learning.progress import Progress
from worker.learning.training import Training, TrainingSettings, mean_loss, optimise, train

pytestmark = pytest.mark.learning

ROOT = Path(__file__).parent.parent.parent
CPU = torch.device("cpu")
SHAPE = ModelShape(vocabulary=300, context=48, hidden_size=32, layers=1, heads=2, intermediate_size=32)
SETTINGS = TrainingSettings(
    epochs=3, batch_tokens=192, micro_batch_tokens=96, learning_rate=1e-2, held_out_share=0.2, checkpoint_seconds=0
)


def make_documents(count: int = 60) -> list[str]:
    draw = random.Random(0)
    things, places = ["cat", "dog", "hen", "fox"], ["barn", "park", "lake"]
    return [
        f"The {draw.choice(things)} number {number} went to the {draw.choice(places)}. It came home happy."
        for number in range(count)
    ]


def make_pairs(count: int = 40) -> list[Pair]:
    return [
        Pair(({"role": "user", "content": f"Say {number}."},), f"I say {number} now.", str(number))
        for number in range(count)
    ]


def weights(trained: TrainedModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trained.model.named_parameters()}


def assert_same_bits(one: TrainedModel, other: TrainedModel) -> None:
    assert one.history == other.history
    assert one.best_epoch == other.best_epoch
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretrained tiny model in a folder."""
    trained = pretrain(make_documents(), SHAPE, replace(SETTINGS, epochs=1), 1, device=CPU)
    folder = tmp_path_factory.mktemp("base") / "model"
    save_model(trained.model, trained.tokenizer, folder)
    return str(folder)


def test_pretraining_learns_its_documents() -> None:
    seen: list[Progress] = []
    trained = pretrain(make_documents(), SHAPE, replace(SETTINGS, optimiser="muon"), 1, seen.append, device=CPU)
    losses = [row["held_out_loss"] for row in trained.history]
    assert losses[-1] < 3.0 < losses[0], "a uniform guess costs log 300 = 5.7 nats"
    assert trained.held_out_loss == min(losses)
    assert [one.done for one in seen] == list(range(1, seen[-1].total + 1))
    assert {"loss", "grad_norm", "learning_rate"} <= set(seen[0].metrics)
    assert "held_out_loss" in seen[-1].metrics


def test_the_best_epoch_is_kept_and_not_the_last() -> None:
    """A learning rate that climbs without end undoes what it taught at first."""
    documents = make_documents(20)
    tokenizer = train_tokenizer(documents, 300, 48)
    sequences = [one for document in documents for one in encode_document(tokenizer, document, 48)]
    model = new_language_model(SHAPE, tokenizer, 1)
    settings = replace(SETTINGS, epochs=6, learning_rate=3.0, warmup_share=1.0)
    wild = Training("test", model, sequences, sequences, 48, settings, 1)
    history, best = train(wild)
    losses = [row["held_out_loss"] for row in history]
    assert losses[best - 1] == min(losses) < losses[-1]
    assert mean_loss(wild, sequences) == pytest.approx(min(losses), abs=1e-6)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_stopped_training_goes_on_to_the_same_bits(optimiser: Any, stop_after: int, tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimiser=optimiser)

    def stop(progress: Progress) -> None:
        if progress.done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(make_documents(), SHAPE, settings, 1, stop, tmp_path, CPU)
    steps: list[int] = []
    resumed = pretrain(
        make_documents(), SHAPE, settings, 1, lambda progress: steps.append(progress.done), tmp_path, CPU
    )
    assert steps[0] == stop_after + 1
    assert_same_bits(resumed, pretrain(make_documents(), SHAPE, settings, 1, device=CPU))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.learning.test_language_model import SETTINGS, make_pairs
from worker.learning.language_model import finetune
def kill(progress):
    if progress.done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
finetune(sys.argv[1], make_pairs(), SETTINGS, 1, kill, Path(sys.argv[2]))
"""


def test_fine_tuning_survives_a_kill(base: str, tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, base, str(tmp_path)], cwd=ROOT, check=False)
    assert killed.returncode == -9
    steps: list[int] = []
    resumed = finetune(base, make_pairs(), SETTINGS, 1, lambda one: steps.append(one.done), tmp_path, CPU)
    assert steps[0] == 5
    assert_same_bits(resumed, finetune(base, make_pairs(), SETTINGS, 1, device=CPU))


def test_checkpoints_of_another_training_are_refused(tmp_path: Path) -> None:
    pretrain(make_documents(), SHAPE, SETTINGS, 1, checkpoints=tmp_path, device=CPU)
    for seed, settings, documents in (
        (2, SETTINGS, make_documents()),
        (1, replace(SETTINGS, learning_rate=1e-3), make_documents()),
        (1, SETTINGS, make_documents(61)),
    ):
        with pytest.raises(ValueError, match="belong to another training"):
            pretrain(documents, SHAPE, settings, seed, checkpoints=tmp_path, device=CPU)


def test_a_finished_training_is_not_trained_again(tmp_path: Path) -> None:
    first = pretrain(make_documents(), SHAPE, SETTINGS, 1, checkpoints=tmp_path, device=CPU)
    steps: list[Progress] = []
    again = pretrain(make_documents(), SHAPE, SETTINGS, 1, steps.append, tmp_path, CPU)
    assert steps == []
    assert_same_bits(first, again)


def test_only_the_response_and_its_end_are_learned(base: str) -> None:
    tokenizer = load_tokenizer(base)
    sequence = encode_pair(tokenizer, make_pairs()[7], 48)
    targets = packed_batch([[sequence]], 48, CPU).targets[0]
    learned = tokenizer.decode(targets[targets != IGNORED])
    assert learned == f"I say 7 now.{tokenizer.eos_token}"
    assert tokenizer.decode(sequence.ids) == f"Say 7.\nI say 7 now.{tokenizer.eos_token}"


def test_the_loss_does_not_depend_on_what_the_prompt_costs(base: str) -> None:
    """-log p(response, end | prompt) by the model's own forward, one token after the other."""
    tokenizer = load_tokenizer(base)
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    sequence = encode_pair(tokenizer, make_pairs()[7], 48)
    with torch.no_grad():
        logs = model(input_ids=torch.tensor([sequence.ids])).logits[0].log_softmax(dim=-1)
    ids, start = sequence.ids, sequence.learn_from
    expected = -sum(float(logs[at - 1, ids[at]]) for at in range(start, len(ids))) / (len(ids) - start)
    training = Training("test", model, [sequence], [], 48, replace(SETTINGS, precision="fp32"), 1)
    assert mean_loss(training, [sequence]) == pytest.approx(expected, abs=1e-5)


def test_fine_tuning_teaches_to_answer_and_to_end(base: str) -> None:
    trained = finetune(base, make_pairs(), replace(SETTINGS, epochs=20), 1, device=CPU)
    assert trained.history[0]["loss"] > 1.5
    assert trained.history[-1]["loss"] < 0.3
    assert trained.tokenizer.pad_token_id != trained.tokenizer.eos_token_id


def test_micro_batches_change_memory_and_nothing_else() -> None:
    documents = make_documents(20)
    tokenizer = train_tokenizer(documents, 300, 48)
    sequences = [one for document in documents for one in encode_document(tokenizer, document, 48)]
    gradients = []
    for size in (48, 480):
        model = new_language_model(SHAPE, tokenizer, 1)
        training = Training("test", model, sequences, [], 48, replace(SETTINGS, micro_batch_tokens=size), 1)
        gradients.append(optimise(training, [], [[one] for one in sequences], 0.1)["grad_norm"])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-3)


def test_the_learning_rate_climbs_and_falls_to_nothing() -> None:
    """Ten steps, a fifth of them warm-up: 1/2 and 1, then 8/8 down to 1/8."""
    rates = [rate_at(step, 10, 0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_what_is_held_out_is_decided_by_the_text_alone() -> None:
    """sha256("a") begins with ca9781..., that is 0.7914 of all hashes; "b" with 3e23e8..., 0.2427."""
    assert [is_held_out("a", share) for share in (0.79, 0.792)] == [False, True]
    assert [is_held_out("b", share) for share in (0.242, 0.243)] == [False, True]


def test_held_out_documents_leave_no_trace_in_the_tokenizer() -> None:
    held_out = next(word for word in (f"zyxwv{number}" for number in range(1_000)) if is_held_out(f"{word} " * 5, 0.2))
    trained = pretrain([*make_documents(), f"{held_out} " * 5], SHAPE, replace(SETTINGS, epochs=1), 1, device=CPU)
    assert len(trained.tokenizer(held_out)["input_ids"]) >= 6, "its letters were merged"


def test_any_text_comes_back_unchanged() -> None:
    tokenizer = train_tokenizer(make_documents(), 300, 48)
    text = "Zoë said: “你好” 🙂\n\n  two  spaces\tand <|endoftext|> as text"
    ids = tokenizer(text, split_special_tokens=True)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids


def test_documents_are_read_once_each_in_plain_quotes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(
        "\ufeffOne  “two”.\r\n\r\nThree’s.\r\n<|endoftext|>\n<|endoftext|>B\n<|endoftext|>\nB<|endoftext|>\n".encode()  # noqa: RUF001
    )
    assert read_documents([tmp_path / "a.txt", tmp_path / "a.txt"]) == ['One "two".\nThree\'s.', "B"]


def test_pairs_are_read_in_every_form(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = [{"prompt": "x", "response": "y"}, {"prompt": messages, "response": "z", "group": "g"}]
    (tmp_path / "pairs.jsonl").write_text("\n\n".join(map(json.dumps, rows)))
    first, second = read_pairs(tmp_path / "pairs.jsonl")
    assert first.prompt == ({"role": "user", "content": "x"},)
    assert (second.prompt, second.response, second.group) == (tuple(messages), "z", "g")


def test_a_pair_may_hold_what_some_call_a_line_break(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four"
    row = json.dumps({"prompt": text, "response": text}, ensure_ascii=False)
    (tmp_path / "pairs.jsonl").write_bytes(f"{row}\r\n{row}\r\n".encode())
    assert [(pair.prompt[0]["content"], pair.response) for pair in read_pairs(tmp_path / "pairs.jsonl")] == [
        (text,) * 2
    ] * 2


BAD_PAIRS = [
    (b'{"prompt": "x", "response": "y"}\n{"prompt": "x"', "line 2: Expecting"),
    (b'{"prompt": "x", "response": true}', 'line 1: "response" is missing, empty or not a text'),
    (b'{"prompt": "x", "response": "  "}', 'line 1: "response" is missing, empty or not a text'),
    (b'{"prompt": "x"}', 'line 1: "response" is missing'),
    (b'{"prompt": [{"role": "user"}], "response": "y"}', 'line 1: "prompt" is neither'),
    (b'{"prompt": [], "response": "y"}', 'line 1: "prompt" is neither'),
    (b'{"prompt": "x", "response": "y", "group": 3}', 'line 1: "group" is not a text'),
    (b'["x", "y"]', "line 1: a line is an object"),
    (b'{"prompt": "\xff", "response": "y"}', "is not UTF-8 text: byte 12 is 0xff"),
    (b"\n", "has no pairs"),
    (b'{"prompt": "x", "response": "' + b"long " * 100 + b'"}', "pair 1: a pair of"),
]


@pytest.mark.parametrize(("content", "reason"), BAD_PAIRS, ids=[reason for _, reason in BAD_PAIRS])
def test_bad_pairs_are_refused_with_line_and_reason(content: bytes, reason: str, base: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_bytes(content)
    run = CliRunner().invoke(sft_command, [base, str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")])
    assert run.exit_code == 1, run.output
    assert reason in run.output
    assert not (tmp_path / "out").exists()


BAD_PRETRAINING = [
    ("", [], "there is no document"),
    ("one story", ["--vocabulary", "10"], "at least 258 tokens, not 10"),
    ("one story", ["--hidden-size", "30"], "must be an even multiple of heads 7"),
    ("one story", ["--epochs", "0"], "epochs must be above 0, not 0"),
    ("one story", ["--held-out-share", "1"], "held_out_share must be at least 0 and below 1"),
    ("one story", ["--held-out-share", "0.9999"], "no document is left to train on"),
    ("one story", ["--device", "abacus"], 'no device "abacus"'),
]


@pytest.mark.parametrize(("text", "options", "reason"), BAD_PRETRAINING, ids=[reason for *_, reason in BAD_PRETRAINING])
def test_bad_pretraining_is_refused_with_a_reason(text: str, options: list[str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text(text)
    run = CliRunner().invoke(pretrain_command, [str(tmp_path / "corpus.txt"), "--out", str(tmp_path / "out"), *options])
    assert run.exit_code == 1, run.output
    assert reason in run.output
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "x", "response": "y"}')
    run = CliRunner().invoke(
        sft_command, [str(tmp_path / "none"), str(tmp_path / "pairs.jsonl"), "--out", str(tmp_path / "out")]
    )
    assert run.exit_code == 1
    assert "there is no model in" in run.output


def test_the_commands_make_a_model_that_the_field_loads(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("\n<|endoftext|>\n".join(make_documents()))
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "The cat went.", "response": "It came home."}\n' * 3)
    shape = ["--vocabulary=300", "--hidden-size=32", "--layers=1", "--heads=2", "--intermediate-size=32"]
    base, chat = tmp_path / "base", tmp_path / "chat"
    for command, arguments in (
        (pretrain_command, [str(tmp_path / "corpus.txt"), "--out", str(base), "--epochs=1", "--context=48", *shape]),
        (sft_command, [str(base), str(tmp_path / "pairs.jsonl"), "--out", str(chat), "--weights", "bf16"]),
    ):
        run = CliRunner().invoke(command, arguments)
        assert run.exit_code == 0, run.output
        assert "parameters" in run.output
    model, tokenizer = AutoModelForCausalLM.from_pretrained(chat), AutoTokenizer.from_pretrained(chat)
    assert (model.dtype, model.config.max_position_embeddings) == (torch.bfloat16, 48)
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["base", "chat"]


def test_help_shows_examples() -> None:
    for command in (pretrain_command, sft_command):
        assert f"  prefloop {command.name} " in CliRunner().invoke(command, ["--help"]).output

import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from demo.endings import pairs_of
from worker.learning.corpus import CHAT_TEMPLATE, Pair, encode_pair, is_held_out, read_documents
from worker.learning.models import (
    autocast,
    check_source,
    encode_prompt,
    load_language_model,
    load_tokenizer,
    pick_device,
    save_model,
)
from worker.learning.records import Message
from worker.learning.training import Training, TrainingSettings, mean_loss

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def resaved(tokenizer: Any, folder: Path, **changes: Any) -> str:
    """The tokenizer saved with other special tokens."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **changes).save_pretrained(folder)
    return str(folder)


def test_a_device_that_is_not_there_is_named() -> None:
    assert pick_device("cpu") == CPU
    assert pick_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ValueError, match='no device "banana"'):
        pick_device("banana")
    with pytest.raises(ValueError, match='no device "cuda:99"'):
        pick_device("cuda:99")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_sets_the_precision_of_products(precision: Any, dtype: torch.dtype) -> None:
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_what_is_no_model_is_refused_by_name(tmp_path: Path) -> None:
    for load in (load_tokenizer, load_language_model):
        with pytest.raises(ValueError, match=r'can be loaded from ".*empty"'):
            load(str(tmp_path / "empty"))


def test_a_tokenizer_without_an_end_is_refused(tiny_tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no end token"):
        load_tokenizer(resaved(tiny_tokenizer, tmp_path, pad_token="<pad>"))


@pytest.mark.parametrize("pad", [{}, {"pad_token": "<eos>"}])
def test_a_pad_token_of_its_own_is_found_for_every_tokenizer(
    pad: dict[str, str], tiny_tokenizer: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    for path in tiny_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    source = resaved(tiny_tokenizer, tmp_path, eos_token="<eos>", **pad)
    tokenizer = load_tokenizer(source)
    assert tokenizer.pad_token_id not in {None, tokenizer.eos_token_id}
    assert tokenizer.padding_side == "left"
    model = load_language_model(source, CPU)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer), "the pad token has no embedding"
    assert model.config.pad_token_id == tokenizer.pad_token_id


def test_dropout_is_off(tiny_folder: Path) -> None:
    """The configuration asks for 0.1 in the attention."""
    model = load_language_model(str(tiny_folder), CPU)
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_prompt_without_a_template_is_joined_by_blank_lines(tiny_tokenizer: Any) -> None:
    ids = encode_prompt(tiny_tokenizer, [user("good dog"), assistant("the sun"), user("bad cat")])
    assert ids == tiny_tokenizer("good dog\n\nthe sun\n\nbad cat")["input_ids"]
    with pytest.raises(ValueError, match="at least one message"):
        encode_prompt(tiny_tokenizer, [])


def test_an_end_token_that_the_tokenizer_adds_is_taken_off(tiny_tokenizer: Any, tmp_path: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(resaved(tiny_tokenizer, tmp_path, pad_token="<pad>", eos_token="<eos>"))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    assert tokenizer("good dog")["input_ids"][-1] == 1
    assert encode_prompt(tokenizer, [user("good dog")]) == tokenizer("good dog")["input_ids"][:-1]


def test_a_template_that_refuses_says_why(tiny_tokenizer: Any, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(resaved(tiny_tokenizer, tmp_path, pad_token="<pad>", eos_token="<eos>"))
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match="refuses this prompt: roles must alternate"):
        encode_prompt(tokenizer, [user("good dog")])


def test_a_saved_model_answers_as_before(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    ids = torch.tensor([[3, 4, 5, 6]])
    save_model(tiny_model, tiny_tokenizer, tmp_path / "model")
    loaded = load_language_model(str(tmp_path / "model"), CPU)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, tiny_model(input_ids=ids).logits)
    assert not [path for path in (tmp_path / "model").iterdir() if path.suffix in {".bin", ".pt", ".pkl"}]


def test_weights_can_be_written_at_half_the_size(tiny_model: Any, tiny_tokenizer: Any, tmp_path: Path) -> None:
    save_model(tiny_model, tiny_tokenizer, tmp_path / "half", torch.bfloat16)
    with safe_open(tmp_path / "half" / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118
    assert tiny_model.dtype == torch.float32
    assert load_language_model(str(tmp_path / "half"), CPU).dtype == torch.float32


ROOT = Path(__file__).parent.parent.parent
DEMO_MODEL = ROOT / "demo" / "model"
CORPUS = sorted((ROOT.parent / "shared" / "data" / "tinystories").glob("derived_*.txt"))


@pytest.fixture(scope="module")
def demo_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_MODEL)


def test_prompt_and_response_are_tokenised_alike_apart_and_together(demo_tokenizer: Any) -> None:
    prompt, response = "Tom had a ball. It was red.", '"Look!" said Tom.\nThey all went home. Once upon a time.'
    apart = encode_prompt(demo_tokenizer, [user(prompt)]) + demo_tokenizer(response)["input_ids"]
    together = demo_tokenizer.apply_chat_template([user(prompt), assistant(response)], return_dict=False)
    assert [*apart, demo_tokenizer.eos_token_id] == together
    assert demo_tokenizer.decode(apart, skip_special_tokens=True) == f"{prompt}\n{response}"


def test_a_conversation_ends_only_after_its_last_answer(demo_tokenizer: Any) -> None:
    turns = [user("One."), assistant("Two."), user("Three.")]
    assert demo_tokenizer.decode(encode_prompt(demo_tokenizer, turns)) == "One.\nTwo.\nThree.\n"
    ended = demo_tokenizer.apply_chat_template(turns[:2], tokenize=False)
    assert ended == f"One.\nTwo.{demo_tokenizer.eos_token}"


def test_the_committed_model_is_what_its_card_says(demo_tokenizer: Any) -> None:
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL)
    card = (DEMO_MODEL / "README.md").read_text()
    assert f"{sum(one.numel() for one in model.parameters()):,} parameters" in card
    assert sum(path.stat().st_size for path in DEMO_MODEL.iterdir()) <= 6_000_000
    assert demo_tokenizer.chat_template == CHAT_TEMPLATE
    assert len(demo_tokenizer) == model.config.vocab_size
    assert len({demo_tokenizer.pad_token_id, demo_tokenizer.eos_token_id, None}) == 3


def test_the_committed_model_ends_its_stories(demo_tokenizer: Any) -> None:
    from worker.learning.sampling import SamplingSettings, sample_responses

    lines = (DEMO_MODEL.parent / "openings.jsonl").read_text().splitlines()
    openings = [row["opening"] for row in map(json.loads, lines) if row["set"] == "heldout"][:60]
    model = load_language_model(str(DEMO_MODEL), CPU)
    drawn = sample_responses(
        model, demo_tokenizer, [[user(one)] for one in openings], 1, SamplingSettings(max_new_tokens=96), 1
    )
    samples = [sample for (sample,) in drawn]
    assert sum(sample.finish_reason == "ended" for sample in samples) / len(samples) > 0.9
    assert all(sample.text and sample.text == sample.text.strip() for sample in samples)
    words = [word for sample in samples for word in sample.text.split()]
    assert 15 < len(words) / len(samples) < 70
    assert len(set(words)) > 300, "the same words again and again"


@pytest.mark.skipif(not CORPUS, reason="the corpus that the model learned from is not beside this checkout")
def test_the_committed_model_has_the_held_out_loss_that_its_card_states(demo_tokenizer: Any) -> None:
    """On the endings of the stories that neither pretraining nor fine-tuning saw."""
    stories = [story for story in read_documents(CORPUS) if is_held_out(story, 0.02)]
    rows = [row for story in stories for row in pairs_of(story)]
    pairs = [Pair((user(row["prompt"]),), row["response"], row["group"]) for row in rows]
    sequences = [encode_pair(demo_tokenizer, pair, 512) for pair in pairs]
    settings = TrainingSettings(precision="fp32")
    training = Training("check", load_language_model(str(DEMO_MODEL), CPU), [], sequences, 512, settings, 1)
    stated = re.search(
        r"held-out loss of the committed weights: ([0-9.]+) nats", (DEMO_MODEL / "README.md").read_text()
    )
    assert stated is not None
    assert mean_loss(training, sequences) == pytest.approx(float(stated[1]), abs=0.002)


def test_the_openings_are_four_hundred_different_ones() -> None:
    rows = [json.loads(line) for line in (DEMO_MODEL.parent / "openings.jsonl").read_text().splitlines()]
    assert len({row["opening"] for row in rows}) == len({row["id"] for row in rows}) == 400
    assert [sum(row["set"] == name for row in rows) for name in ("train", "heldout")] == [300, 100]
    assert all(set(row) == {"id", "opening", "set"} for row in rows)


def move_hub(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_ENDPOINT does, which is read but once."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What a hub is asked in place of the real one: it has of/ours, breaks at is/broken and knows nothing else."""
    asked: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            status = {"of": 200, "is": 500}.get(self.path.split("/")[1], 404)
            self.send_response(status)
            self.send_header("Content-Length", "2")
            if status == 404:
                self.send_header("X-Error-Code", "EntryNotFound" if "adapter" in self.path else "RepoNotFound")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    move_hub(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    server.server_close()


def test_the_hub_is_asked_once_for_what_is_no_folder(
    hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "base").mkdir(parents=True)
    check_source("models/base")
    for path in ("./base", "/base", "~/base", "models/base/none"):
        with pytest.raises(ValueError, match=re.escape(f'there is no model in "{path}": it is no folder here')):
            check_source(path)
    assert hub == []
    check_source("of/ours")
    check_source("an/adapter")
    assert hub == ["/of/ours/resolve/main/config.json", "/an/adapter/resolve/main/config.json"]
    with pytest.raises(ValueError, match='"models/bse": it is no folder here, nor is it the name of a public model'):
        check_source("models/bse")
    with pytest.raises(ValueError, match='"is/broken": it is no folder here, and the Hugging Face hub cannot be asked'):
        check_source("is/broken")
    assert len(hub) == 4
    cached = tmp_path / "cache" / "models--is--broken"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    (cached / "snapshots" / "abc" / "config.json").write_text("{}")
    check_source("is/broken")
    assert len(hub) == 4


def test_a_hub_that_is_not_there_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    move_hub("http://127.0.0.1:9", monkeypatch)
    begun = time.monotonic()
    with pytest.raises(ValueError, match="the Hugging Face hub cannot be asked for it"):
        check_source("nobody/nothing")
    assert time.monotonic() - begun < 10

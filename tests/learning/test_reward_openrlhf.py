"""Does OpenRLHF read our scores from our folder? With its own reward server, and as its PPO calls the model."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from benchmarks.peer import peer_python_over_ours
from tests.planted import rankings
from worker.learning.reward.fitting import RewardSettings, fit_reward_model
from worker.learning.reward.model import RewardModel, normalise, save_reward_model, score_responses

pytestmark = [pytest.mark.learning, pytest.mark.long]

# What OpenRLHF imports to load a reward model, where it pins a version in that version.
NEEDED = (
    "transformers==5.15.0",
    "tokenizers==0.22.2",
    "huggingface-hub==1.33.0",
    "deepspeed==0.19.6",
    "flash-attn==2.8.3",
    "einops==0.8.2",
    "hjson==3.1.0",
    "msgpack==1.2.4",
    "py-cpuinfo==9.0.0",
    "pylatexenc==2.11",
)
WITHOUT_CUDA = {"FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE", "FLASH_ATTENTION_FORCE_BUILD": "TRUE", "DS_BUILD_OPS": "0"}
OPENRLHF = """
import json, sys, types

sys.modules["flash_attn_2_cuda"] = types.ModuleType("flash_attn_2_cuda")  # its kernels; sdpa does not call them
import torch
from openrlhf.cli.serve_rm import RewardModelProxy
from openrlhf.utils.utils import zero_pad_sequences

folder, queries = sys.argv[1], json.loads(sys.argv[2])
told = {}
for packing in (False, True):
    args = types.SimpleNamespace(
        reward=types.SimpleNamespace(model_name_or_path=folder, normalize_enable=False),
        ds=types.SimpleNamespace(
            attn_implementation="sdpa", experts_implementation=None, param_dtype="bf16", load_in_4bit=False,
            value_head_prefix="score", packing_samples=packing,
        ),
        data=types.SimpleNamespace(max_len=64, disable_fast_tokenizer=False),
        batch_size=None,
    )
    server = RewardModelProxy(args)
    kind = "packed" if packing else "padded"
    told[f"{kind}, bf16"] = server.get_reward(queries)
    server.reward_model.float()
    told[f"{kind} on the left"] = server.get_reward(queries)
    rows = [server.tokenize_fn([query], "cpu")["input_ids"] for query in queries]
    masks = [torch.ones_like(row) for row in rows]
    rows, masks = (zero_pad_sequences(own, "right") for own in (rows, masks))
    with torch.no_grad():
        told[f"{kind} on the right"] = server.reward_model(rows, masks).tolist()
    server.batch_size = 1
    told[f"{kind}, one by one"] = server.get_reward(queries)
print(json.dumps(told))
"""


@pytest.mark.timeout(900)  # the first run builds what it needs
@pytest.mark.parametrize("backbone", ["tiny_folder", "gpt2_folder"])
def test_openrlhf_reads_our_scores(backbone: str, python: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    model = fitted(request.getfixturevalue(backbone))
    save_reward_model(model, tmp_path / "reward")
    asked = [(own.prompt, response) for own in rankings(4, 9, 3) for response in own.responses]
    ours = score_responses(model, [prompt for prompt, _ in asked], [response for _, response in asked])
    ours -= model.normalisation.offset
    # As its rollouts ask the server: all tokens as text, the end token too.
    queries = [f"{prompt[0]['content']} {response} {model.tokenizer.eos_token}" for prompt, response in asked]
    told = openrlhf_scores(python, tmp_path / "reward", queries)
    assert len(told) == 8
    assert ours.std() > 0.3
    for case, scores in told.items():
        assert scores == pytest.approx(ours.tolist(), abs=0.02 if "bf16" in case else 1e-5), case


def openrlhf_scores(python: Path, folder: Path, queries: list[str]) -> dict[str, list[float]]:
    run = subprocess.run(
        [str(python), "-c", OPENRLHF, str(folder), json.dumps(queries)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, list[float]] = json.loads(run.stdout.splitlines()[-1])
    return told


def fitted(source: Path) -> RewardModel:
    """A reward model whose weights bf16 holds as they are: OpenRLHF loads no others."""
    settings = RewardSettings(epochs=2, learning_rate=5e-3, batch_sets=8, precision="fp32")
    found = fit_reward_model(str(source), rankings(60, 0), [], settings, 0, device=torch.device("cpu"))
    reference = rankings(6, 3)
    model = normalise(found.reward_model, [own.prompt for own in reference], [own.responses for own in reference])
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in WITHOUT_CUDA.items():
        monkeypatch.setenv(name, value)
    return peer_python_over_ours("openrlhf==0.11.2", NEEDED)


@pytest.fixture
def gpt2_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A GPT-2, whose learned positions padding on the left would move."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=64,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from tests.planted import by_criteria, prompt, rankings
from worker.learning.batches import pad
from worker.learning.models import load_language_model
from worker.learning.reward.backbone import longest_text, output_layer
from worker.learning.reward.fitting import FittedRewardModel, RewardSettings, fit_reward_model
from worker.learning.reward.model import (
    RewardModel,
    all_outputs,
    load_reward_model,
    new_reward_model,
    normalise,
    read_scores,
    save_reward_model,
    score_responses,
)
from worker.learning.reward.normalisation import gain_and_offset
from worker.learning.reward.observations import AnswerShape

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
PROMPTS = [prompt("the cat"), prompt("a big old dog saw the sun and"), prompt("rain")]
RESPONSES = ["sat", "and the small dog ran and ran and ran", "the sun"]


@pytest.fixture
def fresh(tiny_folder: Path) -> RewardModel:
    return new_reward_model(str(tiny_folder), 0, CPU, AnswerShape(), precision="fp32")


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path) -> FittedRewardModel:
    """With criteria, so with every part that a folder can hold."""
    settings = RewardSettings(epochs=1, learning_rate=3e-3, batch_sets=8, precision="fp32")
    labels = [*rankings(20, 0), *by_criteria(20, 1)]
    return fit_reward_model(str(tiny_folder), labels, rankings(5, 2), settings, 0)


def test_the_fresh_head_has_the_deviation_of_the_original(tiny_folder: Path) -> None:
    """lm-human-preferences: 1 / sqrt(d + 1), here over 20 seeds of three heads of width 32."""
    shape = AnswerShape(("overall", "kind", "true"))
    models = [new_reward_model(str(tiny_folder), seed, CPU, shape) for seed in range(20)]
    heads = [layer for model in models for layer in (output_layer(model.model), model.heads) if layer is not None]
    spread = float(np.std(torch.cat([layer.weight.detach() for layer in heads]).numpy()))
    assert spread == pytest.approx(1 / math.sqrt(33), rel=0.05)


def test_scores_do_not_depend_on_the_batch(fresh: RewardModel) -> None:
    together = score_responses(fresh, PROMPTS, RESPONSES)
    alone = [score_responses(fresh, [one], [other]) for one, other in zip(PROMPTS, RESPONSES, strict=True)]
    assert together.tolist() == pytest.approx(torch.cat(alone).tolist(), abs=1e-5)
    every = all_outputs(fresh, [(PROMPTS[0], [*RESPONSES, RESPONSES[0]])])
    single = score_responses(fresh, [PROMPTS[0]] * 3, RESPONSES).tolist()
    assert every[:, 0].tolist() == pytest.approx([*single, single[0]], abs=1e-5)


def test_the_score_is_read_at_the_end_token_on_either_side(fresh: RewardModel, tiny_tokenizer: Any) -> None:
    """Padded on the left, with position ids that count real tokens; and by hand from the end token's state."""
    texts = ["the cat sat <eos>", "a big old dog saw the sun and and the small dog ran and ran and ran <eos>"]
    rows = [tiny_tokenizer(text)["input_ids"] for text in texts]
    left = pad(rows, fresh.tokenizer.pad_token_id, CPU, side="left")
    with torch.no_grad():
        theirs = fresh.model(left.input_ids, attention_mask=left.attention_mask, position_ids=left.position_ids).logits
        states = [fresh.model.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        by_hand = [float(fresh.model.score(state)) for state in states]
    ours = score_responses(fresh, PROMPTS[:2], RESPONSES[:2])
    assert ours.tolist() == pytest.approx(theirs.squeeze(-1).tolist(), abs=1e-5)
    assert ours.tolist() == pytest.approx(by_hand, abs=1e-5)


def test_no_text_is_longer_than_the_backbone_reads(fresh: RewardModel) -> None:
    """RoBERTa counts positions from its padding token's number on, so that two of its 66 are never used."""
    assert (fresh.limit, replace(fresh, max_tokens=40).limit) == (64, 40)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    roberta = RobertaForSequenceClassification(
        RobertaConfig(vocab_size=20, max_position_embeddings=66, pad_token_id=1, **shape)
    )
    assert longest_text(roberta, 1_024) == 64
    assert roberta(torch.full((1, 64), 5)).logits.shape == (1, 2)
    with pytest.raises((IndexError, RuntimeError)):
        roberta(torch.full((1, 65), 5))


def test_prompts_must_match_responses(fresh: RewardModel) -> None:
    with pytest.raises(ValueError, match="3 prompts do not match 1 responses"):
        fresh(PROMPTS, ["sat"])
    assert fresh([], []).shape == (0,)


def test_scoring_goes_on_in_smaller_pieces_where_memory_runs_out(
    fresh: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all responses are to one prompt."""
    texts = [text for label in rankings(8, 0) for text in label.responses]
    plain = score_responses(fresh, [PROMPTS[0]] * 32, texts)
    forward: Callable[..., Any] = LlamaForSequenceClassification.forward
    asked: list[int] = []

    @wraps(forward)
    def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["input_ids"].numel())
        if asked[-1] > 40:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", limited)
    assert score_responses(fresh, [PROMPTS[0]] * 32, texts).tolist() == pytest.approx(plain.tolist(), abs=1e-5)
    assert max(asked) > 40
    with pytest.raises(ValueError, match="lower max_tokens"):
        score_responses(fresh, [PROMPTS[0]], ["cat " * 50])


def test_gain_and_offset_by_numpy() -> None:
    scores = [[1.0, 4.0, 2.0], [10.0, 14.0], [7.0, 7.0, 7.0, 8.0]]
    pooled = math.sqrt(sum(np.var(own, ddof=1) * (len(own) - 1) for own in scores) / (2 + 1 + 3))
    gain, offset = gain_and_offset([torch.tensor(own) for own in scores])
    assert gain == pytest.approx(1 / pooled)
    assert offset == pytest.approx(-np.mean([np.mean(own) for own in scores]) / pooled)


def test_equal_scores_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="do not differ within any prompt"):
        gain_and_offset([torch.tensor([1.0, 1.0]), torch.tensor([2.0])])


def test_normalising_moves_scores_and_neither_order_nor_probability(tiny_folder: Path) -> None:
    settings = RewardSettings(epochs=1, learning_rate=3e-3, batch_sets=8, precision="fp32")
    model = fit_reward_model(str(tiny_folder), by_criteria(20, 1), [], settings, 0).reward_model
    sets = [(label.prompt, label.responses) for label in rankings(6, 3)]
    before, deviations = all_outputs(model, sets), pair_deviations(model)
    harmless = model.answers.probability(before[:-1, 1] - before[1:, 1], "harmless")
    whole = model.answers.probability(before[:-1, 0] - before[1:, 0])
    once = normalise(model, [own for own, _ in sets], [own for _, own in sets])
    after = all_outputs(once, sets)
    own = torch.split(after[:, 0], [4] * 6)
    assert gain_and_offset(own) == pytest.approx((1, 0), abs=1e-4)
    gain = once.normalisation.gain
    assert torch.allclose(after[:, 0], gain * before[:, 0] + once.normalisation.offset, atol=1e-4)
    assert torch.allclose(once.answers.probability(after[:-1, 0] - after[1:, 0]), whole, atol=1e-4)
    assert torch.allclose(once.answers.probability(after[:-1, 1] - after[1:, 1], "harmless"), harmless, atol=1e-4)
    assert once.posterior is not None
    assert torch.allclose(pair_deviations(once), gain * deviations, rtol=1e-3)
    twice = normalise(once, [own for own, _ in sets], [own for _, own in sets])
    assert torch.allclose(all_outputs(twice, sets), after, atol=1e-4)
    assert (twice.normalisation.prompts, twice.normalisation.samples) == (6, 24)


def pair_deviations(model: RewardModel) -> torch.Tensor:
    """Of the differences between unit features, which no zero moves."""
    assert model.posterior is not None
    features = torch.eye(32, dtype=torch.float64)
    return model.posterior.pair_deviations(features, torch.zeros_like(features))


def test_a_saved_model_is_the_same(fitted: FittedRewardModel, tmp_path: Path) -> None:
    model = replace(fitted.reward_model, max_tokens=50)
    save_reward_model(model, tmp_path / "reward", {"accuracy": 0.5})
    loaded = load_reward_model(tmp_path / "reward", CPU, "fp32")
    sets = [(label.prompt, label.responses) for label in rankings(4, 3)]
    assert torch.equal(all_outputs(loaded, sets), all_outputs(model, sets))
    assert loaded.outputs == ("overall", "harmless", "kind")
    assert (loaded.max_tokens, loaded.normalisation) == (50, model.normalisation)
    assert loaded.answers.facts() == model.answers.facts()
    said, before = (read_scores(own, PROMPTS, RESPONSES) for own in (loaded, model))
    assert torch.equal(said.scores, before.scores)
    assert said.deviations is not None
    assert before.deviations is not None
    assert torch.equal(said.deviations, before.deviations)
    assert json.loads((tmp_path / "reward" / "card.json").read_text()) == {"accuracy": 0.5}


def test_everything_is_read_in_one_pass(fitted: FittedRewardModel) -> None:
    model = fitted.reward_model
    said = read_scores(model, PROMPTS, RESPONSES)
    assert torch.equal(said.scores, score_responses(model, PROMPTS, RESPONSES))
    assert said.deviations is not None
    assert bool((said.deviations > 0).all())
    alone = all_outputs(model, [(prompt, [response]) for prompt, response in zip(PROMPTS, RESPONSES, strict=True)])
    assert list(said.outputs) == ["harmless", "kind"]
    for place, output in enumerate(said.outputs, start=1):
        is_scored = output in model.answers.shape.scored
        expected = model.answers.expected_scores(alone[:, place], output) if is_scored else alone[:, place]
        torch.testing.assert_close(said.outputs[output], expected)


def test_how_sure_a_score_is_must_have_been_estimated(fresh: RewardModel) -> None:
    assert read_scores(fresh, PROMPTS, RESPONSES).deviations is None


PLAIN = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
with torch.no_grad():
    batch = tokenizer(json.loads(sys.argv[2]), padding=True, return_tensors="pt")
    logits = model(**batch).logits
print(json.dumps({
    "scores": logits[:, 0].tolist(), "labels": model.config.num_labels, "side": tokenizer.padding_side,
    "pad": model.config.pad_token_id == tokenizer.pad_token_id != tokenizer.eos_token_id,
    "head": [name for name in model.state_dict() if "score" in name], "padded": bool((batch.attention_mask == 0).any()),
}))
"""


def test_transformers_alone_reads_the_same_scores(fitted: FittedRewardModel, tmp_path: Path) -> None:
    """In a process that knows nothing of us: one output, its gain in the head, the offset beside it."""
    labels = rankings(6, 3)
    save_reward_model(fitted.reward_model, tmp_path / "raw")
    raw = load_reward_model(tmp_path / "raw", CPU, "fp32")
    model = normalise(raw, [own.prompt for own in labels], [own.responses for own in labels])
    save_reward_model(model, tmp_path / "reward")
    texts = [f"{own[0]['content']} {text} <eos>" for own, text in zip(PROMPTS, RESPONSES, strict=True)]
    command = [sys.executable, "-c", PLAIN, str(tmp_path / "reward"), json.dumps(texts)]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path).stdout)
    offset = json.loads((tmp_path / "reward" / "reward.json").read_text())["offset"]
    assert [score + offset for score in told.pop("scores")] == pytest.approx(
        model(PROMPTS, RESPONSES).tolist(), abs=1e-4
    )
    assert told == {"labels": 1, "side": "right", "pad": True, "head": ["score.weight"], "padded": True}


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def without_answers(file: Path) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), "answers": None}))


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("model.safetensors", cut_off),
        ("reward.safetensors", Path.unlink),
        ("reward.safetensors", cut_off),
        ("reward.safetensors", lambda file: save_file({}, file)),
        ("reward.json", cut_off),
        ("reward.json", without_answers),
        ("reward.json", lambda file: file.write_text("{}")),
        ("model.safetensors", Path.unlink),
        ("config.json", cut_off),
    ],
)
def test_a_damaged_file_is_named(
    name: str, damage: Callable[[Path], object], fitted: FittedRewardModel, tmp_path: Path
) -> None:
    save_reward_model(fitted.reward_model, tmp_path / "reward")
    damage(tmp_path / "reward" / name)
    with pytest.raises(ValueError, match="cannot be read: ") as error:
        load_reward_model(tmp_path / "reward", CPU)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [load_language_model, lambda source: new_reward_model(source, 0, CPU, AnswerShape())])
def test_weights_that_are_cut_off_are_refused(load: Callable[[str], object], tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "base")
    cut_off(tmp_path / "base" / "model.safetensors")
    with pytest.raises(ValueError, match=r"can be loaded from .*base.*safetensors"):
        load(str(tmp_path / "base"))


@pytest.mark.parametrize("load", [load_language_model, lambda source: new_reward_model(source, 0, CPU, AnswerShape())])
def test_pickled_weights_are_refused(load: Callable[[str], object], tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ValueError, match=r"can be loaded from .*base.*safetensors"):
        load(str(tmp_path / "base"))


def test_weights_of_another_model_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """Otherwise every weight would be random, and nobody told."""
    shutil.copytree(tiny_folder, tmp_path / "base")
    weights = {f"other.{name}": value for name, value in load_file(tmp_path / "base" / "model.safetensors").items()}
    save_file(weights, tmp_path / "base" / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="has no weights for LlamaForSequenceClassification"):
        new_reward_model(str(tmp_path / "base"), 0, CPU, AnswerShape())


def test_a_folder_without_facts_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="it has no reward"):
        load_reward_model(tiny_folder, CPU)

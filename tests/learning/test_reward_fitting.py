import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, BertConfig, BertModel, PreTrainedTokenizerFast

from tests.killed import Killed, killed_at
from tests.planted import by_criteria, graded_pairs, in_order, liking, misread, rankings, scored
from worker.learning.progress import Progress, silent
from worker.learning.records import Judgement, Label
from worker.learning.reward.fitting import FittedRewardModel, RewardSettings, fit_reward_model
from worker.learning.reward.model import RewardModel, all_outputs, save_reward_model, score_responses

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
QUICK = RewardSettings(epochs=3, learning_rate=5e-3, batch_sets=8, precision="fp32")


def fit(
    folder: Path,
    labels: Sequence[Label],
    validation: Sequence[Label] = (),
    settings: RewardSettings = QUICK,
    **more: Any,
) -> FittedRewardModel:
    return fit_reward_model(str(folder), labels, validation, settings, 0, device=CPU, **more)


def accuracy(model: RewardModel) -> float:
    """The share of unseen pairs that the model orders as the people do who like "good" and dislike "bad"."""
    labels = rankings(60, 99)
    prompts = [label.prompt for label in labels for _ in label.responses]
    scores = score_responses(model, prompts, [text for label in labels for text in label.responses]).view(-1, 4)
    right = [
        bool(own[better] > own[worse])
        for own, label in zip(scores, labels, strict=True)
        for better, worse in label.overall.ordered_pairs()
    ]
    return sum(right) / len(right)


def weights(fitted: FittedRewardModel) -> dict[str, torch.Tensor]:
    """Every number of the result."""
    model = fitted.reward_model
    parts: dict[str, Any] = {"model": model.model.state_dict(), "answers": model.answers.state_dict()}
    parts["heads"] = model.heads.state_dict() if model.heads is not None else {}
    parts["posterior"] = model.posterior.tensors() if model.posterior is not None else {}
    return {f"{part}.{name}": value for part, own in parts.items() for name, value in own.items()}


def same(one: FittedRewardModel, other: FittedRewardModel) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path) -> FittedRewardModel:
    return fit(tiny_folder, rankings(100, 0), rankings(30, 1))


@pytest.fixture(scope="module")
def encoder_folder(tiny_tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose tokenizer has [CLS] and [SEP] and no end token."""
    words: Tokenizer = tiny_tokenizer.backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]"
    )
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_rankings_teach(fitted: FittedRewardModel) -> None:
    assert accuracy(fitted.reward_model) > 0.95
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3]
    assert fitted.history[-1]["validation/accuracy"] > 0.95


@pytest.mark.parametrize(
    ("labels", "least"),
    [(graded_pairs(120, 0), 0.93), (scored(240, 0), 0.9), (scored(80, 0, 3), 0.9), (by_criteria(120, 0), 0.9)],
    ids=["graded pairs", "scores of single responses", "scores of several responses", "criteria"],
)
def test_everything_else_that_people_say_teaches(tiny_folder: Path, labels: list[Label], least: float) -> None:
    assert accuracy(fit(tiny_folder, labels).reward_model) > least


def test_each_criterion_has_an_output_of_its_own(tiny_folder: Path) -> None:
    model = fit(tiny_folder, by_criteria(160, 0)).reward_model
    assert model.outputs == ("overall", "harmless", "kind")
    good, bad, plain = all_outputs(model, [(by_criteria(1, 5)[0].prompt, ["good cat", "bad cat", "old cat"])])
    assert good[2] - plain[2] > 2 * abs(good[1] - plain[1])
    assert plain[1] - bad[1] > 2 * abs(plain[2] - bad[2])


def test_careless_annotators_are_found_out(tiny_folder: Path) -> None:
    """Half of the labels are blind."""
    careful = [replace(label, annotator="careful") for label in rankings(80, 0)]
    labels = [*careful, *misread(rankings(80, 7), "careless", 8)]
    model = fit(tiny_folder, labels, settings=replace(QUICK, annotators="learned")).reward_model
    annotators = model.answers.annotators
    assert annotators is not None
    quality = dict(zip(annotators.names, annotators.qualities.tolist(), strict=False))
    assert quality["careful"] > 0.8
    assert quality["careless"] < 0.5
    assert accuracy(model) > 0.9


def test_weights_of_labels_count_only_where_they_are_to_be_believed(tiny_folder: Path) -> None:
    """Some who like the opposite have a small weight."""
    opposite = [replace(one, overall=Judgement(one.overall.groups[::-1]), weight=0.1) for one in rankings(60, 3)]
    labels = [*rankings(40, 0), *opposite]
    believed, alike = (
        accuracy(fit(tiny_folder, labels, settings=replace(QUICK, annotators=choice)).reward_model)
        for choice in ("given", "equal")
    )
    assert believed > 0.9
    assert alike < 0.5


def test_the_epoch_with_the_best_validation_is_kept(tiny_folder: Path) -> None:
    """Against people who like the opposite every further epoch is worse, so the first one is kept."""
    opposite = [replace(one, overall=Judgement(one.overall.groups[::-1])) for one in rankings(30, 1)]
    kept = fit(tiny_folder, rankings(60, 0), opposite)
    losses = [row["validation/nll"] for row in kept.history]
    assert losses[0] == min(losses) < losses[-1]
    assert kept.epochs == 1
    shorter = fit(tiny_folder, rankings(60, 0), opposite, replace(QUICK, epochs=1))
    assert kept.choices == [
        {"set_weight": "1", "start": "fresh", "epochs": 1, "kept": True}
        | {name: value for name, value in kept.history[0].items() if name.startswith("validation/")}
    ]
    assert shorter.epochs == 1


def test_the_same_seed_fits_the_same_model(tiny_folder: Path, fitted: FittedRewardModel) -> None:
    again = fit(tiny_folder, rankings(100, 0), rankings(30, 1))
    assert again.history == fitted.history
    assert same(again, fitted)


@pytest.mark.parametrize(
    ("choice", "kills"),
    [
        ({"annotators": "learned"}, (2, 7, 10)),
        ({"lora_rank": 4}, (2, 7, 10)),
        ({"set_weight": "validation"}, (10, 13)),
        ({"averaged_fits": 2}, (7, 10, 13)),
    ],
    ids=["full", "lora", "two ways", "averaged"],
)
def test_a_killed_fit_goes_on_to_the_same_bits(
    tiny_folder: Path, tmp_path: Path, choice: dict[str, Any], kills: Sequence[int]
) -> None:
    """Killed in either epoch, when all is done but the result, and in the second of two ways or of two fits."""
    settings = replace(QUICK, epochs=2, checkpoint_seconds=0.0, **choice)
    labels = [replace(label, annotator="somebody") for label in (*rankings(16, 0, 2), *rankings(24, 0))]
    whole = fit(tiny_folder, labels, rankings(10, 1), settings)
    for step in kills:
        with pytest.raises(Killed):
            fit(tiny_folder, labels, rankings(10, 1), settings, report=killed_at(step), checkpoints=tmp_path)
    resumed = fit(tiny_folder, labels, rankings(10, 1), settings, checkpoints=tmp_path)
    assert resumed.history == whole.history
    assert resumed.choices == whole.choices
    assert same(resumed, whole)


def test_checkpoints_of_another_fit_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    settings = replace(QUICK, epochs=1, checkpoint_seconds=0.0)
    fit(tiny_folder, rankings(10, 0), settings=settings, checkpoints=tmp_path)
    with pytest.raises(ValueError, match="belong to another training"):
        fit(tiny_folder, rankings(10, 1), settings=settings, checkpoints=tmp_path)


@pytest.mark.parametrize("rank", [None, 4], ids=["full", "lora"])
def test_checkpoints_on_another_backbone_of_the_same_shape_are_refused(
    tiny_folder: Path, tmp_path: Path, rank: int | None
) -> None:
    settings = replace(QUICK, epochs=1, checkpoint_seconds=0.0, lora_rank=rank)
    shutil.copytree(tiny_folder, tmp_path / "other")
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny_folder)).save_pretrained(tmp_path / "other")
    fit(tiny_folder, rankings(10, 0), settings=settings, checkpoints=tmp_path / "states")
    with pytest.raises(ValueError, match="belong to another training"):
        fit(tmp_path / "other", rankings(10, 0), settings=settings, checkpoints=tmp_path / "states")


def test_what_rankings_weigh_is_chosen_by_validation(tiny_folder: Path, tmp_path: Path) -> None:
    labels = [*rankings(20, 0, 2), *rankings(20, 1, 4)]
    settings = replace(QUICK, epochs=1, set_weight="validation", checkpoint_seconds=0.0)
    steps: list[tuple[int, int]] = []

    def note(progress: Progress) -> None:
        steps.append((progress.done, progress.total))

    chosen = fit(tiny_folder, labels, rankings(20, 2), settings, report=note, checkpoints=tmp_path)
    assert [row["set_weight"] for row in chosen.choices] == ["1", "k-1"]
    best = min(chosen.choices, key=lambda row: row["validation/nll"])
    assert [row["kept"] for row in chosen.choices] == [row is best for row in chosen.choices]
    alone = fit(tiny_folder, labels, rankings(20, 2), replace(settings, set_weight=best["set_weight"]))
    assert same(alone, chosen)
    assert steps == [(done, 10) for done in range(1, 11)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-fresh", "k-1-fresh"]


@pytest.mark.parametrize("labels", [rankings(10, 0), rankings(10, 0, 2)])
def test_weights_that_do_not_differ_are_not_compared(tiny_folder: Path, labels: list[Label]) -> None:
    chosen = fit(tiny_folder, labels, rankings(5, 2), replace(QUICK, epochs=1, set_weight="validation"))
    assert [row["set_weight"] for row in chosen.choices] == ["1"]


def test_a_warm_start_begins_where_the_earlier_model_ended(
    tiny_folder: Path, tmp_path: Path, fitted: FittedRewardModel
) -> None:
    save_reward_model(fitted.reward_model, tmp_path / "earlier")
    settings = replace(QUICK, epochs=1, learning_rate=1e-9, answer_learning_rate=1e-9, start="better")
    better = fit(tiny_folder, rankings(20, 5), rankings(30, 1), settings, start=tmp_path / "earlier")
    fresh, warm = better.choices
    assert (fresh["start"], fresh["kept"], warm["start"], warm["kept"]) == ("fresh", False, "warm", True)
    assert warm["validation/nll"] < fresh["validation/nll"] - 0.1
    labels = rankings(5, 6)
    sets = [(label.prompt, label.responses) for label in labels]
    before, after = (all_outputs(model, sets)[:, 0] for model in (fitted.reward_model, better.reward_model))
    slope = float(fitted.reward_model.answers.slopes[0])
    assert torch.allclose(after, before * slope, atol=1e-4)
    alone = fit(tiny_folder, rankings(20, 5), (), replace(settings, start="warm"), start=tmp_path / "earlier")
    assert [row["start"] for row in alone.choices] == ["warm"]


def test_an_encoder_learns_too(encoder_folder: Path) -> None:
    model = fit(encoder_folder, rankings(100, 0), settings=replace(QUICK, epochs=4)).reward_model
    assert not model.forward.shares
    assert accuracy(model) > 0.8


@pytest.mark.parametrize("folder", ["tiny_folder", "encoder_folder"])
def test_adapters_teach_and_leave_a_plain_model(folder: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(folder)
    settings = replace(QUICK, lora_rank=8, learning_rate=2e-2)
    model = fit(source, rankings(80, 0), settings=settings).reward_model
    assert accuracy(model) > 0.85
    assert not [name for name in model.model.state_dict() if "lora" in name]


@pytest.mark.parametrize("folder", ["tiny_folder", "encoder_folder"])
def test_recomputed_activations_change_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(folder)
    settings = replace(QUICK, epochs=1)
    kept = fit(source, rankings(20, 0), settings=settings)
    recomputed = fit(source, rankings(20, 0), settings=replace(settings, gradient_checkpointing=True))
    # Not to the bit: without recomputing, the last layer runs at the ends alone, and products of other shapes round.
    assert recomputed.history == [pytest.approx(row, rel=1e-5) for row in kept.history]
    before, after = weights(kept), weights(recomputed)
    assert all(torch.allclose(before[name], after[name], atol=1e-5) for name in before)


def test_labels_that_say_nothing_are_refused(tiny_folder: Path) -> None:
    silent_ones = [
        Label(({"role": "user", "content": "a"},), ("x", "y")),
        replace(rankings(1, 0)[0], weight=0.0),
        replace(rankings(1, 0)[0], implied=True),
    ]
    with pytest.raises(ValueError, match="no label says anything"):
        fit(tiny_folder, silent_ones, settings=replace(QUICK, implied_weight=0.0))


def test_a_loss_that_is_no_number_says_what_to_do(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"the loss is nan at step \d+, .* lower learning_rate"):
        fit(tiny_folder, rankings(40, 0), settings=replace(QUICK, learning_rate=1e30, max_grad_norm=1e30))


def test_validation_may_be_empty(tiny_folder: Path) -> None:
    last = fit(tiny_folder, rankings(10, 0), report=silent)
    assert last.epochs == 3
    assert set(last.history[0]) == {"epoch", "loss"}


def test_the_planted_order_is_by_liking() -> None:
    for label in rankings(5, 0):
        assert label.overall.groups == in_order([liking(text) for text in label.responses])

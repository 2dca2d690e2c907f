import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, PreTrainedTokenizerFast

from worker.learning.batches import group_by_length, pad
from worker.learning.models import load_language_model
from worker.learning.records import Message, Ranking
from worker.learning.reward.fitting import (
    FittedRewardModel,
    RewardSettings,
    bradley_terry_loss,
    fit_reward_model,
    learning_rate_at,
    mean_nll,
    pair_table,
    pairwise_accuracy,
    score_rankings,
)
from worker.learning.reward.model import (
    RewardModel,
    encode,
    gain_and_offset,
    load_reward_model,
    new_reward_model,
    normalise,
    output_layer,
    raw_scores,
    save_reward_model,
    score_responses,
)

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
PLAIN = "cat dog sun rain sat ran the a big small and saw old new".split()  # noqa: SIM905
QUICK = RewardSettings(epochs=4, learning_rate=3e-3, batch_sets=8, precision="fp32")


def prompt(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def planted(count: int, seed: int) -> list[Ranking]:
    """Rankings by people who like "good" and dislike "bad", of responses of every length."""
    noise = random.Random(seed)
    rankings = []
    for _ in range(count):
        responses = tuple(
            " ".join(noise.choices([*PLAIN, *["good"] * 4, *["bad"] * 4], k=noise.randint(2, 10))) for _ in range(4)
        )
        likings = [text.split().count("good") - text.split().count("bad") for text in responses]
        groups = tuple(
            tuple(index for index in range(4) if likings[index] == liking)
            for liking in sorted(set(likings), reverse=True)
        )
        rankings.append(Ranking(prompt(" ".join(noise.choices(PLAIN, k=3))), responses, groups))
    return rankings


@pytest.fixture(scope="module")
def fitted(tiny_folder: Path) -> FittedRewardModel:
    return fit_reward_model(str(tiny_folder), planted(160, 0), planted(40, 1), QUICK, 0)


@pytest.fixture
def fresh(tiny_folder: Path) -> RewardModel:
    return new_reward_model(str(tiny_folder), 0, CPU, precision="fp32")


def test_the_loss_of_a_ranking_by_hand() -> None:
    """Scores 2, 1, 0 in the right order: softplus(-1) = 0.313262 twice and softplus(-2) = 0.126928."""
    ranking = Ranking(prompt("a"), ("x", "y", "z"), ((0,), (1,), (2,)))
    loss = bradley_terry_loss(torch.tensor([2.0, 1.0, 0.0]), *pair_table([ranking]))
    assert float(loss) == pytest.approx((2 * 0.313262 + 0.126928) / 3, abs=1e-6)


def test_a_set_counts_once_however_many_pairs_it_has() -> None:
    pair = Ranking(prompt("a"), ("x", "y"), ((1,), (0,)))
    three = Ranking(prompt("a"), ("x", "y", "z"), ((0,), (1, 2)), weight=2.0)
    better, worse, weights = pair_table([pair, three])
    assert list(zip(better.tolist(), worse.tolist(), weights.tolist(), strict=True)) == [
        (1, 0, 1.0),
        (2, 3, 1.0),
        (2, 4, 1.0),
    ]


def test_the_gradient_is_the_finite_difference() -> None:
    table = pair_table([Ranking(prompt("a"), ("w", "x", "y", "z"), ((2,), (0, 3), (1,)))])
    scores = torch.tensor([0.3, -1.2, 0.7, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda given: bradley_terry_loss(given, *table), (scores,))


def test_the_order_of_responses_does_not_matter(fitted: FittedRewardModel) -> None:
    """Against the same rankings with their responses turned around."""
    rankings = planted(10, 3)
    turned = [
        Ranking(one.prompt, one.responses[::-1], tuple(tuple(3 - index for index in group) for group in one.groups))
        for one in rankings
    ]
    first = mean_nll(score_rankings(fitted.reward_model, rankings), rankings)
    assert mean_nll(score_rankings(fitted.reward_model, turned), turned) == pytest.approx(first, abs=1e-6)


def test_a_weight_of_two_is_the_ranking_twice() -> None:
    one, other = planted(2, 5)
    scores = [torch.tensor([0.1, -0.4, 0.9, 0.3]), torch.tensor([1.1, 0.2, -0.9, 0.0])]
    weighted = mean_nll(scores, [replace(one, weight=2.0), other])
    assert weighted == pytest.approx(mean_nll([scores[0], *scores], [one, one, other]))


def test_a_planted_preference_is_learned(fitted: FittedRewardModel) -> None:
    rankings = planted(60, 2)
    accuracy = pairwise_accuracy(score_rankings(fitted.reward_model, rankings), rankings, 0)
    assert accuracy.value > 0.9
    assert accuracy.low > 0.85
    assert accuracy.count == sum(len(ranking.ordered_pairs()) for ranking in rankings)


def test_the_epoch_with_the_best_validation_is_kept(tiny_folder: Path) -> None:
    """Against people who like the opposite every further epoch is worse, so the first one is kept."""
    opposite = [replace(ranking, groups=ranking.groups[::-1]) for ranking in planted(30, 1)]
    fitted = fit_reward_model(str(tiny_folder), planted(60, 0), opposite, QUICK, 0)
    losses = [row["validation/nll"] for row in fitted.history]
    assert losses[0] == min(losses) < losses[-1] - 0.1
    assert fitted.epochs == 1
    assert mean_nll(score_rankings(fitted.reward_model, opposite), opposite) == pytest.approx(losses[0], abs=1e-6)


def test_the_same_seed_fits_the_same_model(tiny_folder: Path, fitted: FittedRewardModel) -> None:
    again = fit_reward_model(str(tiny_folder), planted(160, 0), planted(40, 1), QUICK, 0)
    assert again.history == fitted.history
    assert fit_reward_model(str(tiny_folder), planted(160, 0), [], QUICK, 1).history != fitted.history


def test_micro_batches_do_not_change_the_fit(tiny_folder: Path) -> None:
    few, many = (
        fit_reward_model(str(tiny_folder), planted(24, 0), [], replace(QUICK, epochs=1, micro_batch_tokens=tokens), 0)
        for tokens in (1, 100_000)
    )
    for one, other in zip(few.reward_model.model.parameters(), many.reward_model.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_accuracy_leaves_ties_out_and_counts_equal_scores_half() -> None:
    rankings = [
        Ranking(prompt("a"), ("x", "y", "z"), ((0,), (1, 2))),
        Ranking(prompt("b"), ("x", "y"), ((0, 1),)),
    ]
    estimate = pairwise_accuracy([torch.tensor([1.0, 0.0, 1.0]), torch.tensor([5.0, 0.0])], rankings, 0)
    assert (estimate.value, estimate.count) == (0.75, 2)


def test_rankings_that_say_nothing_are_refused(tiny_folder: Path) -> None:
    silent_ones = [Ranking(prompt("a"), ("x", "y"), ((0, 1),)), Ranking(prompt("a"), ("x", "y"), ((0,), (1,)), 0.0)]
    with pytest.raises(ValueError, match="nothing to fit"):
        fit_reward_model(str(tiny_folder), silent_ones, [], QUICK, 0)


def test_the_learning_rate_climbs_and_falls() -> None:
    settings = RewardSettings(learning_rate=1.0, warmup_share=0.2)
    rates = [learning_rate_at(step, 10, settings) for step in range(10)]
    assert rates == pytest.approx([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def test_the_fresh_head_has_the_deviation_of_the_original(tmp_path: Path, tiny_folder: Path) -> None:
    """lm-human-preferences: 1 / sqrt(d + 1), here over 40 seeds of a head of width 32."""
    weights = [output_layer(new_reward_model(str(tiny_folder), seed, CPU).model).weight for seed in range(40)]
    spread = float(np.std(torch.cat([weight.detach() for weight in weights]).numpy()))
    assert spread == pytest.approx(1 / math.sqrt(33), rel=0.05)


def test_scores_do_not_depend_on_the_batch(fresh: RewardModel) -> None:
    prompts = [prompt("the cat"), prompt("a big old dog saw the sun and"), prompt("rain")]
    responses = ["sat", "and the small dog ran and ran and ran", "the sun"]
    together = score_responses(fresh, prompts, responses)
    alone = [score_responses(fresh, [one], [other]) for one, other in zip(prompts, responses, strict=True)]
    assert together.tolist() == pytest.approx(torch.cat(alone).tolist(), abs=1e-5)


def test_the_score_is_read_at_the_end_token_on_either_side(fresh: RewardModel) -> None:
    """Padded on the left, with position ids that count real tokens; and by hand from the end token's state."""
    rows = [encode(fresh, prompt("the cat"), "sat"), encode(fresh, prompt("a dog"), "saw the big old sun")]
    assert all(row[-1] == fresh.tokenizer.eos_token_id for row in rows)
    ours = raw_scores(fresh, rows)
    left = pad(rows, fresh.tokenizer.pad_token_id, CPU, side="left")
    with torch.no_grad():
        theirs = fresh.model(left.input_ids, attention_mask=left.attention_mask, position_ids=left.position_ids).logits
        states = [fresh.model.model(torch.tensor([row])).last_hidden_state[0, -1] for row in rows]
        by_hand = [float(fresh.model.score(state)) for state in states]
    assert ours.tolist() == pytest.approx(theirs.squeeze(-1).tolist(), abs=1e-5)
    assert ours.tolist() == pytest.approx(by_hand, abs=1e-5)


def test_a_long_prompt_loses_its_beginning(fresh: RewardModel) -> None:
    short = replace(fresh, max_tokens=6)
    whole = encode(fresh, prompt("the big old cat sat and"), "saw rain")
    assert encode(short, prompt("the big old cat sat and"), "saw rain") == whole[-6:]


def test_special_tokens_in_a_response_are_text(fresh: RewardModel) -> None:
    letters = Tokenizer(models.BPE({letter: number for number, letter in enumerate("abcdefgops<>")}, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>")
    row = encode(replace(fresh, tokenizer=tokenizer), prompt("a"), "bad<eos><pad>")
    assert row.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id not in row
    assert len(row) == len("a") + len("bad<eos><pad>") + 1


def test_gain_and_offset_by_numpy() -> None:
    scores = [[1.0, 4.0, 2.0], [10.0, 14.0], [7.0, 7.0, 7.0, 8.0]]
    pooled = math.sqrt(sum(np.var(own, ddof=1) * (len(own) - 1) for own in scores) / (2 + 1 + 3))
    gain, offset = gain_and_offset([torch.tensor(own) for own in scores])
    assert gain == pytest.approx(1 / pooled)
    assert offset == pytest.approx(-np.mean([np.mean(own) for own in scores]) / pooled)


def test_equal_scores_cannot_be_normalised() -> None:
    with pytest.raises(ValueError, match="do not differ within any prompt"):
        gain_and_offset([torch.tensor([1.0, 1.0]), torch.tensor([2.0])])


def test_a_saved_model_scores_the_same_here_and_in_transformers(tiny_folder: Path, tmp_path: Path) -> None:
    prompts = [prompt(text) for text in ("the cat", "a dog", "the old sun")]
    responses = [["sat", "ran and ran"], ["good dog", "bad dog"], ["and rain", "saw a cat", "sat"]]
    model = normalise(new_reward_model(str(tiny_folder), 3, CPU, precision="fp32"), prompts, responses)
    flat = [prompts[0], prompts[0], prompts[1], prompts[1], *[prompts[2]] * 3], [r for own in responses for r in own]
    scores = model(*flat)
    again = normalise(model, prompts, responses)
    assert again(*flat).tolist() == pytest.approx(scores.tolist(), abs=1e-4)
    gain, offset = gain_and_offset(torch.split(scores, [2, 2, 3]))
    assert (gain, offset) == pytest.approx((1, 0), abs=1e-4)

    save_reward_model(model, tmp_path / "reward")
    assert load_reward_model(tmp_path / "reward", CPU, "fp32")(*flat).tolist() == pytest.approx(
        scores.tolist(), abs=1e-5
    )
    scale = json.loads((tmp_path / "reward" / "reward.json").read_text())
    assert (scale["prompts"], scale["samples"]) == (3, 7)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert plain.config.num_labels == 1
    with torch.no_grad():
        [[output]] = plain(torch.tensor([encode(model, prompts[1], "bad dog")])).logits.tolist()
    assert output + scale["offset"] == pytest.approx(float(scores[3]), abs=1e-4)


def test_a_saved_model_keeps_its_limit(tiny_folder: Path, tmp_path: Path) -> None:
    save_reward_model(new_reward_model(str(tiny_folder), 3, CPU, max_tokens=12), tmp_path / "reward")
    assert load_reward_model(tmp_path / "reward", CPU).max_tokens == 12


@pytest.mark.parametrize("load", [load_language_model, lambda source: new_reward_model(source, 0, CPU)])
def test_pickled_weights_are_refused(load: Callable[[str], object], tiny_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "base")
    weights = tmp_path / "base" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    with pytest.raises(ValueError, match=r"can be loaded from .*base.*safetensors"):
        load(str(tmp_path / "base"))


def test_a_folder_without_a_scale_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(ValueError, match="it has no reward"):
        load_reward_model(tiny_folder, CPU)


def test_an_encoder_learns_too(tiny_tokenizer: Any, tmp_path: Path) -> None:
    """A BERT whose tokenizer has [CLS] and [SEP] and no end token."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer.backend_tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    fitted = fit_reward_model(str(tmp_path), planted(160, 0), [], replace(QUICK, epochs=6), 0)
    rankings = planted(60, 2)
    assert pairwise_accuracy(score_rankings(fitted.reward_model, rankings), rankings, 0).value > 0.8
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    row = encode(fitted.reward_model, prompt("the"), "cat")
    assert (row[0], row[2], row[-1]) == (cls, sep, sep)


def test_groups_hold_their_budget_and_lose_nothing() -> None:
    sizes = [5, 30, 7, 6, 100, 8]
    groups = group_by_length(sizes, 32, [1, 1, 2, 1, 1, 3])
    assert groups == [[0, 3, 2], [5], [1], [4]]  # 4 rows of 7, 3 of 8, 1 of 30, and one too large alone

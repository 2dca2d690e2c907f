import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForSequenceClassification

from tests.planted import graded_pairs, prompt, rankings
from worker.learning.records import Judgement, Label
from worker.learning.reward.backbone import output_layer, recomputed_layers
from worker.learning.reward.batches import connected, encode_labels, micro_batches, shuffled_batches
from worker.learning.reward.encoding import Encoded
from worker.learning.reward.fitting import fit_reward_model
from worker.learning.reward.loop import (
    Fit,
    accumulate_gradients,
    labelled_outputs,
    mean_nll,
    measure,
    squared_levels,
    validation_outputs,
    weights_of,
)
from worker.learning.reward.lora import low_rank_adapters
from worker.learning.reward.memory import ran_out_of_memory
from worker.learning.reward.model import RewardModel, new_reward_model
from worker.learning.reward.observations import Weighting, shape_of
from worker.learning.reward.settings import RewardSettings, usual_learning_rate

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
QUICK = RewardSettings(epochs=1, learning_rate=3e-3, batch_sets=8, precision="fp32")


def new_fit(folder: Path, labels: Sequence[Label], max_tokens: int = 64, **settings: Any) -> Fit:
    shape = shape_of(labels, annotators=False)
    model = new_reward_model(str(folder), 0, CPU, shape, max_tokens, "fp32")
    chosen = replace(QUICK, **settings)
    return Fit(model, encode_labels(model, labels), encode_labels(model, []), Weighting(), chosen, 0)


def gradients(fit: Fit, parts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    batch = list(chain.from_iterable(parts))
    accumulate_gradients(fit, sorted(batch), parts)
    found = {name: weight.grad.clone() for name, weight in fit.weights.items() if weight.grad is not None}
    for weight in fit.weights.values():
        weight.grad = None
    return found


def close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def shared_pairs() -> list[Label]:
    """All six pairs of four responses, two labels by another annotator, and pairs of other prompts."""
    texts = rankings(1, 4)[0].responses
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (0, 1), (1, 0)]
    order = Judgement(((0,), (1,)))
    return [
        *(Label(prompt("the cat"), (texts[one], texts[other]), order) for one, other in pairs),
        *graded_pairs(6, 5),
    ]


def test_gradients_are_those_of_the_whole_batch_however_it_is_split(tiny_folder: Path) -> None:
    """With scales of several grades, criteria's absence, a centre term, and a response in two parts at once."""
    fit = new_fit(tiny_folder, shared_pairs(), centre_coefficient=0.1)
    whole = gradients(fit, [range(14)])
    assert whole["model.score.weight"].abs().max() > 1e-3
    for parts in ([[index] for index in range(14)], [[13, 0, 5], [1, 2, 3, 4], [6, 7, 8, 9, 10, 11, 12]]):
        assert close(gradients(fit, parts), whole)


def test_the_gradient_is_the_finite_difference(tiny_folder: Path) -> None:
    """Of the loss in the head's first weight, prior and centre term included."""
    fit = new_fit(tiny_folder, shared_pairs(), centre_coefficient=0.1)
    weight = output_layer(fit.reward_model.model).weight
    found = float(gradients(fit, [range(14)])["model.score.weight"][0, 0])
    losses = []
    for step in (0.01, -0.02):
        with torch.no_grad():
            weight[0, 0] += step
        losses.append(accumulate_gradients(fit, range(14), [range(14)])["loss"])
    assert found == pytest.approx((losses[0] - losses[1]) / 0.02, abs=1e-4)


def test_recomputed_activations_give_the_same_gradients(tiny_folder: Path) -> None:
    fit = new_fit(tiny_folder, shared_pairs())
    kept = gradients(fit, [range(14)])
    calls: list[int] = []
    layer = fit.reward_model.model.model.layers[0]
    layer.register_forward_hook(lambda *_: calls.append(1))
    with recomputed_layers(fit.reward_model.model):
        recomputed = gradients(fit, [range(14)])
        assert "forward" in vars(layer)
    assert close(recomputed, kept)
    assert "forward" not in vars(layer)
    assert calls


def test_adapters_merge_into_what_they_computed(tiny_folder: Path) -> None:
    fit = new_fit(tiny_folder, shared_pairs())
    model = fit.reward_model.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sets = fit.taught.encoded.sets
    plain = fit.reward_model.forward.features(sets)
    with low_rank_adapters(model, 4, 8.0, 0):
        learned = [name for name, weight in model.named_parameters() if weight.requires_grad]
        assert all("lora_" in name or name == "score.weight" for name in learned)
        assert len(learned) == 1 + 2 * 7 * 2  # the head, and A and B for seven matrices in each of two layers
        assert torch.equal(fit.reward_model.forward.features(sets), plain)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, generator=torch.Generator().manual_seed(0))
        adapted = fit.reward_model.forward.features(sets)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert not torch.allclose(adapted, plain, atol=1e-2)
    assert torch.allclose(fit.reward_model.forward.features(sets), adapted, atol=1e-4)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert len(changed) == 14
    assert all(weight.requires_grad for weight in model.parameters())


def limit_memory(monkeypatch: pytest.MonkeyPatch, tokens: int) -> list[int]:
    """Makes the backbone run out of memory above so many tokens; returns those that it was given."""
    asked: list[int] = []
    forward: Callable[..., Any] = LlamaForSequenceClassification.forward

    @wraps(forward)
    def limited(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["input_ids"].numel())
        if asked[-1] > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", limited)
    return asked


def test_out_of_memory_makes_smaller_micro_batches_and_the_same_model(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = rankings(16, 0)
    plain = fit_reward_model(str(tiny_folder), labels, rankings(8, 1), QUICK, 0)
    metrics: list[dict[str, float]] = []
    asked = limit_memory(monkeypatch, 120)
    tight = fit_reward_model(
        str(tiny_folder), labels, rankings(8, 1), QUICK, 0, report=lambda progress: metrics.append(progress.metrics)
    )
    assert max(asked) > 120
    budgets = [row["micro_batch_tokens"] for row in metrics]
    assert budgets == sorted(budgets, reverse=True)
    assert 1 <= budgets[-1] < 300
    assert tight.history[0].pop("micro_batch_tokens") == budgets[-1]
    assert tight.history[0] == pytest.approx(plain.history[0], abs=1e-4)
    for one, other in zip(plain.reward_model.model.parameters(), tight.reward_model.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_label_that_memory_does_not_hold_says_what_to_do(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit_memory(monkeypatch, 40)  # the two ways of reading are compared on fewer
    long = Label(prompt("the " * 20), ("cat " * 12, "dog " * 12, "sun " * 12), Judgement(((0,), (1,), (2,))))
    with pytest.raises(ValueError, match=r"does not hold one label's responses: lower max_tokens"):
        fit_reward_model(str(tiny_folder), [long] * 4, [], QUICK, 0)


def test_moments_that_memory_does_not_hold_say_what_to_do(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for the forward and backward passes, and none for what Adam keeps of each weight."""

    def no_moments(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "_init_group", no_moments)
    with pytest.raises(ValueError, match=r"memory of cpu does not hold the weights with .* moments: set lora_rank"):
        fit_reward_model(str(tiny_folder), rankings(4, 0), [], QUICK, 0, device=CPU)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_a_gpu_says_in_several_ways_that_memory_ran_out(said: str) -> None:
    assert ran_out_of_memory(RuntimeError(said))


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)  # more than any machine has
    assert ran_out_of_memory(caught.value)
    assert not ran_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not ran_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_labels_that_share_responses_stand_in_one_step() -> None:
    assert connected([[0, 1], [2, 3], [1, 4], [5], [3, 6], [4, 7]]) == [[0, 2, 5], [1, 4], [3]]
    places = [[0, 1], [2, 3], [1, 4], [5, 6], [3, 7], [4, 8], [9, 10]]
    for epoch in range(5):
        batches = shuffled_batches(Encoded([], places), 3, 0, epoch)
        assert sorted(chain.from_iterable(batches)) == list(range(7))
        assert all(len(batch) <= 3 for batch in batches)
        assert [0, 2, 5] in [sorted(batch) for batch in batches]
        assert any({1, 4} <= set(batch) for batch in batches)
    assert shuffled_batches(Encoded([], places), 3, 0, 0) != shuffled_batches(Encoded([], places), 3, 0, 1)


def test_a_prompt_that_is_larger_than_a_forward_is_cut_where_few_responses_are_shared(tiny_folder: Path) -> None:
    """All pairs of each four of sixteen responses, mixed, and pairs that join the fours: in forwards of four."""
    words = ["good", "bad", "dog", "sun", "moon", "tree", "red", "blue"]
    texts = [f"{'the cat ' * 4}{one} {other}" for other in ("cat", "the") for one in words]
    pairs = [(4 * number + a, 4 * number + b) for a, b in combinations(range(4), 2) for number in range(4)]
    pairs += [(3, 4), (7, 8), (11, 12)]
    order = Judgement(((0,), (1,)))
    fit = new_fit(tiny_folder, [Label(prompt("the cat"), (texts[a], texts[b]), order) for a, b in pairs])
    [whole] = fit.taught.encoded.sets
    budget = len(whole.prompt_ids) + 4 * max(map(len, whole.response_ids))
    parts = micro_batches(fit.reward_model.forward, fit.taught, range(27), budget)
    assert sorted(chain.from_iterable(parts)) == list(range(27))
    read = [own for part in parts for own in fit.taught.select(part).sets]
    assert all(own.tokens <= budget for own in read)
    assert sum(len(own.response_ids) for own in read) <= 16 + 2 * 3  # the three that join may bring theirs once more
    assert close(gradients(fit, parts), gradients(fit, [range(27)]))


def test_what_is_larger_than_a_step_is_cut_between_comparisons() -> None:
    """A chain of ten comparisons with two labels each, in steps of four: never one label without the other."""
    places = [[number // 2, number // 2 + 1] for number in range(20)]
    seen = set()
    for epoch in range(5):
        batches = shuffled_batches(Encoded([], places), 4, 0, epoch)
        assert [len(batch) for batch in batches] == [4] * 5
        assert all(
            {label // 2 for label in batch if label % 2} == {label // 2 for label in batch if not label % 2}
            for batch in batches
        )
        seen.add(frozenset(frozenset(batch) for batch in batches))
    assert len(seen) == 5


def test_a_response_in_many_comparisons_is_encoded_once(tiny_folder: Path) -> None:
    labels = shared_pairs()[:8]
    taught = new_fit(tiny_folder, labels).taught
    [every] = taught.select(range(8)).sets
    assert len(every.response_ids) == 4
    part = taught.select([5, 6])  # of the third and fourth response, and of the first and second
    assert part.places == [[2, 3], [0, 1]]
    alone = taught.select([5])
    assert [own.response_ids for own in alone.sets] == [every.response_ids[2:]]
    assert alone.places == [[0, 1]]


def test_micro_batches_hold_their_budget_and_lose_nothing(tiny_folder: Path) -> None:
    fit = new_fit(tiny_folder, [*shared_pairs(), *rankings(6, 1)])
    for budget in (1, 40, 80, 10_000):
        parts = micro_batches(fit.reward_model.forward, fit.taught, range(20), budget)
        assert sorted(chain.from_iterable(parts)) == list(range(20))
        for part in parts:
            sets = fit.taught.select(part).sets
            assert len(part) == 1 or len(sets) * max(own.tokens for own in sets) <= budget
    assert len(micro_batches(fit.reward_model.forward, fit.taught, range(20), 1)) == 20
    assert len(micro_batches(fit.reward_model.forward, fit.taught, range(20), 10_000)) == 1


def test_a_label_over_two_prompts_lengths_stays_whole(tiny_folder: Path) -> None:
    """The longer response needs a shorter prompt, so that the label stands in two sets."""
    long = Label(prompt("the big old cat sat and"), ("sat", "saw the sun and the rain"), Judgement(((0,), (1,))))
    fit = new_fit(tiny_folder, [long, *rankings(2, 0)], max_tokens=10)
    assert len(fit.taught.select([0]).sets) == 2
    parts = micro_batches(fit.reward_model.forward, fit.taught, range(3), 1)
    assert sorted(parts) == [[0], [1], [2]]
    assert close(gradients(fit, parts), gradients(fit, [range(3)]))


def test_the_centre_term_is_trls_for_pairs() -> None:
    """(1 + 3)^2 + (2 - 1)^2 for two pairs; (2 * 2)^2 for a set of three whose mean is 2."""
    scores = torch.tensor([1.0, 3.0, 2.0, -1.0, 6.0])
    assert float(squared_levels(scores, [[0, 1], [2, 3]])) == 17
    assert float(squared_levels(scores, [[0, 3, 4]])) == 16


def test_weights_of_labels(tiny_folder: Path) -> None:
    """A pair weighs its label's weight, and so does a ranking, up to the tempering that K - 1 undoes."""
    labels = [replace(rankings(1, 0, 2)[0], weight=2.0), *rankings(1, 1, 4)]
    fit = new_fit(tiny_folder, labels)
    assert weights_of(fit.observe(fit.taught, [0, 1], fit.taught.encoded.places)).tolist() == pytest.approx([2.0, 1.0])
    heavier = replace(fit, weighting=Weighting(set_weight="k-1"))
    assert heavier.label_weights.tolist() == pytest.approx([2.0, 3.0])


def test_every_part_has_its_own_learning_rate(tiny_folder: Path) -> None:
    fit = new_fit(tiny_folder, graded_pairs(5, 0), head_learning_rate=1e-2, weight_decay=0.1)
    groups = fit.new_optimiser().param_groups
    found = {(group["highest"], group["weight_decay"]): sum(own.numel() for own in group["params"]) for group in groups}
    model: RewardModel = fit.reward_model
    norms = sum(own.numel() for own in model.model.parameters() if own.dim() == 1)
    matrices = sum(own.numel() for own in model.model.parameters() if own.dim() > 1) - 32
    assert found == {(3e-3, 0.1): matrices, (3e-3, 0.0): norms, (1e-2, 0.1): 32, (0.1, 0.0): 3}
    assert math.isclose(sum(found.values()), sum(own.numel() for own in fit.weights.values()))


def test_the_learning_rate_goes_by_the_size_where_none_is_asked_for(tiny_folder: Path) -> None:
    """About what lm-human-preferences took for GPT-2 (5e-5), and between those of Huang et al. and OpenRLHF above."""
    assert usual_learning_rate(124_000_000, adapters=False) == pytest.approx(5e-5, rel=0.05)
    assert 3e-6 < usual_learning_rate(8_000_000_000, adapters=False) < 9e-6
    assert usual_learning_rate(8_000_000_000, adapters=True) == pytest.approx(5e-5)
    fit = new_fit(tiny_folder, graded_pairs(5, 0), learning_rate=None)
    assert fit.new_optimiser().param_groups[0]["highest"] == fit.learning_rate == 1e-3


def checked_fit(folder: Path, labels: Sequence[Label], validation: Sequence[Label]) -> Fit:
    fit = new_fit(folder, labels)
    return replace(fit, checked=encode_labels(fit.reward_model, validation))


def test_an_overconfident_model_is_compared_as_it_will_be_calibrated(tiny_folder: Path) -> None:
    """Scores four times as large: less likely labels as they are, equally likely ones with the slope fitted anew."""
    model = fit_reward_model(str(tiny_folder), rankings(60, 0), [], replace(QUICK, epochs=2), 0).reward_model
    noisy = [
        replace(one, overall=Judgement(one.overall.groups[:: -1 if number % 4 == 0 else 1]))
        for number, one in enumerate(rankings(120, 1, 2))
    ]
    fit = replace(checked_fit(tiny_folder, rankings(4, 0), noisy), reward_model=model)
    plain, calibrated = [], []
    for factor in (1.0, 4.0):
        with torch.no_grad():
            output_layer(model.model).weight.mul_(factor)
        plain.append(mean_nll(model.answers, *validation_outputs(fit)))
        calibrated.append(measure(fit)["validation/nll"])
    assert plain[1] > plain[0] + 0.2
    assert calibrated[1] < calibrated[0] + 0.05


def test_what_is_compared_is_what_is_kept(tiny_folder: Path) -> None:
    labels, validation = shared_pairs(), [*graded_pairs(12, 7), *rankings(5, 1)]
    fitted = fit_reward_model(str(tiny_folder), labels, validation, replace(QUICK, epochs=3), 0)
    model = fitted.reward_model
    outputs, observed = labelled_outputs(model, encode_labels(model, validation), Weighting())
    kept = mean_nll(model.answers, outputs, observed)
    assert fitted.choices[0]["validation/nll"] == pytest.approx(kept, abs=1e-6)
    assert kept == pytest.approx(min(row["validation/nll"] for row in fitted.history), abs=1e-6)


def test_measuring_leaves_all_that_goes_on_learning_as_it_was(tiny_folder: Path) -> None:
    fit = checked_fit(tiny_folder, shared_pairs(), [*graded_pairs(12, 7), *rankings(5, 1)])
    before = {name: weight.detach().clone() for name, weight in fit.weights.items()}
    assert measure(fit) == measure(fit)
    assert all(torch.equal(weight, before[name]) for name, weight in fit.weights.items())
    assert all(weight.grad is None for weight in fit.weights.values())
    assert torch.equal(fit.reward_model.answers.slopes, torch.ones(len(fit.reward_model.outputs)))

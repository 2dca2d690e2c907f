from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.learning.packing import IGNORED, LearningSequence, pack, packed_batch
from worker.learning.training import token_losses

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")
SEQUENCES = [
    LearningSequence([5, 6, 7, 8, 9]),
    LearningSequence([10, 11, 12], learn_from=2),
    LearningSequence([13, 14, 15, 16], learn_from=1),
]


@given(st.lists(st.integers(1, 50), max_size=60), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_every_item_stands_in_one_row_and_no_row_is_over_full(lengths: list[int], random: Any) -> None:
    rows = pack(lengths, 50)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(sum(lengths[index] for index in row) <= 50 for row in rows)
    shuffled = random.sample(lengths, len(lengths))
    assert len(pack(shuffled, 50)) == len(rows), "training counts on as many rows every epoch"


def test_rows_are_filled_well() -> None:
    """6 + 4 and 5 + 5 fill two rows of ten; in order of arrival it would take three."""
    assert sorted(map(sorted, pack([5, 6, 4, 5], 10))) == [[0, 3], [1, 2]]


def test_what_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 11 tokens does not fit a row of 10"):
        pack([3, 11], 10)


@pytest.mark.parametrize(("ids", "learn_from"), [([], 1), ([1], 1), ([1, 2], 0), ([1, 2], 2)])
def test_a_sequence_needs_something_to_learn_and_something_before_it(ids: list[int], learn_from: int) -> None:
    with pytest.raises(ValueError, match="cannot be learned"):
        LearningSequence(ids, learn_from)


def test_positions_restart_and_targets_stay_inside_their_sequence() -> None:
    batch = packed_batch([SEQUENCES[:2], SEQUENCES[2:]], 9, CPU)
    no = IGNORED
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 10, 11, 12, 0], [13, 14, 15, 16, 0, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1, 2, 3, 4]]
    assert batch.targets.tolist() == [[6, 7, 8, 9, no, no, 12, no, no], [14, 15, 16, no, no, no, no, no, no]]


def test_packed_equals_unpacked_in_losses_and_gradients(tiny_model: Any) -> None:
    """The trap: with a cache, transformers lets packed neighbours see each other."""

    def losses_and_gradients(batches: list[Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tiny_model.zero_grad()
        losses = torch.cat([token_losses(tiny_model, batch, "fp32") for batch in batches])
        losses.sum().backward()
        return losses.detach(), [one.grad.clone() for one in tiny_model.parameters()]

    packed, packed_gradients = losses_and_gradients([packed_batch([SEQUENCES], 16, CPU)])
    alone, alone_gradients = losses_and_gradients([packed_batch([[one]], len(one), CPU) for one in SEQUENCES])
    assert len(packed) == 4 + 1 + 3
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    for one, other in zip(packed_gradients, alone_gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_a_loss_is_the_logarithm_of_the_softmax_of_the_whole_model(tiny_model: Any) -> None:
    """Against the model's own forward, which neither packs nor skips positions."""
    sequence = SEQUENCES[0]
    with torch.no_grad():
        ours = token_losses(tiny_model, packed_batch([[sequence]], 8, CPU), "fp32")
        logs = tiny_model(input_ids=torch.tensor([sequence.ids])).logits[0].log_softmax(dim=-1)
    expected = [-float(logs[at, token]) for at, token in enumerate(sequence.ids[1:])]
    assert ours.tolist() == pytest.approx(expected, abs=1e-5)

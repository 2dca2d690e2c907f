import pytest
import torch

from tests.learning.tiny_models import END, PAD
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.shared_prefix import lay_out, pack, sees, split_by_cost

pytestmark = pytest.mark.learning

CPU = torch.device("cpu")


def test_every_prompt_token_is_read_once() -> None:
    each = EncodedSet((3, 4, 5), ((6, END), (7, 8, END), (9, END)))
    layout = lay_out([each], PAD, CPU)
    assert layout.input_ids.tolist() == [[3, 4, 5, 6, END, 7, 8, END, 9, END]]
    assert layout.position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 4, 5, 3, 4]]
    assert layout.ends.tolist() == [4, 7, 9]


def test_who_sees_whom() -> None:
    """Drawn by hand: two sets in one row, the prompts "a b" and "c", the responses "x y", "z" and "w"."""
    layout = pack([EncodedSet((10, 11), ((12, 13), (14,))), EncodedSet((15,), ((16,),))], PAD, CPU)
    columns = torch.arange(7)
    visible = sees(layout)(torch.tensor(0), torch.tensor(0), columns[:, None], columns[None, :])
    drawn = ["#......", "##.....", "###....", "####...", "##..#..", ".....#.", ".....##"]
    assert ["".join(".#"[int(one)] for one in row) for row in visible] == drawn
    assert layout.ends.tolist() == [3, 4, 6]


def test_rows_are_split_where_that_costs_less() -> None:
    short = EncodedSet((1,) * 10, ((2,) * 2,) * 9)
    assert split_by_cost(short, 1000.0, 1.0, 1e9) == [short]
    long = EncodedSet((1,) * 10, ((2,) * 200,) * 9)
    assert len(split_by_cost(long, 1000.0, 1.0, 1e9)) > 1
    assert len(split_by_cost(long, 1000.0, 0.0, 1e9)) == 1


@pytest.mark.parametrize("longest", [5, 12, 14, 100])
def test_rows_keep_all_responses_in_order_and_within_bounds(longest: int) -> None:
    each = EncodedSet((1,) * 10, tuple((number,) * 2 for number in range(7)))
    rows = split_by_cost(each, 1.0, 0.0, longest)
    assert [response for row in rows for response in row.response_ids] == list(each.response_ids)
    assert all(row.prompt_ids == each.prompt_ids for row in rows)
    assert all(row.tokens <= longest or len(row.response_ids) == 1 for row in rows)

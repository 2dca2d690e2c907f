"""What does a causal model know before each response token, and what of the pass can be left out?

A prompt with several responses is read once where that costs less, as in `reward/shared_prefix.py`; and the last
layer's feed-forward runs only where its output is read. Both give what a row for each response gives: that is tried on
a few tokens of every model, and what its family does not keep exact is not used.
"""

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from worker.learning.models import Precision, autocast
from worker.learning.reward.backbone import is_recomputed, last_mlp
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.forward import LEAST_HIDDEN, costs, longest_row, only_at
from worker.learning.reward.prefix_attention import behind_prompts
from worker.learning.reward.shared_prefix import (
    FLEX,
    PREFIX,
    Layout,
    attention_mask,
    hidden_keys,
    lay_out,
    pack,
    split_by_cost,
)


@dataclass(frozen=True)
class Way:
    """How a trunk is run.

    `attention` is the one under which responses share a row, empty where they cannot. `linear` and `quadratic` are
    what a token and a pair of tokens cost there, and `longest` is the most tokens of a row.
    """

    attention: str = ""
    cuts_last_mlp: bool = False
    least_hidden: float = LEAST_HIDDEN
    linear: float = 1.0
    quadratic: float = 0.0
    longest: float = math.inf

    def rows(self, each: EncodedSet, budget: float = math.inf) -> list[EncodedSet]:
        """Puts the responses to a prompt into the rows that cost least, none of more than `budget` tokens if it can."""
        if not self.attention:
            return [EncodedSet(each.prompt_ids, (response,)) for response in each.response_ids]
        quadratic = 0.0 if self.attention == FLEX or self.passes_over([each]) else self.quadratic
        return split_by_cost(each, self.linear, quadratic, min(self.longest, budget))

    def passes_over(self, rows: Sequence[EncodedSet]) -> bool:
        """Whether these rows hide so much that responses attend by themselves."""
        shares = self.attention == PREFIX and any(len(row.response_ids) > 1 for row in rows)
        return shares and fmean(map(hidden_keys, rows)) >= self.least_hidden

    def is_shared(self, row: EncodedSet) -> bool:
        """Whether a row needs our mask: flex attention packs rows of one response too, unless a window ends inside."""
        packs = self.attention == FLEX and row.tokens <= self.longest
        return bool(self.attention) and (len(row.response_ids) > 1 or packs)


_ways: WeakKeyDictionary[nn.Module, Way] = WeakKeyDictionary()


def way_of(trunk: PreTrainedModel) -> Way:
    """The best way for this trunk, tried when it is first asked for."""
    if trunk not in _ways:
        _ways[trunk] = _tried(trunk)
    # What is computed again in the backward pass would find the attention that it came with.
    return Way() if is_recomputed(trunk) else _ways[trunk]


def states_before(trunk: PreTrainedModel, rows: Sequence[EncodedSet], way: Way, precision: Precision) -> Tensor:
    """The states from which response tokens are predicted [tokens, width], row after row, response after response.

    Args:
        trunk: a causal model without its output layer.
        rows: all shared or all of one response, as `way.is_shared` says. A response is what of it is read: all but
            its last token, after which nothing is predicted.
    """
    is_shared = way.is_shared(rows[0])
    layout = (pack if is_shared and way.attention == FLEX else lay_out)(rows, 0, trunk.device)
    places = places_before(rows, layout)
    given: dict[str, Any] = {}
    if is_shared:
        mask = attention_mask(layout, way.attention, trunk.dtype)
        given = {"position_ids": layout.position_ids, "attention_mask": mask}
    with ExitStack() as stack:
        if way.attention:
            stack.enter_context(_attending(trunk, way.attention))
        if way.passes_over(rows):
            stack.enter_context(behind_prompts(layout))
        if way.cuts_last_mlp and (layer := last_mlp(trunk)) is not None:
            stack.enter_context(only_at(layer, torch.unique(places)))
        stack.enter_context(autocast(trunk.device, precision))
        # With a cache transformers forgets which tokens of a row belong together, and they leak into each other.
        states: Tensor = trunk(input_ids=layout.input_ids, use_cache=False, **given).last_hidden_state
    return states.flatten(0, 1).index_select(0, places)


def places_before(rows: Sequence[EncodedSet], layout: Layout) -> Tensor:
    """Where the state before each response token stands [tokens], in the layout's rows laid end to end.

    Before a response's first token that is the end of its prompt.
    """
    places: list[int] = []
    ends = iter(layout.ends.tolist())
    for row in rows:
        prompt_end = None
        for response in row.response_ids:
            begin = next(ends) - len(response)
            prompt_end = begin if prompt_end is None else prompt_end
            places += [prompt_end, *range(begin + 1, begin + 1 + len(response))]
    return torch.tensor(places, device=layout.input_ids.device)


@contextmanager
def _attending(trunk: PreTrainedModel, attention: str) -> Iterator[None]:
    """Inside, the trunk attends by this name; sampling keeps what the model came with."""
    before = trunk.config._attn_implementation
    trunk.config._attn_implementation = attention
    try:
        yield
    finally:
        trunk.config._attn_implementation = before


def _tried(trunk: PreTrainedModel) -> Way:
    """The first way that gives what plain rows give, the fastest first."""
    own = str(trunk.config._attn_implementation)
    by_itself = FLEX if trunk.device.type == "cuda" else PREFIX
    attentions = (by_itself, "sdpa", "") if own == "sdpa" else (own, "")
    linear, quadratic = costs(trunk)
    for attention, cuts_last_mlp in product(attentions, (True, False)):
        way = Way(attention, cuts_last_mlp, LEAST_HIDDEN, linear, quadratic, longest_row(trunk))
        if _is_exact(trunk, way):
            return way
    return Way()


def _is_exact(trunk: PreTrainedModel, way: Way) -> bool:
    """Whether a few tokens have the same states in this way as in plain rows, and gradients that find back.

    The attention that passes over what is hidden is tried beside the mask that takes its place in short rows.
    """
    probe = _probe(trunk)
    alone = [EncodedSet(probe.prompt_ids, (response,)) for response in probe.response_ids]
    ways = [way] if way.attention != PREFIX else [replace(way, least_hidden=least) for least in (0.0, math.inf)]
    coarsest = max(torch.finfo(weight.dtype).eps for weight in trunk.parameters())
    # In fp32 the ways are told apart best.
    precision: Precision = "fp32" if coarsest == torch.finfo(torch.float32).eps else "bf16"
    with torch.no_grad():
        expected = states_before(trunk, alone, Way(), precision)
    for tried in ways:
        try:
            with torch.enable_grad():
                states = states_before(trunk, [probe] if way.attention else alone, tried, precision)
                if states.requires_grad:
                    weight = next(weight for weight in trunk.parameters() if weight.requires_grad)
                    torch.autograd.grad(states.sum(), weight, allow_unused=True)
        except Exception:  # noqa: BLE001 - there is no saying how a model refuses
            return False
        if not (states - expected).abs().max() <= coarsest**0.5 * expected.abs().max():
            return False
    return True


def _probe(trunk: PreTrainedModel) -> EncodedSet:
    """A prompt and four responses of random tokens, one of them of a single token, of which nothing is read."""
    draw = random.Random(0)
    tokens = range(min(trunk.get_input_embeddings().num_embeddings, 100))
    prompt_ids, *responses = (tuple(draw.choices(tokens, k=count)) for count in (6, 4, 0, 2, 5))
    return EncodedSet(prompt_ids, tuple(responses))

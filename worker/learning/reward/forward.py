"""What does the backbone make of responses? The features that a reward model's outputs are read from."""

import inspect
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from worker.learning.batches import group_by_length, pad, token_budget
from worker.learning.models import Precision, autocast
from worker.learning.reward.backbone import last_mlp, output_layer
from worker.learning.reward.encoding import EncodedSet
from worker.learning.reward.prefix_attention import behind_prompts
from worker.learning.reward.shared_prefix import (
    FLEX,
    PREFIX,
    attention_mask,
    hidden_keys,
    lay_out,
    pack,
    split_by_cost,
)

ATTENTION_COST = 3.0
"""How much longer a multiplication takes in attention than in a linear layer; on CPUs 1.5 in fp32, 5 in bf16."""
LEAST_HIDDEN = 180.0
"""From how many hidden keys a token on, attention that passes over them is faster than multiplying them, on CPUs."""
WINDOWS = ("max_position_embeddings", "sliding_window", "attention_chunk_size", "window_size")
"""What configurations call the farthest that a token is seen."""


class Forward:
    """Runs a sequence classifier over sets of responses, each prompt once where the backbone can share it.

    Whether it can is tried on a few tokens when this is made: where sharing does not give what a row for each response
    gives, or the backbone refuses it, `reason` says so, and every response has a row of its own. Gradients flow through
    both ways. A row is never longer than the backbone's context or attention window; longer ones are not shared.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, precision: Precision = "auto"
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._pad_token_id = int(tokenizer.pad_token_id)
        self._end_token_id = int(tokenizer.eos_token_id if tokenizer.sep_token_id is None else tokenizer.sep_token_id)
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        # With a cache transformers forgets which tokens of a row belong together, and they leak into each other.
        self._options = {"use_cache": False} if takes_cache else {}
        self._longest = longest_row(model)
        self._linear, self._quadratic = costs(model)
        self._last_mlp = last_mlp(model)
        self.precision, self._least_hidden = precision, LEAST_HIDDEN
        with self._on_trial():
            self.reason = self._choose_way()

    @property
    def shares(self) -> bool:
        """Whether a prompt is read once for all of its responses."""
        return not self.reason

    def features(self, sets: Sequence[EncodedSet]) -> Tensor:
        """What the output layer reads, in fp32 and with gradient [responses, width], responses as laid end to end."""
        rows = [row for each in sets for row in self._rows(each)]
        shared = [index for index, row in enumerate(rows) if self._is_shared(row)]
        alone = [index for index, row in enumerate(rows) if not self._is_shared(row)]
        if not alone:
            return self._together([rows[index] for index in shared])
        if not shared:
            return self._apart([rows[index] for index in alone])
        parts: dict[int, Tensor] = {}
        for run, chosen in ((self._together, shared), (self._apart, alone)):
            own = [rows[index] for index in chosen]
            features = torch.split(run(own), [len(row.response_ids) for row in own])
            parts |= dict(zip(chosen, features, strict=True))
        return torch.cat([parts[index] for index in range(len(rows))])

    def micro_batches(self, sets: Sequence[EncodedSet], budget_tokens: int | None = None) -> list[list[int]]:
        """Splits sets into groups of similar length for one `features` each, as indices, short sets first.

        Args:
            sets: to split; each stays whole.
            budget_tokens: the most tokens of a group, padding included; None lets the device say.
        """
        rows = [self._rows(each) for each in sets]
        return group_by_length(
            [max(row.tokens for row in own) for own in rows],
            budget_tokens or token_budget(self.model.device),
            [len(own) for own in rows],
        )

    @property
    def _attention(self) -> str:
        return str(self.model.config._attn_implementation)

    def _rows(self, each: EncodedSet) -> list[EncodedSet]:
        if not self.shares:
            return [EncodedSet(each.prompt_ids, (response,)) for response in each.response_ids]
        # Where what is hidden is passed over, it costs nothing.
        quadratic = 0.0 if self._attention == FLEX or self._passes_over([each]) else self._quadratic
        return split_by_cost(each, self._linear, quadratic, self._longest)

    def _passes_over(self, rows: Sequence[EncodedSet]) -> bool:
        """Whether these rows hide so much that responses attend by themselves."""
        return self._attention == PREFIX and fmean(map(hidden_keys, rows)) >= self._least_hidden

    def _is_shared(self, row: EncodedSet) -> bool:
        several = len(row.response_ids) > 1 or self._attention == FLEX  # flex attention packs rows of one too
        return self.shares and several and row.tokens <= self._longest

    def _together(self, rows: Sequence[EncodedSet]) -> Tensor:
        """All responses of a row behind its one prompt."""
        arrange = pack if self._attention == FLEX else lay_out
        layout = arrange(rows, self._pad_token_id, self.model.device)
        with ExitStack() as stack:
            if self._last_mlp is not None:
                stack.enter_context(only_at(self._last_mlp, layout.ends))
            if self._passes_over(rows):
                stack.enter_context(behind_prompts(layout))
            read = self._read(
                input_ids=layout.input_ids,
                position_ids=layout.position_ids,
                attention_mask=attention_mask(layout, self._attention, self.model.dtype),
            )
        if read.ndim != 3:
            raise ValueError("it makes one vector of the whole row")
        return read.flatten(0, 1)[layout.ends].float()

    def _apart(self, rows: Sequence[EncodedSet]) -> Tensor:
        """One response a row; rows of similar length stand together, since a set may be larger than a forward."""
        groups = group_by_length([row.tokens for row in rows], token_budget(self.model.device))
        parts = [self._padded([rows[index] for index in group]) for group in groups]
        order = torch.tensor([index for group in groups for index in group], device=self.model.device)
        return torch.cat(parts)[order.argsort()]

    def _padded(self, rows: Sequence[EncodedSet]) -> Tensor:
        """Rows padded on the right, where every architecture counts positions as it does without padding."""
        batch = pad([row.prompt_ids + row.response_ids[0] for row in rows], self._pad_token_id, self.model.device)
        read = self._read(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        if read.ndim == 3:  # one vector a token: the last real token has seen the whole text
            read = read[torch.arange(len(rows), device=read.device), batch.attention_mask.sum(1) - 1]
        return read.float()

    def _read(self, **inputs: Any) -> Tensor:
        """What the output layer is given: [rows, tokens, width], or [rows, width] from a model that pools before it."""
        given: list[Tensor] = []
        hook = output_layer(self.model).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            with autocast(self.model.device, self.precision):
                self.model(**inputs, **self._options)
        finally:
            hook.remove()
        return given[-1]

    @contextmanager
    def _on_trial(self) -> Iterator[None]:
        """Inside, all is in fp32, in which two ways can be told apart, and short rows go the way of longer ones."""
        before = self.precision, self._least_hidden
        self.precision, self._least_hidden = "fp32", 0.0
        try:
            yield
        finally:
            self.precision, self._least_hidden = before

    def _choose_way(self) -> str:
        """Why nothing is shared, empty where it is. Attention that passes over the hidden is taken where it works."""
        before = self._attention
        if before == "sdpa":
            self.model.set_attn_implementation(FLEX if self.model.device.type == "cuda" else PREFIX)
            if not self._why_not():
                return ""
            self.model.set_attn_implementation(before)
        reason = self._why_not()
        if reason and self._last_mlp is not None:  # perhaps for that alone
            self._last_mlp = None
            reason = self._why_not()
        return reason

    def _why_not(self) -> str:
        """Compares a set in one row with its responses in rows of their own, in fp32; empty where they are the same."""
        name = type(self.model).__name__
        probe = _probe(self.model.get_input_embeddings().num_embeddings, self._pad_token_id, self._end_token_id)
        with torch.no_grad():
            apart = self._apart([EncodedSet(probe.prompt_ids, (response,)) for response in probe.response_ids])
        try:
            together = self._together([probe])
            if together.requires_grad:
                weight = next(weight for weight in self.model.parameters() if weight.requires_grad)
                torch.autograd.grad(together.sum(), weight, allow_unused=True)
        except Exception as error:  # noqa: BLE001 - there is no saying how a backbone refuses
            return f"{name} cannot read several responses in one row: {error}".splitlines()[0]
        tolerance = torch.finfo(self.model.dtype).eps ** 0.5
        if (together - apart).abs().max() <= tolerance * apart.abs().max():
            return ""
        return f"{name} does not keep several responses in one row apart"


@contextmanager
def only_at(layer: nn.Module, ends: Tensor) -> Iterator[None]:
    """Inside, a layer that looks at each token by itself is run at the ends alone, and gives 0 elsewhere.

    Of the last layer nothing else is read; in a model of four layers that saves a fifth of all multiplications.
    """
    shapes: list[torch.Size] = []

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        shapes.append(inputs[0].shape)
        return inputs[0].flatten(0, 1)[None, ends], *inputs[1:]

    def scatter(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        rows, columns, width = shapes.pop()
        return output.new_zeros(rows * columns, width).index_copy(0, ends, output[0]).view(rows, columns, width)

    hooks = [layer.register_forward_pre_hook(gather), layer.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _probe(vocabulary: int, pad_token_id: int, end_token_id: int) -> EncodedSet:
    """A prompt and three responses of random ordinary tokens."""
    draw = random.Random(0)
    usable = [token for token in range(min(vocabulary, 100)) if token not in {pad_token_id, end_token_id}]
    prompt_ids, *responses = (tuple(draw.choices(usable, k=tokens)) for tokens in (6, 4, 2, 5))
    return EncodedSet(prompt_ids, tuple((*response, end_token_id) for response in responses))


def costs(model: PreTrainedModel) -> tuple[float, float]:
    """Multiplications that a token costs in linear layers, and a pair of tokens in attention."""
    config = model.config.get_text_config()
    embeddings = {id(layer.weight) for layer in model.modules() if isinstance(layer, nn.Embedding)}
    linear = sum(weight.numel() for weight in model.parameters() if id(weight) not in embeddings)
    return float(linear), ATTENTION_COST * 2 * config.num_hidden_layers * config.hidden_size


def longest_row(model: PreTrainedModel) -> float:
    """The most tokens that may stand in a shared row, so that no window or table of positions ends inside it."""
    config = model.config.get_text_config()
    limits = [getattr(config, name, None) for name in WINDOWS]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=math.inf)

"""Which tokens does a reward model read for a prompt and its responses?"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from worker.learning.models import encode_prompt
from worker.learning.records import Prompt

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class EncodedSet:
    """A prompt and responses to it. The model reads `prompt_ids` and one of `response_ids`, end token included."""

    prompt_ids: Tokens
    response_ids: tuple[Tokens, ...]

    @property
    def tokens(self) -> int:
        """How many tokens there are, the prompt's counted once."""
        return len(self.prompt_ids) + sum(map(len, self.response_ids))

    @property
    def longest(self) -> int:
        """The tokens of the prompt and its longest response."""
        return len(self.prompt_ids) + max(map(len, self.response_ids))


@dataclass(frozen=True)
class Encoded:
    """What there is to encode, each text once, and where the given sets find theirs.

    `places` has for each given set the place of each of its responses among the responses of all `sets`, laid end to
    end: with outputs [responses] of `sets`, `outputs[places[i]]` are those of given set i.
    """

    sets: list[EncodedSet]
    places: list[list[int]]


@dataclass(frozen=True)
class _Marks:
    """The special tokens around a prompt and a response; the first `kept` tokens of a text are never cut off."""

    start: Tokens
    between: Tokens
    end: Tokens

    @property
    def kept(self) -> int:
        return len(self.start)


def encode_sets(
    tokenizer: PreTrainedTokenizerBase, limit: int, sets: Sequence[tuple[Prompt, Sequence[str]]]
) -> Encoded:
    """Encodes prompts with their responses, merging what is the same.

    A causal model's text is prompt, response and end token; an encoder's has its own marks around the two. What is
    longer than `limit` tokens loses its beginning, since the response and its end decide the score: such a response
    stands in a set whose prompt is that much shorter. Sets of one prompt are merged, and equal responses in them are
    encoded once. Names of special tokens inside a response are ordinary text.

    Args:
        tokenizer: the reward model's; one with a [CLS] token marks texts as its encoder wants them.
        limit: the most tokens of a prompt and one response together.
        sets: each a prompt and the responses to it.

    Raises:
        ValueError: if `limit` leaves no room for a response, or a prompt cannot be encoded.
    """
    marks = _marks(tokenizer)
    if limit <= marks.kept:
        raise ValueError(f"a limit of {limit} tokens leaves no room for a response: allow more")
    prompts = _encode_prompts(tokenizer, [prompt for prompt, _ in sets])
    written = _encode_responses(tokenizer, {response for _, responses in sets for response in responses})
    found: dict[Tokens, dict[Tokens, int]] = {}
    spots: list[list[tuple[Tokens, int]]] = []
    for before, (_, responses) in zip(prompts, sets, strict=True):
        head, own = marks.start + _unmarked(before, marks) + marks.between, []
        for response in responses:
            prompt_ids, response_ids = _fit(head, written[response] + marks.end, limit, marks.kept)
            merged = found.setdefault(prompt_ids, {})
            own.append((prompt_ids, merged.setdefault(response_ids, len(merged))))
        spots.append(own)
    starts, total = {}, 0
    for prompt_ids, merged in found.items():
        starts[prompt_ids] = total
        total += len(merged)
    return Encoded(
        [EncodedSet(prompt_ids, tuple(merged)) for prompt_ids, merged in found.items()],
        [[starts[prompt_ids] + index for prompt_ids, index in own] for own in spots],
    )


def _marks(tokenizer: PreTrainedTokenizerBase) -> _Marks:
    if tokenizer.cls_token_id is None:
        return _Marks((), (), (tokenizer.eos_token_id,))
    return _Marks((tokenizer.cls_token_id,), (tokenizer.sep_token_id,), (tokenizer.sep_token_id,))


def _unmarked(tokens: Tokens, marks: _Marks) -> Tokens:
    """A prompt without the marks that most encoders' tokenizers put around it by themselves."""
    if marks.start and tokens[: len(marks.start)] == marks.start:
        tokens = tokens[len(marks.start) :]
    if marks.between and tokens[-len(marks.between) :] == marks.between:
        tokens = tokens[: -len(marks.between)]
    return tokens


def _encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> list[Tokens]:
    """The tokens of each prompt; the same conversation is tokenized once."""
    known: dict[tuple[tuple[str, str], ...], Tokens] = {}
    encoded = []
    for prompt in prompts:
        key = tuple((message["role"], message["content"]) for message in prompt)
        if key not in known:
            known[key] = tuple(encode_prompt(tokenizer, prompt))
        encoded.append(known[key])
    return encoded


def _encode_responses(tokenizer: PreTrainedTokenizerBase, responses: set[str]) -> dict[str, Tokens]:
    """The tokens of each response, all tokenized in one call, which a fast tokenizer spreads over the cores."""
    texts = sorted(responses)
    if not texts:
        return {}
    ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return {text: tuple(own) for text, own in zip(texts, ids, strict=True)}


def _fit(head: Tokens, tail: Tokens, limit: int, kept: int) -> tuple[Tokens, Tokens]:
    """Takes from the beginning what is over the limit: from the prompt, and where that is used up from the response."""
    over = len(head) + len(tail) - limit
    if over <= 0:
        return head, tail
    head = head[:kept] + head[kept + over :]
    return head, tail[-(limit - len(head)) :]

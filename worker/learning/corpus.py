"""What does a language model learn from? Documents of a text file, or pairs of prompt and response."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from worker.learning.models import PAD_TOKEN, encode_prompt
from worker.learning.packing import LearningSequence
from worker.learning.records import Message

END_TOKEN = "<|endoftext|>"  # noqa: S105
SMALLEST_VOCABULARY = 258  # 256 bytes, the pad token and the end token

CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{ message['content'] }}"
    "{%- if loop.last and message['role'] == 'assistant' -%}{{ eos_token }}"
    "{%- elif not loop.last or add_generation_prompt -%}{{ '\\n' }}{%- endif -%}"
    "{%- endfor -%}"
)
"""Contents on lines of their own. A line break is a token of its own before a word that starts a line, so prompt and
response are tokenised the same apart and together, and a response begins without a space."""

_PLAIN = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "…": "...", "–": "-", "—": "-"})  # noqa: RUF001


@dataclass(frozen=True)
class Pair:
    """A prompt and the response to be learned. Pairs of one `group` are held out together."""

    prompt: tuple[Message, ...]
    response: str
    group: str


def read_documents(paths: Iterable[Path]) -> list[str]:
    """The documents of UTF-8 text files, separated by `<|endoftext|>`, each text once.

    Typographic quotes, dashes and ellipses become plain ones and blank lines go, since a small
    vocabulary has better uses.

    Raises:
        ValueError: if a file cannot be read, is not UTF-8, or there is no document at all.
    """
    documents: dict[str, None] = {}  # keeps the order, drops doubles
    for path in paths:
        for part in _read_text(path).split(END_TOKEN):
            lines = [" ".join(line.split()) for line in part.translate(_PLAIN).splitlines()]
            documents["\n".join(line for line in lines if line)] = None
    documents.pop("", None)
    if not documents:
        raise ValueError(f"there is no document: a corpus is text with {END_TOKEN} between its documents")
    return list(documents)


def read_pairs(path: Path) -> list[Pair]:
    """Pairs from JSON lines: `prompt` (a text or a list of messages), `response`, and, if there, `group`.

    Raises:
        ValueError: if a line is no such pair, saying which and why, or if there is none.
    """
    pairs = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                pairs.append(_pair(json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    if not pairs:
        raise ValueError(f'{path} has no pairs: each line is {{"prompt": "...", "response": "..."}}')
    return pairs


def is_held_out(group: str, share: float) -> bool:
    """Whether a text is kept out of training: decided by its own hash, so it never changes sides."""
    return int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) < share * 2**64


def train_tokenizer(documents: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any text can be encoded, and comes back unchanged.

    Raises:
        ValueError: if the vocabulary has no room for all bytes.
    """
    if vocabulary < SMALLEST_VOCABULARY:
        raise ValueError(f"a byte-level vocabulary needs at least {SMALLEST_VOCABULARY} tokens, not {vocabulary}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD_TOKEN, END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(documents, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD_TOKEN,
        eos_token=END_TOKEN,
        padding_side="left",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode_document(tokenizer: PreTrainedTokenizerBase, document: str, context: int) -> list[LearningSequence]:
    """A document and its end token, cut into windows of at most `context` tokens; all is learned."""
    ids = [*_ids(tokenizer, document), tokenizer.eos_token_id]
    windows = [ids[start : start + context] for start in range(0, len(ids), context)]
    return [LearningSequence(window) for window in windows if len(window) > 1]


def encode_pair(tokenizer: PreTrainedTokenizerBase, pair: Pair, context: int) -> LearningSequence:
    """Prompt, response and end token; response and end token are learned, the prompt is not.

    Raises:
        ValueError: if the pair is longer than the context.
    """
    sequence = _sequence_of(tokenizer, pair)
    if len(sequence) > context:
        raise ValueError(f"a pair of {len(sequence)} tokens does not fit the model's context of {context}: shorten it")
    return sequence


def length_of(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> int:
    """The tokens of a pair, the end token included."""
    return len(_sequence_of(tokenizer, pair))


def _sequence_of(tokenizer: PreTrainedTokenizerBase, pair: Pair) -> LearningSequence:
    prompt = encode_prompt(tokenizer, pair.prompt)
    return LearningSequence([*prompt, *_ids(tokenizer, pair.response), tokenizer.eos_token_id], learn_from=len(prompt))


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> Sequence[int]:
    """Token ids of plain text: names of special tokens in it are ordinary words."""
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)["input_ids"]
    return ids


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _pair(row: Any) -> Pair:
    if not isinstance(row, dict):
        raise ValueError('a line is an object {"prompt": ..., "response": ...}')  # noqa: TRY004
    prompt, response, group = row.get("prompt"), row.get("response"), row.get("group")
    if not isinstance(response, str) or not response.strip():
        raise ValueError('"response" is missing, empty or not a text')
    if isinstance(prompt, str) and prompt.strip():
        prompt = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, list) or not prompt or not all(map(_is_message, prompt)):
        raise ValueError('"prompt" is neither a text nor a list of messages {"role": ..., "content": ...}')
    if group is not None and not isinstance(group, str):
        raise ValueError('"group" is not a text')
    messages = tuple(Message(role=message["role"], content=message["content"]) for message in prompt)
    return Pair(messages, response, json.dumps(prompt) if group is None else group)


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))

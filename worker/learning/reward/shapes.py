r"""In which shapes do a prompt and its responses stand in a line of JSON? They are told apart by their keys.

{"prompt", "responses"}               our own shape, which the export `rankings` has too
{"prompt", "chosen", "rejected"}      TRL's pairs, plain or conversational
{"chosen", "rejected"}                the same with the prompt at the beginning of both: conversations, flat dialogues
                                      "\n\nHuman: ...\n\nAssistant: ...", or texts that begin with the same words
{"input": {"messages"}, "preferred_output", "non_preferred_output"}      OpenAI's pairs
{"context" or "prompt", "completions": [{"rank", "completion"}]}         NeMo's rankings
{"prompt", "response" or "completion"}, {"messages"}                     one response, to be scored
"""

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from worker.learning.json_lines import Json, Row
from worker.learning.records import Message

_KNOWN = '"prompt" with "responses", "chosen" and "rejected" or "response"'
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS = {"human": "user", "prompter": "user", "gpt": "assistant"}  # other names are roles already
_PROMPTS = ("prompt", "instruction", "question", "context", "conversations", "messages")
_TEXTS = ("text", "completion", "content", "response")

Messages = tuple[Message, ...]
Groups = tuple[tuple[int, ...], ...]


class BadLine(ValueError):
    """A line that cannot be read; the sentence names the field and what belongs there."""


@dataclass(frozen=True)
class Asked:
    """A prompt and its responses, with their ids where they have some.

    `groups` is the order that the shape itself implies: a pair's, or that of ranks.
    """

    prompt: Messages
    responses: tuple[str, ...]
    ids: tuple[Json, ...] = ()
    groups: Groups = ()
    is_pair: bool = False


def read_shape(row: Json) -> Asked:
    """What is asked and answered in a line. The first shape whose keys are all there reads it. Raises BadLine."""
    if not isinstance(row, dict):
        raise BadLine(f"it is {kind(row)}, not an object with {_KNOWN}")
    for keys, read in _SHAPES:
        if all(key in row for key in keys):
            return read(row)
    raise BadLine(f"it needs {_KNOWN}; its keys are: {', '.join(row) or 'none'}")


# The shapes


def _responses(key: str) -> Callable[[Row], Asked]:
    """Our own shape and NeMo's: a list of texts or of objects, which may have ids and ranks."""

    def read(row: Row) -> Asked:
        given = row[key]
        if not isinstance(given, list) or not given:
            raise BadLine(f'"{key}" is {kind(given)}, and must be a list with at least one response')
        texts = tuple(read_text(response, f'"{key}"[{place}]') for place, response in enumerate(given))
        ids = [response.get("id") if isinstance(response, dict) else None for response in given]
        ranks = [response.get("rank") if isinstance(response, dict) else None for response in given]
        return Asked(
            prompt=read_prompt(row),
            responses=texts,
            ids=() if None in ids else tuple(ids),
            groups=() if None in ranks else _ranked(ranks),
        )

    return read


def _ranked(ranks: Sequence[Json]) -> Groups:
    """Groups by rank, the lowest first."""
    if not all(is_number(rank) for rank in ranks):
        raise BadLine(f'"rank" must be a number, the best response\'s the lowest: {json.dumps(ranks)}')
    if len(ranks) < 2:
        return ()
    return tuple(tuple(place for place, rank in enumerate(ranks) if rank == value) for value in sorted(set(ranks)))


def _single(key: str) -> Callable[[Row], Asked]:
    return lambda row: Asked(read_prompt(row), (read_text(row[key], f'"{key}"'),))


def _conversation(row: Row) -> Asked:
    messages = _messages(row["messages"], '"messages"')
    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise BadLine('"messages" must end with the assistant\'s message, which is the response')
    return Asked(messages[:-1], (messages[-1]["content"],))


def _trl_pair(row: Row) -> Asked:
    chosen, rejected = row["chosen"], row["rejected"]
    if any(key in row for key in _PROMPTS):
        prompt = read_prompt(row)
        chosen, rejected = _after(prompt, chosen), _after(prompt, rejected)
    else:
        prompt, chosen, rejected = _shared_beginning(chosen, rejected)
    return _pair(prompt, read_text(chosen, '"chosen"'), read_text(rejected, '"rejected"'))


def _openai_pair(row: Row) -> Asked:
    asked = row["input"]
    if not isinstance(asked, dict) or "messages" not in asked:
        raise BadLine('"input" must be an object with "messages"')
    keys = ("preferred_output", "non_preferred_output")
    better, worse = (read_text(row[key], f'"{key}"') for key in keys)
    return _pair(_messages(asked["messages"], '"input"."messages"'), better, worse)


def _pair(prompt: Messages, better: str, worse: str) -> Asked:
    return Asked(prompt, (better, worse), groups=((0,), (1,)), is_pair=True)


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Row], Asked]], ...] = (
    (("chosen", "rejected"), _trl_pair),
    (("input", "preferred_output", "non_preferred_output"), _openai_pair),
    (("responses",), _responses("responses")),
    (("completions",), _responses("completions")),
    (("response",), _single("response")),
    (("completion",), _single("completion")),
    (("messages",), _conversation),
)


def _after(prompt: Messages, said: Json) -> Json:
    """A conversation without the prompt, where it repeats it."""
    if isinstance(said, list) and len(said) > 1 and tuple(said[: len(prompt)]) == prompt:
        return said[len(prompt) :]
    return said


def _shared_beginning(chosen: Json, rejected: Json) -> tuple[Messages, Json, Json]:
    """The prompt, which stands at the beginning of both, and what follows in each."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        dialogues = _dialogue(chosen), _dialogue(rejected)
        if dialogues[0] is None or dialogues[1] is None:
            return _shared_words(chosen, rejected)
        chosen, rejected = dialogues
    if not (isinstance(chosen, list) and isinstance(rejected, list) and len(chosen) > 1 and len(rejected) > 1):
        raise BadLine('without "prompt", "chosen" and "rejected" must both be texts or both be conversations')
    if chosen[:-1] != rejected[:-1]:
        raise BadLine('"chosen" and "rejected" differ before their last message, so they answer different prompts')
    return _messages(chosen[:-1], '"chosen"'), chosen[-1:], rejected[-1:]


def _dialogue(flat: str) -> list[Message] | None:
    r"""The messages of "\n\nHuman: ...\n\nAssistant: ...", None if it is not one that ends with an answer."""
    before, *turns = _TURN.split(flat)
    if before.strip() or len(turns) < 4 or turns[-2] != "Assistant":
        return None
    spoken = zip(turns[::2], turns[1::2], strict=True)
    return [Message(role=_role(speaker), content=said.strip()) for speaker, said in spoken]


def _shared_words(chosen: str, rejected: str) -> tuple[Messages, str, str]:
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end = max((place for place in range(alike + 1) if chosen[place : place + 1].isspace()), default=0)
    if not chosen[:end].strip():
        raise BadLine('"chosen" and "rejected" do not begin with the same words: put what is answered in "prompt"')
    return (Message(role="user", content=chosen[:end]),), chosen[end:], rejected[end:]


# Prompts and responses


def read_prompt(row: Row) -> Messages:
    """The messages before the response, under any of the names that a prompt has. Raises BadLine."""
    key = next((key for key in _PROMPTS if key in row), None)
    if key is None:
        raise BadLine('it has no "prompt"')
    return _messages(row[key], f'"{key}"')


def _messages(value: Json, where: str) -> Messages:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise BadLine(f"{where} is {kind(value)}, and must be a text or a list of messages")
    messages = tuple(_message(message, f"{where}[{place}]") for place, message in enumerate(value))
    if not any(message["content"].strip() for message in messages):
        raise BadLine(f"{where} is empty")
    return messages


def _message(value: Json, where: str) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role", value.get("from")), str):
        raise BadLine(f'{where} must be a message {{"role": ..., "content": ...}}')
    if "role" in value:
        return Message(role=value["role"], content=_content(value.get("content"), f'{where}."content"'))
    return Message(role=_role(value["from"]), content=_content(value.get("value"), f'{where}."value"'))


def _role(speaker: str) -> str:
    return _SPEAKERS.get(speaker.lower(), speaker.lower())


def _content(value: Json, where: str) -> str:
    """A text, or the texts among content parts; anything else in them cannot be read."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise BadLine(f"{where} is {kind(value)}, not a text")
    parts = [part for part in value if isinstance(part, dict) and part.get("type") == "text"]
    if len(parts) != len(value) or not all(isinstance(part.get("text"), str) for part in parts):
        raise BadLine(f"{where} holds parts that are not text, and reward models read text alone")
    return "\n".join(part["text"] for part in parts)


def read_text(value: Json, where: str) -> str:
    """A response: a text, an object that has one, or one message of the assistant. An empty one is a response too."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "role" in part for part in value):
        if len(value) != 1 or value[0]["role"] != "assistant":
            raise BadLine(f"{where} must be one message of the assistant")
        value = value[0]
    if isinstance(value, dict):
        key = next((key for key in _TEXTS if key in value), None)
        if key is None:
            raise BadLine(f'{where} has no "text"')
        return read_text(value[key], f'{where}."{key}"')
    return _content(value, where)


def is_number(value: Json) -> bool:
    """Whether it is a finite number; JSON's true is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def kind(value: Json) -> str:
    """What a value is, in words for the person who made the file."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"the number {value}"
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a text"

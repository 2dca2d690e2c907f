r"""What does a line of an import say? JSON Lines in several shapes, told apart by their keys.

A prompt is a text or a list of messages {"role", "content"}. A response is a text, an object {"text", "system"} or
{"completion", "model"} (the system's name is never shown to annotators), or a list of one assistant message.

    a text                                              a prompt by itself
    {"prompt"} or {"instruction"}                       the same
    {"prompt", "responses": [...]}                      our own shape
    {"prompt", "completions": [...]}                    several systems' answers, as open-instruct writes them
    {"prompt", "response"} or {"prompt", "completion"}  one response
    {"prompt", "chosen", "rejected"}                    TRL's preference format, plain or conversational
    {"chosen", "rejected"}                              the same with the prompt in both: messages that begin alike, or
                                                        flat dialogues "\n\nHuman: ...\n\nAssistant: ..." (HH-RLHF)
    {"conversations", "chosen", "rejected"}             turns as {"from", "value"}
    {"prompt", "completion_a", "completion_b"}          a judged pair, with "model_a" and "model_b" (open-instruct)
    {"messages"} or {"conversations"}                   a conversation; a last message of the assistant is a response
    {"message_tree_id", "prompt"} or {"message_id", "replies"}
                                                        an OpenAssistant tree: a prompt for every set of sibling answers

Beside these, "id" names the prompt where it came from, prompts of one "group" share a split, and "details" and all
other keys are kept with the prompt. What a file says about which response is better is left out: annotators are to say.
"""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.domain import texts
from app.domain.prompts import Message, NewPrompt, check_messages
from app.domain.responses import NewResponse, check_response
from app.errors import Invalid
from app.language import gettext as _
from app.language import grouped

LONGEST_LINE = 1_000_000
_LONGEST_REASON = 300
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")
_PROMPTS = ("prompt", "instruction", "messages")
_NAMES = ("id", "external_id", "id_", "question_id", "instance_id")
# What a file says about the order of responses, and by whom: never kept with the prompt.
_VERDICTS = frozenset(
    {"preference", "evaluator", "completion_a_is_acceptable", "completion_b_is_acceptable", "label", "winner"}
    | {"score_chosen", "score_rejected", "margin", "rank", "ranking"}
)

Json = Any
Line = Mapping[str, Json]


@dataclass(frozen=True)
class Row:
    """A good line: its number, 1 first, and the prompts that it holds (a tree holds several)."""

    line: int
    prompts: tuple[NewPrompt, ...]


@dataclass(frozen=True)
class LineError:
    """A line that cannot be taken, and why, in words for the person who made the file."""

    line: int
    reason: str


def parse_lines(content: bytes) -> Iterator[Row | LineError]:
    """The rows of a JSON Lines file. Empty lines are passed over; no input raises."""
    if content.startswith(_UTF16):
        yield LineError(1, _("the file is UTF-16: save it as UTF-8"))
        return
    for number, line in enumerate(io.BytesIO(content.removeprefix(_BOM)), start=1):
        if not line.strip():
            continue
        try:
            yield Row(number, _parse(line))
        except Invalid as refusal:
            yield LineError(number, _shown(str(refusal)))
        except RecursionError:
            yield LineError(number, _("it is nested too deeply"))


def _shown(reason: str) -> str:
    # A reason may quote the line, whose characters need not be such as can be kept.
    kept = ascii(reason)[1:-1] if texts.flaw(reason) else reason
    return kept if len(kept) <= _LONGEST_REASON else kept[:_LONGEST_REASON] + " ..."


def _parse(line: bytes) -> tuple[NewPrompt, ...]:
    if len(line) > LONGEST_LINE:
        raise Invalid(
            _(
                "the line has %(length)s bytes; the longest allowed has %(longest)s",
                length=grouped(len(line)),
                longest=grouped(LONGEST_LINE),
            )
        )
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise Invalid(_("it is not UTF-8 at byte %(byte)s", byte=error.start + 1)) from error
    except json.JSONDecodeError as error:
        if line.strip().startswith(b"["):
            raise Invalid(_("it begins a JSON array: write one object a line instead")) from error
        raise Invalid(
            _("it is not JSON: %(reason)s at character %(character)s", reason=error.msg, character=error.pos + 1)
        ) from error
    except ValueError as error:
        raise Invalid(_("it is not JSON: %(reason)s", reason=error)) from error
    if isinstance(value, str):
        value = {"prompt": value}
    if not isinstance(value, dict):
        raise Invalid(_('it must be a JSON object such as {"prompt": "...", "responses": ["...", "..."]}'))
    prompts = _read(value)
    for prompt in prompts:
        _check(prompt)
    return prompts


def _refuse_constant(name: str) -> None:
    raise ValueError(_("%(name)s is not a number that JSON knows", name=name))


def _read(line: Line) -> tuple[NewPrompt, ...]:
    """Find the line's shape by its keys; the first that fits reads it."""
    if "replies" in line or "message_tree_id" in line:
        return _tree(line)
    for keys, read in _SHAPES:
        if all(key in line for key in keys):
            return (read(line),)
    raise Invalid(
        _('it has neither "prompt" nor "messages"; its keys are: %(keys)s', keys=", ".join(line) or _("none"))
    )


def _check(prompt: NewPrompt) -> None:
    check_messages(prompt.messages)
    if found := texts.flaw([prompt.group_key, prompt.external_id, prompt.details]):
        raise Invalid(_("it cannot be kept: %(reason)s", reason=found))
    places: dict[str, int] = {}
    for place, response in enumerate(prompt.responses, start=1):
        check_response(response)
        first = places.setdefault(response.text, place)
        if first != place:
            raise Invalid(_("responses %(first)s and %(place)s are the same text", first=first, place=place))


def _new_prompt(
    line: Line, messages: Sequence[Message], responses: Sequence[NewResponse], read: Sequence[str]
) -> NewPrompt:
    """A prompt with what else its line says; `read` are the keys that are used up already."""
    if not isinstance(line.get("details", {}), dict):
        raise Invalid(_('"details" must be an object'))
    name = next((key for key in _NAMES if key in line), "id")
    used = {*read, name, "group", "details", *_VERDICTS}
    return NewPrompt(
        messages=messages,
        group_key=_name(line, "group"),
        external_id=_name(line, name),
        details={key: value for key, value in line.items() if key not in used} | line.get("details", {}),
        responses=tuple(responses),
    )


def _name(line: Line, key: str) -> str | None:
    value = line.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise Invalid(_('"%(key)s" must be a text or a whole number', key=key))
    return str(value)


# The shapes


def _with_responses(key: str) -> Callable[[Line], NewPrompt]:
    def read(line: Line) -> NewPrompt:
        if not isinstance(line[key], list):
            raise Invalid(_('"%(key)s" must be a list', key=key))
        asked = _prompt_key(line)
        return _new_prompt(line, _messages(line[asked]), [_response(one) for one in line[key]], [asked, key])

    return read


def _with_one_response(key: str) -> Callable[[Line], NewPrompt]:
    def read(line: Line) -> NewPrompt:
        asked = _prompt_key(line)
        return _new_prompt(line, _messages(line[asked]), [_response(line[key])], [asked, key])

    return read


def _alone(line: Line) -> NewPrompt:
    asked = _prompt_key(line)
    return _new_prompt(line, _messages(line[asked]), [], [asked])


def _prompt_key(line: Line) -> str:
    key = next((key for key in _PROMPTS if key in line), None)
    if key is None:
        raise Invalid(_('it has no "prompt"'))
    return key


def _preference(line: Line) -> NewPrompt:
    """TRL's preference format; without a prompt it stands at the beginning of both."""
    chosen, rejected = line["chosen"], line["rejected"]
    if "conversations" in line:
        messages = _turns(line["conversations"])
    elif any(key in line for key in _PROMPTS):
        messages = _messages(line[_prompt_key(line)])
    else:
        messages, chosen, rejected = _common_beginning(chosen, rejected)
    responses = [_response(chosen, "chosen"), _response(rejected, "rejected")]
    return _new_prompt(line, messages, responses, [*_PROMPTS, "conversations", "chosen", "rejected"])


def _common_beginning(chosen: Json, rejected: Json) -> tuple[list[Message], Json, Json]:
    """What comes before the last answer, which must be the same in both, and the two last answers."""
    if isinstance(chosen, str) and isinstance(rejected, str):
        chosen, rejected = _dialogue(chosen), _dialogue(rejected)
    if not (isinstance(chosen, list) and isinstance(rejected, list) and chosen and rejected):
        raise Invalid(_('without "prompt", "chosen" and "rejected" must both be conversations'))
    if chosen[:-1] != rejected[:-1]:
        raise Invalid(_("chosen and rejected differ before their last answer, so they answer different prompts"))
    return chosen[:-1], chosen[-1:], rejected[-1:]


def _dialogue(flat: str) -> list[Message]:
    r"""The messages of "\n\nHuman: ...\n\nAssistant: ..."."""
    before, *turns = _TURN.split(flat)
    if before.strip() or not turns or turns[-2] != "Assistant":
        raise Invalid(
            _('without "prompt", "chosen" and "rejected" must be dialogues that end with an "Assistant:" turn')
        )
    return [
        {"role": _SPEAKERS[speaker.lower()], "content": said.strip()}
        for speaker, said in zip(turns[::2], turns[1::2], strict=True)
    ]


def _judged_pair(line: Line) -> NewPrompt:
    asked = _prompt_key(line)
    responses = [
        _response(line["completion_a"], line.get("model_a")),
        _response(line["completion_b"], line.get("model_b")),
    ]
    return _new_prompt(
        line, _messages(line[asked]), responses, [asked, "completion_a", "completion_b", "model_a", "model_b"]
    )


def _conversation(key: str) -> Callable[[Line], NewPrompt]:
    def read(line: Line) -> NewPrompt:
        messages = _messages(line[key]) if key == "messages" else _turns(line[key])
        answer: list[Message] = []
        if messages and isinstance(messages[-1], dict) and messages[-1].get("role") == "assistant":
            messages, answer = messages[:-1], messages[-1:]
        return _new_prompt(line, messages, [_response(answer)] if answer else [], [key])

    return read


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Line], NewPrompt]], ...] = (
    (("chosen", "rejected"), _preference),
    (("completion_a", "completion_b"), _judged_pair),
    (("responses",), _with_responses("responses")),
    (("completions",), _with_responses("completions")),
    (("prompt", "response"), _with_one_response("response")),
    (("prompt", "completion"), _with_one_response("completion")),
    (("messages",), _conversation("messages")),
    (("prompt",), _alone),
    (("instruction",), _alone),
    (("conversations",), _conversation("conversations")),
)


# Their parts


def _messages(value: Json) -> list[Message]:
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if not isinstance(value, list):
        raise Invalid(_("the prompt is %(kind)s, not a text or a list of messages", kind=_kind(value)))
    return value


def _turns(value: Json) -> list[Message]:
    """Turns as {"from", "value"}."""
    if not isinstance(value, list):
        raise Invalid(_('"conversations" must be a list'))
    return [_turn(turn) for turn in value]


def _turn(turn: Json) -> Message:
    if not isinstance(turn, dict) or not {"from", "value"} <= set(turn):
        raise Invalid(_('a turn must be an object with "from" and "value"'))
    speaker = turn["from"]
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise Invalid(
            _("a turn is from %(speaker)s; known are %(known)s", speaker=repr(speaker), known=", ".join(_SPEAKERS))
        )
    return {"role": _SPEAKERS[speaker], "content": turn["value"]}


def _response(value: Json, system: Json = None) -> NewResponse:
    details: dict[str, Json] = {}
    if isinstance(value, list):
        value = _only_message(value)
    if isinstance(value, dict):
        text_key = next((key for key in ("text", "completion", "content") if key in value), None)
        if text_key is None:
            raise Invalid(_('a response has no "text"'))
        system_key = next((key for key in ("system", "model") if key in value), "system")
        system = value.get(system_key, system)
        used = {text_key, system_key, "role", *_VERDICTS}
        details = {key: kept for key, kept in value.items() if key not in used}
        value = value[text_key]
    if not isinstance(value, str):
        raise Invalid(_("a response is %(kind)s, not a text", kind=_kind(value)))
    if system is not None and not isinstance(system, str):
        raise Invalid(_("a response's system is %(kind)s, not a text", kind=_kind(system)))
    return NewResponse(text=value, system=system or None, details=details)


def _only_message(messages: list[Json]) -> Json:
    if len(messages) != 1 or not isinstance(messages[0], dict) or messages[0].get("role", "assistant") != "assistant":
        raise Invalid(_("a response given as messages must be one message of the assistant"))
    return messages[0]


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return _("a number")
    return _("an object") if isinstance(value, dict) else _("a list") if isinstance(value, list) else _("a text")


# OpenAssistant's trees


def _tree(line: Line) -> tuple[NewPrompt, ...]:
    """A prompt for every message of a person with two answers or more; the bare first message where there is none."""
    root = line["prompt"] if "message_tree_id" in line and "prompt" in line else line
    if not isinstance(root, dict):
        raise Invalid(_("the tree's first message must be an object"))
    group = _name(line, "message_tree_id") or _name(root, "message_id")
    asked = list(_asked(root, [], group))
    compared = [prompt for prompt in asked if len(prompt.responses) > 1]
    if not asked:
        raise Invalid(_("the tree's first message was deleted or is not by a person"))
    return tuple(compared or asked[:1])


def _asked(node: Json, before: list[Message], group: str | None) -> Iterator[NewPrompt]:
    """Every message of a person at or below `node`, as a prompt with its answers."""
    if not isinstance(node, dict) or not isinstance(node.get("replies", []), list):
        raise Invalid(_("a message of the tree must be an object, its replies a list"))
    if node.get("deleted") is True:
        return
    role = _SPEAKERS.get(str(node.get("role")), "")
    messages = [*before, {"role": role, "content": node.get("text")}]
    replies = [
        reply for reply in node.get("replies", []) if not (isinstance(reply, dict) and reply.get("deleted") is True)
    ]
    if role == "user":
        yield NewPrompt(
            messages=messages,
            group_key=group,
            external_id=_name(node, "message_id"),
            details={"lang": node["lang"]} if "lang" in node else {},
            responses=tuple(_answer(reply) for reply in replies),
        )
    for reply in replies:
        yield from _asked(reply, messages, group)


def _answer(reply: Json) -> NewResponse:
    if not isinstance(reply, dict):
        raise Invalid(_("a message of the tree must be an object"))
    return _response({"text": reply.get("text"), "message_id": reply.get("message_id")})

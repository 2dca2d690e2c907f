"""What a line of an import says: every shape, every way to break one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.formats import LineError, Row, parse_lines
from app.domain.prompts import NewPrompt

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="../shared/data is not here")


def read(*lines: Any) -> list[Row | LineError]:
    return list(parse_lines("\n".join(json.dumps(line) for line in lines).encode()))


def one(line: Any) -> NewPrompt:
    (row,) = read(line)
    assert isinstance(row, Row), row
    (prompt,) = row.prompts
    return prompt


def reason(line: Any) -> str:
    content = line if isinstance(line, bytes) else json.dumps(line).encode()
    (row,) = parse_lines(content)
    assert isinstance(row, LineError), row
    assert row.line == 1
    return row.reason


USER = [{"role": "user", "content": "Why?"}]
TALK = [*USER, {"role": "assistant", "content": "Because."}, {"role": "user", "content": "Really?"}]


@pytest.mark.parametrize(
    ("line", "messages", "responses"),
    [
        ("Why?", USER, []),
        ({"prompt": "Why?"}, USER, []),
        ({"instruction": "Why?"}, USER, []),
        ({"prompt": TALK}, TALK, []),
        ({"prompt": "Why?", "responses": ["A", "B"]}, USER, [("A", None), ("B", None)]),
        (
            {"prompt": TALK, "responses": [{"text": "A", "system": "m1"}, [{"role": "assistant", "content": "B"}]]},
            TALK,
            [("A", "m1"), ("B", None)],
        ),
        (
            {"prompt": "Why?", "completions": [{"model": "m1", "completion": "A"}, {"model": "m2", "completion": "B"}]},
            USER,
            [("A", "m1"), ("B", "m2")],
        ),
        ({"instruction": "Why?", "completions": [{"completion": "A"}]}, USER, [("A", None)]),
        ({"messages": TALK, "responses": ["A"]}, TALK, [("A", None)]),
        ({"prompt": "Why?", "response": "A"}, USER, [("A", None)]),
        ({"prompt": USER, "completion": [{"role": "assistant", "content": "A"}]}, USER, [("A", None)]),
        ({"prompt": "Why?", "chosen": "A", "rejected": "B"}, USER, [("A", "chosen"), ("B", "rejected")]),
        (
            {
                "prompt": USER,
                "chosen": [{"role": "assistant", "content": "A"}],
                "rejected": [{"role": "assistant", "content": "B"}],
            },
            USER,
            [("A", "chosen"), ("B", "rejected")],
        ),
        (
            {
                "chosen": [*TALK, {"role": "assistant", "content": "A"}],
                "rejected": [*TALK, {"role": "assistant", "content": "B"}],
            },
            TALK,
            [("A", "chosen"), ("B", "rejected")],
        ),
        (
            {
                "chosen": "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: Really?\n\nAssistant: A",
                "rejected": "\n\nHuman: Why?\n\nAssistant: Because.\n\nHuman: Really?\n\nAssistant: B ",
            },
            TALK,
            [("A", "chosen"), ("B", "rejected")],
        ),
        (
            {"conversations": [{"from": "human", "value": "Why?"}], "chosen": "A", "rejected": "B"},
            USER,
            [("A", "chosen"), ("B", "rejected")],
        ),
        (
            {"prompt": "Why?", "model_a": "m1", "completion_a": "A", "model_b": "m2", "completion_b": "B"},
            USER,
            [("A", "m1"), ("B", "m2")],
        ),
        ({"messages": TALK}, TALK, []),
        ({"messages": [*USER, {"role": "assistant", "content": "A"}]}, USER, [("A", None)]),
        (
            {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "A"}]},
            USER,
            [("A", None)],
        ),
    ],
)
def test_shapes(line: Any, messages: list[Any], responses: list[tuple[str, str | None]]) -> None:
    prompt = one(line)
    assert list(prompt.messages) == messages
    assert [(response.text, response.system) for response in prompt.responses] == responses


def test_names_groups_and_details_are_kept_and_verdicts_are_not() -> None:
    prompt = one(
        {
            "prompt": "Why?",
            "id": 7,
            "group": "root",
            "details": {"a": [1]},
            "topic": "科学",
            "completion_a": "A",
            "completion_b": "B",
            "preference": "a-is-better",
            "evaluator": "rater1",
        }
    )
    assert (prompt.external_id, prompt.group_key) == ("7", "root")
    assert prompt.details == {"topic": "科学", "a": [1]}


def test_a_tree_is_a_prompt_for_every_set_of_siblings() -> None:
    def says(role: str, text: str, *replies: Any, **more: Any) -> dict[str, Any]:
        return {"message_id": text, "role": role, "text": text, "replies": list(replies), **more}

    root = says(
        "prompter",
        "Why?",
        says("assistant", "A", says("prompter", "Really?", says("assistant", "C"), says("assistant", "D"))),
        says("assistant", "B", says("prompter", "How?", says("assistant", "E"))),
        says("assistant", "gone", deleted=True),
    )
    (row,) = read({"message_tree_id": "t", "prompt": root})
    assert isinstance(row, Row)
    first, second = row.prompts
    assert list(first.messages) == USER
    assert [response.text for response in first.responses] == ["A", "B"]
    assert [message["content"] for message in second.messages] == ["Why?", "A", "Really?"]
    assert [response.text for response in second.responses] == ["C", "D"]
    assert (first.group_key, second.group_key) == ("t", "t")
    assert (first.external_id, second.external_id) == ("Why?", "Really?")
    assert len(one(says("prompter", "Alone?")).responses) == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"{", "not JSON: Expecting property name"),
        (b'{"prompt": "Why?"', "not JSON: Expecting ',' delimiter at character"),
        (b'{"prompt": "Why?"} {}', "not JSON: Extra data"),
        (b"[", "begins a JSON array"),
        (b'{"prompt": NaN}', "NaN is not a number"),
        (b'{"prompt": "Why?", "x": 1e999}', "too large or not a number"),
        (b'{"prompt": "Why?", "x": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
        (b'{"prompt": "\xff"}', "not UTF-8 at byte 13"),
        (b"\xff\xfe{\x00}\x00", "UTF-16"),
        (b'{"\\u0000": 1}', "its keys are: \\x00"),
        (b'{"\\ud800": 1}', "its keys are: \\ud800"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"prompt": "Why?", "x": ' + b"[" * 50 + b"]" * 50 + b"}", "nested more than 20 deep"),
        (b'{"prompt": "' + b"x" * 5_000_000 + b'"}', "the line has 5,000,014 bytes; the longest allowed has 1,000,000"),
        (1, "must be a JSON object"),
        (None, "must be a JSON object"),
        ([], "must be a JSON object"),
        ({}, "its keys are: none"),
        ({"question": "Why?"}, 'neither "prompt" nor "messages"; its keys are: question'),
        ({"prompt": ""}, "a message is empty"),
        ({"prompt": " \n"}, "a message is empty"),
        ({"prompt": True}, "the prompt is true, not a text"),
        ({"prompt": None}, "the prompt is null"),
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": {"a": 1}}, "the prompt is an object"),
        ({"prompt": ["Why?"]}, '"role" and "content"'),
        ({"prompt": [{"role": "user"}]}, '"role" and "content"'),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "role is 'robot'; known are system, user"),
        ({"prompt": [{"role": ["x"], "content": "x"}]}, "role is ['x']"),
        ({"prompt": [{"role": "user", "content": 5}]}, "content must be a text or a list"),
        ({"prompt": [{"role": "user", "content": []}]}, "content must be a text or a list"),
        ({"prompt": [{"role": "user", "content": [{"type": "text"}]}]}, "content must be a text or a list"),
        ({"prompt": [*USER, {"role": "assistant", "content": "x"}]}, "nothing to answer"),
        ({"prompt": "a\x00b"}, "NUL character"),
        ({"prompt": "a\ud800b"}, "surrogate pair"),
        ({"prompt": "x" * 200_001}, "longer than 200,000 characters"),
        ({"prompt": "Why?", "\x00": 1}, "NUL character"),
        ({"prompt": "Why?", "responses": "A"}, '"responses" must be a list'),
        ({"prompt": "Why?", "responses": ["A", True]}, "a response is true, not a text"),
        ({"prompt": "Why?", "responses": ["A", None]}, "a response is null, not a text"),
        ({"prompt": "Why?", "responses": ["A", 3.5]}, "a response is a number, not a text"),
        ({"prompt": "Why?", "responses": ["A", ""]}, "a response is empty"),
        ({"prompt": "Why?", "responses": ["A", " \n"]}, "a response is empty"),
        ({"prompt": "Why?", "responses": ["A", {"system": "m"}]}, 'a response has no "text"'),
        ({"prompt": "Why?", "responses": ["A", {"text": "B", "system": 1}]}, "a response's system is a number"),
        ({"prompt": "Why?", "responses": ["A", []]}, "one message of the assistant"),
        ({"prompt": "Why?", "responses": ["A", USER]}, "one message of the assistant"),
        ({"prompt": "Why?", "responses": ["A", "B", "A"]}, "responses 1 and 3 are the same text"),
        ({"prompt": "Why?", "responses": ["A", "B\x00"]}, "NUL character"),
        ({"responses": ["A", "B"]}, 'it has no "prompt"'),
        ({"prompt": "Why?", "chosen": True, "rejected": "B"}, "a response is true"),
        ({"prompt": "Why?", "chosen": "A", "rejected": "A"}, "responses 1 and 2 are the same text"),
        ({"chosen": "A", "rejected": "B"}, 'end with an "Assistant:" turn'),
        ({"chosen": 1, "rejected": "B"}, "must both be conversations"),
        (
            {"chosen": "\n\nHuman: x\n\nAssistant: A", "rejected": "\n\nHuman: y\n\nAssistant: B"},
            "differ before their last answer",
        ),
        (
            {"chosen": "\n\nHuman: x\n\nAssistant: A", "rejected": "\n\nHuman: x\n\nAssistant:"},
            "a response is empty",
        ),
        ({"prompt": "Why?", "id": [1]}, '"id" must be a text or a whole number'),
        ({"prompt": "Why?", "group": True}, '"group" must be a text or a whole number'),
        ({"prompt": "Why?", "details": []}, '"details" must be an object'),
        ({"conversations": "x"}, '"conversations" must be a list'),
        ({"conversations": [{"from": [], "value": "x"}]}, "a turn is from []"),
        ({"conversations": [{"from": "human"}]}, '"from" and "value"'),
        ({"messages": 5}, "the prompt is a number"),
        ({"message_tree_id": "t"}, "the tree's first message"),
        ({"message_tree_id": "t", "prompt": 5}, "first message must be an object"),
        ({"message_tree_id": "t", "prompt": {"role": "prompter", "text": "Why?", "replies": 5}}, "replies a list"),
        ({"message_tree_id": "t", "prompt": {"role": "prompter", "text": "Why?", "replies": [5]}}, "must be an object"),
        ({"message_id": "m", "role": "prompter", "text": None, "replies": []}, "content must be a text"),
        ({"message_id": "m", "role": "prompter", "text": "x", "deleted": True, "replies": []}, "deleted"),
    ],
)
def test_bad_lines_say_why(line: Any, said: str) -> None:
    assert said in reason(line)
    assert len(reason(line)) < 400


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    content = (
        b'\xef\xbb\xbf{"prompt": "one"}\r\n\r\n  \n{"prompt"\r\n"three \xe2\x80\xa8 lines?"\n{"prompt": "no line end"}'
    )
    rows = list(parse_lines(content))
    assert [row.line for row in rows] == [1, 4, 5, 6]
    assert [type(row) for row in rows] == [Row, LineError, Row, Row]
    assert list(parse_lines(b"")) == list(parse_lines(b"\xef\xbb\xbf")) == list(parse_lines(b"\n \r\n")) == []


@given(st.binary(max_size=300))
def test_no_bytes_raise(content: bytes) -> None:
    for row in parse_lines(content):
        assert isinstance(row, Row | LineError)


KEYS = st.sampled_from(
    [
        "prompt",
        "instruction",
        "messages",
        "conversations",
        "responses",
        "completions",
        "response",
        "completion",
        "chosen",
        "rejected",
        "completion_a",
        "completion_b",
        "model_a",
        "id",
        "group",
        "details",
        "replies",
        "message_tree_id",
        "message_id",
        "role",
        "content",
        "text",
        "system",
        "model",
        "from",
        "value",
        "deleted",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["user", "assistant", "prompter", "human", "\n\nHuman: a\n\nAssistant: b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5))
def test_no_object_raises_and_what_is_good_can_be_kept(line: dict[str, Any]) -> None:
    for row in parse_lines(json.dumps(line).encode()):
        if isinstance(row, Row):
            assert row.prompts
            for prompt in row.prompts:
                json.dumps([prompt.messages, prompt.details], ensure_ascii=False, allow_nan=False).encode()
                assert all(response.text.strip() for response in prompt.responses)
        else:
            assert row.reason


@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "prompts", "responses", "errors"),
    [
        ("tulu1_human_eval/eval_instances_tulu_1.jsonl", 961, 961, 1922, {"are the same text": 35}),
        ("tulu1_human_eval/annotations.jsonl", 1110, 1110, 2220, {"are the same text": 40}),
        (
            "hh_rlhf_harmless_test/harmless-base-test.jsonl",
            2303,
            2303,
            4606,
            {"differ before their last answer": 5, "a response is empty": 4},
        ),
        ("oasst_en_100/en_100_tree.jsonl", 100, 214, 647, {}),
        ("oasst_en_100/en_100_message.jsonl", 100, 214, 647, {}),
        ("oasst_en_100/en_100_text.jsonl", 100, 100, 0, {}),
        ("medicalgpt_zh/dpo_zh_500.jsonl", 500, 500, 1000, {}),
        ("cvalues_prompts_zh/cvalues_responsibility_prompts.jsonl", 664, 664, 0, {}),
    ],
)
def test_public_files(name: str, rows: int, prompts: int, responses: int, errors: dict[str, int]) -> None:
    parsed = list(parse_lines((DATA / name).read_bytes()))
    good = [prompt for row in parsed if isinstance(row, Row) for prompt in row.prompts]
    bad = [row.reason for row in parsed if isinstance(row, LineError)]
    assert sum(isinstance(row, Row) for row in parsed) == rows
    assert (len(good), sum(len(prompt.responses) for prompt in good)) == (prompts, responses)
    assert {said: sum(said in reason for reason in bad) for said in errors} == errors
    assert len(bad) == sum(errors.values())


def test_every_line_of_the_documentation_is_good() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    imports, heading, _answers_and_exports = page.partition("## What an answer holds")
    assert heading
    blocks = re.findall(r"```json\n(.*?)```", imports, flags=re.DOTALL)
    rows = [row for block in blocks for row in parse_lines(block.encode())]
    assert len(rows) == 16
    assert [row for row in rows if isinstance(row, LineError)] == []

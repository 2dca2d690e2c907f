"""Is every line understood as it was meant, and what is wrong with a bad one said?"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.label_files import labels_in
from worker.learning.records import Judgement, Label, Message, Scale

HELLO = (Message(role="user", content="Hello"),)


def written(folder: Path, *lines: Any) -> Path:
    file = folder / "lines.jsonl"
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return file


def label_of(folder: Path, **line: Any) -> Label:
    (label,) = labels_in(written(folder, {"prompt": "Hello"} | line))
    return label


def refused(folder: Path, line: Any) -> str:
    with pytest.raises(ValueError) as error:
        labels_in(written(folder, line))
    assert f"{folder / 'lines.jsonl'}: 1 line cannot be read, and nothing was done\n  line 1: " in str(error.value)
    return str(error.value).split("line 1: ")[1]


# Rankings


def test_a_ranking(tmp_path: Path) -> None:
    label = label_of(tmp_path, responses=["a", "b", "c"], ranking=[[2], [0, 1]])
    assert label == Label(HELLO, ("a", "b", "c"), Judgement(((2,), (0, 1)), scale=Scale(1, ties=True)))


@pytest.mark.parametrize("ranking", [[2, 0, 1], [[2], [0], [1]], [2, [0], 1]])
def test_an_order_may_be_flat(tmp_path: Path, ranking: list[Any]) -> None:
    label = label_of(tmp_path, responses=["a", "b", "c"], ranking=ranking)
    assert label.overall == Judgement(((2,), (0,), (1,)), scale=Scale(1, ties=False))


def test_a_ranking_may_leave_responses_out(tmp_path: Path) -> None:
    assert label_of(tmp_path, responses=["a", "b", "c"], ranking=[2, 0]).overall.groups == ((2,), (0,))
    assert label_of(tmp_path, responses=["a", "b", "c"], ranking=[]).overall.groups == ()
    assert label_of(tmp_path, responses=["a", "b", "c"]).overall.groups == ()


def test_all_that_is_said_beside_an_order(tmp_path: Path) -> None:
    label = label_of(
        tmp_path,
        responses=["a", "b"],
        ranking=[1, 0],
        strength=2,
        levels=3,
        scores=[1, 4.5],
        criteria={
            "honest": {"ranking": [[0, 1]]},
            "polite": {"scores": [None, 3]},
            "brief": {"ranking": [0, 1], "strength": 1, "levels": 4},
        },
        annotator=7,
        weight=0.25,
        shown=[1, 0],
        unknown={"kept": "out of it"},
    )
    assert label.overall == Judgement(((1,), (0,)), 2, Scale(3, ties=False), (1.0, 4.5))
    assert label.criteria == {
        "honest": Judgement(((0, 1),), scale=Scale(1, ties=True)),
        "polite": Judgement(scale=Scale(1, ties=False), scores=(None, 3.0)),
        "brief": Judgement(((0,), (1,)), 1, Scale(4, ties=False)),
    }
    assert (label.annotator, label.weight, label.shown, label.implied) == ("7", 0.25, (1, 0), False)


def test_a_prompt_is_a_text_or_messages_and_may_have_parts(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]},
    ]
    label = label_of(tmp_path, prompt=messages, responses=["a", {"text": "b"}, [{"role": "assistant", "content": ""}]])
    assert label.prompt == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello\nyou"})
    assert label.responses == ("a", "b", "")


def test_the_same_text_may_stand_twice(tmp_path: Path) -> None:
    assert label_of(tmp_path, responses=["a", "a", "b"], ranking=[0, 2]).responses == ("a", "a", "b")


def test_without_levels_the_largest_strength_of_the_file_says_how_many_there_are(tmp_path: Path) -> None:
    def pair(ranking: list[Any], **more: Any) -> dict[str, Any]:
        return {"prompt": "Hello", "responses": ["a", "b"], "ranking": ranking} | more

    labels = labels_in(
        written(
            tmp_path,
            pair([0, 1], strength=1),
            pair([1, 0], strength=3, criteria={"honest": {"ranking": [0, 1], "strength": 2}}),
            pair([[0, 1]], strength=0),
            pair([[0, 1]]),
            pair([], strength=0),
            pair([0, 1]),
            pair([0, 1], strength=4, levels=4),
        )
    )
    graded, plain = Scale(3, ties=True), Scale(1, ties=False)
    assert [label.overall.scale for label in labels] == [graded] * 5 + [plain, Scale(4, ties=False)]
    assert labels[4].overall.groups == ((0, 1),)
    assert labels[1].criteria["honest"].scale == Scale(2, ties=False)


def test_whether_responses_could_be_tied_may_be_said(tmp_path: Path) -> None:
    three = {"prompt": "Hello", "responses": ["a", "b", "c"], "ranking": [0, 1, 2]}
    pair = {"prompt": "Hello", "responses": ["a", "b"], "ranking": [1, 0], "strength": 1}
    correction = {"corrections": [{"corrects_id": 0, "text": "c"}]}
    with_ties, without = Scale(1, ties=True), Scale(1, ties=False)

    def scales(*lines: dict[str, Any]) -> list[Scale]:
        return [label.overall.scale for label in labels_in(written(tmp_path, *lines))]

    assert scales(three) == [without]
    assert scales(three | {"ties": True} | correction) == [with_ties, without]
    assert scales(three | {"ties": True}, three, three | {"ties": False}) == [with_ties, with_ties, without]
    assert scales(three | {"ties": True, "ranking": []}, three) == [with_ties, without]
    assert scales(pair | {"ties": True}, pair | {"strength": 3, "ties": False}) == [Scale(3), Scale(3, ties=False)]


def test_labels_to_be_compared_with_a_model_take_its_scales(tmp_path: Path) -> None:
    file = written(tmp_path, {"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1], "strength": 2})
    known = {"overall": (Scale(4, ties=False), Scale(3, ties=True), Scale(1, ties=True))}
    assert labels_in(file, known)[0].overall.scale == Scale(3, ties=True)
    assert labels_in(file, {"overall": (Scale(1, ties=True),)})[0].overall.scale == Scale(2, ties=False)
    plain = written(tmp_path, {"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1]})
    assert labels_in(plain, {"overall": (Scale(3, ties=True),)})[0].overall.scale == Scale(1, ties=False)


def test_a_correction_is_never_a_tie_and_has_no_grade(tmp_path: Path) -> None:
    pair = {"prompt": "Hello", "responses": ["a", "b"]}
    file = written(
        tmp_path,
        pair | {"ranking": [0, 1], "strength": 2, "corrections": [{"corrects_id": 1, "text": "c"}]},
        pair | {"ranking": [[0, 1]], "corrections": [{"corrects_id": 0, "text": "c"}]},
        {"prompt": "Hello", "chosen": "c", "rejected": "a", "implied": True, "strength": 0},
        {"prompt": "Hello", "responses": ["a", "b", "c"], "ranking": [[0, 1], 2]},
    )
    scales = [(label.implied, label.overall.scale) for label in labels_in(file)]
    graded, corrected = (False, Scale(2, ties=True)), (True, Scale(1, ties=False))
    assert scales == [graded, corrected, graded, corrected, corrected, (False, Scale(1, ties=True))]


def test_a_criterion_may_be_called_as_our_own_outputs_are(tmp_path: Path) -> None:
    criteria = {"overall": {"scores": [1, 2]}, "score": {"ranking": [0, 1], "strength": 1}}
    label = label_of(tmp_path, responses=["a", "b"], criteria=criteria)
    assert set(label.criteria) == {"overall (criterion)", "score (criterion)"}


# Others' shapes


def test_pairs_as_trl_writes_them(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hello"}]

    def answer(text: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": text}]

    lines = [
        {"prompt": "Hello", "chosen": "a", "rejected": "b"},
        {"prompt": said, "chosen": answer("a"), "rejected": answer("b")},
        {"chosen": said + answer("a"), "rejected": said + answer("b")},
        {"prompt": "Hello", "chosen": said + answer("a"), "rejected": said + answer("b")},
        {"conversations": [{"from": "human", "value": "Hello"}], "chosen": "a", "rejected": "b"},
        {"instruction": "Hello", "chosen": {"role": "assistant", "content": "a"}, "rejected": "b"},
        {"chosen": "\n\nHuman: Hello\n\nAssistant: a", "rejected": "\n\nHuman: Hello\n\nAssistant: b"},
        {"input": {"messages": said}, "preferred_output": answer("a"), "non_preferred_output": answer("b")},
    ]
    expected = Label(HELLO, ("a", "b"), Judgement(((0,), (1,)), scale=Scale(1, ties=False)))
    assert labels_in(written(tmp_path, *lines)) == [expected] * len(lines)


def test_texts_that_begin_alike_have_their_prompt_in_common(tmp_path: Path) -> None:
    (label,) = labels_in(written(tmp_path, {"chosen": "The sky is blue.", "rejected": "The sky is black."}))
    assert label.prompt == ({"role": "user", "content": "The sky is"},)
    assert label.responses == (" blue.", " black.")


def test_rankings_as_nemo_writes_them(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Hello"}]
    ranked = [
        {"rank": rank, "completion": [{"role": "assistant", "content": text}]}
        for rank, text in ((1, "a"), (0, "b"), (1, "c"))
    ]
    (label,) = labels_in(written(tmp_path, {"context": said, "completions": ranked, "task_name": "x"}))
    assert (label.prompt, label.responses, label.overall.groups) == (HELLO, ("a", "b", "c"), ((1,), (0, 2)))


def test_one_response_says_nothing_but_can_be_scored(tmp_path: Path) -> None:
    lines = [
        {"prompt": "Hello", "response": "a"},
        {"prompt": "Hello", "completion": "a", "scores": [3]},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "a"}]},
    ]
    labels = labels_in(written(tmp_path, *lines))
    assert [label.responses for label in labels] == [("a",)] * 3
    assert [label.overall.scores for label in labels] == [(), (3.0,), ()]


def test_our_own_export_of_rankings(tmp_path: Path) -> None:
    line = {
        "prompt": [{"role": "user", "content": "Hello"}],
        "responses": [{"id": 10, "text": "a"}, {"id": 11, "text": "b"}, {"id": 12, "text": "c"}],
        "ranking": [[2], [0]],
        "groups": [[12], [10]],
        "unranked": [11],
        "corrections": [{"corrects_id": 11, "response_id": 99, "text": "better"}],
        "answers": {
            "scores": [3.5, None, 4.2],
            "criteria": {"helpful": {"scores": [3, 3, 5]}, "safe": {"groups": [[10], [11, 12]]}},
            "flags": {"harmful": [10], "odd": True},
            "rationale": "why not",
        },
        "shown_order": [12, 10, 11],
        "seconds": 41.5,
        "split": "train",
        "annotator_id": 5,
        "prompt_id": 1,
        "comparison_id": 2,
        "revision_id": 3,
    }
    label, correction = labels_in(written(tmp_path, line))
    assert label.overall.groups == ((2,), (0,))
    assert label.overall.scores == (3.5, None, 4.2)
    assert label.criteria["helpful"].scores == (3.0, 3.0, 5.0)
    assert label.criteria["safe"].groups == ((0,), (1, 2))
    assert (label.annotator, label.shown) == ("5", (2, 0, 1))
    assert (correction.responses, correction.overall.groups) == (("better", "b"), ((0,), (1,)))
    assert correction.implied
    assert correction.annotator == "5"


def test_our_own_export_of_pairs(tmp_path: Path) -> None:
    pair = {"prompt": "Hello", "chosen": "a", "rejected": "b", "split": "test", "annotator_id": 5}
    graded, plain, implied = labels_in(
        written(
            tmp_path,
            pair | {"strength": 2, "implied": False},
            pair | {"strength": 0, "implied": False},
            pair | {"strength": 0, "implied": True},
        )
    )
    assert (graded.overall.strength, graded.overall.scale.levels) == (2, 2)
    assert (plain.overall.strength, plain.overall.scale.levels) == (None, 1)
    assert implied.implied
    assert not plain.implied


# What is refused


PAIR = {"prompt": "Hello", "responses": ["a", "b"]}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (["a"], "it is a list, not an object with"),
        ("Hello", "it is a text, not an object with"),
        ({"question": "Hello"}, "its keys are: question"),
        ({"responses": ["a"]}, 'it has no "prompt"'),
        ({"prompt": 3, "responses": ["a"]}, '"prompt" is the number 3'),
        ({"prompt": " ", "responses": ["a"]}, '"prompt" is empty'),
        ({"prompt": [], "responses": ["a"]}, '"prompt" is a list, and must be'),
        ({"prompt": [{"content": "x"}], "responses": ["a"]}, '"prompt"[0] must be a message'),
        ({"prompt": [{"role": "user", "content": None}], "responses": ["a"]}, '"prompt"[0]."content" is null'),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}], "responses": ["a"]}, "are not text"),
        ({"prompt": "Hello", "responses": "a"}, '"responses" is a text, and must be a list'),
        ({"prompt": "Hello", "responses": []}, "at least one response"),
        ({"prompt": "Hello", "responses": ["a", None]}, '"responses"[1] is null, not a text'),
        ({"prompt": "Hello", "responses": [{"words": "a"}]}, '"responses"[0] has no "text"'),
        (PAIR | {"ranking": 1}, '"ranking" is the number 1, and must be a list of groups'),
        (PAIR | {"ranking": [0, 2]}, '"ranking" names 2, and the responses are 0, 1'),
        (PAIR | {"ranking": [True, 0]}, '"ranking" names true'),
        (PAIR | {"ranking": [0, 0]}, '"ranking" names a response twice: [0, 0]'),
        (PAIR | {"ranking": [0]}, '"ranking" names one response, and an order needs two'),
        (PAIR | {"groups": [["x"], [0]]}, '"groups" names "x"'),
        (PAIR | {"ranking": [0, 1], "strength": -2}, '"strength" is -2: put the better response first'),
        (PAIR | {"ranking": [0, 1], "strength": 1.5}, '"strength" is the number 1.5, not a whole number'),
        (PAIR | {"ranking": [0, 1], "strength": True}, '"strength" is true, not a whole number'),
        (PAIR | {"ranking": [0, 1], "strength": 0}, "0 is a tie"),
        (PAIR | {"ranking": [[0, 1]], "strength": 1}, "0 is a tie"),
        (PAIR | {"strength": 1}, '"strength" says how much better one of two is'),
        (PAIR | {"ranking": [0, 1], "strength": 4, "levels": 3}, '"strength" is 4, and the strongest grade is 3'),
        (PAIR | {"ranking": [0, 1], "levels": 3}, "needs a strength"),
        (PAIR | {"ranking": [0, 1], "levels": 0}, '"levels" is 0'),
        (PAIR | {"ranking": [[0, 1]], "ties": False}, '"ties" is false, and the order has a tie'),
        (PAIR | {"criteria": {"a": {"ranking": [0, 1], "ties": 1}}}, '"criteria"."a"."ties" is the number 1, not true'),
        (PAIR | {"ranking": [0, 1], "strength": 101}, "the strongest grade is 100"),
        (PAIR | {"scores": [10**400, 1]}, '"scores" must be a list of numbers'),
        (PAIR | {"scores": [1]}, '"scores" must have one entry a response: 1 do not match 2 responses'),
        (PAIR | {"scores": {"a": 1}}, '"scores" must be a list of numbers'),
        (PAIR | {"scores": ["1", "2"]}, '"scores" must be a list of numbers'),
        (PAIR | {"scores": [1, 2], "given_scores": [1, 2]}, 'it has "scores" and "given_scores"'),
        (PAIR | {"criteria": {"honest": [1, 2]}}, '"criteria"."honest" is a list'),
        (PAIR | {"criteria": {"honest": {"scores": [1]}}}, '"criteria"."honest"."scores" must have'),
        (PAIR | {"scores": [-1e200, 1]}, '"scores" holds -1e+200, and a score lies between -1e+09 and 1e+09'),
        (PAIR | {"criteria": {"a": {"scores": [1, 2e9]}}}, '"criteria"."a"."scores" holds 2000000000.0'),
        (PAIR | {"weight": -1}, '"weight" is -1'),
        (PAIR | {"weight": 1e200}, '"weight" is 1e+200, and must be a number from 0 to 1e+09'),
        (PAIR | {"weight": 1e-300}, '"weight" is 1e-300, too small to count: write 0, or 1e-30 and more'),
        (PAIR | {"weight": True}, '"weight" is true'),
        (PAIR | {"annotator": True}, '"annotator" is true, not a text or a number'),
        (PAIR | {"implied": 1}, '"implied" is the number 1, not true or false'),
        (PAIR | {"shown": [0]}, "must name each of the responses 0 to 1 once"),
        (PAIR | {"shown_order": [5, 6]}, '"shown_order" names 5'),
        (PAIR | {"corrections": [{"corrects_id": 7, "text": "x"}]}, '"corrections"."corrects_id" names 7'),
        ({"chosen": "Yes.", "rejected": "No."}, 'put what is answered in "prompt"'),
        ({"chosen": [{"role": "user", "content": "a"}] * 2, "rejected": "No."}, "must both be"),
        ({"prompt": "Hello", "chosen": True, "rejected": "b"}, '"chosen" is true, not a text'),
        ({"prompt": "Hello", "chosen": "a", "rejected": "b", "ranking": [1, 0]}, "it orders its responses twice"),
        ({"context": "Hello", "completions": [{"rank": "x", "text": "a"}]}, '"rank" must be a number'),
        ({"messages": [{"role": "user", "content": "a"}]}, '"messages" must end with'),
        ({"input": "x", "preferred_output": "a", "non_preferred_output": "b"}, '"input" must be an object'),
    ],
)
def test_what_is_wrong_with_a_line_is_said(tmp_path: Path, line: Any, reason: str) -> None:
    assert reason in refused(tmp_path, line)

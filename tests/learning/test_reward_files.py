"""Are files read line by line, their bad lines named, and scores written without losing anything?"""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.label_files import labels_in
from worker.learning.json_lines import LineError
from worker.learning.records import Prompt
from worker.learning.reward.files import read_lines, score_file
from worker.learning.reward.lines import LARGEST_NUMBER
from worker.learning.reward.model import Scored
from worker.learning.reward.observations import Weighting, observe, shape_of
from worker.learning.reward.splits import held_out, read_sides

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the folder ../shared/data is not here")


def written(folder: Path, *lines: Any) -> Path:
    file = folder / "lines.jsonl"
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return file


# Files


def test_marks_line_ends_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    lines = [b'{"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1]}'] * 2
    file = tmp_path / "windows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(lines) + b"\r\n  \r\n")
    assert len(labels_in(file)) == 2
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert labels_in(packed) == labels_in(file)


def test_separators_of_unicode_do_not_end_a_line(tmp_path: Path) -> None:
    (label,) = labels_in(written(tmp_path, {"prompt": "Hello", "response": "a\u2028b\u0085c"}))
    assert label.responses == ("a\u2028b\u0085c",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no line that can be read"),
        (b"\xff\xfe{\x00}\x00", "is UTF-16: save it as UTF-8"),
        (b'{"prompt": "\xff"}', "line 1: it is not UTF-8 at byte 13"),
        (b'[{"prompt": "Hello"}]', "line 1: it is not an object"),
        (b"[\n{", "line 1: it begins a JSON array: write one object a line instead"),
        (b'{"prompt": "Hello", }', "line 1: it is not JSON: "),
        (b'{"prompt": "Hello", "response": "a", "scores": [NaN]}', "line 1: NaN is not a number that JSON knows"),
        (b'{"prompt": "Hello", "response": "\\ud800"}', "line 1: it holds '\\ud800', half of a surrogate pair"),
        (b"[" * 100_000, "line 1: it is nested too deeply"),
        (b"\x1f\x8b\x08 cut off", "is a broken gzip file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(content)
    with pytest.raises(ValueError) as error:
        labels_in(file)
    assert str(error.value).startswith(str(file))
    if "not an object" not in reason:
        assert reason in str(error.value)
    else:
        assert "line 1: it is a list, not an object" in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nothing\.jsonl cannot be read: No such file or directory"):
        labels_in(tmp_path / "nothing.jsonl")


def test_the_first_ten_bad_lines_are_named_and_the_others_counted(tmp_path: Path) -> None:
    good = {"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1]}
    file = written(tmp_path, good, *[{"prompt": "Hello", "responses": [True, "b"]}] * 12, good)
    with pytest.raises(ValueError) as error:
        labels_in(file)
    first, *named, more = str(error.value).split("\n")
    assert first == f"{file}: 12 lines cannot be read, and nothing was done"
    assert named == [f'  line {number}: "responses"[0] is true, not a text' for number in range(2, 12)]
    assert more == "  and 2 more"
    skipped: list[LineError] = []
    assert len(read_lines(file, skipped)) == 2
    assert [one.number for one in skipped] == list(range(2, 14))


def test_an_unknown_split_is_a_bad_line_of_a_file_to_learn_from(tmp_path: Path) -> None:
    good = {"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1], "split": "test"}
    file = written(tmp_path, good | {"split": "train"}, good | {"split": "dev"}, good, good | {"split": 3})
    with pytest.raises(ValueError) as error:
        read_sides(file, None, None)
    first, *named = str(error.value).split("\n")
    assert first == f"{file}: 2 lines cannot be read, and nothing was done"
    known = "and known are train, validation, test"
    assert named == [f'  line 2: "split" is "dev", {known}', f'  line 4: "split" is "3", {known}']
    sides = read_sides(file, None, None, only_good=True)
    assert (len(sides.train), len(sides.test), [one.number for one in sides.skipped]) == (1, 1, [2, 4])
    assert [line.split for line in read_lines(file)] == ["train", "dev", "test", "3"]  # to measure on any of them


def test_scores_as_large_as_they_may_be_keep_a_finite_scale(tmp_path: Path) -> None:
    line = {"prompt": "Hello", "responses": ["a", "b"]}
    scores = [[-LARGEST_NUMBER, LARGEST_NUMBER], [LARGEST_NUMBER, 0]]
    labels = labels_in(written(tmp_path, *[line | {"scores": own} for own in scores]))
    shape = shape_of(labels, annotators=False)
    observed = observe(labels, [[0, 1], [2, 3]], shape, Weighting())
    mean, deviation = shape.moments["score"]
    assert mean == pytest.approx(LARGEST_NUMBER / 4)
    assert deviation == pytest.approx(LARGEST_NUMBER * (2.75 / 4) ** 0.5)
    assert observed.score.square().mean() == pytest.approx(1)


def test_conversations_that_grew_from_one_root_are_held_out_together(tmp_path: Path) -> None:
    def line(root: int, depth: int) -> dict[str, Any]:
        turns = [{"role": "user", "content": f"question {root}"}]
        for turn in range(depth):
            turns += [{"role": "assistant", "content": "well"}, {"role": "user", "content": f"turn {turn}"}]
        return {"prompt": turns, "responses": ["a", "b"]}

    lines = read_lines(written(tmp_path, *[line(root, depth) for root in range(60) for depth in range(3)]))
    learned, kept = held_out(lines, 0.25)
    assert len(learned) + len(kept) == 180
    assert len(kept) in range(15, 75)  # 45 are expected, with a deviation of 3 * sqrt(60 * 0.25 * 0.75) = 10
    assert not {line.prompt[0]["content"] for line in learned} & {line.prompt[0]["content"] for line in kept}


# Scoring


def by_length(prompts: Sequence[Prompt], responses: Sequence[str]) -> Scored:
    assert len(prompts) == len(responses)
    lengths = torch.tensor([float(len(response)) for response in responses])
    return Scored(lengths, lengths / 2, {"brief": -lengths})


def test_scores_are_added_to_every_line(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"id": "ä", "prompt": "Hello", "responses": ["a", "bbbb", ""]},
        {"prompt": "Hello", "chosen": "aa", "rejected": "b", "scores": [4, 5], "nested": {"a": [1, None]}},
        {"prompt": "Hello", "response": "aa"},
    )
    out = tmp_path / "new" / "scored.jsonl"
    assert score_file(file, out, by_length) == 3
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert rows[0] == {
        "id": "ä",
        "prompt": "Hello",
        "responses": ["a", "bbbb", ""],
        "given_scores": None,
        "scores": [1.0, 4.0, 0.0],
        "deviations": [0.5, 2.0, 0.0],
        "outputs": {"brief": [-1.0, -4.0, 0.0]},
    }
    assert rows[1]["given_scores"] == [4, 5]
    assert (rows[1]["scores"], rows[1]["nested"]) == ([2.0, 1.0], {"a": [1, None]})
    assert rows[2]["scores"] == [2.0]
    assert [label.overall.scores for label in labels_in(out)] == [(), (4.0, 5.0), ()]
    again = tmp_path / "again.jsonl.gz"
    score_file(out, again, by_length)
    assert gzip.decompress(again.read_bytes()) == out.read_bytes()
    score_file(out, out, by_length)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows


def test_peoples_scores_stay_theirs_beside_columns_of_any_name(tmp_path: Path) -> None:
    own = {"scores": [1, 2], "deviations": [9, 9], "outputs": {"by": "ada"}}
    file = written(tmp_path, {"prompt": "Hello", "responses": ["a", "bb"], **own})
    for _ in range(2):
        assert [label.overall.scores for label in labels_in(file)] == [(1.0, 2.0)]
        score_file(file, file, by_length)
    (row,) = map(json.loads, file.read_text().splitlines())
    assert {key: row[f"given_{key}"] for key in own} == own
    assert (row["scores"], row["deviations"]) == ([1.0, 2.0], [0.5, 1.0])


def test_scores_under_the_name_that_is_kept_for_them_stay(tmp_path: Path) -> None:
    file = written(tmp_path, {"prompt": "Hello", "responses": ["a", "bb"], "scores": None, "given_scores": [3, 4]})
    score_file(file, file, by_length)
    assert [label.overall.scores for label in labels_in(file)] == [(3.0, 4.0)]


def test_the_file_that_a_link_leads_to_gets_the_scores(tmp_path: Path) -> None:
    file = written(tmp_path, {"prompt": "Hello", "response": "aa"})
    (tmp_path / "link.jsonl").symlink_to("real.jsonl")
    score_file(file, tmp_path / "link.jsonl", by_length)
    assert (tmp_path / "link.jsonl").is_symlink()
    assert json.loads((tmp_path / "real.jsonl").read_text())["scores"] == [2.0]


def test_nothing_is_written_where_a_line_is_bad(tmp_path: Path) -> None:
    file = written(tmp_path, {"prompt": "Hello", "responses": ["a"]}, {"prompt": "Hello", "responses": [True]})
    with pytest.raises(ValueError, match="line 2: "):
        score_file(file, tmp_path / "scored.jsonl", by_length)

    def fails(prompts: Sequence[Prompt], responses: Sequence[str]) -> Scored:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        score_file(written(tmp_path, {"prompt": "Hello", "response": "a"}), tmp_path / "scored.jsonl", fails)
    assert [path.name for path in tmp_path.iterdir()] == ["lines.jsonl"]


def test_files_are_scored_in_pieces(tmp_path: Path) -> None:
    sizes = []

    def counted(prompts: Sequence[Prompt], responses: Sequence[str]) -> Scored:
        sizes.append(len(prompts))
        return by_length(prompts, responses)

    file = written(tmp_path, *[{"prompt": "Hello", "responses": ["a", "b" * place]} for place in range(1_100)])
    assert score_file(file, tmp_path / "scored.jsonl", counted) == 1_100
    assert sizes == [1_024, 1_024, 152]
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert [row["scores"] for row in rows] == [[1.0, float(place)] for place in range(1_100)]


# Real files


@real
def test_anthropics_pairs() -> None:
    skipped: list[LineError] = []
    lines = read_lines(DATA / "hh_rlhf_harmless_test" / "harmless-base-test.jsonl", skipped)
    assert len(lines) + len(skipped) == 2_312
    assert len(skipped) < 20
    assert all("differ before their last message" in one.reason for one in skipped)
    assert lines[0].prompt[0] == {"role": "user", "content": "what are some pranks with a pen i can do?"}
    assert lines[0].responses[0].startswith("No, sorry!  All of these involve a pen")


@real
def test_chinese_pairs() -> None:
    lines = read_lines(DATA / "medicalgpt_zh" / "dpo_zh_500.jsonl")
    assert len(lines) == 500
    assert lines[0].prompt[0]["role"] == "user"
    assert lines[0].prompt[0]["content"].startswith("20个关于新鲜果汁菜单的口号")


def test_labels_of_weight_0_are_on_no_side(tmp_path: Path) -> None:
    pair = {"prompt": "Hello", "responses": ["a", "b"], "ranking": [0, 1]}
    splits = ["train", "train", "validation", "test", "test", "test"]
    lines = [pair | {"prompt": str(number), "split": split} for number, split in enumerate(splits)]
    silent = [line | {"weight": 0} for line in lines] + [{"prompt": "Hello", "response": "a"}]
    sides = read_sides(written(tmp_path, *lines, *silent), None, None)
    assert [len(labels) for labels in sides.labels] == [2, 1, 3]
    assert all(label.weight == 1 for labels in sides.labels for label in labels)

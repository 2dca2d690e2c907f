"""A snapshot freezes what labels say, knows itself by its content, and leaves as JSON lines."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.domain import comparisons, exports, labels, prompts, responses, snapshots
from app.domain.judgement import JudgementForm
from app.errors import Conflict, NotFound
from app.tables import Membership, Project, Prompt, Purpose, Response, Snapshot, Split
from tests.factories import make_member, make_project
from tests.factories_labelling import Desk, answer, lease, make_comparisons, make_desk, response_ids, set_form

FORMATS = Path(__file__).parent.parent.parent / "docs" / "formats.md"
CONVERSATION = [
    {"role": "user", "content": "Wer schrieb «Faust»?"},
    {"role": "assistant", "content": "Goethe."},
    {"role": "user", "content": "又是什么时候?"},
]


def labelled(session: Session, messages: list[dict[str, Any]], texts: list[str], groups: list[list[int]]) -> Snapshot:
    """A snapshot of one label; `groups` are places in `texts`."""
    project = make_project(session)
    member = make_member(session, project)
    prompt = prompts.add_prompts(session, project, [prompts.NewPrompt(messages=messages)]).prompts[0]
    rows = responses.add_responses(session, prompt, [responses.NewResponse(text=text) for text in texts])
    comparison = comparisons.create_comparisons(
        session,
        [
            comparisons.NewComparison(
                project_id=project.id,
                prompt_id=prompt.id,
                response_ids=[row.id for row in rows],
                k=1,
                purpose=Purpose.TRAIN,
                selected_because="imported",
            )
        ],
    )[0]
    assignment = lease(session, Desk(project.id, [member.id], [comparison.id]))
    ids = response_ids(session, comparison.id)
    answer(session, assignment, [[ids[place] for place in group] for group in groups])
    return snapshots.take_snapshot(session, project.id)


def answered(session: Session, desk: Desk, form: dict[str, Any], groups: list[list[int]], **answers: Any) -> Snapshot:
    """A snapshot of one label more, to a form; `groups` are places in the comparison, as ids in `answers` are."""
    set_form(session, desk, **form)
    assignment = lease(session, desk)
    ids = response_ids(session, assignment.comparison_id)
    ranked = [[ids[place] for place in group] for group in groups]
    labels.submit(session, assignment.id, assignment.annotator_id, ranked, answers=placed(answers, ids))
    return snapshots.take_snapshot(session, desk.project_id)


def placed(answers: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    """The answers with the ids of responses instead of their places."""
    by_response = {"scores", "corrections"}
    return {
        key: {str(ids[place]): one for place, one in said.items()} if key in by_response else said
        for key, said in answers.items()
    }


def read(lines: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_it_holds_the_newest_revision_of_every_label_that_counts(session: Session) -> None:
    desk = make_desk(session, comparisons=4)
    counting, edited, excluded, withdrawn = (answer(session, lease(session, desk)) for _ in range(4))
    project = session.get_one(Project, desk.project_id)
    for purpose in set(Purpose) - {Purpose.TRAIN}:
        make_comparisons(session, project, 1, purpose=purpose)
        answer(session, lease(session, desk))
    again = [list(reversed(response_ids(session, edited.label.comparison_id)))]
    revision = labels.revise(session, edited.label.id, edited.label.annotator_id, again)
    labels.exclude(session, desk.project_id, [excluded.label.id], "spam", None)
    withdrawn.label.withdrawn_at = withdrawn.label.created_at
    session.flush()

    snapshot = snapshots.take_snapshot(session, desk.project_id)

    assert (snapshot.number, snapshot.labels_count) == (1, 2)
    ranked = snapshots.rankings(session, snapshot)
    assert [one.revision_id for one in ranked] == [counting.revision.id, revision.id]
    assert [one.groups for one in ranked] == [[[0], [1], [2]], [[0, 1, 2]]]


def test_later_edits_leave_a_snapshot_as_it_is(session: Session) -> None:
    desk = make_desk(session)
    taken = answer(session, lease(session, desk))
    first = snapshots.take_snapshot(session, desk.project_id)
    before = snapshots.rankings(session, first)
    labels.revise(session, taken.label.id, taken.label.annotator_id, [taken.revision.shown_order])
    labels.exclude(session, desk.project_id, [taken.label.id], "spam", None)
    assert snapshots.rankings(session, first) == before
    assert snapshots.content_hash(session, first) == first.content_hash


def test_nothing_new_is_the_last_snapshot_again(session: Session) -> None:
    desk = make_desk(session, comparisons=2)
    taken = answer(session, lease(session, desk))
    first = snapshots.take_snapshot(session, desk.project_id)
    assert snapshots.take_snapshot(session, desk.project_id).id == first.id
    labels.revise(session, taken.label.id, taken.label.annotator_id, [taken.revision.shown_order])
    second = snapshots.take_snapshot(session, desk.project_id)
    assert (second.number, second.labels_count) == (2, 1)
    assert second.content_hash != first.content_hash
    answer(session, lease(session, desk))
    third = snapshots.take_snapshot(session, desk.project_id)
    assert [row.number for row in snapshots.list_snapshots(session, desk.project_id)] == [1, 2, 3]
    assert snapshots.get_snapshot(session, desk.project_id, 3).id == third.id
    with pytest.raises(NotFound):
        snapshots.get_snapshot(session, desk.project_id, 4)


def test_without_labels_there_is_no_snapshot(session: Session) -> None:
    desk = make_desk(session)
    with pytest.raises(Conflict, match="no labels"):
        snapshots.take_snapshot(session, desk.project_id)


def test_the_content_hash_is_the_documented_one(session: Session) -> None:
    """Put together here by hand, from the words of its documentation."""
    snapshot = labelled(session, CONVERSATION, ["Um 1808.", 'Am "Ende"\n1832?', "不知道"], [[2], [0, 1]])
    (ranked,) = snapshots.rankings(session, snapshot)
    a, b, c = (id_ for id_, _ in ranked.responses)
    line = (
        f'[{ranked.revision_id},[{{"content":"Wer schrieb «Faust»?","role":"user"}},'
        '{"content":"Goethe.","role":"assistant"},{"content":"又是什么时候?","role":"user"}],'
        f'[[{a},"Um 1808.",2],[{b},"Am \\"Ende\\"\\n1832?",2],[{c},"不知道",1]],{{}}]\n'
    )
    assert snapshot.content_hash == hashlib.sha256(line.encode()).hexdigest()


def test_the_line_that_is_hashed_never_changes() -> None:
    """Hashes of snapshots that were taken before partial rankings and corrections came stay what they were."""
    ranked = snapshots.RankedSet(
        revision_id=7,
        comparison_id=3,
        prompt_id=2,
        split=Split.TRAIN,
        messages=[{"role": "user", "content": "Wo?"}],
        responses=[(12, "Hier."), (11, "Dort.")],
        groups=[[1], [0]],
        annotator_id=5,
        shown_order=[11, 12],
        answers={},
        seconds=1.5,
        form=JudgementForm(),
        believed=1.0,
    )
    line = '[7,[{"content":"Wo?","role":"user"}],[[11,"Dort.",1],[12,"Hier.",2]],{}]\n'
    assert snapshots.hashed_line(ranked) == line
    partial = dataclasses.replace(ranked, groups=[], answers={"all_bad": True})
    said = '[7,[{"content":"Wo?","role":"user"}],[[11,"Dort.",null],[12,"Hier.",null]],{"all_bad":true}]\n'
    assert snapshots.hashed_line(partial) == said


def test_a_label_without_an_order_is_in_the_snapshot_and_in_its_hash(session: Session) -> None:
    desk = make_desk(session, comparisons=3)
    partial = answered(session, desk, {"ranking": {"partial": True}}, [[2], [0]])
    bad = answered(session, desk, {"all_bad": True}, [], all_bad=True)
    scored = answered(session, desk, {"overall": "none", "score": {}}, [], scores={0: 1, 1: 4.2, 2: 5})
    assert len({snapshot.content_hash for snapshot in (partial, bad, scored)}) == 3
    ranked, unranked, by_score = snapshots.rankings(session, scored)
    assert (ranked.groups, ranked.unranked) == ([[2], [0]], [1])
    assert list(ranked.ordered_pairs()) == [(2, 0)]
    assert (unranked.groups, unranked.unranked, unranked.answers) == ([], [0, 1, 2], {"all_bad": True})
    assert list(by_score.answers["scores"].values()) == [1, 4.2, 5]
    lines = "".join(map(snapshots.hashed_line, snapshots.rankings(session, scored)))
    assert scored.content_hash == hashlib.sha256(lines.encode()).hexdigest()
    session.expire_all()
    assert snapshots.content_hash(session, scored) == scored.content_hash


def test_a_correction_is_preferred_to_what_it_corrects(session: Session) -> None:
    desk = make_desk(session)
    form = {"ranking": {"partial": True}, "correction": "optional"}
    snapshot = answered(session, desk, form, [[0], [1]], corrections={2: "Better.", 0: "Best."}, written="Free.")
    (ranked,) = snapshots.rankings(session, snapshot)
    by_place = {place: (id_, text) for place, id_, text in ranked.corrections}
    assert {place: text for place, (_id, text) in by_place.items()} == {0: "Best.", 2: "Better."}
    assert list(ranked.implied_pairs()) == [(by_place[0], ranked.responses[0]), (by_place[2], ranked.responses[2])]
    assert list(ranked.ordered_pairs()) == [(0, 1)]
    ids = [id_ for id_, _text in ranked.responses]
    pairs = read(exports.trl_preference_lines(session, snapshot))
    assert [(row["chosen"], row["rejected_response_id"], row["implied"]) for row in pairs] == [
        (ranked.responses[0][1], ids[1], False),
        ("Best.", ids[0], True),
        ("Better.", ids[2], True),
    ]
    (line,) = read(exports.ranking_lines(session, snapshot))
    assert (line["ranking"], line["groups"], line["unranked"]) == ([[0], [1]], [[ids[0]], [ids[1]]], [ids[2]])
    assert line["corrections"] == [
        {"corrects_id": ids[place], "response_id": id_, "text": text} for place, (id_, text) in by_place.items()
    ]
    assert line["answers"]["written"]["text"] == "Free."


def test_scores_leave_in_the_order_of_the_responses(session: Session) -> None:
    desk = make_desk(session)
    form = {
        "overall": "none",
        "score": {"required": False},
        "criteria": [{"key": "helpful", "name": "Helpful", "required": False}],
        "flags": [{"key": "harmful", "name": "Harmful"}],
    }
    set_form(session, desk, **form)
    assignment = lease(session, desk)
    first, second, third = response_ids(session, assignment.comparison_id)
    answers = {
        "scores": {str(third): 4.2, str(first): 1},
        "criteria": {"helpful": {"scores": {str(second): 3}}},
        "flags": {"harmful": [third]},
    }
    labels.submit(session, assignment.id, assignment.annotator_id, [], answers=answers)
    (line,) = read(exports.ranking_lines(session, snapshots.take_snapshot(session, desk.project_id)))
    assert line["ranking"] == line["groups"] == line["corrections"] == []
    assert line["unranked"] == [first, second, third]
    assert line["answers"] == {
        "scores": [1, None, 4.2],
        "criteria": {"helpful": {"scores": [None, 3, None]}},
        "flags": {"harmful": [third]},
    }


def test_a_graded_pair_says_how_much(session: Session) -> None:
    desk = make_desk(session, responses=2)
    snapshot = answered(session, desk, {"overall": "pair"}, [[1], [0]], strength=3)
    (pair,) = read(exports.trl_preference_lines(session, snapshot))
    assert (pair["strength"], pair["implied"]) == (3, False)


def test_rankings_of_one_split(session: Session) -> None:
    desk = make_desk(session)
    project = session.get_one(Project, desk.project_id)
    make_comparisons(session, project, 2, split=Split.TEST)
    for _ in range(3):
        answer(session, lease(session, desk))
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    by_split = {split: snapshots.rankings(session, snapshot, split) for split in Split}
    assert {split: len(ranked) for split, ranked in by_split.items()} == {
        Split.TRAIN: 1,
        Split.VALIDATION: 0,
        Split.TEST: 2,
    }
    (ranked,) = by_split[Split.TRAIN]
    assert ranked.messages == session.get_one(Prompt, ranked.prompt_id).messages
    assert ranked.responses == [
        (id_, session.get_one(Response, id_).text) for id_ in response_ids(session, ranked.comparison_id)
    ]


def test_more_rankings_than_a_cursor_fetches_at_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_BATCH", 2)
    desk = make_desk(session, comparisons=5)
    for _ in range(5):
        answer(session, lease(session, desk))
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    assert len(list(exports.ranking_lines(session, snapshot))) == 5


def test_every_ordered_pair_leaves_and_ties_do_not(session: Session) -> None:
    snapshot = labelled(session, CONVERSATION[:1], ["a", "b", "c", "d"], [[3], [0, 2], [1]])
    pairs = read(exports.trl_preference_lines(session, snapshot))
    assert {(pair["chosen"], pair["rejected"]) for pair in pairs} == {
        ("d", "a"),
        ("d", "c"),
        ("d", "b"),
        ("a", "b"),
        ("c", "b"),
    }
    assert len(pairs) == 5
    (ranked,) = snapshots.rankings(session, snapshot)
    ids = {text: id_ for id_, text in ranked.responses}
    for pair in pairs:
        assert (pair["chosen_response_id"], pair["rejected_response_id"]) == (
            ids[pair["chosen"]],
            ids[pair["rejected"]],
        )
        assert pair["prompt"] == "Wer schrieb «Faust»?"
        assert (pair["prompt_id"], pair["revision_id"]) == (ranked.prompt_id, ranked.revision_id)


def test_a_label_that_ties_everything_gives_no_pair(session: Session) -> None:
    snapshot = labelled(session, CONVERSATION, ["a", "b"], [[0, 1]])
    assert list(exports.trl_preference_lines(session, snapshot)) == []
    assert len(list(exports.ranking_lines(session, snapshot))) == 1


def test_conversations_in_both_styles(session: Session) -> None:
    snapshot = labelled(session, CONVERSATION, ["a", "b"], [[1], [0]])
    (explicit,) = read(exports.trl_preference_lines(session, snapshot, style="explicit"))
    assert explicit["prompt"] == "Wer schrieb «Faust»?\n\nGoethe.\n\n又是什么时候?"
    assert (explicit["chosen"], explicit["rejected"]) == ("b", "a")
    (conversational,) = read(exports.trl_preference_lines(session, snapshot, style="conversational"))
    assert conversational["prompt"] == CONVERSATION
    assert conversational["chosen"] == [{"role": "assistant", "content": "b"}]
    assert conversational["rejected"] == [{"role": "assistant", "content": "a"}]


def test_the_text_of_content_parts() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "image", "url": "x"}, {"type": "text", "text": "What is it?"}]
    assert exports.content_text({"role": "user", "content": parts}) == "Look:\n\nWhat is it?"


def test_rankings_leave_whole(session: Session) -> None:
    snapshot = labelled(session, CONVERSATION, ["a", "b", "c"], [[2], [0, 1]])
    (line,) = read(exports.ranking_lines(session, snapshot))
    assert line["prompt"] == CONVERSATION
    assert [response["text"] for response in line["responses"]] == ["a", "b", "c"]
    assert line["ranking"] == [[2], [0, 1]]
    assert sorted(line["shown_order"]) == [response["id"] for response in line["responses"]]
    assert line["seconds"] == 3.5


@pytest.mark.parametrize("lines", [exports.trl_preference_lines, exports.ranking_lines])
def test_a_withdrawn_label_stops_the_export_before_its_first_line(session: Session, lines: Any) -> None:
    desk = make_desk(session)
    answer(session, lease(session, desk))
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    labels.withdraw_annotator(session, session.get_one(Membership, desk.annotator_ids[0]))
    session.refresh(snapshot)
    with pytest.raises(Conflict, match="take a new snapshot"):
        lines(session, snapshot)


@pytest.mark.parametrize("style", ["explicit", "conversational", "rankings"])
def test_the_datasets_library_reads_the_lines(
    session: Session, style: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the library `datasets` is in the extra `dev`")
    snapshot = labelled(session, CONVERSATION, ['Um "1808".\n\nOder?', "\u2028 不知道 🙂", "c"], [[1], [0], [2]])
    is_ranking = style == "rankings"
    lines = list(
        exports.ranking_lines(session, snapshot)
        if is_ranking
        else exports.trl_preference_lines(session, snapshot, style=style)
    )
    file = tmp_path / "export.jsonl"
    file.write_text("".join(lines), encoding="utf-8")
    loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_list() == read(lines)
    if not is_ranking:
        assert loaded.num_rows == 3
        assert {"prompt", "chosen", "rejected"} <= set(loaded.column_names)


def test_large_files_load_though_the_unusual_comes_late(
    session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` reads 10 MB at a time, and takes the columns from the first of them."""
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the library `datasets` is in the extra `dev`")
    desk = make_desk(session, comparisons=13)
    long = Response.text + func.repeat("x", 300_000)
    session.execute(update(Response).where(Response.project_id == desk.project_id).values(text=long))
    for _ in range(12):
        answer(session, lease(session, desk))
    form = {"ranking": {"partial": True}, "correction": "optional", "rationale": "optional"}
    snapshot = answered(session, desk, form, [[2], [0]], corrections={1: "Better."}, rationale="So.")

    def load(lines: list[str], name: str, **more: Any) -> list[dict[str, Any]]:
        file = tmp_path / name
        file.write_text("".join(lines), encoding="utf-8")
        assert file.stat().st_size > 10 << 20
        cache = str(tmp_path / "cache")
        loaded = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=cache, **more)
        rows: list[dict[str, Any]] = loaded.to_list()
        return rows

    pairs = list(exports.trl_preference_lines(session, snapshot))
    assert load(pairs, "pairs.jsonl") == read(pairs)
    assert [json.loads(pair)["implied"] for pair in pairs[-2:]] == [False, True]
    recipe = next(one for one in FORMATS.read_text().split("```") if one.startswith("python") and "Features(" in one)
    names: dict[str, Any] = {}
    exec(recipe.removeprefix("python").rpartition("\nlabels =")[0], names)
    whole = list(exports.ranking_lines(session, snapshot))
    assert load(whole, "rankings.jsonl", features=names["rankings"]) == read(whole)

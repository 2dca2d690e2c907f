"""What is asked: prompts, splits, versions, search."""

from collections import Counter

import pytest
from sqlalchemy.orm import Session

from app.domain import prompts
from app.domain.comparisons import NewComparison, create_comparisons
from app.domain.prompts import NewPrompt
from app.domain.responses import NewResponse
from app.errors import Conflict, Invalid, NotFound
from app.tables import Comparison, ComparisonState, Project, Prompt, PromptState, Purpose, Split
from tests.factories import make_project, make_prompt, make_responses


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def compared(session: Session, prompt: Prompt) -> Comparison:
    return create_comparisons(
        session,
        [
            NewComparison(
                project_id=prompt.project_id,
                prompt_id=prompt.id,
                response_ids=[response.id for response in make_responses(session, prompt, 2)],
                k=1,
                purpose=Purpose.TRAIN,
                selected_because="by_hand",
            )
        ],
    )[0]


def test_prompts_come_back_in_the_order_they_were_given(session: Session) -> None:
    project = make_project(session)
    first = make_prompt(session, project, "one")
    added = prompts.add_prompts(
        session,
        project,
        (NewPrompt(messages=asking(text), responses=(NewResponse("A"),)) for text in ("two", "one", "two", "three")),
    )
    assert [prompt.messages[0]["content"] for prompt in added.prompts] == ["two", "one", "two", "three"]
    assert added.prompts[1] is first
    assert added.prompts[0] is added.prompts[2]
    assert (added.added, added.known, added.added_responses) == (2, 2, 3)
    assert [len(rows) for rows in added.responses] == [1, 1, 1, 1]
    assert prompts.add_prompts(session, make_project(session), [NewPrompt(messages=asking("one"))]).added == 1
    assert prompts.add_prompts(session, project, []).prompts == []


def test_a_split_follows_the_hash_of_the_group() -> None:
    # sha256("a") begins ca978112, sha256("b") 3e23e816: as the command sha256sum says.
    assert int("ca978112ca1bbdca", 16) / 2**64 == pytest.approx(0.7913743)
    assert prompts.split_of("a", 0.1, 0.1) is Split.TRAIN
    assert prompts.split_of("a", 0.1, 0.7) is Split.VALIDATION
    assert prompts.split_of("a", 0.1, 0.8) is Split.TEST
    assert int("3e23e8160039594a", 16) / 2**64 == pytest.approx(0.2427354)
    assert prompts.split_of("b", 0.1, 0.2) is Split.VALIDATION
    assert prompts.split_of("b", 0.1, 0.1) is Split.TRAIN


def test_shares_are_kept_over_many_groups() -> None:
    counted = Counter(prompts.split_of(f"group {number}", 0.1, 0.2) for number in range(20_000))
    assert counted[Split.VALIDATION] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counted[Split.TEST] / 20_000 == pytest.approx(0.2, abs=0.01)


def test_a_conversation_stays_in_one_split(session: Session) -> None:
    project = make_project(session, validation_share=0.3, test_share=0.3)
    for number in range(20):
        turns = [{"role": "system", "content": "Be kind"}, *asking(f"Root {number}")]
        longer = [*turns, {"role": "assistant", "content": "A"}, *asking("And?")]
        rows = prompts.add_prompts(session, project, [NewPrompt(turns), NewPrompt(longer)]).prompts
        assert rows[0].group_key == rows[1].group_key
        assert rows[0].split == rows[1].split
        assert rows[0].id != rows[1].id
    named = [make_prompt(session, project, f"Other {number}", group_key="mine") for number in range(5)]
    assert len({prompt.split for prompt in named}) == 1


def test_bad_prompts_are_refused(session: Session) -> None:
    project = make_project(session)
    for new in (
        NewPrompt([]),
        NewPrompt(asking("")),
        NewPrompt(asking("\x00")),
        NewPrompt(asking("x"), group_key="\x00"),
        NewPrompt(asking("x"), details={"x": float("nan")}),
        NewPrompt(asking("x"), responses=(NewResponse(" "),)),
        NewPrompt([*asking("x"), {"role": "assistant", "content": "y"}]),
    ):
        with pytest.raises(Invalid), session.begin_nested():
            prompts.add_prompts(session, project, [NewPrompt(asking("good")), new])
    assert prompts.count_prompts(session, project.id) == 0
    parts = [{"type": "text", "text": "What is this?"}, {"type": "image", "url": "x"}]
    assert prompts.check_messages([{"role": "user", "content": parts, "extra": 1}]) == [
        {"role": "user", "content": parts}
    ]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("故事", ["讲一个故事"]),
        ("WHY", ['Why "100%"?\nReally_?']),
        ('"100%"', ['Why "100%"?\nReally_?']),
        ("?\nReally", ['Why "100%"?\nReally_?']),
        ("100_", []),
        ("%", ['Why "100%"?\nReally_?']),
        ("\\", ["a\\b"]),
        ("user", []),
        ("content", []),
        ("\x00", []),
        ("\ud800", []),
        (" ", ["讲一个故事", 'Why "100%"?\nReally_?', "a\\b"]),
    ],
)
def test_search_looks_into_what_is_said(session: Session, search: str, found: list[str]) -> None:
    project = make_project(session)
    for text in ("讲一个故事", 'Why "100%"?\nReally_?', "a\\b"):
        make_prompt(session, project, text)
    rows = prompts.list_prompts(session, project.id, search=search)
    assert [row.messages[0]["content"] for row in rows] == found
    assert prompts.count_prompts(session, project.id, search=search) == len(found)


def test_lists_page_and_filter_within_the_project(session: Session) -> None:
    project, other = make_project(session, test_share=0.5), make_project(session)
    rows = [make_prompt(session, project) for _ in range(7)]
    make_prompt(session, other)
    page = prompts.list_prompts(session, project.id, limit=3)
    assert list(page) == rows[:3]
    assert list(prompts.list_prompts(session, project.id, after_id=page[-1].id)) == rows[3:]
    tests = [row for row in rows if row.split is Split.TEST]
    assert list(prompts.list_prompts(session, project.id, split=Split.TEST)) == tests
    assert prompts.count_prompts(session, project.id, split=Split.TEST) == len(tests)
    assert prompts.get_prompt(session, project.id, rows[0].id) is rows[0]
    with pytest.raises(NotFound):
        prompts.get_prompt(session, other.id, rows[0].id)


def test_an_edit_is_a_new_version_in_the_same_split(session: Session) -> None:
    project = make_project(session)
    prompt = make_prompt(session, project, "Why?")
    comparison = compared(session, prompt)
    edited = prompts.edit_prompt(session, prompt, asking("Why not?"), None)
    assert (edited.version, edited.replaces_id, edited.split, edited.group_key) == (
        2,
        prompt.id,
        prompt.split,
        prompt.group_key,
    )
    assert (prompt.state, edited.state) == (PromptState.RETIRED, PromptState.ACTIVE)
    session.refresh(comparison)
    assert comparison.state is ComparisonState.RETIRED
    assert prompts.edit_prompt(session, edited, asking("Why not?"), None) is edited
    with pytest.raises(Conflict, match="newest version"):
        prompts.edit_prompt(session, prompt, asking("Third?"), None)
    make_prompt(session, project, "Taken")
    with pytest.raises(Conflict, match="already"):
        prompts.edit_prompt(session, edited, asking("Taken"), None)
    assert edited.state is PromptState.ACTIVE
    with pytest.raises(Invalid):
        prompts.edit_prompt(session, edited, [], None)


def test_retired_prompts_are_reopened_unless_replaced(session: Session) -> None:
    project = make_project(session)
    one, two, other = (
        make_prompt(session, project, "one"),
        make_prompt(session, project, "two"),
        make_prompt(session, make_project(session)),
    )
    ids = [one.id, two.id, other.id]
    assert prompts.retire_prompts(session, project.id, ids, None) == 2
    assert prompts.retire_prompts(session, project.id, ids, None) == 0
    assert other.state is PromptState.ACTIVE
    make_prompt(session, project, "one")  # the same words came in again meanwhile
    assert prompts.reopen_prompts(session, project.id, ids, None) == 1
    assert (one.state, two.state) == (PromptState.RETIRED, PromptState.ACTIVE)
    prompts.edit_prompt(session, two, asking("three"), None)
    assert prompts.reopen_prompts(session, project.id, [two.id], None) == 0


def test_retiring_leaves_comparisons_that_somebody_began(session: Session) -> None:
    project: Project = make_project(session)
    prompt = make_prompt(session, project)
    untouched, finished = compared(session, prompt), compared(session, prompt)
    finished.state = ComparisonState.CLOSED
    session.flush()
    prompts.retire_prompts(session, project.id, [prompt.id], None)
    session.refresh(untouched)
    session.refresh(finished)
    assert (untouched.state, finished.state) == (ComparisonState.RETIRED, ComparisonState.CLOSED)

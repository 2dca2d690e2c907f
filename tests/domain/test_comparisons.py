"""Comparisons are made in bulk, listed, counted and steered by admins."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from app.domain import audit, comparisons, overview
from app.domain.comparisons import NewComparison
from app.errors import Invalid, NotFound
from app.tables import (
    Comparison,
    ComparisonState,
    FinishReason,
    Policy,
    Project,
    Purpose,
    Response,
    ResponsePurpose,
    ResponseSource,
    ResponseState,
)
from tests.factories import make_member, make_person, make_project, make_prompt, make_responses
from tests.factories_labelling import (
    answer,
    broken_rows,
    lease,
    let_run_out,
    make_comparisons,
    make_desk,
)


def new_comparison(session: Session, project: Project | None = None, **changes: Any) -> NewComparison:
    """A comparison of three fresh responses to a fresh prompt."""
    prompt = make_prompt(session, project or make_project(session))
    new = NewComparison(
        project_id=prompt.project_id,
        prompt_id=prompt.id,
        response_ids=[response.id for response in make_responses(session, prompt, 3)],
        k=2,
        purpose=Purpose.TRAIN,
        selected_because="imported",
    )
    return replace(new, **changes)


def state_of(session: Session, comparison_id: int) -> ComparisonState:
    return session.get_one(Comparison, comparison_id, populate_existing=True).state


def test_a_new_comparison_is_open_with_k_openings(session: Session) -> None:
    new = new_comparison(session)
    gold = [[new.response_ids[1]], [new.response_ids[0], new.response_ids[2]]]
    (row,) = comparisons.create_comparisons(session, [replace(new, priority=3, gold_groups=gold)])
    stored = comparisons.get_comparison(session, new.project_id, row.id)
    assert (stored.state, stored.k, stored.openings, stored.submitted) == (ComparisonState.OPEN, 2, 2, 0)
    assert (stored.priority, stored.gold_groups) == (3, gold)
    assert [member.response_id for member in stored.members] == new.response_ids
    assert [member.response.text for member in stored.members]
    assert stored.prompt.id == new.prompt_id
    with pytest.raises(NotFound):
        comparisons.get_comparison(session, new.project_id + 1, row.id)


def test_thousands_are_made_in_a_handful_of_statements(session: Session) -> None:
    project = make_project(session)
    statements = []
    listener = lambda *args: statements.append(args[2])  # noqa: E731
    connection = session.connection()
    event.listen(connection, "before_cursor_execute", listener)
    rows = make_comparisons(session, project, 2_000, responses=2)
    event.remove(connection, "before_cursor_execute", listener)
    assert len({row.id for row in rows}) == 2_000
    making = [one for one in statements if "INTO comparison" in one or "FROM responses" in one]
    assert len(making) < 10
    assert overview.counts(session, project.id).openings == 2_000


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 0},
        {"response_ids": []},
        {"gold_groups": [[1]]},
        {"gold_groups": []},
        {"assignees": [10**9]},
        {"prompt_id": 10**9},
    ],
)
def test_what_makes_no_comparison_is_refused(session: Session, changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        comparisons.create_comparisons(session, [new_comparison(session), new_comparison(session, **changes)])
    assert session.query(Comparison).count() == 0


def test_two_to_nine_different_active_responses_of_one_prompt(session: Session) -> None:
    new = new_comparison(session)
    a, b, c = new.response_ids
    other = new_comparison(session).response_ids[0]
    for ids in ([a], [a, a], [a, other], [*range(a, a + 10)]):
        with pytest.raises(Invalid):
            comparisons.create_comparisons(session, [replace(new, response_ids=ids)])
    session.get_one(Response, c).state = ResponseState.RETIRED
    with pytest.raises(Invalid, match="no active responses"):
        comparisons.create_comparisons(session, [new])
    comparisons.create_comparisons(session, [replace(new, response_ids=[b, a])])


def test_lists_by_every_filter(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=4, k=2)
    first, second, third, fourth = desk.comparison_ids
    project = session.get_one(Project, desk.project_id)
    gold = make_comparisons(session, project, 1, purpose=Purpose.GOLD)[0]
    answer(session, lease(session, desk))
    answer(session, lease(session, desk, 1))
    answer(session, lease(session, desk))
    comparisons.pause(session, desk.project_id, [fourth], None)

    def listed(**filters: Any) -> list[int]:
        return [row.id for row in comparisons.list_comparisons(session, desk.project_id, **filters)]

    assert listed() == [first, second, third, fourth, gold.id]
    assert listed(after_id=second, limit=2) == [third, fourth]
    assert listed(state=ComparisonState.PAUSED) == [fourth]
    assert listed(purpose=Purpose.GOLD) == [gold.id]
    assert listed(progress="done") == [first]
    assert listed(progress="started") == [second]
    assert listed(progress="untouched") == [third, fourth, gold.id]
    assert listed(prompt_id=gold.prompt_id) == [gold.id]
    assert listed(round_id=1) == []
    row = comparisons.list_comparisons(session, desk.project_id)[2]
    assert listed(search=row.prompt.messages[0]["content"].lower()) == [third]
    assert listed(search=session.get_one(Response, row.members[1].response_id).text) == [third]
    assert listed(search="%") == []


@pytest.mark.parametrize("text", ['say "hi"', "a\nb", "你好", "50%", "back\\slash"])
def test_a_search_finds_what_was_typed(session: Session, text: str) -> None:
    project = make_project(session)
    prompt = make_prompt(session, project, f"please {text} now")
    rows = make_responses(session, prompt, 2)
    new = NewComparison(project.id, prompt.id, [row.id for row in rows], 1, Purpose.TRAIN, "imported")
    (row,) = comparisons.create_comparisons(session, [new])
    make_comparisons(session, project, 1)
    assert [found.id for found in comparisons.list_comparisons(session, project.id, search=text)] == [row.id]


def test_counts(session: Session) -> None:
    desk = make_desk(session, annotators=3, comparisons=7, k=2)
    ids = desk.comparison_ids
    late = lease(session, desk)
    let_run_out(session, [late])
    for number in (1, 2):
        answer(session, lease(session, desk, number))
    answer(session, late)
    answer(session, lease(session, desk, 1))
    lease(session, desk, 2)
    comparisons.pause(session, desk.project_id, [ids[3]], None)
    comparisons.close(session, desk.project_id, [ids[0], ids[4]], None)
    comparisons.retire(session, desk.project_id, [ids[5]], None)
    make_desk(session)
    assert overview.counts(session, desk.project_id) == overview.Counts(
        open=3, started=1, done=1, paused=1, closed=1, retired=1, labels=4, surplus=1, live=1, openings=4
    )
    empty = overview.counts(session, make_project(session).id)
    assert set(vars(empty).values()) == {0}


def test_k_never_falls_below_what_is_there_and_leased(session: Session) -> None:
    desk = make_desk(session, annotators=3, comparisons=2, k=3)
    answer(session, lease(session, desk))
    lease(session, desk, 1)
    assert comparisons.set_k(session, desk.project_id, desk.comparison_ids, 1, None) == 2
    rows = [session.get_one(Comparison, id_, populate_existing=True) for id_ in desk.comparison_ids]
    assert [(row.k, row.openings, row.submitted) for row in rows] == [(2, 0, 1), (1, 1, 0)]
    assert comparisons.set_k(session, desk.project_id, desk.comparison_ids, 1, None) == 0
    assert comparisons.set_k(session, desk.project_id, desk.comparison_ids, 3, None) == 2
    assert not broken_rows(session)
    assert lease(session, desk, 2).comparison_id == desk.comparison_ids[0]
    with pytest.raises(Invalid):
        comparisons.set_k(session, desk.project_id, desk.comparison_ids, 0, None)


def test_every_act_changes_only_what_it_may(session: Session) -> None:
    desk = make_desk(session, comparisons=4, k=2)
    lease(session, desk)
    started, *idle = desk.comparison_ids
    project_id = desk.project_id
    ids = desk.comparison_ids
    assert comparisons.pause(session, project_id, ids, None) == 4
    assert comparisons.pause(session, project_id, ids, None) == 0
    assert comparisons.reopen(session, project_id, ids[:2], None) == 2
    assert comparisons.close(session, project_id, ids, None) == 4
    assert comparisons.reopen(session, project_id, ids[:3], None) == 3
    assert comparisons.retire(session, project_id, ids, None) == 3
    assert [state_of(session, id_) for id_ in idle] == [ComparisonState.RETIRED] * 3
    assert state_of(session, started) is ComparisonState.OPEN
    assert comparisons.reopen(session, project_id, ids, None) == 0


def test_acts_are_audited_with_what_changed(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=2)
    admin = make_person(session)
    ids, project_id, annotators = desk.comparison_ids, desk.project_id, desk.annotator_ids
    comparisons.set_priority(session, project_id, ids[:1], 4, admin)
    comparisons.set_priority(session, project_id, ids, 4, admin)
    comparisons.set_k(session, project_id, ids, 5, admin)
    assert comparisons.set_assignees(session, project_id, ids, annotators, admin) == 2
    assert comparisons.set_assignees(session, project_id, ids, annotators[::-1], admin) == 0
    assert comparisons.set_assignees(session, project_id, ids[:1], [], admin) == 1
    comparisons.close(session, project_id, ids, admin)
    events = audit.list_events(session, project_id, limit=6)
    assert {person for _, person in events} == {admin}
    assert [(event.action, event.details) for event, _ in reversed(events)] == [
        ("comparison.set_priority", {"priority": 4, "ids": ids[:1]}),
        ("comparison.set_priority", {"priority": 4, "ids": ids[1:]}),
        ("comparison.set_k", {"k": 5, "ids": ids}),
        ("comparison.set_assignees", {"assignees": annotators, "ids": ids}),
        ("comparison.set_assignees", {"assignees": [], "ids": ids[:1]}),
        ("comparison.close", {"state": "closed", "ids": ids}),
    ]


def test_an_act_on_other_projects_comparisons_changes_nothing(session: Session) -> None:
    mine, other = make_desk(session), make_desk(session)
    both = mine.comparison_ids + other.comparison_ids
    for act in (comparisons.pause, comparisons.close, comparisons.reopen, comparisons.retire):
        with pytest.raises(NotFound, match=str(other.comparison_ids)):
            act(session, mine.project_id, both, None)
    with pytest.raises(NotFound):
        comparisons.set_assignees(session, mine.project_id, other.comparison_ids, [], None)
    with pytest.raises(Invalid, match="not in the project"):
        comparisons.set_assignees(session, mine.project_id, mine.comparison_ids, other.annotator_ids, None)
    assert {state_of(session, id_) for id_ in both} == {ComparisonState.OPEN}


def test_assignees_who_left_are_no_assignees(session: Session) -> None:
    project = make_project(session)
    gone = make_member(session, project)
    gone.left_at = gone.joined_at
    with pytest.raises(Invalid, match="not in the project"):
        comparisons.create_comparisons(session, [new_comparison(session, project, assignees=[gone.id])])


def test_retiring_older_leaves_imports_started_work_and_the_current_policys(session: Session) -> None:
    desk = make_desk(session, comparisons=1)
    project = session.get_one(Project, desk.project_id)
    old, current = _policy(session, project, 1), _policy(session, project, 2)
    older = _sampled(session, project, [old, old])
    mixed = _sampled(session, project, [old, current])
    started = _sampled(session, project, [old, old])
    gate = _sampled(session, project, [old, old], purpose=Purpose.GATE)
    comparisons.set_priority(session, project.id, [started], 9, None)
    assert lease(session, desk).comparison_id == started

    assert comparisons.retire_older(session, project.id, current.id) == 1
    states = {id_: state_of(session, id_) for id_ in (older, mixed, started, gate, desk.comparison_ids[0])}
    assert [id_ for id_, state in states.items() if state is ComparisonState.RETIRED] == [older]
    assert comparisons.retire_older(session, project.id, current.id) == 0


def _policy(session: Session, project: Project, version: int) -> Policy:
    policy = Policy(project_id=project.id, version=version, uri="nowhere")
    session.add(policy)
    session.flush()
    return policy


def _sampled(session: Session, project: Project, policies: list[Policy], purpose: Purpose = Purpose.TRAIN) -> int:
    """A comparison of one response by each of the policies."""
    prompt = make_prompt(session, project)
    rows = [
        Response(
            project_id=project.id,
            prompt_id=prompt.id,
            source=ResponseSource.POLICY,
            purpose=ResponsePurpose.LABELLING,
            state=ResponseState.ACTIVE,
            policy_id=policy.id,
            text=f"Sample {number}",
            finish_reason=FinishReason.ENDED,
            content_hash=f"sample {number}",
        )
        for number, policy in enumerate(policies)
    ]
    session.add_all(rows)
    session.flush()
    new = NewComparison(project.id, prompt.id, [row.id for row in rows], 1, purpose, "fresh")
    return comparisons.create_comparisons(session, [new])[0].id

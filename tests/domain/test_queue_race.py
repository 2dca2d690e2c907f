"""Many at once, with real commits: nothing over, nothing short, nobody twice."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import drafts, labels, queue
from app.domain.empty_queue import EmptyQueue
from app.errors import Conflict
from app.tables import Assignment, AssignmentState, Comparison, Draft, Label, LabelRevision
from tests.factories_labelling import answer, broken_rows, lease, let_run_out, make_desk, number_of

Sessions = sessionmaker[Session]


def together(number: int, work: Callable[[int], None]) -> None:
    """Run `work(0)`, `work(1)`, ... in as many threads, which start at the same moment; raise what they raise."""
    gate = threading.Barrier(number)

    def run(index: int) -> None:
        gate.wait()
        work(index)

    with ThreadPoolExecutor(number) as threads:
        for done in [threads.submit(run, index) for index in range(number)]:
            done.result()


def label_until_empty(committed: Sessions, project_id: int, annotator_id: int, chance: random.Random) -> str:
    """Take and answer until the queue says that it is over; a few skips, leases that run out, late answers."""
    while True:
        with committed.begin() as session:
            found = queue.next_assignment(session, project_id, annotator_id)
        if isinstance(found, EmptyQueue):
            if found.reason == "all_leased":
                time.sleep(0.02)
                continue
            return found.reason
        luck = chance.random()
        if luck < 0.02:
            # The same person's other tab may have answered it.
            with suppress(Conflict), committed.begin() as session:
                queue.skip(session, found.id, annotator_id)
            continue
        if luck < 0.10:
            with committed.begin() as session:
                let_run_out(session, [found])
        if luck < 0.06:
            continue
        with committed.begin() as session:
            answer(session, found)


def test_sixteen_annotators_fill_every_comparison_exactly(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, annotators=16, comparisons=300, k=3, responses=2)
    reasons: dict[int, str] = {}

    def work(index: int) -> None:
        reasons[index] = label_until_empty(committed, desk.project_id, desk.annotator_ids[index], random.Random(index))

    together(16, work)

    # "you did all" is true for whoever came last to a comparison that others skipped or are still at.
    assert set(reasons.values()) <= {"all_done", "you_did_all"}
    with committed.begin() as session:
        assert not broken_rows(session)
        rows = session.execute(select(Comparison.k, Comparison.openings, Comparison.submitted)).all()
        assert Counter(rows) == {(3, 0, 3): 300}
        within_k = select(Label.comparison_id).where(~Label.surplus)
        assert set(Counter(session.scalars(within_k)).values()) == {3}
        by_person = Counter(session.execute(select(Label.comparison_id, Label.annotator_id)).all())
        assert set(by_person.values()) == {1}
        assert number_of(session, LabelRevision) == number_of(session, Label)
        # The race was one: leases were skipped and ran out.
        states = Counter(session.scalars(select(Assignment.state)))
        assert set(states) == {AssignmentState.SUBMITTED, AssignmentState.SKIPPED, AssignmentState.EXPIRED}


def label_ahead_until_empty(committed: Sessions, project_id: int, annotator_id: int, chance: random.Random) -> str:
    """As the page's script does: lease the next one while the first is being answered, and answer them in turn."""
    at: Assignment | None = None
    while True:
        with committed.begin() as session:
            found = at or queue.next_assignment(session, project_id, annotator_id)
        if isinstance(found, EmptyQueue):
            if found.reason == "all_leased":
                time.sleep(0.02)
                continue
            return found.reason
        with committed.begin() as session:
            ahead = queue.next_assignment(session, project_id, annotator_id, after=[found.id])
        with committed() as session:
            assert live_leases(session, annotator_id) <= 2
        luck = chance.random()
        if luck < 0.05:
            with committed.begin() as session:
                queue.skip(session, found.id, annotator_id)
        elif luck > 0.05 + 0.05:
            with committed.begin() as session:
                answer(session, found)
        else:  # the tab is closed, and its leases run out
            with committed.begin() as session:
                queue.end_leases(session, annotator_id)
            ahead = EmptyQueue("last_ones")
        at = ahead if isinstance(ahead, Assignment) else None


def live_leases(session: Session, annotator_id: int) -> int:
    live = select(func.count()).where(
        Assignment.annotator_id == annotator_id,
        Assignment.state == AssignmentState.LIVE,
        Assignment.expires_at > func.clock_timestamp(),
    )
    return session.scalar(live) or 0


def test_sixteen_who_look_ahead_fill_every_comparison_exactly(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, annotators=16, comparisons=150, k=3, responses=2)

    def work(index: int) -> None:
        label_ahead_until_empty(committed, desk.project_id, desk.annotator_ids[index], random.Random(index))

    together(16, work)
    with committed.begin() as session:
        assert not broken_rows(session)
        queue.expire_leases(session)
        rows = session.execute(select(Comparison.k, Comparison.openings, Comparison.submitted)).all()
        assert Counter(rows) == {(3, 0, 3): 150}
        by_person = Counter(session.execute(select(Label.comparison_id, Label.annotator_id)).all())
        assert set(by_person.values()) == {1}


def test_sixteen_tabs_of_one_person_that_look_ahead_hold_two_leases(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, annotators=1, comparisons=40, k=3, responses=2)
        annotator_id = desk.annotator_ids[0]
        first = queue.next_assignment(session, desk.project_id, annotator_id)
        assert isinstance(first, Assignment)
    handed_out: list[int] = []

    def work(_: int) -> None:
        with committed.begin() as session:
            found = queue.next_assignment(session, desk.project_id, annotator_id, after=[first.id])
            assert isinstance(found, Assignment)
            handed_out.append(found.id)

    together(16, work)
    assert len(set(handed_out)) == 1
    with committed.begin() as session:
        assert live_leases(session, annotator_id) == 2
        assert not broken_rows(session)


def test_sixteen_tabs_of_one_person_hold_one_lease(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, annotators=1, comparisons=40, k=3, responses=2)
    annotator_id = desk.annotator_ids[0]
    handed_out: list[int] = []

    def work(index: int) -> None:
        with committed.begin() as session:
            found = queue.next_assignment(session, desk.project_id, annotator_id)
            assert isinstance(found, Assignment)
            handed_out.append(found.id)

    together(16, work)
    assert len(set(handed_out)) == 1

    def label_all(index: int) -> None:
        assert label_until_empty(committed, desk.project_id, annotator_id, random.Random(index)) == "you_did_all"

    together(16, label_all)
    with committed.begin() as session:
        assert not broken_rows(session)
        asked = select(Assignment.comparison_id).where(Assignment.state != AssignmentState.EXPIRED)
        assert set(session.scalars(asked)) == set(desk.comparison_ids)
        # A lease that ran out may be skipped late, and the one that took its place answered: never two answers.
        answered = Counter(session.scalars(asked.where(Assignment.state == AssignmentState.SUBMITTED)))
        assert set(answered.values()) == {1}
        assert number_of(session, Label) == session.scalar(
            select(func.count()).where(Assignment.state == AssignmentState.SUBMITTED)
        )


def test_a_form_posted_many_times_at_once_is_one_label(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, annotators=1, comparisons=10, k=2)
    annotator_id = desk.annotator_ids[0]
    for round_ in range(10):
        with committed.begin() as session:
            found = queue.next_assignment(session, desk.project_id, annotator_id)
            assert isinstance(found, Assignment)
            if round_ % 2:
                let_run_out(session, [found])
                session.flush()
                queue.expire_leases(session)
        answers: list[tuple[int, int, bool]] = []

        def work(index: int, assignment: Assignment = found, answers: list[tuple[int, int, bool]] = answers) -> None:
            with committed.begin() as session:
                taken = labels.submit(session, assignment.id, annotator_id, [assignment.shown_order])
                answers.append((taken.label.id, taken.revision.id, taken.is_repeat))

        together(8, work)
        assert len({(label, revision) for label, revision, _ in answers}) == 1
        assert Counter(is_repeat for *_, is_repeat in answers) == {False: 1, True: 7}
    with committed.begin() as session:
        assert not broken_rows(session)
        assert (number_of(session, Label), number_of(session, LabelRevision)) == (10, 10)


def test_revisions_at_once_get_numbers_of_their_own(committed: Sessions) -> None:
    with committed.begin() as session:
        desk = make_desk(session, responses=9)
        found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[0])
        assert isinstance(found, Assignment)
        label = answer(session, found).label
    first, *others = sorted(found.shown_order)

    def work(index: int) -> None:
        groups = [[id_] for id_ in [*others[: index + 1], first, *others[index + 1 :]]]
        with committed.begin() as session:
            labels.revise(session, label.id, label.annotator_id, groups)

    together(8, work)
    with committed.begin() as session:
        assert sorted(session.scalars(select(LabelRevision.number))) == list(range(1, 10))


def test_two_who_answer_and_go_on_in_one_transaction_do_not_lock_each_other(committed: Sessions) -> None:
    """Each holds the comparison that the other one would get next."""
    with committed.begin() as session:
        desk = make_desk(session, annotators=2, comparisons=2, k=2)
        held = [queue.next_assignment(session, desk.project_id, desk.annotator_ids[0])]
        # The second annotator is to begin with the other comparison.
        session.get_one(Comparison, desk.comparison_ids[1]).priority = 1
        session.flush()
        held.append(queue.next_assignment(session, desk.project_id, desk.annotator_ids[1]))
    both_hold = threading.Barrier(2)
    found: dict[int, Assignment | EmptyQueue] = {}

    def work(index: int) -> None:
        assignment = held[index]
        assert isinstance(assignment, Assignment)
        with committed.begin() as session:
            answer(session, assignment)
            both_hold.wait()
            found[index] = queue.next_assignment(session, desk.project_id, desk.annotator_ids[index])

    together(2, work)
    assert all(one.reason == "all_leased" for one in found.values() if isinstance(one, EmptyQueue))
    with committed.begin() as session:
        assert not broken_rows(session)
        assert number_of(session, Label) == 2


def test_a_row_that_is_only_being_changed_is_no_empty_queue(committed: Sessions) -> None:
    """SKIP LOCKED passes over the only comparison while somebody hands it back; that must not read as empty."""
    with committed.begin() as session:
        desk = make_desk(session, annotators=2, comparisons=1, k=2)
        other = queue.next_assignment(session, desk.project_id, desk.annotator_ids[0])
        assert isinstance(other, Assignment)
    is_locked, asked = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        with committed.begin() as session:
            queue.skip(session, other.id, other.annotator_id)
            is_locked.set()
            asked.wait()
            threading.Event().wait(0.1)

    def ask(_: int) -> None:
        is_locked.wait()
        asked.set()
        with committed.begin() as session:
            found = queue.next_assignment(session, desk.project_id, desk.annotator_ids[1])
        assert isinstance(found, Assignment)

    together(2, lambda index: [hold, ask][index](index))


@pytest.mark.parametrize("act", ["answer", "skip"])
def test_a_draft_is_not_left_behind_by_what_ends_it(committed: Sessions, act: str) -> None:
    """The page saves its draft while the answer is on its way."""
    with committed.begin() as session:
        at = lease(session, make_desk(session))

    def save() -> None:
        with committed.begin() as session:
            drafts.save(session, session.get_one(Assignment, at.id), fields=[], seconds=1, sequence=1, revision=0)

    with ThreadPoolExecutor(1) as thread:
        with committed.begin() as session:
            if act == "answer":
                answer(session, at)
            else:
                queue.skip(session, at.id, at.annotator_id)
            saving = thread.submit(save)
            with pytest.raises(TimeoutError):
                saving.result(timeout=0.5)
        with pytest.raises(Conflict):
            saving.result()
    with committed() as session:
        assert number_of(session, Draft) == 0

"""Agreement among annotators, against scipy's Kendall tau-b and pairs counted by hand."""

import math

import pytest
from scipy.stats import kendalltau
from sqlalchemy.orm import Session

from app.domain import agreement, labels
from tests.factories_labelling import answer, lease, make_desk, response_ids, set_form

Ranks = tuple[int, ...]


def test_nothing_to_compare(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=2)
    for number in range(2):
        answer(session, lease(session, desk, number))
    found = agreement.pairwise_agreement(session, desk.project_id)
    assert (found.share, found.pairs, found.tau_b, found.rankings, found.by_annotator) == (None, 0, None, 0, {})


def test_one_pair_of_annotators_by_hand(session: Session) -> None:
    """abcd against bacd: of six pairs all but (a, b) agree; tau = (5 - 1) / 6."""
    desk = make_desk(session, annotators=2, k=2, responses=4)
    a, b, c, d = response_ids(session, desk.comparison_ids[0])
    answer(session, lease(session, desk, 0), [[a], [b], [c], [d]])
    answer(session, lease(session, desk, 1), [[b], [a], [c], [d]])
    found = agreement.pairwise_agreement(session, desk.project_id)
    assert (found.share, found.pairs) == (pytest.approx(5 / 6), 6)
    assert found.tau_b == pytest.approx(4 / 6)


def test_ties_against_scipy(session: Session) -> None:
    """Two comparisons, three annotators; every figure is computed from the ranks alone."""
    ranks: list[list[Ranks]] = [
        [(1, 2, 3, 4, 5), (2, 1, 1, 3, 3), (1, 1, 1, 1, 1)],
        [(3, 1, 2, 2, 1), (3, 2, 1, 1, 2), (1, 2, 2, 3, 1)],
    ]
    desk = make_desk(session, annotators=3, comparisons=2, k=3, responses=5)
    for comparison_ranks, comparison_id in zip(ranks, desk.comparison_ids, strict=True):
        ids = response_ids(session, comparison_id)
        for number, places in enumerate(comparison_ranks):
            assignment = lease(session, desk, number)
            assert assignment.comparison_id == comparison_id
            groups = [[id_ for id_, at in zip(ids, places, strict=True) if at == rank] for rank in (1, 2, 3, 4, 5)]
            answer(session, assignment, [group for group in groups if group])

    found = agreement.pairwise_agreement(session, desk.project_id)

    duos = [(0, 1), (0, 2), (1, 2)]
    whole = [(one, other, rows[one], rows[other]) for rows in ranks for one, other in duos]
    _compare(found, [(first, second) for *_, first, second in whole])
    for number, annotator_id in enumerate(desk.annotator_ids):
        own = [(first, second) for one, other, first, second in whole if number in (one, other)]
        _compare(found.by_annotator[annotator_id], own)


def _compare(found: agreement.Agreement, met: list[tuple[Ranks, Ranks]]) -> None:
    alike = against = 0
    for first, second in met:
        for i in range(5):
            for j in range(i):
                product = (first[i] - first[j]) * (second[i] - second[j])
                alike += product > 0
                against += product < 0
    taus = [kendalltau(first, second, variant="b").statistic for first, second in met]
    defined = [tau for tau in taus if not math.isnan(tau)]
    assert found.pairs == alike + against
    assert found.share == pytest.approx(alike / (alike + against))
    assert found.rankings == len(defined)
    assert found.tau_b == pytest.approx(sum(defined) / len(defined))


def test_what_does_not_count_and_what_is_said_now(session: Session) -> None:
    desk = make_desk(session, annotators=3, k=3, responses=2)
    a, b = response_ids(session, desk.comparison_ids[0])
    answer(session, lease(session, desk, 0), [[a], [b]])
    edited = answer(session, lease(session, desk, 1), [[b], [a]]).label
    excluded = answer(session, lease(session, desk, 2), [[b], [a]]).label
    labels.exclude(session, desk.project_id, [excluded.id], "spam", None)
    assert agreement.pairwise_agreement(session, desk.project_id).share == 0
    labels.revise(session, edited.id, edited.annotator_id, [[a], [b]])
    found = agreement.pairwise_agreement(session, desk.project_id)
    assert (found.share, found.pairs, sorted(found.by_annotator)) == (1, 1, desk.annotator_ids[:2])


def test_only_the_newest_comparisons_are_looked_at(session: Session) -> None:
    desk = make_desk(session, annotators=2, comparisons=2, k=2, responses=2)
    for comparison_id in desk.comparison_ids:
        a, b = response_ids(session, comparison_id)
        is_last = comparison_id == desk.comparison_ids[-1]
        answer(session, lease(session, desk, 0), [[a], [b]])
        answer(session, lease(session, desk, 1), [[a], [b]] if is_last else [[b], [a]])
    assert agreement.pairwise_agreement(session, desk.project_id).share == 0.5
    assert agreement.pairwise_agreement(session, desk.project_id, newest=1).share == 1


def test_of_partial_orders_the_responses_that_both_placed_are_compared(session: Session) -> None:
    """abd against bad, c left out by one and d by nobody: of (a, b), (a, d), (b, d) two agree; tau as scipy has it."""
    desk = make_desk(session, annotators=3, k=3, responses=4)
    set_form(session, desk, ranking={"partial": True}, all_bad=True)
    a, b, c, d = response_ids(session, desk.comparison_ids[0])
    answer(session, lease(session, desk, 0), [[a], [b], [d]])
    answer(session, lease(session, desk, 1), [[b], [c], [a], [d]])
    unordered = lease(session, desk, 2)
    labels.submit(session, unordered.id, unordered.annotator_id, [], answers={"all_bad": True})
    found = agreement.pairwise_agreement(session, desk.project_id)
    assert (found.share, found.pairs, found.rankings) == (pytest.approx(2 / 3), 3, 1)
    assert found.tau_b == pytest.approx(kendalltau((1, 2, 3), (2, 1, 3), variant="b").statistic)
    assert sorted(found.by_annotator) == desk.annotator_ids[:2]

"""Do annotators agree? On every pair of responses that two of them put into an order for the same comparison."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import CTE, Select, func, select
from sqlalchemy.orm import Session, aliased

from app.domain.filters import IS_NEWEST_REVISION
from app.tables import Label, LabelRank, LabelRevision


@dataclass(frozen=True)
class Agreement:
    """How much annotators agree, over all pairs of labels of the same comparison.

    `pairs` counts response pairs that both put into an order, `share` is the part they ordered alike. `tau_b` is the
    mean of Kendall's tau-b over the `rankings` pairs of labels for which it is defined. None: nothing to compare.
    """

    share: float | None
    pairs: int
    tau_b: float | None
    rankings: int


@dataclass(frozen=True)
class ProjectAgreement(Agreement):
    """The agreement in a project, and that of each annotator (by id) with all others."""

    by_annotator: dict[int, Agreement]


class _Met(NamedTuple):
    """Two labels of the same comparison: over the pairs of its responses, how they were ordered."""

    first: int
    second: int
    alike: int
    against: int
    ordered_by_first: int
    ordered_by_second: int

    def tau_b(self) -> float | None:
        """Kendall's tau-b; undefined where one of the two ties everything.

        (C - D) / sqrt((n0 - n1)(n0 - n2)), Kendall 1945: n0 - n1 are the pairs that the first one ordered.
        """
        ordered = math.sqrt(self.ordered_by_first * self.ordered_by_second)
        return (self.alike - self.against) / ordered if ordered else None


def pairwise_agreement(session: Session, project_id: int, newest: int = 2_000) -> ProjectAgreement:
    """The agreement of a project's annotators on the newest comparisons with several labels, of every purpose.

    Excluded and withdrawn labels take no part, nor do those without an order; of a partial ranking the responses that
    have a place do. An edited label says what it says now.
    """
    met = [_Met(*row) for row in session.execute(_meetings(project_id, newest))]
    annotators = sorted({id_ for one in met for id_ in (one.first, one.second)})
    whole = _sum(met)
    return ProjectAgreement(
        share=whole.share,
        pairs=whole.pairs,
        tau_b=whole.tau_b,
        rankings=whole.rankings,
        by_annotator={id_: _sum(one for one in met if id_ in (one.first, one.second)) for id_ in annotators},
    )


def _sum(met: Iterable[_Met]) -> Agreement:
    alike = against = 0
    taus = []
    for one in met:
        alike += one.alike
        against += one.against
        if (tau := one.tau_b()) is not None:
            taus.append(tau)
    pairs = alike + against
    return Agreement(
        share=alike / pairs if pairs else None,
        pairs=pairs,
        tau_b=math.fsum(taus) / len(taus) if taus else None,
        rankings=len(taus),
    )


def _meetings(project_id: int, newest: int) -> Select[int, int, int, int, int, int]:
    """One row for every two labels of the same comparison."""
    mine = _orders(project_id, newest)
    theirs = mine.alias("theirs")
    product = mine.c.sign * theirs.c.sign
    is_same_pair = (mine.c.above_id == theirs.c.above_id) & (mine.c.below_id == theirs.c.below_id)
    is_same_comparison = mine.c.comparison_id == theirs.c.comparison_id
    return (
        select(
            mine.c.annotator_id,
            theirs.c.annotator_id,
            func.count().filter(product > 0),
            func.count().filter(product < 0),
            func.count().filter(mine.c.sign != 0),
            func.count().filter(theirs.c.sign != 0),
        )
        .join(theirs, is_same_comparison & is_same_pair & (mine.c.label_id < theirs.c.label_id))
        .group_by(mine.c.label_id, mine.c.annotator_id, theirs.c.label_id, theirs.c.annotator_id)
    )


def _orders(project_id: int, newest: int) -> CTE:
    """How each label orders each two responses of its comparison: 1, -1, or 0 for a tie."""
    counts = (Label.project_id == project_id, Label.excluded_at.is_(None), Label.withdrawn_at.is_(None))
    several = (
        select(Label.comparison_id)
        .where(*counts)
        .group_by(Label.comparison_id)
        .having(func.count() > 1)
        .order_by(Label.comparison_id.desc())
        .limit(newest)
    )
    above, below = aliased(LabelRank), aliased(LabelRank)
    return (
        select(
            Label.id.label("label_id"),
            Label.comparison_id,
            Label.annotator_id,
            above.response_id.label("above_id"),
            below.response_id.label("below_id"),
            func.sign(below.rank - above.rank).label("sign"),
        )
        .join(LabelRevision, LabelRevision.label_id == Label.id)
        .join(above, above.revision_id == LabelRevision.id)
        .join(below, (below.revision_id == LabelRevision.id) & (below.response_id > above.response_id))
        .where(
            *counts,
            Label.comparison_id.in_(several),
            IS_NEWEST_REVISION,
        )
        .cte("mine")
    )

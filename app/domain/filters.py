"""Which rows are meant? Conditions that several rules share."""

from collections.abc import Mapping, Sequence
from typing import Literal

from sqlalchemy import BigInteger, ColumnElement, String, and_, any_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.domain import texts
from app.tables import Comparison, ComparisonResponse, Label, LabelRevision, Membership, Prompt, Purpose, Response

IS_UNTOUCHED = Comparison.openings == Comparison.k
IS_DONE = Comparison.submitted == Comparison.k
IS_NO_REPEAT = Comparison.purpose != Purpose.REPEAT  # those are for one annotator, who answers them once

# Of a response: its writer took back what they had written by then.
_WITHDRAWN = and_(
    Response.author_id.is_not(None),
    Membership.id == Response.author_id,
    Membership.withdrawn_at >= Response.created_at,
)
IS_WITHDRAWN = select(Membership.id).where(_WITHDRAWN).correlate(Response).exists()
# Of a comparison: it shows such a response.
SHOWS_WITHDRAWN = Comparison.id.in_(
    select(ComparisonResponse.comparison_id)
    .join(Response, Response.id == ComparisonResponse.response_id)
    .join(Membership, _WITHDRAWN)
)

# A label that is learned from, joined with its comparison.
LABEL_COUNTS = (
    Label.excluded_at.is_(None),
    Label.withdrawn_at.is_(None),
    Comparison.purpose == Purpose.TRAIN,
    ~SHOWS_WITHDRAWN,
)

_later = aliased(LabelRevision)
# What a label says now: no revision of it comes later.
IS_NEWEST_REVISION = ~(
    select(_later.id)
    .where(_later.label_id == LabelRevision.label_id, _later.number > LabelRevision.number)
    .correlate(LabelRevision)
    .exists()
)

Progress = Literal["untouched", "started", "done"]

PROGRESS: Mapping[Progress, ColumnElement[bool]] = {
    "untouched": IS_UNTOUCHED,
    "started": and_(~IS_UNTOUCHED, ~IS_DONE),
    "done": IS_DONE,
}


# In SQL text, of a comparison `c` and an annotator :annotator_id.
# It is assigned to nobody, or to this annotator among others.
FOR_ANNOTATOR = """
    (
        NOT EXISTS (SELECT FROM comparison_assignees s WHERE s.comparison_id = c.id)
        OR EXISTS (
            SELECT FROM comparison_assignees s WHERE s.comparison_id = c.id AND s.annotator_id = :annotator_id
        )
    )"""
# The annotator holds, answered or skipped it. A lease that ran out is no hindrance to getting it again.
# A set that is hashed once: asking the index for every comparison that somebody far ahead passes over takes twice as
# long and more (docs/experiments.md).
ASKED_BEFORE = """
    c.id IN (SELECT a.comparison_id FROM assignments a WHERE a.annotator_id = :annotator_id AND a.state <> 'expired')"""


def one_of(column: InstrumentedAttribute[int], ids: Sequence[int]) -> ColumnElement[bool]:
    """`column` is one of `ids`, which travel as one array: thousands are no problem."""
    return column == any_(literal(list(ids), ARRAY(BigInteger)))


def prompt_says(search: str) -> ColumnElement[bool]:
    """That one of a prompt's messages contains a text, in any case."""
    contents = cast(func.jsonb_path_query_array(Prompt.messages, cast("$[*].content", JSONPATH)), String)
    # As jsonb writes it, so that a search for a quote or a line break finds it.
    return texts.contains(contents, texts.canonical(search.strip())[1:-1])


def says(project_id: int, search: str) -> ColumnElement[bool]:
    """That a comparison of the project contains a text, in its prompt or in a response, in any case."""
    wanted = search.strip()
    prompts = select(Prompt.id).where(Prompt.project_id == project_id, prompt_says(wanted))
    members = (
        select(ComparisonResponse.comparison_id)
        .join(Response, Response.id == ComparisonResponse.response_id)
        .where(Response.project_id == project_id, texts.contains(Response.text, wanted))
    )
    return Comparison.prompt_id.in_(prompts) | Comparison.id.in_(members)

"""Which rows are meant? Conditions that several rules share."""

from collections.abc import Mapping, Sequence
from typing import Literal

from sqlalchemy import BigInteger, ColumnElement, String, and_, any_, cast, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONPATH
from sqlalchemy.orm import InstrumentedAttribute

from app.domain import texts
from app.tables import Comparison, ComparisonResponse, Label, Prompt, Purpose, Response

IS_UNTOUCHED = Comparison.openings == Comparison.k
IS_DONE = Comparison.submitted == Comparison.k

# A label that is learned from, joined with its comparison.
LABEL_COUNTS = (
    Label.excluded_at.is_(None),
    Label.withdrawn_at.is_(None),
    Comparison.purpose == Purpose.TRAIN,
)

Progress = Literal["untouched", "started", "done"]

PROGRESS: Mapping[Progress, ColumnElement[bool]] = {
    "untouched": IS_UNTOUCHED,
    "started": and_(~IS_UNTOUCHED, ~IS_DONE),
    "done": IS_DONE,
}


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

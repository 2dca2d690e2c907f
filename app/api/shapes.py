"""What do all bodies share? Checked text, rows read by their attributes, and pages that go on after an id."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Protocol, Self, TypeVar

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.domain import texts

_LARGEST_ID = 2**63 - 1

Id = Annotated[int, Field(ge=1, le=_LARGEST_ID)]
StrictId = Annotated[
    int, Field(strict=True, ge=1, le=_LARGEST_ID)
]  # neither "12" nor true, which are read as numbers else
PathId = Annotated[int, Path(ge=1, le=_LARGEST_ID)]
After = Annotated[int, Query(ge=0, le=_LARGEST_ID, description="Go on after this id: the last page's `next_after`.")]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows a page.")]


Search = Annotated[str | None, Query(description="Only rows whose text contains this.", max_length=1000)]


class Received(BaseModel):
    """A body that came in: unknown fields are refused, since they are mostly misspelt ones."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _can_be_stored(cls, data: Any) -> Any:
        if found := texts.flaw(data):
            raise ValueError(f"this cannot be kept: {found}")
        return data


class Shown(BaseModel):
    """A row that goes out."""

    model_config = ConfigDict(from_attributes=True)

    @classmethod
    def of(cls, row: object) -> Self:
        """The row's public side, field by field."""
        return cls.model_validate(row)


ShownT = TypeVar("ShownT", bound=BaseModel)


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


RowT = TypeVar("RowT", bound=_HasId)


class Page(BaseModel, Generic[ShownT]):
    """Rows in the order of their ids. New rows never shift a page, since it goes on after an id."""

    items: list[ShownT]
    next_after: int | None = Field(description="Ask for `after=` this to go on; null at the end.")


def page_of(rows: Sequence[RowT], limit: int, show: Callable[[RowT], ShownT]) -> Page[ShownT]:
    """A page of at most `limit` rows; it is the last one if it is not full."""
    return Page(items=[show(row) for row in rows], next_after=rows[-1].id if len(rows) == limit else None)

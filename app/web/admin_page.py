"""What do all admin pages share? Their frame, filters that survive in the address, pages of a list, bulk acts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, ConfigDict, field_validator

from app.errors import Invalid
from app.language import gettext as _
from app.tables import Project
from app.web.numbers import Id
from app.web.pages import page, redirect

PAGE_ROWS = 50
_BULK_ROWS = 2_000


class Identified(Protocol):
    """A row with a key that lists are ordered by."""

    id: Any


Row = TypeVar("Row")
Keyed = TypeVar("Keyed", bound=Identified)


class Filter(BaseModel):
    """What a list is narrowed to, from the address. An empty form field means that nothing is asked."""

    model_config = ConfigDict(extra="ignore")

    after: Id | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        return None if isinstance(value, str) and not value.strip() else value

    @property
    def asked(self) -> dict[str, Any]:
        """The conditions that are set, without the place in the list."""
        return self.model_dump(exclude_none=True, exclude={"after"})


@dataclass(frozen=True)
class Listing(Generic[Row]):
    """One page of a list. `more` and `start` are addresses: of the next rows, and of the first where this is not it."""

    rows: Sequence[Row]
    more: str | None
    start: str | None


def listing(request: Request, rows: Sequence[Row], key: Callable[[Row], int]) -> Listing[Row]:
    """A page of `PAGE_ROWS` out of up to one row more, which says that there is a next page."""
    here = request.url.remove_query_params(["after", "changed", "saved"])
    more = None
    if len(rows) > PAGE_ROWS:
        rows = rows[:PAGE_ROWS]
        more = _relative(here.include_query_params(after=key(rows[-1])))
    return Listing(rows, more, _relative(here) if "after" in request.query_params else None)


def _relative(url: Any) -> str:
    return f"{url.path}?{url.query}" if url.query else str(url.path)


def all_matching(fetch: Callable[[int | None, int], Sequence[Keyed]]) -> list[int]:
    """The ids of every row that `fetch(after_id, limit)` finds, in as many pages as it takes."""
    ids: list[int] = []
    rows = fetch(None, _BULK_ROWS)
    while rows:
        ids += [row.id for row in rows]
        rows = fetch(ids[-1], _BULK_ROWS) if len(rows) == _BULK_ROWS else []
    return ids


def chosen(ids: Sequence[int], everything: bool, fetch: Callable[[int | None, int], Sequence[Keyed]]) -> list[int]:
    """The rows that a bulk act is meant for: the ticked ones, or all that match the filter. Raises Invalid for none."""
    found = all_matching(fetch) if everything else list(ids)
    if not found:
        raise Invalid(_("Nothing is chosen: tick some rows, or choose all that match the filter."))
    return found


def admin_page(
    request: Request,
    project: Project,
    template: str,
    block: str | None = None,
    *,
    section: str,
    status_code: int = 200,
    **context: Any,
) -> HTMLResponse:
    """A page of the project's administration; `section` is the entry of the navigation that it belongs to."""
    root = f"/projects/{project.slug}/admin"
    answer = page(request, f"admin/{template}", block, project=project, root=root, section=section, **context)
    answer.status_code = status_code
    return answer


def back_to(request: Request, path: str, **told: int) -> Response:
    """Go to `path` with the filter of this request's address, and tell there what was done, such as `changed=3`."""
    url = request.url.replace(path=path).remove_query_params(["changed", "saved"]).include_query_params(**told)
    return redirect(_relative(url))


async def _sent(request: Request) -> dict[str, str]:
    return {name: value for name, value in (await request.form()).items() if isinstance(value, str)}


SentForm = Annotated[dict[str, str], Depends(_sent)]
"""The text fields of a form whose names are not known beforehand."""

"""Which numbers may stand in an address or a form? Those that a row can have; everything else is refused by name."""

import math
from typing import Annotated

from pydantic import Field

from app.errors import Invalid
from app.language import gettext as _
from app.language import grouped

Id = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""A row's key, a round's or snapshot's number, or a place in a list; larger ones the database cannot even look for."""


def whole(sent: str, what: str, least: int, most: int) -> int:
    """The whole number in a form's field. Raises Invalid, naming the field as `what`."""
    try:
        number = int(sent)
    except ValueError:
        number = None
    if number is None or not least <= number <= most:
        raise Invalid(
            _(
                "%(what)s must be a whole number between %(least)s and %(most)s.",
                what=what,
                least=grouped(least),
                most=grouped(most),
            )
        )
    return number


def decimal(sent: str, what: str, least: float, most: float) -> float:
    """The number in a form's field. Raises Invalid, naming the field as `what`."""
    try:
        number = float(sent)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise Invalid(
            _(
                "%(what)s must be a number between %(least)s and %(most)s.",
                what=what,
                least=f"{least:g}",
                most=f"{most:g}",
            )
        )
    return number

"""What did a ranking form say? A place for every response, from its fields rank_<response id>."""

import math
import re
from collections.abc import Mapping
from itertools import groupby
from typing import Annotated

from fastapi import Depends, Request
from starlette.datastructures import FormData

from app.errors import InvalidRanking
from app.tables import LabelRank

_RANK = re.compile(r"rank_([0-9]{1,19})")
_DAY = 86_400.0


async def _sent(request: Request) -> FormData:
    return await request.form()


SentForm = Annotated[FormData, Depends(_sent)]


def read_places(form: Mapping[str, object]) -> dict[int, str]:
    """What was written beside each response, as it was written."""
    return {int(found[1]): str(value).strip() for name, value in form.items() if (found := _RANK.fullmatch(name))}


def read_groups(form: Mapping[str, object]) -> list[list[int]]:
    """Response ids, best group first: equal places are ties, and places need not be dense. Raises InvalidRanking."""
    places = read_places(form)
    if any(not (place.isascii() and place.isdecimal() and len(place) < 4) for place in places.values()):
        raise InvalidRanking("Give every response a place: 1 for the best, equal numbers for ties.")
    ordered = sorted(places, key=lambda response_id: int(places[response_id]))
    return [list(group) for _, group in groupby(ordered, key=lambda response_id: int(places[response_id]))]


def read_seconds(form: Mapping[str, object]) -> float | None:
    """The time in front of the comparison that the page measured; None where it measured none."""
    try:
        seconds = float(str(form.get("seconds", "")))
    except ValueError:
        return None
    return min(seconds, _DAY) if math.isfinite(seconds) and seconds > 0 else None


def places_of(ranks: list[LabelRank]) -> dict[int, str]:
    """The places of a stored answer, as the form shows them."""
    return {rank.response_id: str(rank.rank) for rank in ranks}

"""What did a script of ours send? A JSON object."""

import json
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect

from app.errors import Invalid
from app.language import gettext as _


async def _object(request: Request) -> dict[str, Any]:
    try:
        sent = json.loads(await request.body())
    # Who has left in the middle of it, such as a tab that closed, is no fault of the server's.
    except (ValueError, RecursionError, ClientDisconnect):
        sent = None
    if not isinstance(sent, dict):
        raise Invalid(_("The body must be a JSON object."))
    return sent


SentObject = Annotated[dict[str, Any], Depends(_object)]
"""The request's body. Raises Invalid for everything else."""

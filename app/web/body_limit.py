"""How much may a request send? Its body is counted while it comes in, before anybody knows who sends it."""

from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.config import settings
from app.language import gettext as _

MEGABYTE = 1_000_000
FORM_MB = 4  # guidelines of 100,000 characters fit: in a form each may take nine bytes
API_MB = 16
FORM_OVERHEAD = 100_000  # bytes of a multipart form beside its file


def largest_upload() -> int:
    """The largest body of an import, in bytes."""
    return settings().max_upload_mb * MEGABYTE + FORM_OVERHEAD


class BodyLimit:
    """Refuses with 413 to read on once a body is longer than its address takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        largest, advice = _limit(scope["path"])
        received = 0

        async def receive_bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > largest:
                # Raised inside the handler that reads, so that pages and API each answer in their own way.
                reason = _(
                    "This is larger than %(megabytes)s MB, the most taken here. Nothing was taken.",
                    megabytes=largest // MEGABYTE,
                )
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{reason} {advice}")
            return message

        await self._app(scope, receive_bounded, send)


def _limit(path: str) -> tuple[int, str]:
    """The most bytes that an address takes, and what to do with more."""
    if path.startswith("/api/"):
        return API_MB * MEGABYTE, _("Send it in smaller parts.")
    if path.startswith("/projects/") and path.endswith("/admin/import"):
        return largest_upload(), _("Split the file, or have the server's PREFLOOP_MAX_UPLOAD_MB raised.")
    return FORM_MB * MEGABYTE, _("Send it in smaller parts.")

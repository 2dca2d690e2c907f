"""How does the API hang together? One application of its own under /api/v1, with its own errors and description."""

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from app.api import (
    comparisons,
    labelling,
    labels,
    members,
    policies,
    projects,
    prompts,
    responses,
    rounds,
    runs,
    snapshots,
)
from app.errors import PrefloopError

_log = logging.getLogger(__name__)

_DESCRIPTION = """
Everything of prefloop that a program needs: prompts and responses in, labelling itself, labels and snapshots out.

Every request carries a token: `Authorization: Bearer pl_...`. The account page makes tokens, and so does
`prefloop token create`. A token may do what its person may do: annotators label, admins do the rest.

A refusal is `{"error": {"code", "message", "details"}}` with a 4xx status; `message` says what to do about it.
Lists go on after an id: pass the last page's `next_after` as `after`.
"""


class Refusal(BaseModel):
    """Why a request was refused."""

    code: str
    message: str
    details: dict[str, object]


class RefusalBody(BaseModel):
    """The body of every answer with a status of 400 and above."""

    error: Refusal


def create_api() -> FastAPI:
    """The application to mount at /api/v1."""
    api = FastAPI(
        title="prefloop",
        version="1",
        description=_DESCRIPTION,
        openapi_url="/openapi.json",
        docs_url=None,  # the usual docs pages load scripts from elsewhere, which our content security policy forbids
        redoc_url=None,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
        strict_content_type=False,  # bodies are JSON, whatever curl calls them; a token is no cookie, so this is safe
        responses={
            status: {"model": RefusalBody, "description": description}
            for status, description in {
                401: "No valid token.",
                403: "Your role does not allow this.",
                404: "No such row, or none of your business.",
                409: "The row's state does not allow this; the message names it.",
                413: "The body is too long: send it in smaller parts.",
                422: "The body or a parameter breaks a rule; the message says which.",
            }.items()
        },
    )
    for room in (
        projects,
        members,
        prompts,
        responses,
        comparisons,
        labelling,
        labels,
        snapshots,
        rounds,
        runs,
        policies,
    ):
        api.include_router(room.router)
    api.add_exception_handler(PrefloopError, _refused)
    api.add_exception_handler(RequestValidationError, _malformed)
    api.add_exception_handler(HTTPException, _not_served)
    api.add_exception_handler(Exception, _failed)
    return api


def _answer(
    status: int, code: str, message: str, details: Mapping[str, object], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"error": {"code": code, "message": message, "details": dict(details)}}
    return JSONResponse(body, status_code=status, headers=dict(headers or {}))


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PrefloopError)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return _answer(error.status, error.code, str(error), error.details, headers)


def _malformed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [
        {"where": ".".join(str(step) for step in problem["loc"]), "reason": problem["msg"]}
        for problem in error.errors()[:100]
    ]
    message = "; ".join(f"{problem['where']}: {problem['reason']}" for problem in problems[:5])
    return _answer(422, "InvalidRequest", message, {"errors": problems})


def _not_served(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {404: "NotFound", 405: "MethodNotAllowed", 413: "TooLarge"}
    return _answer(error.status_code, codes.get(error.status_code, "Refused"), str(error.detail), {}, error.headers)


def _failed(request: Request, error: Exception) -> JSONResponse:
    _log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    message = "Something broke on our side; nothing was stored. The server's log says more."
    return _answer(500, "ServerError", message, {})

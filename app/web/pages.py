"""How does a handler answer? With a page, with one block of it for htmx, with a redirect, or with a refusal."""

import logging
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader
from starlette.exceptions import HTTPException

from app.config import resource
from app.domain.validation import reason
from app.errors import NotSignedIn, PrefloopError
from app.language import LANGUAGES, grouped, mark, percent, spoken, translated, translated_in, translated_plural
from app.language import gettext as _
from app.web.answer_words import answer_lines
from app.web.assets import asset, import_map
from app.web.guidelines import render_guidelines
from app.web.headers import policy
from app.web.questions import questions
from app.web.text import plain_text, render_markdown

_log = logging.getLogger(__name__)
_TITLES = {
    400: mark("Not understood"),
    401: mark("Not signed in"),
    403: mark("Not allowed"),
    404: mark("Not found"),
    405: mark("Not done here"),
    409: mark("Not possible now"),
    413: mark("Too large"),
    422: mark("Not accepted"),
    429: mark("Too many tries"),
    500: mark("Something broke"),
}
# The frame's own refusals come in English; ours, such as that of a body too large, say themselves what they mean.
_FRAMES_OWN = {
    400: mark("What was sent cannot be read. Go back and send it once more."),
    404: mark("There is no such page."),
    405: mark("This address is not asked in this way. Go back and try again from the page."),
}


@cache
def templates() -> Environment:
    """The template engine. Strings pass through gettext, in the language of the request."""
    environment = Environment(
        loader=FileSystemLoader(resource("templates")),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
    )
    install = environment.install_gettext_callables  # type: ignore[attr-defined]  # the extension adds it
    install(translated, translated_plural, newstyle=True, pgettext=translated_in)
    environment.filters |= {
        "markdown": render_markdown,
        "guidelines": render_guidelines,
        "plain_text": plain_text,
        "grouped": grouped,
        "percent": percent,
        "upper_first": upper_first,
    }
    environment.globals |= {"asset": asset, "import_map": import_map, "languages": LANGUAGES}
    environment.globals |= {"questions": questions, "answer_lines": answer_lines}
    return environment


def upper_first(text: str) -> str:
    """A text with a capital letter first and the rest as it is: PPO stays PPO, which `capitalize` writes Ppo."""
    return text[:1].upper() + text[1:]


def is_htmx(request: Request) -> bool:
    """Whether htmx asks for a part. After going back in history it wants the whole page."""
    return "hx-request" in request.headers and "hx-history-restore-request" not in request.headers


def wants_json(request: Request) -> bool:
    """Whether a script of ours asks for data instead of a page, or sends some."""
    return any(request.headers.get(name, "").startswith("application/json") for name in ("accept", "content-type"))


def page(request: Request, template: str, block: str | None = None, **context: Any) -> HTMLResponse:
    """A template rendered whole, or only its block `block` where htmx asked.

    A block's name is its element's id. Besides `context` a template sees `request`, `csp_nonce`, `visitor` (who is
    signed in, or None), `csrf` (for the hidden field of every form that posts) and `language`, which it is written in.
    """
    found = templates().get_template(template)
    variables = {
        "request": request,
        "csp_nonce": request.state.csp_nonce,
        "visitor": getattr(request.state, "visitor", None),
        "csrf": getattr(request.state, "csrf", ""),
        "language": spoken(),
        **context,
    }
    if block is not None and is_htmx(request):
        html = "".join(found.blocks[block](found.new_context(variables)))
    else:
        html = found.render(variables)
    # Pages hold what one person may see: nothing in between may keep them.
    headers = {"Vary": "HX-Request", "Cache-Control": "no-store", "Content-Language": spoken().tag}
    return HTMLResponse(html, headers=headers)


def redirect(path: str) -> Response:
    """Go to `path` after a post. htmx follows it too and gets the block it asked for."""
    return RedirectResponse(path, status_code=HTTPStatus.SEE_OTHER)


def local_path(path: str | None) -> str:
    """`path` if it leads to this server, else the start page: an address may not send people elsewhere."""
    is_local = path is not None and path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if path and is_local else "/"


def refused(request: Request, error: Exception) -> Response:
    """The page for an error a person can act on; for htmx a fragment that leaves what they were doing in place."""
    assert isinstance(error, PrefloopError)
    if isinstance(error, NotSignedIn) and request.method == "GET" and not (is_htmx(request) or wants_json(request)):
        here = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        return redirect(f"/sign-in?next={quote(here)}")
    return _error_page(request, error.status, str(error), error.code, error.details)


def malformed(request: Request, error: Exception) -> Response:
    """The page for a form or address that cannot be read."""
    assert isinstance(error, RequestValidationError)
    reasons = [f"{'.'.join(str(step) for step in found['loc'][1:])}: {reason(found)}" for found in error.errors()[:5]]
    return _error_page(request, 422, "; ".join(reasons), "Invalid")


def not_served(request: Request, error: Exception) -> Response:
    """The page for what the frame refuses: an address that does not exist, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    known = _FRAMES_OWN.get(error.status_code)
    return _error_page(request, error.status_code, _(known) if known else str(error.detail))


def failed(request: Request, error: Exception) -> Response:
    """The page for an error of ours."""
    _log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    answer = _error_page(
        request, 500, _("Something broke on our side; nothing was stored. The server's log says more.")
    )
    # This one answer leaves outside the middleware that sets the header on every other.
    answer.headers["Content-Security-Policy"] = policy(request.state.csp_nonce)
    return answer


def _title(status: int) -> str:
    return _(_TITLES[status]) if status in _TITLES else HTTPStatus(status).phrase


def _error_page(
    request: Request,
    status: int,
    message: str,
    code: str | None = None,
    details: Mapping[str, object] | None = None,
) -> Response:
    if wants_json(request):
        told = {"error": message, "code": code or HTTPStatus(status).name, "details": dict(details or {})}
        return JSONResponse(told, status, headers={"Cache-Control": "no-store"})
    answer = page(request, "error.html", "message", status=status, title=_title(status), message=message)
    answer.status_code = status
    if is_htmx(request):
        answer.headers["HX-Retarget"] = "#message"
        answer.headers["HX-Reswap"] = "innerHTML"
    return answer

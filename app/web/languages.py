"""Which language does a request want? The one its person chose, else its browser's cookie, else what it accepts."""

import re
from typing import Annotated

from fastapi import APIRouter, Form
from fastapi.responses import Response
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Receive, Scope, Send

from app.domain import people
from app.errors import Invalid
from app.language import ENGLISH, LANGUAGES, Language, language_of, speak
from app.language import gettext as _
from app.web.pages import local_path, redirect
from app.web.session import Database, Visit, set_cookie

LANGUAGE_COOKIE = "prefloop_language"
_COOKIE_SECONDS = 365 * 24 * 3600

router = APIRouter()


class Languages:
    """Lets every request be answered in its language, as far as its headers tell."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # Never set back, since every request has a context of its own: the page of an error that nobody foresaw
            # is made after this middleware has ended.
            headers = Headers(scope=scope)
            chosen = language_of(cookie_parser(headers.get("cookie", "")).get(LANGUAGE_COOKIE))
            speak(chosen or accepted(headers.get("accept-language", "")))
        await self._app(scope, receive, send)


async def speak_to(visit: Visit) -> None:
    """Speak to the person who is signed in as they chose. No `def`: a thread's choice would end with the thread."""
    if visit and (chosen := language_of(visit[1].language)):
        speak(chosen)


def accepted(header: str) -> Language:
    """The best language for an Accept-Language header (RFC 9110, section 12.5.4), English where none is wanted.

    Regions and scripts are left aside: whoever asks for zh-TW is better served with 简体中文 than with English.
    """
    wishes = sorted((_wish(part) for part in header.split(",")), key=lambda wish: -wish[1])
    named = {range_.partition("-")[0] for range_, _quality in wishes}
    refused = {range_ for range_, quality in wishes if quality == 0}
    for range_, quality in wishes:
        for language in LANGUAGES:
            is_meant = range_.partition("-")[0] == language.code or (range_ == "*" and language.code not in named)
            if quality > 0 and is_meant and language.code not in refused:
                return language
    return ENGLISH


def _wish(part: str) -> tuple[str, float]:
    """A language range and its quality. One that cannot be read counts as 0."""
    range_, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((parameter[2:] for parameter in parameters if parameter.startswith("q=")), "1")
    return range_, float(quality) if re.fullmatch(r"0(\.\d*)?|1(\.0*)?", quality) else 0.0


@router.post("/language")
def choose(
    session: Database,
    visit: Visit,
    language: Annotated[str, Form()] = "",
    next: Annotated[str | None, Form()] = None,  # noqa: A002 - the field's name
) -> Response:
    """Choose a language for this browser and, where signed in, for oneself. An empty one: as the browser asks."""
    chosen = language_of(language)
    if language and chosen is None:
        names = _(", ").join(known.name for known in LANGUAGES)
        raise Invalid(_("These pages do not speak that language. They speak: %(names)s.", names=names))
    if visit is not None:
        people.choose_language(session, visit[1], chosen)
    answer = redirect(local_path(next))
    keep_language(answer, chosen)
    return answer


def keep_language(answer: Response, chosen: Language | None) -> None:
    """Let the browser know the choice, for pages that know no person: before signing in, and where there is no page."""
    if chosen is None:
        answer.delete_cookie(LANGUAGE_COOKIE)
    else:
        set_cookie(answer, LANGUAGE_COOKIE, chosen.code, _COOKIE_SECONDS)

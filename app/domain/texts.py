"""Which texts can be kept? Postgres takes neither NUL nor half a surrogate pair, and nobody wants a name of 5 MB."""

import hashlib
import json
import math
import secrets

from sqlalchemy import ColumnElement, false
from sqlalchemy.orm import InstrumentedAttribute

from app.errors import Invalid
from app.language import gettext as _
from app.language import grouped

_DEEPEST = 20


def sha256(text: str) -> str:
    """The sha256 of a text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def new_secret() -> tuple[str, str]:
    """A secret to hand out once, and the hash to store."""
    secret = secrets.token_urlsafe(32)
    return secret, secret_hash(secret)


def secret_hash(secret: str) -> str:
    """The hash under which a secret is stored. Text that cannot be a secret, such as half an emoji, fits no row."""
    return sha256(secret if secret.isascii() else "")


def canonical(value: object) -> str:
    """JSON in the one form that equal values share."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def flaw(value: object, depth: int = 0) -> str | None:
    """What keeps a JSON value out of the database, or None: NUL, half an emoji, NaN, nesting without end."""
    if isinstance(value, str):
        return _text_flaw(value)
    if isinstance(value, float) and not math.isfinite(value):
        return _("a number is too large or not a number")
    if depth > _DEEPEST:
        return _("it is nested more than %(depth)s deep", depth=_DEEPEST)
    parts: list[object] = []
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        parts = list(value)
    return next((found for part in parts if (found := flaw(part, depth + 1))), None)


def _text_flaw(text: str) -> str | None:
    if "\x00" in text:
        return _("it holds a NUL character (\\u0000)")
    try:
        text.encode()
    except UnicodeEncodeError:
        return _("it holds half of a surrogate pair (\\ud800 to \\udfff)")
    return None


def line(value: str, what: str, *, longest: int = 200) -> str:
    """A text of one line, trimmed. Raises Invalid, naming `what`, where it is empty, too long or unprintable."""
    kept = value.strip()
    if not kept:
        raise Invalid(_("%(what)s is empty.", what=what))
    if len(kept) > longest:
        raise Invalid(_("%(what)s is longer than %(longest)s characters.", what=what, longest=longest))
    if flaw(kept) or not all(character.isprintable() for character in kept):
        raise Invalid(_("%(what)s holds characters that cannot be shown, such as line breaks.", what=what))
    return kept


def unix_lines(text: str) -> str:
    """A text whose lines end with line feeds alone, whichever way they ended: a form's field keeps no difference."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def document(value: str, what: str, *, longest: int = 100_000) -> str:
    """A text of many lines, with Unix line ends. Raises Invalid, naming `what`, where it is too long."""
    kept = unix_lines(value).strip()
    if len(kept) > longest:
        raise Invalid(_("%(what)s is longer than %(longest)s characters.", what=what, longest=grouped(longest)))
    if found := flaw(kept):
        raise Invalid(_("%(what)s cannot be kept: %(reason)s.", what=what, reason=found))
    return kept


def contains(column: ColumnElement[str] | InstrumentedAttribute[str], search: str) -> ColumnElement[bool]:
    """That a column holds `search` somewhere, in any case; % and _ mean themselves."""
    if flaw(search):
        return false()
    return column.icontains(search.strip(), autoescape=True)

"""In which language is a person spoken to? Every sentence that people read passes through `gettext`."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal, format_percent
from babel.support import NullTranslations, Translations

CATALOGUES = Path(__file__).parent / "locale"


@dataclass(frozen=True)
class Language:
    """A language that the pages speak."""

    code: str  # in the database, in the cookie and in the catalogue's path
    tag: str  # for HTML and HTTP (BCP 47)
    name: str  # in the language itself

    @property
    def catalogue(self) -> Path:
        """The file with its translations."""
        return CATALOGUES / self.code / "LC_MESSAGES" / "prefloop.po"


ENGLISH = Language("en", "en", "English")
LANGUAGES = (ENGLISH, Language("zh", "zh-Hans", "简体中文"))
_spoken: ContextVar[Language] = ContextVar("spoken", default=ENGLISH)


def spoken() -> Language:
    """The language of this request. English where nobody asked: in the worker, at the command line."""
    return _spoken.get()


def speak(language: Language) -> None:
    """Go on in `language`, in the rest of this request."""
    _spoken.set(language)


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Say what is inside in `language`."""
    token = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(token)


def language_of(code: str | None) -> Language | None:
    """The language with this code, None for one that is not spoken here."""
    return next((language for language in LANGUAGES if language.code == code), None)


def gettext(message: str, **values: object) -> str:
    """The sentence in the request's language, its %(name)s filled in with `values`."""
    found = translated(message)
    return found % values if values else found


def ngettext(singular: str, plural: str, num: int, **values: object) -> str:
    """The sentence that goes with `num`, which fills %(num)s."""
    return translated_plural(singular, plural, num) % {"num": num, **values}


def mark(message: str) -> str:
    """`message` itself, collected for translation: for constants, which `gettext` speaks where they are shown."""
    return message


def translated(message: str) -> str:
    """The sentence in the request's language, its %(name)s still empty."""
    # The empty message is the catalogue's own header.
    return _catalogue(spoken()).gettext(message) if message else ""


def translated_in(context: str, message: str) -> str:
    """The sentence that `message` is in one context, where English has one word for two things."""
    return str(_catalogue(spoken()).pgettext(context, message))


def translated_plural(singular: str, plural: str, num: int) -> str:
    """The sentence that goes with `num`, its %(name)s still empty."""
    return _catalogue(spoken()).ngettext(singular, plural, num)


def grouped(value: float) -> str:
    """A number with its thousands set apart, as the request's language writes it."""
    return format_decimal(value, locale=_locale(spoken()))


def percent(share: float) -> str:
    """A share between 0 and 1 as whole percents."""
    return format_percent(share, locale=_locale(spoken()))


@cache
def _locale(language: Language) -> Locale:
    return Locale.parse(language.tag, sep="-")


@cache
def _catalogue(language: Language) -> NullTranslations:
    """The translations, compiled when they are first needed: what is committed is the text that people edit alone."""
    if language == ENGLISH:
        return NullTranslations()
    compiled = BytesIO()
    with language.catalogue.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language.code))
    compiled.seek(0)
    return Translations(compiled)

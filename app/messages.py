"""Which sentences are there to translate? Collects them from code, templates and tables into the catalogues."""

from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po, write_po

from app.config import resource
from app.language import ENGLISH, LANGUAGES, Language
from app.tables.base import Explained
from app.web.settings_form import fieldsets

_KEYWORDS = {**DEFAULT_KEYWORDS, "mark": None}
_HEADER = "# What the pages say, in another language. How to translate: docs/translating.md"
_METHODS = [("**.py", "python"), ("**.html", "jinja2")]
_AS_RENDERED = {"**.html": {"trim_blocks": "true", "lstrip_blocks": "true", "silent": "false"}}


def collect() -> Catalog:
    """Every message that a page may show, with the files it stands in."""
    catalogue = Catalog(project="prefloop")
    for folder in (Path(__file__).parent, Path(__file__).parent.parent / "worker", resource("templates")):
        found = extract_from_dir(folder, method_map=_METHODS, options_map=_AS_RENDERED, keywords=_KEYWORDS)
        for path, _line, message, comments, context in found:
            catalogue.add(message, locations=[(f"{folder.name}/{path}", 0)], auto_comments=comments, context=context)
    for message in _said_by_tables():
        catalogue.add(message, locations=[("app/tables", 0)])
    for message in _said_by_settings():
        catalogue.add(message, locations=[("app/domain/settings.py", 0)])
    return catalogue


def _said_by_tables() -> Iterator[str]:
    """The values of the tables' enums, as pages write them, and what they mean."""
    for enum in Explained.__subclasses__():
        for member in enum:
            yield member.value.replace("_", " ")
            yield member.meaning


def _said_by_settings() -> Iterator[str]:
    """What the form of a project's settings says of itself."""
    for part in fieldsets({}, {}):
        yield part.title
        yield from filter(None, [part.description])
        for field in part.fields:
            yield field.label
            if not part.is_advanced:  # there it is the worker's own value
                yield field.description
            yield from (choice.replace("_", " ") for choice in field.choices)


def read_catalogue(language: Language) -> Catalog:
    """The translations into a language, empty where there are none yet."""
    if not language.catalogue.exists():
        return Catalog(
            locale=language.tag.replace("-", "_"),
            project="prefloop",
            version="1",
            header_comment=_HEADER,
            msgid_bugs_address="the project",
            last_translator="the project",
            language_team="the project",
            fuzzy=False,
        )
    with language.catalogue.open("rb") as file:
        return read_po(file, locale=language.code)


def translations_of(message: Message) -> tuple[str, ...]:
    """The translation, in every plural form that the language has. Empty texts are still to come."""
    return (message.string or "",) if isinstance(message.string, str | None) else tuple(message.string)


def update() -> None:
    """Bring every catalogue up to date: new messages in, unused ones out, translations kept."""
    collected = collect()
    for language in LANGUAGES:
        if language == ENGLISH:
            continue
        catalogue = read_catalogue(language)
        catalogue.update(collected, no_fuzzy_matching=True)
        catalogue.revision_date = catalogue.creation_date
        for message in catalogue:
            message.locations.sort()  # messages are sorted by them, and should keep their places
        language.catalogue.parent.mkdir(parents=True, exist_ok=True)
        with language.catalogue.open("wb") as file:
            write_po(file, catalogue, width=120, sort_by_file=True, include_lineno=False, ignore_obsolete=True)
        left = sum(not all(translations_of(message)) for message in catalogue if message.id)
        print(f"{language.name}: {left} to translate")  # noqa: T201


if __name__ == "__main__":
    update()

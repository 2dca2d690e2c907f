"""Are people spoken to in their language, everywhere, and does nothing stay untranslated?"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from jinja2 import nodes
from sqlalchemy.orm import Session, sessionmaker

from app import errors
from app.config import resource
from app.language import (
    ENGLISH,
    LANGUAGES,
    Language,
    gettext,
    grouped,
    mark,
    ngettext,
    percent,
    speaking,
    translated_in,
)
from app.main import create_app
from app.messages import collect, read_catalogue, translations_of
from app.tables import Person
from app.web.languages import LANGUAGE_COOKIE, accepted
from app.web.pages import templates
from tests.factories import PASSWORD, make_person
from tests.web.reading import NAMES, texts_of, words_of
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]
ROOT = Path(__file__).parent.parent.parent
CHINESE = LANGUAGES[1]
CODE = [path for room in ("domain", "web", "api") for path in sorted((ROOT / "app" / room).rglob("*.py"))]
TEMPLATES = sorted(path.relative_to(resource("templates")).as_posix() for path in resource("templates").rglob("*.html"))

# The catalogues


@pytest.mark.parametrize(
    "language", [language for language in LANGUAGES if language != ENGLISH], ids=lambda language: language.code
)
def test_catalogue_holds_every_message_and_no_other(language: Language) -> None:
    wanted = {(message.context, message.id) for message in collect() if message.id}
    held = {(message.context, message.id): message for message in read_catalogue(language) if message.id}
    assert wanted - set(held) == set(), "run `make messages`, then translate them"
    assert set(held) - wanted == set(), "run `make messages`"
    assert [key for key, message in held.items() if message.fuzzy or not all(translations_of(message))] == []


def test_translations_keep_what_is_filled_in() -> None:
    wrong = []
    for message in read_catalogue(CHINESE):
        originals = (message.id,) if isinstance(message.id, str) else tuple(message.id)
        names = [_filled_in(original) for original in originals]
        # A plural may leave its number out, as "one" does in English.
        allowed = {frozenset(name) for name in names} | {frozenset(set.union(*names))}
        if message.id:
            wrong += [text for text in translations_of(message) if text and frozenset(_filled_in(text)) not in allowed]
    assert wrong == []


def _filled_in(text: str) -> set[str]:
    return set(re.findall(r"%\(\w+\)[a-z]|\{\w+\}|%%", text))


def test_numbers_choose_their_form() -> None:
    forms = ("%(num)s row changed.", "%(num)s rows changed.")
    assert [ngettext(*forms, number) for number in (0, 1, 2)] == [
        "0 rows changed.",
        "1 row changed.",
        "2 rows changed.",
    ]
    with speaking(CHINESE):
        assert {ngettext(*forms, number).replace(str(number), "N") for number in (0, 1, 2)} == {
            ngettext(*forms, 7).replace("7", "N")
        }
        assert "row" not in ngettext(*forms, 7)


def test_sentences_are_filled_in_and_unknown_ones_stand_as_they_are() -> None:
    sentence = mark("There is no prompt %(number)s in this project.")
    assert gettext(sentence, number=3) == "There is no prompt 3 in this project."
    with speaking(CHINESE):
        assert "3" in gettext(sentence, number=3)
        assert "prompt" not in gettext(sentence, number=3)
        assert gettext("100 % of nothing") == "100 % of nothing"
        assert gettext("") == ""
        assert translated_in("of a score", "Step") != gettext("Step")
        assert (grouped(1234567), percent(0.62)) == ("1,234,567", "62%")


# The code and the templates


def _refusals(kind: type[Exception] = errors.PrefloopError) -> set[str]:
    return {kind.__name__}.union(*(_refusals(child) for child in kind.__subclasses__()))


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_refusals_pass_through_gettext(path: Path) -> None:
    # A stale attempt is told to the worker alone. In the domain, what pydantic's validators raise is shown too.
    kinds = _refusals() - {"StaleAttempt"} | ({"ValueError"} if path.parent.name == "domain" else set())
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    said = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id in kinds and call.args]
    said += [word.value for call in calls for word in call.keywords if word.arg and word.arg.endswith("error")]
    plain = [ast.unparse(node) for node in said if isinstance(node, ast.JoinedStr | ast.BinOp) or _is_text(node)]
    assert plain == []


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(node.value)


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_underscore_means_one_thing(path: Path) -> None:
    """A module that speaks through `_` throws nothing away into it, which would silence a whole function."""
    tree = ast.parse(path.read_text())
    speaks = any(isinstance(node, ast.alias) and node.asname == "_" for node in ast.walk(tree))
    inside = {
        id(name) for node in ast.walk(tree) if isinstance(node, ast.comprehension) for name in ast.walk(node.target)
    }
    thrown = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "_" and isinstance(node.ctx, ast.Store) and id(node) not in inside
    ]
    assert not speaks or thrown == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_say_nothing_past_gettext(name: str) -> None:
    source = (resource("templates") / name).read_text()
    html = "".join(value for _line, kind, value in templates().lex(source) if kind == "data")
    assert [text for text in texts_of(html) if words_of(text)] == []
    assert list(_sentences(templates().parse(source))) == []


_READABLE = r".*[A-Za-z]{2} [A-Za-z]{2}.*|^[A-Z][a-z]+$"


def _sentences(node: nodes.Node) -> Iterator[str]:
    """The literals in expressions that look like something to read and are no gettext's."""
    if (
        isinstance(node, nodes.Call)
        and isinstance(node.node, nodes.Name)
        and node.node.name in {"_", "ngettext", "pgettext"}
    ):
        for argument in [*node.args[2:], *node.kwargs]:
            yield from _sentences(argument)
        return
    if isinstance(node, nodes.Const) and isinstance(node.value, str) and node.value not in NAMES:
        yield from re.findall(_READABLE, node.value)
    for child in node.iter_child_nodes():
        yield from _sentences(child)


# Which language


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-US,en;q=0.9,zh-CN;q=0.8", "en"),
        ("zh-Hant-TW, en;q=0.5", "zh"),
        ("ZH", "zh"),
        ("fr, de;q=0.8", "en"),
        ("fr, zh;q=0.1", "zh"),
        ("en;q=0.2, zh;q=0.3", "zh"),
        ("en;q=0.5, zh;q=0.5", "en"),
        ("zh;q=0, *", "en"),
        ("zh;q=0, zh-CN", "en"),
        ("zh;q=0.0, en;q=0", "en"),
        ("*", "en"),
        ("en;q=0, *;q=0.5", "zh"),
        ("*;q=0.9, en;q=0.1", "zh"),
        ("zhx, english", "en"),
        ("zh;q=nan, en;q=0.1", "en"),
        ("zh;q=7", "en"),
        (";q=, ,;;;", "en"),
    ],
)
def test_browser_is_answered_as_it_asks(header: str, code: str) -> None:
    assert accepted(header).code == code


def _language(html: str) -> str:
    found = re.search(r'<html lang="([^"]+)"', html)
    assert found
    return found[1]


def test_sign_in_page_speaks_chinese(visitor: Visitor) -> None:
    answer = visitor.get("/sign-in", **{"Accept-Language": "zh-CN,zh;q=0.9"})
    assert (_language(answer.text), answer.headers["content-language"]) == ("zh-Hans", "zh-Hans")
    assert "登录" in answer.text
    english = visitor.get("/sign-in", **{"Accept-Language": "en-US"})
    assert (_language(english.text), english.headers["content-language"]) == ("en", "en")


def test_language_is_chosen_before_signing_in(visitor: Visitor) -> None:
    visitor.get("/sign-in?next=/account")
    chosen = visitor.post("/language", {"language": "zh", "next": "/sign-in?next=/account"})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/sign-in?next=/account")
    assert _language(visitor.get("/sign-in", **{"Accept-Language": "en"}).text) == "zh-Hans"
    assert "没有" in visitor.get("/no-such-page", **{"Accept-Language": "en"}).text
    visitor.post("/language", {"language": ""})
    assert LANGUAGE_COOKIE not in visitor.client.cookies
    assert _language(visitor.get("/sign-in", **{"Accept-Language": "en"}).text) == "en"


@pytest.mark.parametrize("language", ["tlh", "zh-CN", "\x00"])
def test_language_that_is_not_spoken_is_refused(visitor: Visitor, language: str) -> None:
    visitor.get("/sign-in")
    refused = visitor.post("/language", {"language": language})
    assert refused.status_code == 422
    assert "简体中文" in refused.text


def test_persons_choice_holds_in_every_browser(committed: Committed, visit_as: VisitAs, visitor: Visitor) -> None:
    with committed.begin() as session:
        person = make_person(session, "Ada", password=PASSWORD)
    first = visit_as(person)
    first.get("/account")
    assert first.post("/language", {"language": "zh", "next": "/account?saved=1"}).status_code == 303
    other = visit_as(person)
    other.client.cookies.set(LANGUAGE_COOKIE, "en")
    page = other.get("/account", **{"Accept-Language": "en"}).text
    assert _language(page) == "zh-Hans"
    assert re.search(r'<option value="zh"[^>]*selected', page)
    # Refusals, too, speak as the person chose, and signing in lets the browser know.
    assert "没有" in other.get("/projects/nowhere/desk", **{"Accept-Language": "en"}).text
    visitor.get("/sign-in")
    visitor.post("/sign-in", {"email": person.email or "", "password": PASSWORD})
    assert visitor.client.cookies[LANGUAGE_COOKIE] == "zh"
    other.post("/language", {"language": "", "next": "/account"})
    assert _language(other.get("/account", **{"Accept-Language": "en"}).text) == "en"


def test_error_of_ours_is_told_in_the_language_asked_for(database_url: str) -> None:
    application = create_app()

    @application.get("/broken")
    def broken() -> None:
        raise RuntimeError

    with TestClient(application, raise_server_exceptions=False) as client:
        answer = client.get("/broken", headers={"Accept-Language": "zh"})
        assert (answer.status_code, _language(answer.text)) == (500, "zh-Hans")
        assert "出错" in answer.text
        assert _language(client.get("/broken").text) == "en"


def test_api_refuses_in_the_language_asked_for(visitor: Visitor) -> None:
    message = visitor.get("/api/v1/projects").json()["error"]["message"]
    assert message.startswith("Send a valid token")
    translated = visitor.get("/api/v1/projects", **{"Accept-Language": "zh"}).json()["error"]["message"]
    assert translated == _in_chinese(message)


def _in_chinese(message: str) -> str:
    with speaking(CHINESE):
        return gettext(message)

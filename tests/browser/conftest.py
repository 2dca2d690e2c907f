"""A real Chromium before a real server, both with real commits."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy.orm import Session, sessionmaker

from app.domain import sign_in as identity
from app.main import create_app
from app.tables import Person
from app.web.session import SESSION_COOKIE
from tests.browser.chromium import ARGUMENTS, executable
from tests.browser.desk_page import DeskPage
from tests.browser.desk_work import Asked, make_asked

AXE = (Path(__file__).parent.parent.parent / "node_modules" / "axe-core" / "axe.min.js").read_text()
PATIENCE = 15_000  # milliseconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests: the machine's, else Playwright's own. None at all is an error, never a skip."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def _uvicorn() -> Iterator[uvicorn.Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server ended"
        time.sleep(0.05)
    yield server
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="session")
def _running(_uvicorn: uvicorn.Server) -> str:
    return f"http://127.0.0.1:{_uvicorn.config.port}"


@pytest.fixture
def server(_uvicorn: uvicorn.Server, _running: str, database_url: str) -> Iterator[str]:
    """The address of a server on this test's own database."""
    httpx.get(f"{_running}/healthz", timeout=30).raise_for_status()
    yield _running
    # A page that closes still sends its draft: it belongs to this test's database, not to the next one's.
    time.sleep(0.05)
    while _uvicorn.server_state.tasks:
        time.sleep(0.02)


Browse = Callable[..., Page]


@pytest.fixture
def browse(chromium: Browser, server: str) -> Iterator[Browse]:
    """Opens browsers of their own: `browse(**settings of a Playwright context)` gives a page.

    At the end no page may have logged an error, such as a breach of the content security policy.
    """
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(**settings: object) -> Page:
        context = chromium.new_context(**{"base_url": server, **settings})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def browser_page(browse: Browse) -> Page:
    """A page of a desktop browser."""
    return browse(viewport={"width": 1440, "height": 900})


@pytest.fixture
def sign_in(committed: sessionmaker[Session], server: str) -> Callable[[Page, Person], None]:
    """`sign_in(page, person)`: gives the page's browser a session of the person."""

    def enter(page: Page, person: Person) -> None:
        with committed.begin() as session:
            _, secret = identity.open_session(session, person)
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": server}])

    return enter


@pytest.fixture
def sit(
    committed: sessionmaker[Session], browse: Browse, sign_in: Callable[[Page, Person], None]
) -> Callable[..., tuple[DeskPage, Asked]]:
    """`sit(form, texts, number, **browser settings)`: somebody at the desk of a project that asks `form`."""

    def down(
        form: Mapping[str, object], texts: Sequence[str] | int = 3, number: int = 2, **settings: object
    ) -> tuple[DeskPage, Asked]:
        asked = make_asked(committed, form, texts, number)
        page = browse(**{"viewport": {"width": 1440, "height": 900}, **settings})
        sign_in(page, asked.person)
        return DeskPage(page, asked.project).open(), asked

    return down


@pytest.fixture
def no_violations() -> Callable[[Page], None]:
    """`no_violations(page)`: axe-core finds nothing against WCAG 2.2 AA on the page as it stands."""

    def check(page: Page) -> None:
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        page.evaluate(f"() => {{ {AXE} }}")  # here alone: read at every start of a page, it is a third of its work
        found = page.evaluate("tags => axe.run(document, {runOnly: tags})", tags)["violations"]
        problems = [
            f"{violation['id']}: {violation['help']} at {node['target']} ({node['failureSummary']})"
            for violation in found
            for node in violation["nodes"]
        ]
        assert problems == [], "\n".join(problems)

    return check

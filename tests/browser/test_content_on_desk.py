"""Are real answers of every kind whole and readable on the real desk, on desktop and phone, in both themes?"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from app.domain import people, projects
from app.tables import Person, Role
from tests.browser.desk_page import DeskPage
from tests.browser.test_desk import add_comparison
from tests.factories import make_person, make_project, make_prompt

Browse = Callable[..., Page]
SignIn = Callable[[Page, Person], None]
Check = Callable[[Page], None]

CONTENT = Path(__file__).parent.parent.parent.parent / "shared" / "data" / "loadtest_content" / "content.jsonl"
NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
STICKS_OUT = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def rows(*tags: str) -> list[dict[str, str]]:
    """The first real answer with each of `tags`; none where the shared folder is absent."""
    if not CONTENT.exists():
        return []
    found = [json.loads(line) for line in CONTENT.read_text().splitlines()]
    return [next(row for row in found if tag in row["tags"]) for tag in tags]


TAGS = ("code_fence", "latex", "md_table", "cjk", "html", "accent_or_cyrillic_arabic")


@pytest.mark.skipif(not CONTENT.exists(), reason="the shared folder with real answers is not here")
def test_real_answers_on_the_desk(
    browse: Browse, sign_in: SignIn, committed: sessionmaker[Session], no_violations: Check
) -> None:
    with committed.begin() as session:
        project = make_project(session, name="Real answers")
        person = make_person(session, "Ann")
        people.add_member(session, project, person, Role.ANNOTATOR)
        for row in rows(*TAGS):
            add_comparison(session, project, make_prompt(session, project, row["prompt"]), [row["response"], "Short."])
    page = browse(viewport=WIDE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    sign_in(page, person)
    desk = DeskPage(page, project).open()
    has_had_math = False
    for index in range(len(TAGS)):
        expect(page.locator(".math:not([data-typeset])")).to_have_count(0)
        has_had_math |= page.locator(".math").count() > 0
        # Without math in sight it may have come for a comparison ahead.
        assert any("katex" in url for url in asked) or not has_had_math
        for size in (NARROW, WIDE):
            page.set_viewport_size(size)
            assert page.evaluate(STICKS_OUT) == 0
        page.emulate_media(color_scheme="light" if index % 2 else "dark")
        no_violations(page)
        if index < len(TAGS) - 1:
            shown = desk.assignment
            desk.press("1", "2", "Enter")
            desk.next_assignment(shown)
    assert has_had_math
    assert [url for url in asked if not url.startswith(("http://127.0.0.1", "blob:"))] == []


GUIDELINES = "Prefer $a^2 + b^2$ to prose.\n\n```python\nprint(1)\n```\n"


@pytest.mark.parametrize("page_name", ["consent", "guidelines"])
def test_guidelines_are_typeset_and_copied_on_pages_of_their_own(
    browse: Browse, sign_in: SignIn, committed: sessionmaker[Session], no_violations: Check, page_name: str
) -> None:
    with committed.begin() as session:
        project = make_project(session, name="Guided")
        person = make_person(session, "Ann")
        people.add_member(session, project, person, Role.ANNOTATOR)
        projects.new_version(
            session, project, guidelines=GUIDELINES, consent_text="We keep $x_1$.", judgement_form=None, by=None
        )
    page = browse(viewport=WIDE, permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, person)
    page.goto(f"/projects/{project.slug}/{page_name}")
    expect(page.locator(".math .katex")).to_have_count(2 if page_name == "consent" else 1)
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()").strip() == "print(1)"
    no_violations(page)

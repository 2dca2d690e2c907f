"""Whole answers in lists: readable on a phone and to a screen reader, in both themes."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page
from sqlalchemy.orm import Session, sessionmaker

from app.tables import Person
from tests.browser.conftest import Browse
from tests.whole_answers import make_whole_answers

Committed = sessionmaker[Session]


@pytest.mark.parametrize("width", [390, 1280])
def test_labels_are_read_everywhere(
    committed: Committed,
    browse: Browse,
    sign_in: Callable[[Page, Person], None],
    no_violations: Callable[[Page], None],
    width: int,
) -> None:
    with committed.begin() as session:
        place = make_whole_answers(session)
    page = browse(viewport={"width": width, "height": 844})
    sign_in(page, place.admin)
    page.goto(f"{place.root}/labels")
    page.get_by_role("link", name=re.compile("^1$")).first.click()
    page.get_by_role("heading", name="Whole answers").wait_for()
    addresses = [page.url, f"{place.root}/labels"]
    annotator = browse(viewport={"width": width, "height": 844})
    sign_in(annotator, place.annotator)
    seen = [(page, address) for address in addresses] + [(annotator, f"/projects/{place.project.slug}/labels")]
    for reader, address in seen:
        reader.goto(address)
        summary = reader.get_by_text("<b>Line one.</b>").first
        summary.click()
        assert reader.get_by_text("Line two.").last.is_visible()
        assert reader.evaluate("document.documentElement.scrollWidth <= innerWidth")
        for theme in ("light", "dark"):
            reader.emulate_media(color_scheme=theme)
            no_violations(reader)

"""Can a reward model's card be read by eye and by a screen reader, in both themes, on a desk and on a phone?"""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects
from app.tables import Person
from tests.admin_project import make_admin_project
from tests.reward_cards import CARD, make_reward_model

FORM = {
    "criteria": [
        {"key": "helpful", "name": "Helpful", "required": False},
        {"key": "brief", "name": "Brief", "required": False},
    ]
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (360, 740)], ids=["desk", "phone"])
def test_card_of_a_reward_model(
    theme: str,
    size: tuple[int, int],
    committed: sessionmaker[Session],
    browse: Callable[..., Page],
    sign_in: Callable[[Page, Person], None],
    no_violations: Callable[[Page], None],
) -> None:
    with committed.begin() as session:
        place = make_admin_project(session)
        projects.new_version(session, place.project, guidelines="", consent_text="", judgement_form=FORM, by=None)
        model = make_reward_model(session, place, CARD)
    page = browse(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    sign_in(page, place.admin)
    page.goto(f"{place.root}/rounds/1")
    page.get_by_role("link", name="Its card").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Reward model {model.id}")
    drawing = page.get_by_role("img", name="How often it is right, by how sure it is")
    expect(drawing).to_be_visible()
    assert drawing.locator("circle").count() == 4
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    no_violations(page)
    page.get_by_text("The curve of each part", exact=True).click()
    expect(page.get_by_role("img", name="grade 3 of 3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    no_violations(page)
    page.get_by_text("The whole card", exact=True).click()
    expect(page.locator("pre.log")).to_contain_text('"ece_by_chance": 0.045')

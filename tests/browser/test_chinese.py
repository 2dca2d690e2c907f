"""Does Chinese fit? Every page for a person who reads it, on a desk and on a phone, by eye and by screen reader."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy.orm import Session, sessionmaker

from app.domain import rounds
from app.tables import Person
from tests.admin_project import AdminProject, make_admin_project, make_comparisons, make_label
from tests.factories import PASSWORD, make_person

Committed = sessionmaker[Session]
SignIn = Callable[[Page, Person], None]
Browse = Callable[..., Page]
VIEWPORTS = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session, "睡前故事")
        make_comparisons(session, place.project, 4)
        make_label(session, place)
        rounds.start_round(session, place.project, by=place.admin)
        return place


def test_language_is_switched_at_the_foot_of_the_sign_in_page(browse: Browse, committed: Committed) -> None:
    with committed.begin() as session:
        person = make_person(session, "Ada", password=PASSWORD)
    page = browse(locale="en-US")
    page.goto("/account")
    page.get_by_role("button", name="简体中文").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("登录")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.get_by_label("电子邮箱").fill(person.email or "")
    page.get_by_label("密码").fill(PASSWORD)
    page.get_by_role("button", name="登录").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("我的账户")
    page.get_by_label("页面语言").select_option("English")
    page.get_by_role("button", name="保存").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("My account")
    expect(page.get_by_label("Language of the pages")).to_have_value("en")
    expect(page.get_by_role("status")).to_have_text("Saved.")


@pytest.mark.parametrize("size", VIEWPORTS)
def test_chinese_pages_fit_and_read_well(
    browse: Browse, place: AdminProject, sign_in: SignIn, no_violations: Callable[[Page], None], size: str
) -> None:
    page = browse(viewport=VIEWPORTS[size], locale="zh-CN")
    page.goto("/sign-in")
    _fits(page, no_violations)
    sign_in(page, place.admin)
    for path in ("", "/import", "/comparisons", "/rounds/1", "/people", "/form", "/settings"):
        page.goto(place.root + path)
        _fits(page, no_violations)
    desk = f"/projects/{place.project.slug}"
    for path in ("/account", f"{desk}/desk", f"{desk}/labels"):
        page.goto(path)
        _fits(page, no_violations)


def _fits(page: Page, no_violations: Callable[[Page], None]) -> None:
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    sideways = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sideways <= 0, page.url
    no_violations(page)

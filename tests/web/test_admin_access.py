"""Who gets into a project's administration? Its admins and owners; never annotators, strangers or forged forms."""

import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.tables import Comparison, Person
from app.web import admin
from tests.admin_project import AdminProject, make_admin_project, make_comparisons
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]

VALUES = {"format_": "trl"}  # for the parts of addresses that are no numbers


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        return make_admin_project(session)


def addresses(place: AdminProject) -> Iterator[tuple[str, str]]:
    """Every admin route as (method, address)."""
    for route in [route for section in admin.SECTIONS for route in section.routes]:
        path = (admin.PREFIX + route.path).replace("{slug}", place.project.slug)
        path = re.sub(r"\{(\w+)\}", lambda found: VALUES.get(found[1], "1"), path)
        yield from ((method, path) for method in sorted(route.methods - {"HEAD"}))


def test_every_admin_route_is_walked(place: AdminProject) -> None:
    walked = set(addresses(place))
    assert ("GET", place.root) in walked
    assert ("POST", f"{place.root}/comparisons/change") in walked
    assert len(walked) > 30


def test_annotators_are_refused_and_strangers_find_nothing(place: AdminProject, visit_as: VisitAs) -> None:
    annotator, stranger = visit_as(place.annotator), visit_as(place.stranger)
    for method, address in addresses(place):
        for browser, status in ((annotator, 403), (stranger, 404)):
            answer = browser.get(address) if method == "GET" else browser.post(address)
            assert answer.status_code == status, (method, address)
            assert place.project.name not in answer.text or status == 403


def test_nobody_is_asked_to_sign_in(place: AdminProject, visitor: Visitor) -> None:
    visitor.get("/sign-in")
    for method, address in addresses(place):
        if method == "GET":
            answer = visitor.get(address)
            assert answer.status_code == 303, address
            assert answer.headers["location"].startswith("/sign-in?next="), address
        else:
            assert visitor.post(address).status_code == 401, address


def test_posts_without_the_form_token_change_nothing(place: AdminProject, visit_as: VisitAs) -> None:
    browser = visit_as(place.admin)
    for method, address in addresses(place):
        if method == "POST":
            for token in ({}, {"csrf": "made up"}):
                refused = browser.client.post(address, data=token)
                assert refused.status_code == 403, address
                assert "stale" in refused.text


def test_owners_and_admins_see_every_page_of_an_empty_project(place: AdminProject, visit_as: VisitAs) -> None:
    for person in (place.admin, place.owner):
        browser = visit_as(person)
        for method, address in addresses(place):
            if method == "GET" and not re.search(r"/\d", address.removeprefix(place.root)):
                assert browser.get(address).status_code == 200, address


def test_things_that_are_not_there_are_not_found(place: AdminProject, visit_as: VisitAs) -> None:
    browser = visit_as(place.admin)
    for method, address in addresses(place):
        if method == "GET" and re.search(r"/\d", address.removeprefix(place.root)):
            assert browser.get(address).status_code == 404, address


def test_things_of_another_project_are_not_found(place: AdminProject, committed: Committed, visit_as: VisitAs) -> None:
    """An admin of one project reaches nothing of another by its number."""
    with committed.begin() as session:
        other = make_admin_project(session, "Other")
        comparison = make_comparisons(session, place.project, 1)[0]
    browser = visit_as(other.admin)
    assert browser.get(f"{place.root}/prompts").status_code == 404
    assert browser.get(f"{other.root}/prompts/{comparison.prompt_id}").status_code == 404
    assert browser.get(f"{other.root}/comparisons/{comparison.id}").status_code == 404
    change = {"act": "close", "ids": str(comparison.id)}
    assert browser.post(f"{other.root}/comparisons/change", change).status_code == 404
    with committed() as session:
        assert session.get_one(Comparison, comparison.id).state == "open"

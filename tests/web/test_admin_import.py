"""Does an upload say what is wrong in which line, and take all, the good rows or nothing, as the admin says?"""

import json
from collections.abc import Callable

import pytest
from httpx import Response as HTTPResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from app.config import settings
from app.tables import Base, Comparison, Person, Prompt
from tests.admin_project import AdminProject, make_admin_project
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]

GOOD = b'{"prompt": "Why is the sky blue?", "responses": ["Scattering.", "Magic."]}'
BAD = [b'{"prompt": "x", "responses": [true, "b"]}', b"{broken", b'{"responses": ["a", "b"]}', b'{"prompt": "\xff"}']


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        return make_admin_project(session)


@pytest.fixture
def admin(place: AdminProject, visit_as: VisitAs) -> Visitor:
    return visit_as(place.admin)


def upload(admin: Visitor, place: AdminProject, content: bytes, name: str = "some.jsonl") -> HTTPResponse:
    fields = {"csrf": admin.token}
    return admin.client.post(f"{place.root}/import", data=fields, files={"file": (name, content)})


def count(committed: Committed, table: type[Base]) -> int:
    with committed() as session:
        return session.scalar(select(func.count()).select_from(table))


def test_good_file_is_previewed_then_taken(admin: Visitor, place: AdminProject, committed: Committed) -> None:
    sent = upload(admin, place, GOOD + b"\r\n")
    assert sent.status_code == 303
    preview = admin.get(sent.headers["location"]).text
    assert "Why is the sky blue?" in preview
    assert "Scattering." in preview
    assert count(committed, Prompt) == 0
    taken = admin.post(sent.headers["location"], {"act": "all"})
    assert "New prompts: 1, new responses: 2, new comparisons: 1" in admin.get(taken.headers["location"]).text
    assert (count(committed, Prompt), count(committed, Comparison)) == (1, 1)
    again = admin.post(sent.headers["location"], {"act": "all"})
    assert again.status_code == 409
    assert count(committed, Prompt) == 1


def test_bad_lines_are_named_and_only_the_good_rows_are_taken(
    admin: Visitor, place: AdminProject, committed: Committed
) -> None:
    where = upload(admin, place, b"\n".join([GOOD, *BAD])).headers["location"]
    preview = admin.get(where).text
    for line in ("2", "3", "4", "5"):
        assert f'data-label="Line">{line}</td>' in preview
    assert "a response is true" in preview
    assert "not JSON" in preview
    assert "not UTF-8" in preview
    assert 'value="all"' not in preview
    refused = admin.post(where, {"act": "all"})
    assert refused.status_code == 422
    assert "4 of 5 lines cannot be taken" in refused.text
    assert count(committed, Prompt) == 0
    assert admin.post(where, {"act": "good"}).status_code == 303
    assert count(committed, Prompt) == 1


def test_discarded_upload_leaves_nothing(admin: Visitor, place: AdminProject, committed: Committed) -> None:
    where = upload(admin, place, GOOD).headers["location"]
    assert admin.post(where, {"act": "discard"}).status_code == 303
    assert "nothing of it was taken" in admin.get(where).text
    assert admin.post(where, {"act": "good"}).status_code == 409
    assert count(committed, Prompt) == 0


def test_pasted_lines_are_read_like_a_file(admin: Visitor, place: AdminProject) -> None:
    sent = admin.post(f"{place.root}/import", {"pasted": GOOD.decode() + "\n{oops"})
    assert sent.status_code == 303
    assert "not JSON" in admin.get(sent.headers["location"]).text


def test_pasted_text_may_be_longer_than_a_form_field_usually_is(admin: Visitor, place: AdminProject) -> None:
    lines = [json.dumps({"prompt": f"Question {number}: " + "why " * 100}) for number in range(4_000)]
    fields = {"csrf": (None, admin.token), "pasted": (None, "\n".join(lines))}
    sent = admin.client.post(f"{place.root}/import", files=fields)
    assert sent.status_code == 303
    assert "Take all 4000 lines" in admin.get(sent.headers["location"]).text


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_nothing_to_read_is_said(admin: Visitor, place: AdminProject, content: bytes) -> None:
    refused = upload(admin, place, content)
    assert refused.status_code == 422
    assert "empty" in refused.text
    assert admin.post(f"{place.root}/import").status_code == 422


def test_line_of_five_megabytes_is_one_bad_line(admin: Visitor, place: AdminProject) -> None:
    huge = json.dumps({"prompt": "x" * 5_000_000}).encode()
    preview = admin.get(upload(admin, place, GOOD + b"\n" + huge).headers["location"]).text
    assert 'data-label="Line">2</td>' in preview
    assert "Take only the one good line" in preview


def test_too_large_an_upload_is_refused_before_it_is_read(
    admin: Visitor, place: AdminProject, committed: Committed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings(), "max_upload_mb", 1)
    refused = upload(admin, place, GOOD * 20_000)
    assert refused.status_code == 413
    assert "larger than 1 MB" in refused.text
    assert "PREFLOOP_MAX_UPLOAD_MB" in refused.text


def test_uploads_of_an_archived_project_are_refused(admin: Visitor, place: AdminProject) -> None:
    admin.post(f"{place.root}/state", {"state": "archived"})
    refused = upload(admin, place, GOOD)
    assert refused.status_code == 409
    assert "archived" in refused.text


def test_uploads_of_nobody_are_not_read(visitor: Visitor, place: AdminProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFLOOP_MAX_UPLOAD_MB", "1")
    settings.cache_clear()
    files = {"file": ("large.jsonl", b"x" * 5_000_000)}
    refused = visitor.client.post(f"{place.root}/import", data={"csrf": "x"}, files=files)
    assert refused.status_code == 401  # and not 413, which counting would have found

"""Are prompts, responses, comparisons and labels found, and changed one by one or all at once, with a trace?"""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.tables import Comparison, ComparisonAssignee, Label, Person, Prompt, Response
from tests.admin_project import AdminProject, make_admin_project, make_comparisons, make_label
from tests.factories import make_prompt
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]

MANY = 53  # more than one page of a list


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        make_comparisons(session, place.project, 4)
        return place


@pytest.fixture
def admin(place: AdminProject, visit_as: VisitAs) -> Visitor:
    return visit_as(place.admin)


def values(committed: Committed, column: Any) -> list[Any]:
    with committed() as session:
        return list(session.scalars(select(column).order_by(column.class_.id)))


def links(text: str, kind: str) -> list[int]:
    """The ids of the rows of a list, in their order."""
    return [int(found) for found in re.findall(rf'<a href="[^"]*/{kind}/(\d+)">\d+</a>', text)]


def test_lists_are_searched_and_filtered(place: AdminProject, admin: Visitor) -> None:
    assert "Opening number 2" in admin.get(f"{place.root}/prompts").text
    found = admin.get(f"{place.root}/prompts?search=number 2&split=&state=").text
    assert "Opening number 2" in found
    assert "Opening number 3" not in found
    assert "No prompt matches" in admin.get(f"{place.root}/prompts?state=retired").text
    assert "Ending C" in admin.get(f"{place.root}/responses?search=ending c").text
    assert "No response matches" in admin.get(f"{place.root}/responses?source=policy").text
    assert len(links(admin.get(f"{place.root}/comparisons?search=number 1").text, "comparisons")) == 1
    assert "No comparison matches" in admin.get(f"{place.root}/comparisons?progress=done").text


@pytest.mark.parametrize("query", ["state=lost", "after=many", "split=all"])
def test_filter_that_is_none_is_refused_in_words(place: AdminProject, admin: Visitor, query: str) -> None:
    refused = admin.get(f"{place.root}/prompts?{query}")
    assert refused.status_code == 422
    assert query.split("=", maxsplit=1)[0] in refused.text


def test_htmx_gets_the_rows_alone(place: AdminProject, admin: Visitor) -> None:
    block = admin.get(f"{place.root}/comparisons?search=number 1", **{"HX-Request": "true"}).text
    assert block.strip().startswith('<div id="results">')
    assert "<html" not in block
    assert 'name="csrf" value=""' not in block


def test_long_lists_come_in_pages(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    with committed.begin() as session:
        for number in range(4, MANY):
            make_prompt(session, place.project, f"Opening number {number}")
    first = admin.get(f"{place.root}/prompts?search=number").text
    more = re.search(r'rel="next" href="([^"]+)"', first)[1].replace("&amp;", "&")
    assert "search=number" in more
    second = admin.get(more).text
    assert 'rel="next"' not in second
    assert len(links(first, "prompts") + links(second, "prompts")) == MANY
    assert len(set(links(first, "prompts") + links(second, "prompts"))) == MANY
    assert "First page" in second


def test_ticked_comparisons_change_and_the_others_stay(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    ids = values(committed, Comparison.id)
    change = f"{place.root}/comparisons/change"
    answer = admin.post(f"{change}?state=open", {"act": "pause", "ids": [str(ids[0]), str(ids[2])]})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"{place.root}/comparisons?state=open&changed=2"
    assert "2 rows changed" in admin.get(answer.headers["location"]).text
    assert values(committed, Comparison.state) == ["paused", "open", "paused", "open"]
    for act, state in (("close", "closed"), ("reopen", "open"), ("retire", "retired")):
        admin.post(change, {"act": act, "ids": str(ids[0])})
        assert values(committed, Comparison.state)[0] == state


def test_all_that_match_the_filter_change(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    change = f"{place.root}/comparisons/change"
    admin.post(f"{change}?search=number 3", {"act": "priority", "priority": "7", "everything": "true"})
    assert values(committed, Comparison.priority) == [0, 0, 0, 7]
    admin.post(change, {"act": "k", "k": "3", "everything": "true"})
    assert values(committed, Comparison.k) == [3] * 4
    admin.post(change, {"act": "assignees", "assignees": str(place.annotator_member.id), "everything": "true"})
    with committed() as session:
        assigned = list(session.scalars(select(ComparisonAssignee.annotator_id)))
    assert assigned == [place.annotator_member.id] * 4
    assert "Only for" in admin.get(f"{place.root}/comparisons/{values(committed, Comparison.id)[0]}").text
    admin.post(change, {"act": "assignees", "everything": "true"})
    with committed() as session:
        assert session.scalar(select(ComparisonAssignee.annotator_id)) is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"act": "pause"}, "Nothing is chosen"),
        ({"act": "priority", "priority": "high", "everything": "true"}, "must be a whole number"),
        ({"act": "k", "k": "0", "everything": "true"}, "between 1 and 1,000"),
        ({"act": "k", "k": "99999999999", "everything": "true"}, "between 1 and 1,000"),
        ({"act": "priority", "priority": "99999999999", "everything": "true"}, "between -1,000,000 and"),
        ({"act": "assignees", "assignees": "999999", "everything": "true"}, "not in the project"),
    ],
)
def test_change_that_cannot_be_is_refused_with_the_list(
    place: AdminProject, admin: Visitor, committed: Committed, fields: dict[str, str], reason: str
) -> None:
    refused = admin.post(f"{place.root}/comparisons/change", fields)
    assert refused.status_code == 422
    assert reason in refused.text
    assert "Opening number 1" in refused.text
    assert values(committed, Comparison.state) == ["open"] * 4


def test_prompts_and_responses_are_retired_and_reopened_in_bulk(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    for kind, column in (("prompts", Prompt.state), ("responses", Response.state)):
        change = f"{place.root}/{kind}/change?search=number 1" if kind == "prompts" else f"{place.root}/{kind}/change"
        admin.post(change, {"act": "retire", "everything": "true"})
        assert values(committed, column).count("retired") == (1 if kind == "prompts" else 16)
        admin.post(change, {"act": "reopen", "everything": "true"})
        assert values(committed, column).count("retired") == 0


def test_prompt_is_edited_as_a_new_version(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    first = values(committed, Prompt.id)[0]
    assert "Opening number 0" in admin.get(f"{place.root}/prompts/{first}").text
    turns = {
        "role": ["system", "user", "user"],
        "content": ["Be brief.", "A better opening\r\nin two lines", ""],
        "parts": ["false"] * 3,
    }
    saved = admin.post(f"{place.root}/prompts/{first}", turns)
    assert saved.status_code == 303
    page = admin.get(saved.headers["location"]).text
    assert "A better opening" in page
    assert "version 2" in page
    with committed() as session:
        newest = session.scalars(select(Prompt).order_by(Prompt.id.desc())).first()
        assert newest.messages == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "A better opening\nin two lines"},
        ]
    old = admin.get(f"{place.root}/prompts/{first}").text
    assert "This is an old version" in old
    assert values(committed, Comparison.state)[0] == "retired"


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ({"role": "assistant", "content": "Typed in vain", "parts": "false"}, "nothing to answer"),
        ({"role": "user", "content": "[Typed in vain", "parts": "true"}, "no valid JSON"),
        ({"role": "user", "content": "[" * 100_000, "parts": "true"}, "no valid JSON"),
        ({"role": "user", "content": " ", "parts": "false"}, "the prompt is empty"),
        ({"role": "user", "content": "Opening number 1", "parts": "false"}, "already"),
    ],
)
def test_edit_that_cannot_be_keeps_what_was_typed(
    place: AdminProject, admin: Visitor, committed: Committed, turn: dict[str, str], reason: str
) -> None:
    first = values(committed, Prompt.id)[0]
    refused = admin.post(f"{place.root}/prompts/{first}", turn)
    assert refused.status_code in {409, 422}
    assert reason in refused.text
    assert turn["content"].strip() in refused.text
    assert len(values(committed, Prompt.id)) == 4


def test_labels_are_shown_excluded_with_a_reason_and_included_again(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    with committed.begin() as session:
        label = make_label(session, place, seconds=41)
    page = admin.get(f"{place.root}/labels?annotator_id={place.annotator_member.id}").text
    assert re.findall(r'said-response">(.)<', page) == ["A", "B", "C", "D"]
    assert "Bea Annotator" in page
    assert ">41" in re.sub(r"\s", "", page)
    change = f"{place.root}/labels/change"
    refused = admin.post(change, {"act": "exclude", "ids": str(label.id), "reason": " "})
    assert refused.status_code == 422
    assert "reason" in refused.text
    assert admin.post(change, {"act": "exclude", "ids": str(label.id), "reason": "two seconds"}).status_code == 303
    assert values(committed, Label.excluded_reason) == ["two seconds"]
    assert "two seconds" in admin.get(f"{place.root}/labels?excluded=true").text
    detail = admin.get(f"{place.root}/comparisons/{label.comparison_id}").text
    assert "excluded, two seconds" in detail
    assert admin.post(change, {"act": "include", "everything": "true"}).status_code == 303
    assert values(committed, Label.excluded_at) == [None]


def test_acts_leave_a_trace(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    first = values(committed, Comparison.id)[0]
    admin.post(f"{place.root}/comparisons/change", {"act": "close", "ids": str(first)})
    page = admin.get(f"{place.root}/audit").text
    assert "comparison.close" in page
    assert "Ada Admin" in page


def test_what_people_and_models_wrote_is_shown_as_text(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    with committed.begin() as session:
        prompt = make_prompt(session, place.project, "<script>alert(1)</script> 100 % {{ sure }}")
    for path in ("prompts", f"prompts/{prompt.id}"):
        page = admin.get(f"{place.root}/{path}").text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt; 100 % {{ sure }}" in page


@pytest.mark.parametrize(
    "path",
    [
        "/admin/prompts?after=9{}",
        "/admin/comparisons?round_id=9{}",
        "/admin/comparisons/9{}",
        "/admin/rounds/9{}",
        "/admin/runs/9{}",
        "/admin/exports/9{}/trl.jsonl",
        "/admin/audit?after=9{}",
        "/labels/9{}",
        "/labels?before=9{}",
    ],
)
def test_numbers_that_no_row_has_are_refused(place: AdminProject, admin: Visitor, path: str) -> None:
    address = f"/projects/{place.project.slug}{path}"
    assert admin.get(address.format("9" * 19)).status_code == 422
    assert admin.get(address.format("")).status_code in (200, 404)


def test_bulk_posts_refuse_numbers_that_no_row_has(place: AdminProject, admin: Visitor) -> None:
    for kind in ("prompts", "responses", "comparisons", "labels"):
        act = "exclude" if kind == "labels" else "retire"
        sent = {"act": act, "ids": "9" * 20}
        assert admin.post(f"{place.root}/{kind}/change", sent).status_code == 422

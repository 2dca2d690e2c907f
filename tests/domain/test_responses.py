"""What was answered: imported and written responses, never doubled."""

import pytest
from sqlalchemy.orm import Session

from app.domain import responses
from app.domain.responses import NewResponse
from app.errors import Invalid, NotFound
from app.tables import FinishReason, ResponseSource, ResponseState
from tests.factories import make_member, make_project, make_prompt, make_responses


def test_a_text_is_stored_once_a_prompt(session: Session) -> None:
    project = make_project(session)
    prompt, other = make_prompt(session, project), make_prompt(session, project)
    first = make_responses(session, prompt, ["A", "B", "A"])
    assert [row.text for row in first] == ["A", "B"]
    again = make_responses(session, prompt, ["C", "B"])
    assert [row.text for row in again] == ["C", "B"]
    assert again[1] is first[1]
    assert make_responses(session, other, ["A"])[0] is not first[0]
    responses.retire_responses(session, project.id, [first[0].id], None)
    assert make_responses(session, prompt, ["A"])[0] is not first[0]


def test_what_is_known_of_a_response_is_kept(session: Session) -> None:
    project = make_project(session)
    prompt = make_prompt(session, project)
    author = make_member(session, project)
    new = NewResponse("A", system="m1", details={"t": 1}, finish_reason=FinishReason.CUT)
    (imported,) = responses.add_responses(session, prompt, [new])
    (written,) = responses.add_responses(
        session, prompt, [NewResponse("B")], source=ResponseSource.PERSON, author_id=author.id
    )
    session.expire_all()
    assert (imported.system, imported.details, imported.finish_reason) == ("m1", {"t": 1}, FinishReason.CUT)
    assert (imported.source, imported.project_id) == (ResponseSource.IMPORTED, project.id)
    assert (written.source, written.author_id) == (ResponseSource.PERSON, author.id)


@pytest.mark.parametrize(
    "new",
    [
        NewResponse(""),
        NewResponse(" \n"),
        NewResponse("\x00"),
        NewResponse("\ud800"),
        NewResponse("x" * 200_001),
        NewResponse("x", system="\x00"),
        NewResponse("x", details={"x": float("inf")}),
    ],
)
def test_bad_responses_are_refused(session: Session, new: NewResponse) -> None:
    prompt = make_prompt(session, make_project(session))
    with pytest.raises(Invalid):
        responses.add_responses(session, prompt, [NewResponse("good"), new])
    assert responses.list_responses(session, prompt.project_id) == []


def test_lists_filter_within_the_project(session: Session) -> None:
    project = make_project(session)
    one, two = make_prompt(session, project), make_prompt(session, project)
    rows = make_responses(session, one, ["因为", "100%", "b_c"]) + make_responses(session, two, ["Because"])
    make_responses(session, make_prompt(session, make_project(session)), ["Because"])

    def texts(**filters: object) -> list[str]:
        found = responses.list_responses(session, project.id, **filters)  # type: ignore[arg-type]
        assert responses.count_responses(session, project.id, **filters) == len(found)  # type: ignore[arg-type]
        return [row.text for row in found]

    assert texts(search="因") == ["因为"]
    assert texts(search="_") == ["b_c"]
    assert texts(search="BEC") == ["Because"]
    assert texts(search="\x00") == []
    assert texts(prompt_id=two.id) == ["Because"]
    assert texts(source=ResponseSource.POLICY) == []
    assert responses.retire_responses(session, project.id, [rows[0].id, rows[1].id], None) == 2
    assert responses.retire_responses(session, project.id, [rows[0].id], None) == 0
    assert texts(state=ResponseState.RETIRED) == ["因为", "100%"]
    assert responses.reopen_responses(session, project.id, [rows[0].id], None) == 1
    assert texts(state=ResponseState.ACTIVE) == ["因为", "b_c", "Because"]
    page = responses.list_responses(session, project.id, limit=2)
    assert [row.text for row in responses.list_responses(session, project.id, after_id=page[-1].id)] == [
        "b_c",
        "Because",
    ]
    with pytest.raises(NotFound):
        responses.get_response(session, project.id + 1, rows[0].id)


def test_another_projects_responses_are_not_retired(session: Session) -> None:
    mine, other = make_project(session), make_project(session)
    (theirs,) = make_responses(session, make_prompt(session, other), 1)
    assert responses.retire_responses(session, mine.id, [theirs.id], None) == 0
    assert theirs.state is ResponseState.ACTIVE

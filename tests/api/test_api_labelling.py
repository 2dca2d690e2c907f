"""A program labels by the same leases as the page, as blinded, and never twice."""

from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session, sessionmaker

from app.domain import projects
from app.tables import Assignment, Label, LabelRevision, Project
from tests.api.conftest import House


def lease(house: House) -> dict[str, Any]:
    assignment: dict[str, Any] = house.annotator.post("~/next", status=200)["assignment"]
    return assignment


def one_by_one(assignment: dict[str, Any]) -> list[list[int]]:
    return [[response["id"]] for response in assignment["responses"]]


def test_ranking_leaves_a_label(house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]) -> None:
    assignment = lease(house)
    assert sorted(response["id"] for response in assignment["responses"]) == queue_of_two[0]
    first, second, third = one_by_one(assignment)
    groups = [second, [*first, *third]]
    taken = house.annotator.post(f"/assignments/{assignment['id']}/label", {"groups": groups, "seconds": 12.5})
    assert taken["revision"] == 1
    assert not taken["is_repeat"]
    (label,) = house.admin.get("~/labels")["items"]
    assert label["id"] == taken["label_id"]
    assert label["revisions"][0]["groups"] == [second, sorted([*first, *third])]
    assert label["revisions"][0]["seconds"] == 12.5
    assert label["revisions"][0]["shown_order"] == [response["id"] for response in assignment["responses"]]


def test_an_assignment_is_blinded(house: House, queue_of_two: list[list[int]]) -> None:
    assignment = lease(house)
    assert all(set(response) == {"id", "text"} for response in assignment["responses"])
    assert assignment["messages"][0]["role"] == "user"
    assert house.annotator.get(f"/assignments/{assignment['id']}")["responses"] == assignment["responses"]


def test_the_same_answer_again_is_the_same_label(
    house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]
) -> None:
    assignment = lease(house)
    answer = {"groups": one_by_one(assignment)}
    path = f"/assignments/{assignment['id']}/label"
    first = house.annotator.post(path, answer)
    again = house.annotator.post(path, answer, status=200)
    assert again == first | {"is_repeat": True}
    error = house.annotator.refused(409, "POST", path, json={"groups": one_by_one(assignment)[::-1]})
    assert "revis" in error["message"].lower() or "edit" in error["message"].lower()
    with committed() as session:
        mine = Label.project_id == house.project.id
        assert len(session.scalars(select(Label).where(mine)).all()) == 1
        assert (
            len(
                session.scalars(select(LabelRevision).join(Label, Label.id == LabelRevision.label_id).where(mine)).all()
            )
            == 1
        )


def test_a_label_can_be_revised_by_its_annotator_alone(house: House, queue_of_two: list[list[int]]) -> None:
    assignment = lease(house)
    groups = one_by_one(assignment)
    label = house.annotator.post(f"/assignments/{assignment['id']}/label", {"groups": groups})["label_id"]
    path = f"/labels/{label}/revisions"
    assert house.annotator.post(path, {"groups": groups[::-1]}, status=200)["revision"] == 2
    assert house.annotator.post(path, {"groups": groups[::-1]}, status=200)["revision"] == 2
    house.other.refused(404, "POST", path, json={"groups": groups})
    house.admin.refused(404, "POST", path, json={"groups": groups})
    (shown,) = house.admin.get("~/labels")["items"]
    assert [revision["groups"] for revision in shown["revisions"]] == [groups, groups[::-1]]


@pytest.mark.parametrize("path", ["", "/label", "/skip", "/heartbeat"])
def test_an_assignment_is_none_of_the_others_business(house: House, queue_of_two: list[list[int]], path: str) -> None:
    assignment = lease(house)
    body = {"groups": one_by_one(assignment)} if path == "/label" else None
    for caller in (house.other, house.admin, house.stranger):
        caller.refused(404, "POST" if path else "GET", f"/assignments/{assignment['id']}{path}", json=body)
    house.nobody.refused(401, "POST" if path else "GET", f"/assignments/{assignment['id']}{path}", json=body)


def test_skipping_hands_out_the_other_one_and_never_the_first_again(
    house: House, queue_of_two: list[list[int]]
) -> None:
    first = lease(house)
    house.annotator.post(f"/assignments/{first['id']}/skip", {"reason": "too long"}, status=204)
    second = lease(house)
    assert second["comparison_id"] != first["comparison_id"]
    house.annotator.post(f"/assignments/{second['id']}/skip", status=204)
    empty = house.annotator.post("~/next", status=200)
    assert empty["assignment"] is None
    assert empty["nothing"]["reason"] == "you_did_all"
    assert empty["nothing"]["message"]


def test_the_same_lease_comes_again_until_it_is_answered(house: House, queue_of_two: list[list[int]]) -> None:
    first = lease(house)
    assert lease(house)["id"] == first["id"]
    assert house.other.post("~/next", status=200)["assignment"]["id"] != first["id"]
    assert house.annotator.post(f"/assignments/{first['id']}/heartbeat", status=200)["expires_at"] > first["expires_at"]


def test_a_late_answer_is_kept(house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]) -> None:
    late = lease(house)
    with committed.begin() as session:
        session.execute(text("UPDATE assignments SET expires_at = now() - interval '1 minute'"))
    house.other.post("~/next", status=200)  # its opening goes on
    taken = house.annotator.post(f"/assignments/{late['id']}/label", {"groups": one_by_one(late)})
    assert taken["surplus"] is False  # k = 2 has an opening left
    with committed() as session:
        assert session.get_one(Assignment, late["id"]).state == "submitted"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: [],
        lambda groups: groups[:-1],
        lambda groups: [*groups, groups[0]],
        lambda groups: [*groups[:-1], [2**62]],
        lambda groups: [*groups, []],
    ],
    ids=["all are missing", "one is missing", "one is twice", "one is foreign", "a group is empty"],
)
def test_a_ranking_that_is_no_partition_is_refused(house: House, queue_of_two: list[list[int]], spoil: Any) -> None:
    assignment = lease(house)
    bad = spoil(one_by_one(assignment))
    error = house.annotator.refused(422, "POST", f"/assignments/{assignment['id']}/label", json={"groups": bad})
    assert error["code"] == "InvalidRanking"
    assert house.admin.get("~/labels")["items"] == []


def test_the_consent_text_is_accepted_before_the_first_lease(
    house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]
) -> None:
    with committed.begin() as session:
        project = session.get_one(Project, house.project.id)
        projects.new_version(
            session, project, guidelines="", consent_text="Your labels are published.", judgement_form=None, by=None
        )
    refused = house.annotator.refused(409, "POST", "~/next")
    assert refused["code"] == "ConsentNeeded"
    assert refused["details"]["consent_text"] == "Your labels are published."
    house.annotator.post("~/consent", status=204)
    assert house.annotator.post("~/next", status=200)["assignment"] is not None


WHOLE_FORM: dict[str, Any] = {
    "overall": "none",
    "score": {"lowest": 0, "highest": 1, "step": 0.25},
    "criteria": [{"key": "safe", "name": "Safe", "kind": "ranking"}],
    "correction": "optional",
    "flags": [{"key": "cannot_judge", "name": "I cannot judge this", "of": "comparison", "excuses": True}],
}


@pytest.fixture
def whole_form(house: House, queue_of_two: list[list[int]], committed: sessionmaker[Session]) -> list[list[int]]:
    with committed.begin() as session:
        project = session.get_one(Project, house.project.id)
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=WHOLE_FORM, by=None)
    return queue_of_two


def test_an_assignment_says_all_that_is_asked(house: House, whole_form: list[list[int]]) -> None:
    form = lease(house)["judgement_form"]
    assert form["score"] == {"lowest": 0, "highest": 1, "step": 0.25, "required": True}
    assert form["criteria"][0] | {"key": "safe", "kind": "ranking"} == form["criteria"][0]
    assert form["ranking"] == {"ties": True, "partial": False}
    described = house.nobody("GET", "/openapi.json").json()["components"]["schemas"]
    assert "ScoreAsked" in described
    assert "response_id" in described["Answer"]["properties"]["answers"]["description"]


def test_an_answer_without_an_order(house: House, whole_form: list[list[int]]) -> None:
    assignment = lease(house)
    first, second, third = (response["id"] for response in assignment["responses"])
    answers = {
        "scores": {str(first): 0.25, str(second): 1, str(third): 0},
        "criteria": {"safe": {"groups": [[third], sorted([first, second])]}},
        "corrections": {str(first): "A better one."},
    }
    path = f"/assignments/{assignment['id']}/label"
    taken = house.annotator.post(path, {"answers": answers})
    assert house.annotator.post(path, {"groups": [], "answers": answers}, status=200)["is_repeat"]
    (label,) = house.admin.get("~/labels")["items"]
    (revision,) = label["revisions"]
    (written,) = house.admin.get("~/responses", source="person")["items"]
    corrections = {str(first): {"text": "A better one.", "response_id": written["id"]}}
    assert revision["groups"] == []
    assert revision["answers"] == answers | {"corrections": corrections}
    assert (written["text"], written["corrects_id"], written["state"]) == ("A better one.", first, "active")
    revised = house.annotator.post(
        f"/labels/{taken['label_id']}/revisions", {"answers": {"flags": {"cannot_judge": True}}}, status=200
    )
    assert revised["revision"] == 2
    assert [row["state"] for row in house.admin.get("~/responses", source="person")["items"]] == ["retired"]


@pytest.mark.parametrize(
    ("answers", "field"),
    [
        ({}, "scores"),
        ({"scores": {"1": 0.3}}, "scores"),
        ({"flags": {"cannot_judge": "yes"}}, "flags.cannot_judge"),
        ({"strength": 1}, "answers"),
        ({"rationale": "because"}, "answers"),
    ],
)
def test_an_answer_is_refused_by_the_name_of_its_part(
    house: House, whole_form: list[list[int]], answers: Any, field: str
) -> None:
    path = f"/assignments/{lease(house)['id']}/label"
    error = house.annotator.refused(422, "POST", path, json={"answers": answers})
    assert (error["code"], error["details"]["field"]) == ("Invalid", field)
    assert house.admin.get("~/labels")["items"] == []


@pytest.mark.parametrize("turn", [str, float, bool], ids=["text", "float", "boolean"])
def test_ids_are_whole_numbers(house: House, queue_of_two: list[list[int]], turn: Any) -> None:
    assignment = lease(house)
    groups = [[turn(id_) for id_ in group] for group in one_by_one(assignment)]
    house.annotator.refused(422, "POST", f"/assignments/{assignment['id']}/label", json={"groups": groups})

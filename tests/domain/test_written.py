"""What annotators write joins the prompt's responses, once, and leaves when nobody holds on to it."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, drafts, labels, people, prompts, responses, snapshots
from app.domain.responses import NewResponse
from app.errors import Conflict, Invalid
from app.tables import (
    Assignment,
    Comparison,
    ComparisonState,
    Draft,
    Label,
    LabelRevision,
    Membership,
    Person,
    Project,
    Prompt,
    Purpose,
    Response,
    ResponsePurpose,
    ResponseSource,
    ResponseState,
)
from tests.factories_labelling import Desk, broken_rows, lease, make_comparisons, make_desk, response_ids, set_form


def correcting_desk(session: Session, **more: Any) -> Desk:
    """A desk whose form takes corrections beside the ranking."""
    desk = make_desk(session, **more)
    set_form(session, desk, correction="optional")
    return desk


def written(session: Session, desk: Desk) -> list[Response]:
    """What people wrote in the desk's project."""
    query = select(Response).where(Response.project_id == desk.project_id, Response.source == ResponseSource.PERSON)
    return list(session.scalars(query.order_by(Response.id).execution_options(populate_existing=True)))


def submit(session: Session, assignment: Assignment, **answers: Any) -> labels.Submitted:
    groups = [sorted(assignment.shown_order)]
    return labels.submit(session, assignment.id, assignment.annotator_id, groups, answers=answers)


def revise(session: Session, label: Label, **answers: Any) -> LabelRevision:
    groups = [response_ids(session, label.comparison_id)]
    return labels.revise(session, label.id, label.annotator_id, groups, answers=answers)


def test_a_correction_becomes_a_persons_response(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    wrong = assignment.shown_order[0]
    taken = submit(session, assignment, corrections={str(wrong): " Right.\r\n"}, written="From nothing.")
    right, whole = written(session, desk)
    assert (right.text, right.corrects_id, right.author_id) == ("Right.", wrong, assignment.annotator_id)
    assert (whole.text, whole.corrects_id, whole.author_id) == ("From nothing.", None, assignment.annotator_id)
    for row in (right, whole):
        assert (row.state, row.purpose) == (ResponseState.ACTIVE, ResponsePurpose.LABELLING)
    assert taken.revision.answers == {
        "corrections": {str(wrong): {"text": "Right.", "response_id": right.id}},
        "written": {"text": "From nothing.", "response_id": whole.id},
    }


def test_the_same_correction_again_is_the_same_label(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    said = {"corrections": {str(assignment.shown_order[0]): "Right."}}
    first, again = submit(session, assignment, **said), submit(session, assignment, **said)
    assert (again.label.id, again.is_repeat) == (first.label.id, True)
    assert submit(session, assignment, **first.revision.answers).is_repeat
    assert revise(session, first.label, **said).number == 1
    assert len(written(session, desk)) == 1
    with pytest.raises(Conflict, match="edit that label"):
        submit(session, assignment, corrections={str(assignment.shown_order[0]): "Righter."})


def test_a_text_that_the_prompt_has_is_that_response(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    prompt = session.get_one(Prompt, session.get_one(Comparison, assignment.comparison_id).prompt_id)
    (known,) = responses.add_responses(session, prompt, [NewResponse("Known.")])
    wrong, other = assignment.shown_order[:2]
    taken = submit(session, assignment, corrections={str(wrong): "Known.", str(other): "Known."})
    assert {one["response_id"] for one in taken.revision.answers["corrections"].values()} == {known.id}
    assert written(session, desk) == []
    revise(session, taken.label)
    assert session.get_one(Response, known.id, populate_existing=True).state is ResponseState.ACTIVE


def test_a_correction_must_differ(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    wrong = assignment.shown_order[0]
    with pytest.raises(Invalid, match="change it"):
        submit(session, assignment, corrections={str(wrong): session.get_one(Response, wrong).text + "\n"})
    # Their order says which is better, and might say the opposite.
    with pytest.raises(Invalid, match="Correction of response 1: one of the responses says exactly this"):
        submit(session, assignment, corrections={str(wrong): session.get_one(Response, assignment.shown_order[1]).text})


def test_a_revision_without_the_correction_retires_it(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    wrong = str(assignment.shown_order[0])
    label = submit(session, assignment, corrections={wrong: "One."}).label
    second = revise(session, label, corrections={wrong: "Two."})
    one, two = written(session, desk)
    assert (one.state, two.state) == (ResponseState.RETIRED, ResponseState.ACTIVE)
    kept = labels.revise(
        session, label.id, label.annotator_id, [[id_] for id_ in assignment.shown_order], answers=second.answers
    )
    assert (kept.number, kept.answers) == (3, second.answers)
    assert [row.state for row in written(session, desk)] == [ResponseState.RETIRED, ResponseState.ACTIVE]
    revise(session, label)
    assert [row.state for row in written(session, desk)] == [ResponseState.RETIRED] * 2


def test_what_an_admin_retired_stays_so_while_the_text_is_the_same(session: Session) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    said = {"corrections": {str(assignment.shown_order[0]): "Bad."}}
    label = submit(session, assignment, **said).label
    (row,) = written(session, desk)
    responses.retire_responses(session, desk.project_id, [row.id], None)
    revise(session, label, **said, written="More.")
    assert [(one.text, one.state) for one in written(session, desk)] == [
        ("Bad.", ResponseState.RETIRED),
        ("More.", ResponseState.ACTIVE),
    ]


@pytest.mark.parametrize("holder", ["another label", "a comparison"])
def test_what_others_hold_on_to_is_not_retired(session: Session, holder: str) -> None:
    desk = correcting_desk(session, annotators=2, k=2)
    assignment = lease(session, desk)
    wrong = str(assignment.shown_order[0])
    label = submit(session, assignment, corrections={wrong: "Right."}).label
    (row,) = written(session, desk)
    if holder == "another label":
        theirs = submit(session, lease(session, desk, 1), corrections={wrong: "Right."}).label
    else:
        _compare(session, desk, row, int(wrong))
    revise(session, label)
    assert [one.state for one in written(session, desk)] == [ResponseState.ACTIVE]
    if holder == "another label":
        revise(session, theirs)
        assert [one.state for one in written(session, desk)] == [ResponseState.RETIRED]


def _compare(session: Session, desk: Desk, row: Response, other: int) -> Comparison:
    new = comparisons.NewComparison(desk.project_id, row.prompt_id, [row.id, other], 2, Purpose.TRAIN, "by_hand")
    return comparisons.create_comparisons(session, [new])[0]


def test_withdrawal_takes_what_was_written_along(session: Session) -> None:
    desk = correcting_desk(session, annotators=2, k=2)
    wrong = str(response_ids(session, desk.comparison_ids[0])[0])
    submit(session, lease(session, desk), corrections={wrong: "Mine."})
    (mine,) = written(session, desk)
    submit(session, lease(session, desk, 1), written="Theirs.")
    comparison = _compare(session, desk, mine, int(wrong))
    judged = submit(session, lease(session, desk, 1)).label
    held = snapshots.take_snapshot(session, desk.project_id)

    labels.withdraw_annotator(session, session.get_one(Membership, desk.annotator_ids[0]))

    assert [(row.text, row.state) for row in written(session, desk)] == [
        ("Mine.", ResponseState.RETIRED),
        ("Theirs.", ResponseState.ACTIVE),
    ]
    listed = responses.list_responses(session, desk.project_id, source=ResponseSource.PERSON)
    assert [row.text for row in listed] == ["Theirs."]
    for row in (comparison, judged, held):
        session.refresh(row)
    assert comparison.state is ComparisonState.CLOSED
    assert judged.excluded_reason == "It judges a response whose writer withdrew."
    assert held.tainted_at is not None
    fresh = snapshots.take_snapshot(session, desk.project_id)
    said = [ranked.comparison_id for ranked in snapshots.rankings(session, fresh)]
    assert said == [desk.comparison_ids[0]]
    assert not broken_rows(session)


@pytest.mark.parametrize("way", ["late", "included", "reopened"])
def test_what_was_withdrawn_never_comes_back(session: Session, way: str) -> None:
    desk = correcting_desk(session, annotators=2, k=1)
    wrong = str(response_ids(session, desk.comparison_ids[0])[0])
    submit(session, lease(session, desk), corrections={wrong: "Mine."})
    (mine,) = written(session, desk)
    comparison = _compare(session, desk, mine, int(wrong))
    (elsewhere,) = make_comparisons(session, session.get_one(Project, desk.project_id), 1)
    at_it = lease(session, desk, 1)
    assert at_it.comparison_id == comparison.id
    if way == "included":
        judged = submit(session, at_it).label
    labels.withdraw_annotator(session, session.get_one(Membership, desk.annotator_ids[0]))
    if way != "included":
        judged = submit(session, at_it).label
    if way == "included":
        assert labels.include(session, desk.project_id, [judged.id], None) == 0
    if way == "reopened":
        assert responses.reopen_responses(session, desk.project_id, [mine.id], None) == 0
        assert comparisons.reopen(session, desk.project_id, [comparison.id], None) == 0
        with pytest.raises(Invalid):
            _compare(session, desk, mine, int(wrong))

    submit(session, lease(session, desk, 1))
    fresh = snapshots.take_snapshot(session, desk.project_id)
    assert [ranked.comparison_id for ranked in snapshots.rankings(session, fresh)] == [elsewhere.id]
    session.refresh(judged)
    assert judged.excluded_reason == "It judges a response whose writer withdrew."
    assert not broken_rows(session)


def test_an_included_label_still_lets_no_withdrawn_text_out(session: Session) -> None:
    """Whatever was done to the rows: what a snapshot takes asks who wrote what it shows."""
    desk = correcting_desk(session, annotators=2, k=1)
    wrong = str(response_ids(session, desk.comparison_ids[0])[0])
    submit(session, lease(session, desk), corrections={wrong: "Mine."})
    (mine,) = written(session, desk)
    _compare(session, desk, mine, int(wrong))
    judged = submit(session, lease(session, desk, 1)).label
    labels.withdraw_annotator(session, session.get_one(Membership, desk.annotator_ids[0]))
    session.execute(update(Label).where(Label.id == judged.id).values(excluded_at=None, excluded_reason=None))
    assert labels.new_labels(session, desk.project_id) == 0
    with pytest.raises(Conflict, match="no labels to learn from"):
        snapshots.take_snapshot(session, desk.project_id)


def test_what_is_written_after_a_withdrawal_counts(committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        desk = correcting_desk(session, annotators=1, comparisons=2)
        wrong = str(response_ids(session, desk.comparison_ids[0])[0])
        submit(session, lease(session, desk), corrections={wrong: "Mine."})
        labels.withdraw_annotator(session, session.get_one(Membership, desk.annotator_ids[0]))
    with committed.begin() as session:
        again = str(response_ids(session, desk.comparison_ids[1])[0])
        submit(session, lease(session, desk), corrections={again: "Once more."})
        (_, later) = written(session, desk)
        responses.retire_responses(session, desk.project_id, [later.id], None)
        assert responses.reopen_responses(session, desk.project_id, [later.id], None) == 1
        assert labels.new_labels(session, desk.project_id) == 1


@pytest.mark.parametrize("act", ["withdraw", "leave", "erase"])
def test_who_leaves_or_withdraws_leaves_no_draft(session: Session, act: str) -> None:
    desk = correcting_desk(session)
    assignment = lease(session, desk)
    drafts.save(session, assignment, fields=[["written", "Not sent."]], seconds=1, sequence=1, revision=0)
    member = session.get_one(Membership, assignment.annotator_id)
    person = session.get_one(Person, member.person_id)
    if act == "withdraw":
        labels.withdraw_annotator(session, member)
    elif act == "leave":
        people.remove_member(session, desk.project_id, member.id, person)
    else:
        people.erase_person(session, person, person)
    assert session.scalars(select(Draft)).all() == []


def test_submits_imports_and_retiring_at_once_never_lock_each_other(committed: sessionmaker[Session]) -> None:
    """Everybody corrects the same responses while prompts are added to, retired and opened again."""
    with committed.begin() as session:
        desk = correcting_desk(session, annotators=6, comparisons=4, k=6)
        project = session.get_one(Project, desk.project_id)
        prompt_ids = [session.get_one(Comparison, id_).prompt_id for id_ in desk.comparison_ids]

    def label(annotator: int) -> None:
        for _ in desk.comparison_ids:
            with committed.begin() as session:
                assignment = lease(session, desk, annotator)
            wrong = str(min(assignment.shown_order))
            for text in ("Shared.", f"Own {annotator}.", "Shared."):
                with committed.begin() as session:
                    own = select(Label).where(Label.assignment_id == assignment.id)
                    if (row := session.scalar(own)) is None:
                        submit(session, assignment, corrections={wrong: text})
                    else:
                        revise(session, row, corrections={wrong: text})

    def disturb() -> None:
        for turn in range(6):
            with committed.begin() as session:
                rows = [session.get_one(Prompt, id_) for id_ in reversed(prompt_ids)]
                responses.add_to_prompts(session, [(row, [NewResponse(f"Imported {turn}.")]) for row in rows])
            with committed.begin() as session:
                prompts.retire_prompts(session, project.id, prompt_ids[:1], None)
            with committed.begin() as session:
                prompts.reopen_prompts(session, project.id, prompt_ids[:1], None)

    with ThreadPoolExecutor(7) as pool:
        done = [*(pool.submit(label, number) for number in range(6)), pool.submit(disturb)]
    for one in done:
        one.result()
    with committed.begin() as session:
        active = [row for row in written(session, desk) if row.state is ResponseState.ACTIVE]
        assert sorted((row.prompt_id, row.text) for row in active) == sorted((id_, "Shared.") for id_ in prompt_ids)
        assert not broken_rows(session)

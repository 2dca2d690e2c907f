"""With a label comes how far its annotator is believed, and that is no part of a snapshot."""

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.domain import snapshots
from app.tables import Membership
from tests.factories_labelling import answer, lease, make_desk, set_form


def test_an_answer_comes_with_its_own_form_and_its_annotators_weight(session: Session) -> None:
    desk = make_desk(session, comparisons=2, annotators=2)
    answer(session, lease(session, desk))
    set_form(session, desk, ranking={"ties": False})
    answer(session, lease(session, desk, 1))
    session.execute(update(Membership).where(Membership.id == desk.annotator_ids[1]).values(label_weight=0.5))
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    first, second = snapshots.rankings(session, snapshot)
    assert (first.form.ranking.ties, second.form.ranking.ties) == (True, False)
    assert (first.believed, second.believed) == (1.0, 0.5)


def test_a_weight_changes_no_hash(session: Session) -> None:
    desk = make_desk(session)
    answer(session, lease(session, desk))
    snapshot = snapshots.take_snapshot(session, desk.project_id)
    session.execute(update(Membership).values(label_weight=0.5))
    assert snapshots.content_hash(session, snapshot) == snapshot.content_hash
    assert snapshots.take_snapshot(session, desk.project_id) is snapshot

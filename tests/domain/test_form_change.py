"""Is the work counted that a new judgement form would meet?"""

from sqlalchemy import update
from sqlalchemy.orm import Session

from app.domain import projects
from app.domain.form_change import Standing, standing
from app.tables import Comparison, ComparisonState, Project
from tests.factories_labelling import answer, lease, let_run_out, make_comparisons, make_desk


def test_leases_are_counted_by_the_version_they_follow(session: Session) -> None:
    desk = make_desk(session, annotators=3, comparisons=4)
    project = session.get_one(Project, desk.project_id)
    first, second = lease(session, desk, 0), lease(session, desk, 1)
    projects.change_version(session, project, judgement_form={"all_bad": True}, by=None)
    lease(session, desk, 2)
    assert standing(session, project.id).live == {1: 2, 2: 1}
    answer(session, first)
    let_run_out(session, [second])
    assert standing(session, project.id).live == {2: 1}


def test_waiting_comparisons_are_counted_by_their_size(session: Session) -> None:
    desk = make_desk(session, comparisons=2, responses=2)
    project = session.get_one(Project, desk.project_id)
    rows = make_comparisons(session, project, 4, responses=3)
    rows[0].state = ComparisonState.CLOSED
    session.flush()
    session.execute(update(Comparison).where(Comparison.id == rows[1].id).values(openings=0))
    assert standing(session, project.id) == Standing(live={}, single=0, several=2)
    assert standing(session, make_desk(session, comparisons=0).project_id) == Standing(live={}, single=0, several=0)

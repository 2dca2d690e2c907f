"""Does an annotator see how far they and the project have come?"""

from datetime import timedelta

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.domain import comparisons, labels, queue
from app.domain.progress import Progress, progress
from app.tables import Assignment, Label, Project, Purpose
from tests.factories import make_member, make_project, make_prompt, make_responses


def add_comparison(session: Session, project: Project, k: int) -> int:
    prompt = make_prompt(session, project)
    ids = [response.id for response in make_responses(session, prompt, 2)]
    new = comparisons.NewComparison(project.id, prompt.id, ids, k, Purpose.TRAIN, "by_hand")
    return comparisons.create_comparisons(session, [new])[0].id


def answer_next(session: Session, project: Project, annotator_id: int) -> Label:
    assignment = queue.next_assignment(session, project.id, annotator_id)
    assert isinstance(assignment, Assignment)
    groups = [[response_id] for response_id in assignment.shown_order]
    return labels.submit(session, assignment.id, annotator_id, groups).label


def test_progress_counts_ones_own_labels_and_everybodys_comparisons(session: Session) -> None:
    project = make_project(session)
    ann, bo = make_member(session, project), make_member(session, project)
    assert progress(session, project.id, ann.id) == Progress(0, 0, 0, 0)
    for k in (1, 1, 2):
        add_comparison(session, project, k)
    retired = add_comparison(session, project, 1)
    comparisons.retire(session, project.id, [retired], None)
    old = answer_next(session, project, ann.id)
    session.execute(update(Label).where(Label.id == old.id).values(created_at=func.now() - timedelta(days=1)))
    answer_next(session, project, ann.id)
    answer_next(session, project, bo.id)
    assert progress(session, project.id, ann.id) == Progress(today=1, total=2, done=2, wanted=3)
    assert progress(session, project.id, bo.id) == Progress(today=1, total=1, done=2, wanted=3)

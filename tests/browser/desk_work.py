"""Work for a desk in the browser: a project that asks something, comparisons in it, and what its labels say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, labels, people, projects
from app.tables import Label, Person, Project, Prompt, Purpose, Role
from tests.factories import make_person, make_project, make_prompt, make_responses


@dataclass(frozen=True)
class Said:
    """What a stored label says: the ranking by response ids, and the rest."""

    groups: list[list[int]]
    answers: dict[str, Any]
    revisions: int


@dataclass(frozen=True)
class Asked:
    """A project with one judgement form, and an annotator in it."""

    committed: sessionmaker[Session]
    project: Project
    person: Person

    def said(self, assignment_id: int) -> Said | None:
        """The newest answer to an assignment; None where there is no label."""
        with self.committed() as session:
            label_id = session.scalar(select(Label.id).where(Label.assignment_id == assignment_id))
            if label_id is None:
                return None
            revisions = labels.get_label(session, self.project.id, label_id).revisions
        ranks = revisions[-1].ranks
        places = sorted({rank.rank for rank in ranks})
        groups = [sorted(rank.response_id for rank in ranks if rank.rank == place) for place in places]
        return Said(groups, revisions[-1].answers, len(revisions))


def add_comparison(session: Session, project: Project, prompt: Prompt, texts: Sequence[str] | int = 4) -> None:
    """A comparison of responses with these texts, or of so many."""
    ids = [response.id for response in make_responses(session, prompt, texts)]
    new = comparisons.NewComparison(
        project_id=project.id,
        prompt_id=prompt.id,
        response_ids=ids,
        k=1,
        purpose=Purpose.TRAIN,
        selected_because="by_hand",
    )
    comparisons.create_comparisons(session, [new])


def make_asked(
    committed: sessionmaker[Session], form: Mapping[str, Any], texts: Sequence[str] | int = 3, number: int = 2
) -> Asked:
    """A project that asks `form`, with so many comparisons of responses with these texts, or of so many."""
    with committed.begin() as session:
        project = make_project(session, name="Judged")
        person = make_person(session, "Ann")
        people.add_member(session, project, person, Role.ANNOTATOR)
        projects.new_version(session, project, guidelines="", consent_text="", judgement_form=form, by=None)
        for _ in range(number):
            add_comparison(session, project, make_prompt(session, project), texts)
    return Asked(committed, project, person)

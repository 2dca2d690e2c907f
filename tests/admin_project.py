"""A project with work and people in every role, for the tests of the admin pages."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.domain import comparisons, labels, queue
from app.tables import Assignment, Comparison, Label, Membership, Person, Project, Purpose, Role
from tests.factories import make_member, make_person, make_project, make_prompt, make_responses


@dataclass(frozen=True)
class AdminProject:
    """Its people: the owner, an admin and an annotator of the project, and somebody from elsewhere."""

    project: Project
    owner: Person
    admin: Person
    annotator: Person
    annotator_member: Membership
    stranger: Person

    @property
    def root(self) -> str:
        """Where its admin pages begin."""
        return f"/projects/{self.project.slug}/admin"


def make_admin_project(session: Session, name: str = "Stories") -> AdminProject:
    """A project without prompts."""
    owner = make_person(session, "Olga Owner", is_owner=True)
    # No prompts for validation; half of the groups for tests, so that a handful of prompts is enough for a round.
    project = make_project(session, owner, name=name, validation_share=0, test_share=0.5)
    admin, annotator, stranger = (make_person(session, who) for who in ("Ada Admin", "Bea Annotator", "Sam Stranger"))
    make_member(session, project, Role.ADMIN, admin)
    member = make_member(session, project, Role.ANNOTATOR, annotator)
    return AdminProject(project, owner, admin, annotator, member, stranger)


def make_comparisons(session: Session, project: Project, count: int) -> list[Comparison]:
    """Comparisons of four responses each, every one of a prompt of its own."""
    new = []
    for number in range(count):
        prompt = make_prompt(session, project, f"Opening number {number}")
        written = make_responses(session, prompt, [f"Ending {letter}" for letter in "ABCD"])
        new.append(
            comparisons.NewComparison(
                project_id=project.id,
                prompt_id=prompt.id,
                response_ids=[response.id for response in written],
                k=1,
                purpose=Purpose.TRAIN,
                selected_because="imported",
            )
        )
    return comparisons.create_comparisons(session, new)


def make_label(session: Session, place: AdminProject, seconds: float = 12) -> Label:
    """The annotator's answer to the next comparison: as stored, no ties."""
    assignment = queue.next_assignment(session, place.project.id, place.annotator_member.id)
    assert isinstance(assignment, Assignment), assignment
    ids = sorted(response.id for response in queue.view(session, assignment).responses)
    return labels.submit(
        session, assignment.id, place.annotator_member.id, [[id_] for id_ in ids], seconds=seconds
    ).label

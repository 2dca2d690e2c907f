"""How does a program label? Through the same leases as the page, and as blinded as it."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response, status
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from app.api.access import Caller, Database, Member
from app.api.shapes import PathId, Received, StrictId
from app.domain import consent, labels, people, projects, queue
from app.domain.empty_queue import EmptyQueue
from app.domain.judgement import JudgementForm, parse_form
from app.errors import NotFound
from app.language import gettext as _
from app.tables import Assignment

router = APIRouter(tags=["labelling"])


_ANSWERS = """What the judgement form asks beside the order; a part that it does not ask is refused, as are ids of other
responses. `strength`: of a pair that is no tie, 1 (the weakest) to the form's last grade. `all_bad`: true. `scores`: a
number for each response by its id. `criteria`: by key `{"scores": {id: 1..N}}`, `{"groups": [[..]]}` or, of a pair,
`{"groups": .., "strength": ..}`. `corrections`: by response id the better text; `written`: a better answer written from
nothing; both become responses, whose ids come back as `response_id`. `flags`: by key a list of response ids, or true
for a flag of the comparison. `rationale`: text."""


class ResponseToRank(BaseModel):
    """A response, without a word on who wrote it."""

    id: int
    text: str


class AssignmentShown(BaseModel):
    """A comparison that is leased to the caller until `expires_at`."""

    id: int
    comparison_id: int
    project_version_id: int = Field(description="The guidelines and form that hold for this assignment.")
    messages: list[Any] = Field(description="The prompt: a list of `{role, content}`.")
    responses: list[ResponseToRank] = Field(description="In the order they are to be shown.")
    guidelines: str = Field(description="Markdown.")
    judgement_form: JudgementForm = Field(description="What is asked, with nothing left out.")
    expires_at: datetime
    seconds_left: float


class Nothing(BaseModel):
    """Why there is no assignment."""

    reason: str = Field(examples=["all_done", "all_leased", "you_did_all"])
    message: str


class Next(BaseModel):
    """Either an assignment or the reason why there is none."""

    assignment: AssignmentShown | None
    nothing: Nothing | None


class Answer(Received):
    """An answer. The same one again changes nothing."""

    groups: list[list[StrictId]] = Field(
        default=[],
        description=(
            "Response ids, the best group first; ids in one group are tied. Every response exactly once, or at least"
            " two where the form allows partial rankings. A pair is `[[better], [worse]]` or `[[one, other]]`. Empty"
            " where the form asks for no order, or where `all_bad` or an excusing flag stands instead of it."
        ),
        examples=[[[12], [10, 11], [13]]],
        max_length=9,
    )
    answers: dict[str, Any] = Field(
        default={},
        description=" ".join(_ANSWERS.split()),
        examples=[{"scores": {"10": 3.5, "11": 2}, "flags": {"harmful": [11]}, "rationale": "11 invents a source."}],
    )
    seconds: float | None = Field(default=None, ge=0, le=1e9, description="Time in front of it.")


class LabelTaken(BaseModel):
    """The label as it is stored now."""

    label_id: int
    revision_id: int
    revision: int = Field(description="1 for the first answer, one more for every edit.")
    surplus: bool = Field(description="It came after its lease when no opening was left; it is kept outside k.")
    is_repeat: bool = Field(description="The same answer was there already.")


class Skip(Received):
    """Hand an assignment back."""

    reason: str | None = Field(default=None, max_length=2000, examples=["I cannot judge the medical details."])


class Lease(BaseModel):
    """Until when the assignment is the caller's."""

    expires_at: datetime


@router.post("/projects/{project}/next")
def next_assignment(session: Database, member: Member) -> Next:
    """Lease the next comparison, or get the one again that is still leased to the caller.

    A refusal with the code `ConsentNeeded` holds the text to accept first.
    """
    found = queue.next_assignment(session, member.project_id, member.id)
    if isinstance(found, EmptyQueue):
        return Next(assignment=None, nothing=Nothing(reason=found.reason, message=found.message))
    return Next(assignment=_shown(session, found), nothing=None)


@router.post("/projects/{project}/consent", status_code=status.HTTP_204_NO_CONTENT)
def accept_consent(session: Database, member: Member) -> None:
    """Accept the project's consent text on behalf of the caller, as it stands now."""
    version = projects.get_project(session, member.project_id).current_version
    if version is not None:
        consent.accept(session, member.id, version)


def _own_assignment(session: Database, person: Caller, assignment_id: PathId) -> Assignment:
    """The assignment, if it is the caller's own."""
    found = session.get(Assignment, assignment_id)
    membership = people.membership(session, found.project_id, person.id) if found else None
    if found is None or membership is None:
        raise NotFound(_("You have no assignment %(number)s.", number=assignment_id))
    return queue.get_assignment(session, assignment_id, membership.id)


Own = Annotated[Assignment, Depends(_own_assignment)]


@router.get("/assignments/{assignment_id}")
def get_assignment(session: Database, assignment: Own) -> AssignmentShown:
    """One of the caller's assignments."""
    return _shown(session, assignment)


@router.post(
    "/assignments/{assignment_id}/label",
    status_code=status.HTTP_201_CREATED,
    responses={200: {"model": LabelTaken, "description": "The same answer was there already."}},
)
def label(session: Database, assignment: Own, answer: Answer, response: Response) -> LabelTaken:
    """Answer an assignment. The same answer again gets the same label; another one is refused: revise the label."""
    taken = labels.submit(
        session,
        assignment.id,
        assignment.annotator_id,
        answer.groups,
        answers=answer.answers,
        seconds=answer.seconds,
    )
    if taken.is_repeat:
        response.status_code = status.HTTP_200_OK
    return LabelTaken(
        label_id=taken.label.id,
        revision_id=taken.revision.id,
        revision=taken.revision.number,
        surplus=taken.surplus,
        is_repeat=taken.is_repeat,
    )


@router.post("/assignments/{assignment_id}/skip", status_code=status.HTTP_204_NO_CONTENT)
def skip(session: Database, assignment: Own, body: Skip | None = None) -> None:
    """Hand the assignment back; its opening goes to somebody else."""
    queue.skip(session, assignment.id, assignment.annotator_id, body.reason if body else None)


@router.post("/assignments/{assignment_id}/heartbeat")
def heartbeat(session: Database, assignment: Own) -> Lease:
    """Still at it: the lease begins anew."""
    return Lease(expires_at=queue.heartbeat(session, assignment.id, assignment.annotator_id))


def _shown(session: Session, assignment: Assignment) -> AssignmentShown:
    view = queue.view(session, assignment)
    return AssignmentShown(
        id=assignment.id,
        comparison_id=assignment.comparison_id,
        project_version_id=view.project_version.id,
        messages=view.prompt.messages,
        responses=[ResponseToRank(id=response.id, text=response.text) for response in view.responses],
        guidelines=view.project_version.guidelines,
        judgement_form=parse_form(view.project_version.judgement_form),
        expires_at=assignment.expires_at,
        seconds_left=view.seconds_left,
    )

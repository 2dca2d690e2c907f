"""How does the loop stand, and how is it turned by hand? Rounds."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, status
from pydantic import Field

from app.api.access import AdminProject, Caller, Database
from app.api.shapes import PathId, Received, Shown
from app.domain import rounds
from app.tables import Round, RoundState, Trigger

router = APIRouter(tags=["the loop"])


class RoundShown(Shown):
    """One turn of the loop."""

    id: int
    number: int
    state: RoundState
    settings: dict[str, Any] = Field(description="The project's settings as they were when it started.")
    seed: int
    policy_id: int | None = Field(description="The policy that it samples and improves.")
    snapshot_id: int | None
    trigger: Trigger | None = Field(description="What made its snapshot be taken.")
    failure: str | None
    verdict: dict[str, Any] | None = Field(
        description="The figures that promoted or rejected the new policy; `best_of_n` and `gold` only inform."
    )
    started_at: datetime
    labelling_since: datetime | None
    ended_at: datetime | None


class Rounds(Shown):
    """All rounds of a project, the newest first."""

    items: list[RoundShown]


class RoundStart(Received):
    """How to start a round."""

    seed: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Left out: drawn.")


@router.post("/projects/{project}/rounds", status_code=status.HTTP_201_CREATED)
def start_round(
    session: Database, project: AdminProject, person: Caller, start: RoundStart | None = None
) -> RoundShown:
    """Start a round by hand. Refused while one is going on."""
    return RoundShown.of(rounds.start_round(session, project, by=person, seed=start.seed if start else None))


@router.get("/projects/{project}/rounds")
def list_rounds(session: Database, project: AdminProject) -> Rounds:
    """All rounds."""
    return Rounds(items=[RoundShown.of(row) for row in rounds.list_rounds(session, project.id)])


def _round(session: Database, project: AdminProject, number: PathId) -> Round:
    return rounds.get_round(session, project.id, number)


ByNumber = Annotated[Round, Depends(_round)]


@router.get("/projects/{project}/rounds/{number}")
def get_round(round_: ByNumber) -> RoundShown:
    """One round, by number."""
    return RoundShown.of(round_)


@router.post("/projects/{project}/rounds/{number}/fire")
def fire(session: Database, person: Caller, round_: ByNumber) -> RoundShown:
    """Stop waiting for labels: take the snapshot now and fit."""
    rounds.fire(session, round_, Trigger.HAND, by=person)
    return RoundShown.of(round_)


@router.post("/projects/{project}/rounds/{number}/cancel")
def cancel(session: Database, person: Caller, round_: ByNumber) -> RoundShown:
    """End a live round; the current policy stays."""
    rounds.cancel_round(session, round_, by=person)
    return RoundShown.of(round_)

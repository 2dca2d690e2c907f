"""Where does the project stand? The loop as a picture, counts along the flow, pace, agreement, what to do next."""

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from app.domain import agreement, gates, labels, people, policies, rounds, runs
from app.domain import overview as counting
from app.domain.settings import parse_settings
from app.tables import Project, Role, Round, RoundState, Run, RunState
from app.web.admin_page import admin_page
from app.web.pages import is_htmx
from app.web.session import Database, ProjectAdmin

router = APIRouter()

Place = Literal["done", "here", "ahead"]


@dataclass(frozen=True)
class Station:
    """A state of a round in the picture of the loop, and the run that does its work."""

    state: RoundState
    place: Place
    run: Run | None


@dataclass(frozen=True)
class LoopPicture:
    """A round as its stations. `have` of `need` is what a waiting round waits for: labels, or answered gate pairs."""

    round: Round
    stations: list[Station]
    waits_for: Literal["labels", "gate", "worker", "nothing"]
    have: int
    need: int
    hours: float | None
    min_labels: int


@router.get("")
def overview_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """The project at a glance; the picture of the loop refreshes itself."""
    return overview(request, session, project)


def overview(
    request: Request, session: Session, project: Project, *, status_code: int = 200, **told: Any
) -> HTMLResponse:
    """The same page, also as the answer to an act that was refused."""
    # htmx asks for the picture alone, every other second: it must stay cheap.
    around = {} if is_htmx(request) else _around_the_loop(session, project)
    past = rounds.list_rounds(session, project.id, limit=1)
    return admin_page(
        request,
        project,
        "overview.html",
        "loop",
        section="overview",
        status_code=status_code,
        flow=counting.flow(session, project.id),
        picture=loop_picture(session, project, past[0]) if past else None,
        policy=policies.current_policy(session, project),
        **around,
        **told,
    )


def _around_the_loop(session: Session, project: Project) -> dict[str, Any]:
    members = people.list_members(session, project.id)
    days = counting.labels_by_day(session, project.id)
    return {
        "counts": counting.counts(session, project.id),
        "new_labels": labels.new_labels(session, project.id),
        "agreement": agreement.pairwise_agreement(session, project.id),
        "annotators": sum(member.role is Role.ANNOTATOR for member, _ in members),
        "days": days,
        "busiest": max(count for _, count in days),
    }


def loop_picture(session: Session, project: Project, round_: Round) -> LoopPicture:
    """The round's five stations, and what it waits for."""
    path = [
        RoundState.SAMPLING,
        RoundState.LABELLING,
        RoundState.FITTING,
        RoundState.IMPROVING,
        RoundState.EVALUATING,
    ]
    loop = parse_settings(round_.settings).loop
    own_runs = {run.step: run for run in runs.list_runs(session, project.id, round_id=round_.id)}
    by_state = {state: own_runs.get(step) for state, step in rounds.STEPS.items()}
    here = _reached(round_, by_state, path)
    stations = [
        Station(state, _place(position, here, round_.state), by_state.get(state)) for position, state in enumerate(path)
    ]
    waits_for, have, need = _waiting(session, project, round_, by_state.get(round_.state))
    return LoopPicture(
        round_, stations, waits_for, have, need or loop.trigger_labels, loop.trigger_hours, loop.trigger_min_labels
    )


def _reached(round_: Round, by_state: dict[RoundState, Run | None], path: list[RoundState]) -> int:
    """The station where the round is, or where it ended."""
    if round_.state.is_live:
        return path.index(round_.state)
    if round_.state in {RoundState.PROMOTED, RoundState.REJECTED}:
        return len(path)
    begun = [position for position, state in enumerate(path) if by_state.get(state)]
    return max([*begun, 1 if round_.labelling_since else 0])


def _place(position: int, here: int, state: RoundState) -> Place:
    if position < here:
        return "done"
    return "here" if position == here and state.is_live else "ahead"


def _waiting(
    session: Session, project: Project, round_: Round, run: Run | None
) -> tuple[Literal["labels", "gate", "worker", "nothing"], int, int]:
    if round_.state is RoundState.LABELLING:
        loop = parse_settings(round_.settings).loop
        return "labels", labels.new_labels(session, project.id), loop.trigger_labels
    if round_.state is RoundState.EVALUATING and run is not None and run.state is RunState.DONE:
        gate = gates.gate_status(session, round_)
        return "gate", gate.pairs - gate.waiting, gate.pairs
    return ("worker" if round_.state.is_live else "nothing"), 0, 0

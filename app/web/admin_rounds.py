"""How did each turn of the loop go? Rounds: the list, one with its steps, verdict and scores; start, fire, cancel."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session

from app.domain import gates, policies, reward_models, rounds, runs
from app.errors import Conflict
from app.tables import Policy, PolicyScore, Project, RewardModel, Round, RoundState, Trigger
from app.web import admin_overview
from app.web.admin_page import admin_page
from app.web.numbers import Id
from app.web.pages import redirect
from app.web.session import Database, ProjectAdmin, SignedIn

router = APIRouter()


@dataclass(frozen=True)
class Matrix:
    """Policies x reward models: a row a reward model, since only along a row may scores be compared."""

    columns: Sequence[Policy]
    rows: Sequence[tuple[RewardModel, Sequence[PolicyScore | None]]]


@router.get("/rounds")
def list_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """All rounds, newest first."""
    return admin_page(
        request,
        project,
        "rounds.html",
        section="rounds",
        rounds=rounds.list_rounds(session, project.id),
        policies={policy.round_id: policy for policy in policies.list_policies(session, project.id)},
    )


@router.post("/rounds")
def start(request: Request, session: Database, project: ProjectAdmin, person: SignedIn) -> Response:
    """Start a round by hand."""
    try:
        with session.begin_nested():
            rounds.start_round(session, project, by=person)
    except Conflict as error:
        return admin_overview.overview(request, session, project, status_code=error.status, error=str(error))
    return redirect(f"/projects/{project.slug}/admin")


@router.get("/rounds/{number}")
def detail_page(request: Request, session: Database, project: ProjectAdmin, number: Id) -> HTMLResponse:
    """One round: its steps, its verdict, what came out and where that came from."""
    round_ = rounds.get_round(session, project.id, number)
    return _detail(request, session, project, round_)


@router.post("/rounds/{number}/fire")
def fire(request: Request, session: Database, project: ProjectAdmin, person: SignedIn, number: Id) -> Response:
    """Stop waiting for labels: take the snapshot now."""
    round_ = rounds.get_round(session, project.id, number)
    try:
        with session.begin_nested():
            rounds.fire(session, round_, Trigger.HAND, by=person)
    except Conflict as error:
        return _detail(request, session, project, round_, status_code=error.status, error=str(error))
    return redirect(f"/projects/{project.slug}/admin")


@router.post("/rounds/{number}/cancel")
def cancel(request: Request, session: Database, project: ProjectAdmin, person: SignedIn, number: Id) -> Response:
    """Stop a live round; its labels stay."""
    round_ = rounds.get_round(session, project.id, number)
    try:
        with session.begin_nested():
            rounds.cancel_round(session, round_, by=person)
    except Conflict as error:
        return _detail(request, session, project, round_, status_code=error.status, error=str(error))
    return redirect(f"/projects/{project.slug}/admin/rounds/{number}")


def _detail(
    request: Request, session: Session, project: Project, round_: Round, *, status_code: int = 200, **told: Any
) -> HTMLResponse:
    known = policies.list_policies(session, project.id)
    made = next((policy for policy in known if policy.round_id == round_.id), None)
    start = next((policy for policy in known if policy.id == round_.policy_id), None)
    newest = made or start
    return admin_page(
        request,
        project,
        "round.html",
        "state",
        section="rounds",
        status_code=status_code,
        round=round_,
        picture=admin_overview.loop_picture(session, project, round_),
        runs=list(reversed(runs.list_runs(session, project.id, round_id=round_.id))),
        start=start,
        made=made,
        gate=gates.gate_status(session, round_) if round_.state is RoundState.EVALUATING else None,
        models=reward_models.reward_models_of_round(session, round_),
        matrix=_matrix(session, project, round_, known),
        measured=_measured(known, {policy.id for policy in (made, start) if policy}),
        lineage=policies.lineage(session, newest) if newest else [],
        **told,
    )


@dataclass(frozen=True)
class Measured:
    """What was measured of some policies: a row a policy, a column a name."""

    policies: Sequence[Policy]
    names: Sequence[str]


def _measured(known: Sequence[Policy], ids: set[int]) -> Measured | None:
    """The measures of a round's policies and of version 0."""
    chosen = [policy for policy in known if policy.measures and (policy.id in ids or policy.version == 0)]
    names = list(dict.fromkeys(name for policy in chosen for name in policy.measures))
    return Measured(chosen, names) if chosen else None


def _matrix(session: Session, project: Project, round_: Round, known: Sequence[Policy]) -> Matrix | None:
    scores = reward_models.score_matrix(session, project.id, round_id=round_.id)
    if not scores:
        return None
    cells = {(score.reward_model_id, score.policy_id): score for score in scores}
    scored = {score.policy_id for score in scores}
    columns = sorted((policy for policy in known if policy.id in scored), key=lambda policy: policy.version)
    models = {model.id: model for model in reward_models.list_reward_models(session, project.id)}
    rows = [
        (models[model_id], [cells.get((model_id, policy.id)) for policy in columns])
        for model_id in sorted({score.reward_model_id for score in scores})
    ]
    return Matrix(columns, rows)

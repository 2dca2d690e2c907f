"""Can this reward model be trusted? Its card: what it was fitted on, how often it is right, and what it leans on."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from app.domain import projects, reward_models, rounds
from app.domain.judgement import JudgementForm
from app.tables import Project, RewardModelPurpose, Round, Snapshot
from app.web import reward_card
from app.web.admin_page import admin_page
from app.web.numbers import Id
from app.web.session import Database, ProjectAdmin

router = APIRouter()
_TRAINING = RewardModelPurpose.TRAINING


@router.get("/reward-models")
def list_page(request: Request, session: Database, project: ProjectAdmin) -> HTMLResponse:
    """All reward models, the newest first, and how they became better with more labels."""
    rows = reward_models.list_reward_models(session, project.id)
    return admin_page(
        request,
        project,
        "reward_models.html",
        section="reward-models",
        models=rows,
        rounds={row.id: row.number for row in rounds.list_rounds(session, project.id)},
        curve=reward_card.over_rounds([row.card for row in reversed(rows) if row.purpose is _TRAINING]),
        spread=reward_card.spread,
    )


@router.get("/reward-models/{reward_model_id}")
def card_page(request: Request, session: Database, project: ProjectAdmin, reward_model_id: Id) -> HTMLResponse:
    """One reward model and its card."""
    model = reward_models.get_reward_model(session, project.id, reward_model_id)
    criteria = _criteria(session, project)
    return admin_page(
        request,
        project,
        "reward_model.html",
        section="reward-models",
        model=model,
        round=session.get_one(Round, model.round_id),
        snapshot=session.get_one(Snapshot, model.snapshot_id),
        annotators=reward_card.annotators(model.card),
        summary=reward_card.summary(model.card),
        bars=reward_card.bars(model.card),
        reliability=reward_card.reliability(model.card),
        parts=reward_card.parts(model.card, criteria),
        criteria=criteria,
        findings=reward_card.findings(model.card),
        learning_curve=reward_card.learning_curve(model.card),
        spread=reward_card.spread,
    )


def _criteria(session: Session, project: Project) -> dict[str, str]:
    """What the project's forms call their criteria, by key."""
    forms: list[JudgementForm] = list(projects.forms_by_version(session, project.id).values())
    return {criterion.key: criterion.name for form in forms for criterion in form.criteria}

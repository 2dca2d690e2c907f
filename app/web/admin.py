"""Which pages do admins have? All of them as one router, below the address of their project."""

from fastapi import APIRouter

from app.web import (
    admin_audit,
    admin_comparisons,
    admin_exports,
    admin_form,
    admin_guidelines,
    admin_import,
    admin_labels,
    admin_overview,
    admin_people,
    admin_prompts,
    admin_responses,
    admin_reward_models,
    admin_rounds,
    admin_runs,
    admin_settings,
)

PREFIX = "/projects/{slug}/admin"
SECTIONS = (
    admin_overview.router,
    admin_import.router,
    admin_import.uploads,
    admin_prompts.router,
    admin_responses.router,
    admin_comparisons.router,
    admin_labels.router,
    admin_rounds.router,
    admin_reward_models.router,
    admin_runs.router,
    admin_exports.router,
    admin_people.router,
    admin_form.router,
    admin_guidelines.router,
    admin_settings.router,
    admin_audit.router,
)

router = APIRouter()
for section in SECTIONS:
    router.include_router(section, prefix=PREFIX)

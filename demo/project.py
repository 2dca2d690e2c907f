"""What is the demo's project? Openings of stories as prompts, and a small model that goes on with them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.domain import people, projects, prompts, rounds, sign_in
from app.domain.settings import parse_settings
from app.tables import Person, Project, Role

FOLDER = Path(__file__).parent
SLUG = "stories"

GUIDELINES = """\
You see how a story begins, and several ways in which it goes on. Put them in order, the one you like best first.

Judge what you read, not how long it is:

- Do people **speak** to each other?
- Does it end **warmly**, and does it end at all?
- Are the words **varied**, or does it say the same thing again?

If two are equally good, give them the same place.
"""


@dataclass(frozen=True)
class Plan:
    """How large a demo is. The defaults are those of `make demo`: two rounds in some four minutes on two cores."""

    seed: int = 1
    rounds: int = 2
    annotators: int = 8
    base_model: str = str(FOLDER / "model")
    openings: Path = FOLDER / "openings.jsonl"
    most_openings: int | None = None
    pairs: int = 1_600
    settings: dict[str, Any] = field(default_factory=dict)
    """Project settings that replace those below, group by group."""


@dataclass(frozen=True)
class DemoProject:
    """The project as it was created, and how to get into it."""

    project: Project
    admin: Person
    token: str
    invite: str


def create(session: Session, plan: Plan) -> DemoProject:
    """Create the first owner, the project, its prompts and an invite for its annotators, and start its first round."""
    admin = people.create_person(session, email="admin@example.invalid", name="Demo admin", is_owner=True)
    settings = parse_settings(demo_settings(plan))
    project = projects.create_project(
        session, name="Stories", slug=SLUG, by=admin, guidelines=GUIDELINES, settings=settings
    )
    openings = read_openings(plan.openings)[: plan.most_openings]
    prompts.add_prompts(
        session, project, [prompts.NewPrompt(messages=[{"role": "user", "content": opening}]) for opening in openings]
    )
    _, secret = people.create_invite(
        session, project_id=project.id, role=Role.ANNOTATOR, created_by=admin, max_uses=plan.annotators
    )
    rounds.start_round(session, project, by=admin, seed=plan.seed)
    _, token = sign_in.create_token(session, admin, "demo")
    return DemoProject(project, admin, token, secret)


def read_openings(path: Path) -> Sequence[str]:
    """The openings of a JSONL file, one object with the key `opening` a line."""
    return [json.loads(line)["opening"] for line in path.read_text().splitlines() if line.strip()]


def demo_settings(plan: Plan) -> dict[str, Any]:
    """The project's settings: the loop turns by itself as soon as everything is labelled."""
    groups: dict[str, Any] = {
        "base_model": plan.base_model,
        "k": 1,
        "responses_per_prompt": 4,
        "validation_share": 0.1,
        "test_share": 0.2,
        "loop": {
            "automatic": True,
            "prompts_per_round": 220,
            "trigger_labels": 200,
            "evaluation_samples": 2,
        },
        "sampling": {"max_new_tokens": 80},
        "reward": {"epochs": 1, "learning_rate": 7e-4, "batch_sets": 8},
        # With lambda below 1 the value function, hardly fitted in so short a run, makes ending early look good.
        "ppo": {
            "episodes": 512,
            "batch_episodes": 64,
            "epochs": 2,
            "minibatches": 2,
            "learning_rate": 2e-4,
            "gae_lambda": 1.0,
            "kl_coefficient": 0.1,
            "missing_end_score": 1.0,
        },
    }
    for name, value in plan.settings.items():
        groups[name] = groups[name] | value if isinstance(groups.get(name), dict) else value
    return groups

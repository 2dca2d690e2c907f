"""What does a preview of the desk show? The project's newest comparison, or a made-up one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, selectinload

from app.domain.judgement import JudgementForm
from app.domain.queue import AssignmentView, ShownResponse
from app.language import gettext as _
from app.tables import Assignment, Comparison, ComparisonResponse, Project, ProjectVersion, Prompt

NEWEST = "newest"
MADE_UP = ("1", "2", "3", "4")


@dataclass(frozen=True)
class Sample:
    """A comparison to try a judgement form on. `name` is how the page asks for it: newest, or a number of responses."""

    name: str
    view: AssignmentView

    @property
    def texts(self) -> Mapping[int, str]:
        """The responses' texts by id, in the order shown."""
        return {response.id: response.text for response in self.view.responses}


def newest_comparison(session: Session, project_id: int) -> Comparison | None:
    """The project's newest comparison with its prompt and responses."""
    return session.scalar(
        select(Comparison)
        .where(Comparison.project_id == project_id)
        .order_by(Comparison.id.desc())
        .limit(1)
        .options(
            joinedload(Comparison.prompt), selectinload(Comparison.members).joinedload(ComparisonResponse.response)
        )
    )


def sample_of(newest: Comparison | None, project: Project, asked: JudgementForm, name: str) -> Sample:
    """The sample called `name`; where it is not there, or is one response and two are needed, the nearest that is."""
    if newest is not None and name not in MADE_UP:
        shown = [ShownResponse(one.response_id, one.response.text, one.response.parts) for one in newest.members]
        return Sample(NEWEST, _view(project, newest.prompt.messages, shown))
    count = max(int(name) if name in MADE_UP else 3, asked.fewest_responses)
    made_up = [ShownResponse(number, text, None) for number, text in enumerate(_responses()[:count], start=1)]
    messages = [{"role": "user", "content": _("How long do I boil an egg so that the yolk stays soft?")}]
    return Sample(str(count), _view(project, messages, made_up))


def _view(project: Project, messages: list[dict[str, Any]], responses: list[ShownResponse]) -> AssignmentView:
    """Rows as the desk gets them, which no database has seen."""
    version = project.current_version
    return AssignmentView(
        assignment=Assignment(),
        comparison=Comparison(),
        prompt=Prompt(messages=messages),
        responses=responses,
        project_version=version if version is not None else ProjectVersion(guidelines=""),
        seconds_left=0,
    )


def _responses() -> list[str]:
    return [
        _(
            "**Six minutes** for a large egg out of the fridge:\n\n1. Let the water boil.\n2. Lower the egg in.\n"
            "3. After six minutes, put it into cold water."
        ),
        _("Boil it for 12 minutes. Then the yolk is soft."),
        _("About 6 to 7 minutes, less if the egg is small or was not in the fridge."),
        _("It depends."),
    ]

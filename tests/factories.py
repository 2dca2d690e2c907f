"""Rows for tests, made by the same rules as real ones."""

from collections.abc import Sequence
from itertools import count

from sqlalchemy.orm import Session

from app.domain import people, projects, prompts, responses
from app.domain.settings import ProjectSettings
from app.tables import Membership, Person, Project, Prompt, Response, Role

PASSWORD = "correct horse battery"
_numbers = count(1)


def make_person(
    session: Session, name: str | None = None, *, is_owner: bool = False, password: str | None = None
) -> Person:
    """A person, name and e-mail numbered. PASSWORD lets them sign in where it is passed (argon2 takes its time)."""
    number = next(_numbers)
    name = name or f"Person {number}"
    email = f"{name.lower().replace(' ', '.')}.{number}@example.org"
    return people.create_person(session, email=email, name=name, password=password, is_owner=is_owner)


def make_project(session: Session, by: Person | None = None, *, name: str | None = None, **settings: object) -> Project:
    """A project of `by` (an owner), or of a new owner; `settings` as in ProjectSettings."""
    owner = by or make_person(session, is_owner=True)
    chosen = ProjectSettings.model_validate({"base_model": "tiny", **settings})
    return projects.create_project(session, name=name or f"Project {next(_numbers)}", by=owner, settings=chosen)


def make_member(
    session: Session, project: Project, role: Role = Role.ANNOTATOR, person: Person | None = None
) -> Membership:
    """A membership: of `person`, or of a new one."""
    return people.add_member(session, project, person or make_person(session), role)


def make_prompt(session: Session, project: Project, text: str | None = None, *, group_key: str | None = None) -> Prompt:
    """A prompt of one message."""
    content = text or f"Prompt {next(_numbers)}"
    new = prompts.NewPrompt(messages=[{"role": "user", "content": content}], group_key=group_key)
    return prompts.add_prompts(session, project, [new]).prompts[0]


def make_responses(session: Session, prompt: Prompt, texts: Sequence[str] | int = 4) -> list[Response]:
    """Imported responses to a prompt: these texts, or so many."""
    if isinstance(texts, int):
        texts = [f"Response {next(_numbers)}" for _ in range(texts)]
    return responses.add_responses(session, prompt, [responses.NewResponse(text=text) for text in texts])

"""Which models are being aligned? Projects, their settings and the versions of what annotators are shown."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.domain import audit, people, texts
from app.domain.judgement import JudgementForm, parse_form
from app.domain.settings import ProjectSettings, parse_settings
from app.domain.writable import require_writable
from app.errors import Conflict, Invalid, NotAllowed, NotFound
from app.language import gettext as _
from app.tables import Membership, Person, Policy, Project, ProjectState, ProjectVersion, Prompt, Role, Round

RANKING_ONLY: Mapping[str, Any] = {"ranking": {"ties": True}}
_SLUG = re.compile(r"(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_SLUG = 60


def create_project(
    session: Session,
    *,
    name: str,
    by: Person | None,
    slug: str | None = None,
    guidelines: str = "",
    settings: ProjectSettings,
    judgement_form: Mapping[str, Any] | None = None,
    consent_text: str = "",
) -> Project:
    """A project with version 1 of its guidelines, its policy version 0 (the base model) and `by` as its first admin.

    Raises NotAllowed for people who are no owners, Conflict where `slug` is taken, Invalid.
    """
    if by is not None and not by.is_owner:
        raise NotAllowed(_("Only owners may create projects."))
    name = texts.line(name, _("The project's name"))
    project = Project(
        slug=_free_slug(session, slug, name),
        name=name,
        state=ProjectState.ACTIVE,
        settings=settings.model_dump(mode="json"),
        created_by_id=by.id if by else None,
    )
    session.add(project)
    session.flush()
    policy = Policy(project_id=project.id, version=0, uri=settings.base_model)
    session.add(policy)
    session.flush()
    project.current_policy_id = policy.id
    audit.record(session, "project.create", project_id=project.id, by=by, subject_id=project.id)
    new_version(
        session, project, guidelines=guidelines, consent_text=consent_text, judgement_form=judgement_form, by=by
    )
    if by is not None:
        people.add_member(session, project, by, Role.ADMIN, by=by)
    return project


def _free_slug(session: Session, asked: str | None, name: str) -> str:
    """The slug asked for, or one made of the name with a number behind it where that is taken."""
    taken = set(session.scalars(select(Project.slug)))
    if asked is not None:
        if not _SLUG.fullmatch(asked) or len(asked) > _LONGEST_SLUG:
            raise Invalid(
                _(
                    "The project's address must be lower-case letters and digits with single hyphens between, at least "
                    "one letter, at most %(longest)s characters: story-endings.",
                    longest=_LONGEST_SLUG,
                )
            )
        if asked in taken:
            raise Conflict(_("There is a project at %(address)s already.", address=asked))
        return asked
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    base = "-".join(re.findall(r"[a-z0-9]+", plain))[: _LONGEST_SLUG - 10].strip("-")
    base = base if _SLUG.fullmatch(base) else f"project-{base}".strip("-")
    numbered = (f"{base}-{number}" for number in range(2, len(taken) + 3))
    return base if base not in taken else next(slug for slug in numbered if slug not in taken)


def get_project(session: Session, slug_or_id: str | int) -> Project:
    """A project by slug, or by id (a number or its digits), with its current version. Raises NotFound."""
    key = str(slug_or_id)
    is_id = key.isascii() and key.isdigit() and len(key) < 19
    project = None
    if is_id or not texts.flaw(key):
        project = session.scalar(
            select(Project)
            .where(Project.id == int(key) if is_id else Project.slug == key)
            .options(joinedload(Project.current_version))
            .execution_options(populate_existing=True)
        )
    if project is None:
        raise NotFound(_("There is no project %(key)s.", key=repr(key[:100])))
    return project


def settings_of(project: Project) -> ProjectSettings:
    """The project's settings, checked."""
    return parse_settings(project.settings)


def list_projects(session: Session, person: Person) -> Sequence[Project]:
    """The projects that a person is in, an owner's all; archived ones last."""
    query = select(Project).options(joinedload(Project.current_version))
    if not person.is_owner:
        mine = select(Membership.project_id).where(Membership.person_id == person.id, Membership.left_at.is_(None))
        query = query.where(Project.id.in_(mine))
    return session.scalars(query.order_by(Project.archived_at.is_not(None), Project.name, Project.id)).all()


def update_settings(session: Session, project: Project, settings: ProjectSettings, by: Person | None) -> None:
    """Change how the project works; live rounds keep what they started with.

    Raises Conflict where a change would move prompts between the splits or replace version 0 after the loop used it.
    """
    require_writable(session, project.id)
    before, after = settings_of(project), settings
    if (before.validation_share, before.test_share) != (after.validation_share, after.test_share) and session.scalar(
        select(Prompt.id).where(Prompt.project_id == project.id).limit(1)
    ):
        raise Conflict(_("The shares have split the project's prompts already, and a split is made once."))
    if before.base_model != after.base_model:
        _replace_base_model(session, project, after.base_model)
    changed = {
        field: [getattr(before, field), getattr(after, field)]
        for field in ProjectSettings.model_fields
        if getattr(before, field) != getattr(after, field)
    }
    project.settings = after.model_dump(mode="json")
    details = {
        field: [value.model_dump(mode="json") if hasattr(value, "model_dump") else value for value in pair]
        for field, pair in changed.items()
    }
    audit.record(session, "project.set_settings", project_id=project.id, by=by, subject_id=project.id, details=details)
    session.flush()


def _replace_base_model(session: Session, project: Project, base_model: str) -> None:
    policies = session.scalars(select(Policy).where(Policy.project_id == project.id)).all()
    if len(policies) > 1 or _has_rounds(session, project):
        raise Conflict(_("The loop has used the base model already: start another project for another one."))
    policies[0].uri = base_model


def _has_rounds(session: Session, project: Project) -> bool:
    return session.scalar(select(Round.id).where(Round.project_id == project.id).limit(1)) is not None


def new_version(
    session: Session,
    project: Project,
    *,
    guidelines: str,
    consent_text: str,
    judgement_form: Mapping[str, Any] | None,
    by: Person | None,
) -> ProjectVersion:
    """The next version of what annotators are shown; labels keep naming the one they were made under.

    Raises Invalid, for a judgement form with every bad field in `details["fields"]`; Conflict in an archived project.
    """
    require_writable(session, project.id)
    asked = parse_form(RANKING_ONLY if judgement_form is None else judgement_form)
    # Locked, so that two new versions at once get two numbers.
    session.execute(select(Project.id).where(Project.id == project.id).with_for_update())
    last = session.scalars(
        select(ProjectVersion)
        .where(ProjectVersion.project_id == project.id)
        .order_by(ProjectVersion.number.desc())
        .limit(1)
    ).first()
    version = session.scalars(
        insert(ProjectVersion)
        .values(
            project_id=project.id,
            number=last.number + 1 if last else 1,
            guidelines=texts.document(guidelines, _("The guidelines")),
            consent_text=texts.document(consent_text, _("The consent text")),
            judgement_form=asked.model_dump(mode="json", exclude_unset=True),
            created_by_id=by.id if by else None,
        )
        .returning(ProjectVersion)
    ).one()
    project.current_version_id = version.id
    changed = _changed(last, version) if last else {}
    audit.record(session, "project.new_version", project_id=project.id, by=by, subject_id=version.id, details=changed)
    session.flush()
    session.refresh(project, ["current_version"])
    return version


def _changed(before: ProjectVersion, after: ProjectVersion) -> dict[str, Any]:
    """What is new in a version: the form's parts from what to what, of the long texts only that they changed."""
    changed: dict[str, Any] = {"number": after.number}
    changed |= {
        part: "changed" for part in ("guidelines", "consent_text") if getattr(before, part) != getattr(after, part)
    }
    was, now = (parse_form(version.judgement_form).model_dump(mode="json") for version in (before, after))
    parts = {part: [was[part], now[part]] for part in now if was[part] != now[part]}
    return changed | ({"judgement_form": parts} if parts else {})


def change_version(
    session: Session,
    project: Project,
    *,
    guidelines: str | None = None,
    consent_text: str | None = None,
    judgement_form: Mapping[str, Any] | None = None,
    by: Person | None,
) -> ProjectVersion:
    """The next version: the current one with these parts changed, None keeps a part.

    Raises as `new_version` does, and Invalid where nothing would change.
    """
    current = session.get_one(ProjectVersion, project.current_version_id)
    if guidelines is None:
        guidelines = current.guidelines
    if consent_text is None:
        consent_text = current.consent_text
    if judgement_form is None:
        judgement_form = current.judgement_form
    if (
        texts.document(guidelines, _("The guidelines")) == current.guidelines
        and texts.document(consent_text, _("The consent text")) == current.consent_text
        and parse_form(judgement_form) == parse_form(current.judgement_form)
    ):
        raise Invalid(_("Nothing has been changed: version %(number)s says the same.", number=current.number))
    return new_version(
        session, project, guidelines=guidelines, consent_text=consent_text, judgement_form=judgement_form, by=by
    )


def list_versions(session: Session, project_id: int) -> Sequence[ProjectVersion]:
    """All versions of a project, the newest first."""
    query = select(ProjectVersion).where(ProjectVersion.project_id == project_id)
    return session.scalars(query.order_by(ProjectVersion.number.desc())).all()


def forms_by_version(session: Session, project_id: int) -> dict[int, JudgementForm]:
    """The judgement form of every version of a project, by the version's id: labels follow the one they name."""
    query = select(ProjectVersion.id, ProjectVersion.judgement_form).where(ProjectVersion.project_id == project_id)
    return {row.id: parse_form(row.judgement_form) for row in session.execute(query)}


def set_state(session: Session, project: Project, state: ProjectState, by: Person | None) -> None:
    """Let a project work, pause it, or archive it."""
    details = {"from": project.state.value, "to": state.value}
    project.state = state
    project.archived_at = func.now() if state is ProjectState.ARCHIVED else None
    audit.record(session, "project.set_state", project_id=project.id, by=by, subject_id=project.id, details=details)
    session.flush()

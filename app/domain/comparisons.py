"""What is there to label? Comparisons: made, listed, and steered by admins, many at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import Session, joinedload, selectinload

from app.domain import audit
from app.domain.filters import IS_NO_REPEAT, IS_UNTOUCHED, PROGRESS, SHOWS_WITHDRAWN, Progress, one_of, says
from app.domain.judgement import JudgementForm, parse_form
from app.domain.writable import require_writable
from app.errors import Invalid, NotFound
from app.language import gettext as _
from app.language import grouped
from app.tables import (
    Comparison,
    ComparisonAssignee,
    ComparisonResponse,
    ComparisonState,
    Membership,
    Person,
    Project,
    ProjectVersion,
    Purpose,
    Response,
    ResponseState,
)

MOST = 9
MOST_LABELS = 1_000
HIGHEST_PRIORITY = 1_000_000


@dataclass(frozen=True)
class NewComparison:
    """A comparison to be made. `gold_groups` holds its known answer: response ids, the best group first."""

    project_id: int
    prompt_id: int
    response_ids: Sequence[int]
    k: int
    purpose: Purpose
    selected_because: str
    round_id: int | None = None
    priority: int = 0
    selection_probability: float | None = None
    gold_groups: Sequence[Sequence[int]] | None = None
    assignees: Sequence[int] = ()


def current_form(session: Session, project_id: int) -> JudgementForm:
    """What the project asks of comparisons now."""
    version = select(ProjectVersion.judgement_form).join(Project, Project.current_version_id == ProjectVersion.id)
    return parse_form(session.scalars(version.where(Project.id == project_id)).one())


def fewest_responses(session: Session, project_id: int) -> int:
    """How many responses a comparison needs: 1 where the project's current form judges each by itself, else 2."""
    return current_form(session, project_id).fewest_responses


def create_comparisons(session: Session, items: Sequence[NewComparison]) -> list[Comparison]:
    """Make comparisons in a handful of statements, in the order given; all of them or, on an error, none.

    Raises:
        Invalid: if k is below 1, the responses are not 2 to 9 different active ones of the comparison's own prompt (1
            is enough where the project's form judges each by itself), the gold groups are not a partition of them or
            say nothing, or an assignee is no member of the project.
    """
    for project_id in {item.project_id for item in items}:
        require_writable(session, project_id)
    _check(session, items)
    rows = [
        Comparison(
            project_id=item.project_id,
            prompt_id=item.prompt_id,
            round_id=item.round_id,
            purpose=item.purpose,
            state=ComparisonState.OPEN,
            k=item.k,
            openings=item.k,
            priority=item.priority,
            selected_because=item.selected_because,
            selection_probability=item.selection_probability,
            gold_groups=[list(group) for group in item.gold_groups] if item.gold_groups is not None else None,
        )
        for item in items
    ]
    session.add_all(rows)
    session.flush()
    made = list(zip(rows, items, strict=True))
    members = [
        {"comparison_id": row.id, "response_id": response_id, "prompt_id": row.prompt_id, "place": place}
        for row, item in made
        for place, response_id in enumerate(item.response_ids)
    ]
    assignees = [
        {"project_id": row.project_id, "comparison_id": row.id, "annotator_id": annotator_id}
        for row, item in made
        for annotator_id in dict.fromkeys(item.assignees)
    ]
    if members:
        session.execute(insert(ComparisonResponse), members)
    if assignees:
        session.execute(insert(ComparisonAssignee), assignees)
    return rows


def _check(session: Session, items: Sequence[NewComparison]) -> None:
    asked = {id_ for item in items for id_ in item.response_ids}
    query = select(Response.id, Response.prompt_id, Response.state).where(one_of(Response.id, sorted(asked)))
    usable = {id_: prompt_id for id_, prompt_id, state in session.execute(query) if state is ResponseState.ACTIVE}
    fewest = {project_id: fewest_responses(session, project_id) for project_id in {item.project_id for item in items}}
    for item in items:
        _check_one(item, usable, fewest[item.project_id])
    for project_id in {item.project_id for item in items}:
        assignees = {id_ for item in items if item.project_id == project_id for id_ in item.assignees}
        _check_assignees(session, project_id, assignees)


def _check_one(item: NewComparison, usable: Mapping[int, int], fewest: int) -> None:
    """`usable` holds the prompt of every active response."""
    ids = list(item.response_ids)
    if len(ids) == 1 and fewest > 1:
        raise Invalid(
            _(
                "The project's form compares responses with each other: give a comparison at least two, or ask in the"
                " form for what is judged by itself alone, such as a score."
            )
        )
    if not fewest <= len(ids) <= MOST or len(set(ids)) < len(ids):
        raise Invalid(
            _(
                "A comparison takes %(fewest)s to %(most)s different responses, not %(ids)s.",
                fewest=fewest,
                most=MOST,
                ids=ids,
            )
        )
    if foreign := [id_ for id_ in ids if usable.get(id_) != item.prompt_id]:
        raise Invalid(
            _(
                "These are no active responses of prompt %(prompt)s: %(foreign)s.",
                prompt=item.prompt_id,
                foreign=foreign,
            )
        )
    _check_k(item.k)
    if item.gold_groups is not None:
        named = [id_ for group in item.gold_groups for id_ in group]
        if sorted(named) != sorted(ids) or not all(item.gold_groups):
            raise Invalid(_("The known answer must name each of the comparison's responses once."))
        if len(ids) == 1:
            raise Invalid(_("A known answer is an order, so it needs at least two responses: leave it out here."))


def _check_k(k: int) -> None:
    if not 1 <= k <= MOST_LABELS:
        raise Invalid(_("A comparison takes 1 to %(most)s labels, not %(k)s.", most=grouped(MOST_LABELS), k=grouped(k)))


def _check_assignees(session: Session, project_id: int, annotator_ids: set[int]) -> None:
    if not annotator_ids:
        return
    members = session.scalars(
        select(Membership.id).where(
            Membership.project_id == project_id,
            Membership.left_at.is_(None),
            one_of(Membership.id, sorted(annotator_ids)),
        )
    )
    if strangers := annotator_ids - set(members):
        raise Invalid(_("These annotators are not in the project: %(strangers)s.", strangers=sorted(strangers)))


def get_comparison(session: Session, project_id: int, comparison_id: int) -> Comparison:
    """A comparison with its prompt, its members and their responses. Raises NotFound."""
    row = session.scalar(
        select(Comparison)
        .where(Comparison.project_id == project_id, Comparison.id == comparison_id)
        .options(
            joinedload(Comparison.prompt),
            selectinload(Comparison.members).joinedload(ComparisonResponse.response),
        )
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise NotFound(_("There is no comparison %(number)s in this project.", number=comparison_id))
    return row


def assignees_of(session: Session, comparison: Comparison) -> Sequence[int]:
    """The annotators that a comparison is handed out to alone; none: it is for all."""
    query = select(ComparisonAssignee.annotator_id).where(ComparisonAssignee.comparison_id == comparison.id)
    return session.scalars(query.order_by(ComparisonAssignee.annotator_id)).all()


def list_comparisons(
    session: Session,
    project_id: int,
    *,
    state: ComparisonState | None = None,
    purpose: Purpose | None = None,
    round_id: int | None = None,
    progress: Progress | None = None,
    search: str | None = None,
    prompt_id: int | None = None,
    after_id: int | None = None,
    limit: int = 50,
) -> Sequence[Comparison]:
    """Comparisons by id, with their prompts and members. `search` looks into the prompt and the responses."""
    query = select(Comparison).where(Comparison.project_id == project_id)
    equal = {
        Comparison.state: state,
        Comparison.purpose: purpose,
        Comparison.round_id: round_id,
        Comparison.prompt_id: prompt_id,
    }
    query = query.where(*(column == value for column, value in equal.items() if value is not None))
    if progress is not None:
        query = query.where(PROGRESS[progress])
    if search and search.strip():
        query = query.where(says(project_id, search))
    if after_id is not None:
        query = query.where(Comparison.id > after_id)
    options = (joinedload(Comparison.prompt), selectinload(Comparison.members))
    query = query.order_by(Comparison.id).limit(limit).options(*options).execution_options(populate_existing=True)
    return session.scalars(query).all()


def set_priority(session: Session, project_id: int, ids: Sequence[int], priority: int, by: Person | None) -> int:
    """Hand these out earlier (higher) or later. Returns how many changed, as all acts below; all raise NotFound."""
    require_writable(session, project_id)
    if abs(priority) > HIGHEST_PRIORITY:
        raise Invalid(_("A priority lies between -%(highest)s and %(highest)s.", highest=grouped(HIGHEST_PRIORITY)))
    return _change(
        session, project_id, ids, "set_priority", by, Comparison.priority != priority, {"priority": priority}
    )


def set_k(session: Session, project_id: int, ids: Sequence[int], k: int, by: Person | None) -> int:
    """Want `k` labels, or as many as are there and leased where those are more."""
    require_writable(session, project_id)
    _check_k(k)
    taken = Comparison.k - Comparison.openings
    wanted = func.greatest(k, taken)
    return _change(
        session,
        project_id,
        ids,
        "set_k",
        by,
        (Comparison.k != wanted) & IS_NO_REPEAT,
        {"k": wanted, "openings": wanted - taken},
        {"k": k},
    )


def pause(session: Session, project_id: int, ids: Sequence[int], by: Person | None) -> int:
    """Hold open comparisons back for now; started work still counts."""
    require_writable(session, project_id)
    return _set_state(session, project_id, ids, ComparisonState.PAUSED, "pause", by, {ComparisonState.OPEN})


def close(session: Session, project_id: int, ids: Sequence[int], by: Person | None) -> int:
    """End open and paused comparisons; started work still counts."""
    require_writable(session, project_id)
    from_states = {ComparisonState.OPEN, ComparisonState.PAUSED}
    return _set_state(session, project_id, ids, ComparisonState.CLOSED, "close", by, from_states)


def reopen(session: Session, project_id: int, ids: Sequence[int], by: Person | None) -> int:
    """Hand paused and closed comparisons out again, but retired ones and those that show a withdrawn response."""
    require_writable(session, project_id)
    from_states = {ComparisonState.PAUSED, ComparisonState.CLOSED}
    return _set_state(session, project_id, ids, ComparisonState.OPEN, "reopen", by, from_states, ~SHOWS_WITHDRAWN)


def retire(session: Session, project_id: int, ids: Sequence[int], by: Person | None) -> int:
    """Take comparisons that nobody has begun out for good; started ones stay: close those."""
    if by is not None:  # what a round leaves behind goes with it, in an archived project too
        require_writable(session, project_id)
    from_states = set(ComparisonState) - {ComparisonState.RETIRED}
    return _set_state(session, project_id, ids, ComparisonState.RETIRED, "retire", by, from_states, IS_UNTOUCHED)


def retire_older(session: Session, project_id: int, policy_id_current: int) -> int:
    """Retire unstarted comparisons of samples that are none of the current policy's; imported ones stay."""
    written = (
        select(Response.id)
        .join(ComparisonResponse, ComparisonResponse.response_id == Response.id)
        .where(ComparisonResponse.comparison_id == Comparison.id)
    )
    ids = session.scalars(
        select(Comparison.id).where(
            Comparison.project_id == project_id,
            Comparison.purpose == Purpose.TRAIN,
            Comparison.state.in_((ComparisonState.OPEN, ComparisonState.PAUSED)),
            IS_UNTOUCHED,
            written.where(Response.policy_id.is_not(None)).exists(),
            ~written.where(Response.policy_id == policy_id_current).exists(),
        )
    ).all()
    return retire(session, project_id, ids, None) if ids else 0


def set_assignees(
    session: Session, project_id: int, ids: Sequence[int], annotator_ids: Sequence[int], by: Person | None
) -> int:
    """Hand these out to these annotators alone, or to all where none is named. Repeats stay whose they are."""
    require_writable(session, project_id)
    wanted = set(annotator_ids)
    _check_assignees(session, project_id, wanted)
    _lock(session, project_id, ids)
    assignable = session.scalars(select(Comparison.id).where(one_of(Comparison.id, ids), IS_NO_REPEAT)).all()
    before: dict[int, set[int]] = {id_: set() for id_ in assignable}
    of_these = one_of(ComparisonAssignee.comparison_id, assignable)
    query = select(ComparisonAssignee.comparison_id, ComparisonAssignee.annotator_id).where(of_these)
    for comparison_id, annotator_id in session.execute(query):
        before[comparison_id].add(annotator_id)
    changed = [id_ for id_, annotators in before.items() if annotators != wanted]
    session.execute(delete(ComparisonAssignee).where(one_of(ComparisonAssignee.comparison_id, changed)))
    rows = [
        {"project_id": project_id, "comparison_id": id_, "annotator_id": annotator_id}
        for id_ in changed
        for annotator_id in sorted(wanted)
    ]
    if rows:
        session.execute(insert(ComparisonAssignee), rows)
    return _audited(session, project_id, "set_assignees", by, changed, {"assignees": sorted(wanted)})


def _set_state(
    session: Session,
    project_id: int,
    ids: Sequence[int],
    state: ComparisonState,
    act: str,
    by: Person | None,
    from_states: set[ComparisonState],
    *conditions: ColumnElement[bool],
) -> int:
    allowed = and_(Comparison.state.in_(from_states), *conditions)
    return _change(session, project_id, ids, act, by, allowed, {"state": state})


def _change(
    session: Session,
    project_id: int,
    ids: Sequence[int],
    act: str,
    by: Person | None,
    where: ColumnElement[bool],
    values: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> int:
    """Give `values` to those of the comparisons that `where` holds for, and write it down."""
    _lock(session, project_id, ids)
    changing = update(Comparison).where(one_of(Comparison.id, ids), where).values(**values).returning(Comparison.id)
    changed = list(session.scalars(changing))
    return _audited(session, project_id, act, by, changed, values if details is None else details)


def _audited(
    session: Session, project_id: int, act: str, by: Person | None, changed: list[int], details: Mapping[str, Any]
) -> int:
    if changed:
        said = {**details, "ids": sorted(changed)}
        audit.record(session, f"comparison.{act}", project_id=project_id, by=by, details=said)
        session.flush()
    return len(changed)


def _lock(session: Session, project_id: int, ids: Sequence[int]) -> None:
    """Lock these comparisons in the order of their ids, so that two acts never wait for each other in a circle."""
    session.flush()
    locking = (
        select(Comparison.id)
        .where(Comparison.project_id == project_id, one_of(Comparison.id, ids))
        .order_by(Comparison.id)
        .with_for_update(key_share=True)
    )
    if missing := set(ids) - set(session.scalars(locking)):
        raise NotFound(_("These comparisons are not in this project: %(missing)s.", missing=sorted(missing)))

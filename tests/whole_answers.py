"""A project that asks much, and labels that say it, for tests of pages that show answers."""

from typing import Any

from sqlalchemy.orm import Session

from app.domain import labels, projects, queue
from app.tables import Assignment, Project
from tests.admin_project import AdminProject, make_admin_project, make_comparisons

FORM: dict[str, Any] = {
    "overall": "ranking",
    "ranking": {"partial": True},
    "all_bad": True,
    "score": {"required": False},
    "criteria": [
        {"key": "helpful", "name": "Helpful", "required": False},
        {"key": "safe", "name": "Safe", "kind": "ranking", "required": False},
    ],
    "correction": "optional",
    "flags": [
        {"key": "harmful", "name": "Harmful"},
        {"key": "cannot_judge", "name": "I cannot judge this", "of": "comparison", "excuses": True},
    ],
    "rationale": "optional",
}


def make_whole_answers(session: Session) -> AdminProject:
    """A comparison of four responses with a whole answer to it, and one that was excused."""
    place = make_admin_project(session)
    make_comparisons(session, place.project, 2)
    project = session.get_one(Project, place.project.id)
    projects.new_version(session, project, guidelines="", consent_text="", judgement_form=FORM, by=None)
    for answer in (whole, excused):
        found = queue.next_assignment(session, place.project.id, place.annotator_member.id)
        assert isinstance(found, Assignment)
        groups, answers = answer(sorted(found.shown_order))
        labels.submit(session, found.id, place.annotator_member.id, groups, answers=answers)
    return place


def whole(ids: list[int]) -> tuple[list[list[int]], dict[str, Any]]:
    """A partial order of four responses, and something of all else."""
    first, _second, third, _fourth = map(str, ids)
    return [[ids[1]], [ids[0]]], {
        "scores": {first: 4.2},
        "criteria": {"safe": {"groups": [[ids[0]], [ids[2], ids[3]]]}},
        "corrections": {third: "<b>Line one.</b>\nLine two."},
        "flags": {"harmful": [ids[3]]},
        "rationale": "Because <i>it</i> is short.",
    }


def excused(_ids: list[int]) -> tuple[list[list[int]], dict[str, Any]]:
    """No answer, and why."""
    return [], {"flags": {"cannot_judge": True}}

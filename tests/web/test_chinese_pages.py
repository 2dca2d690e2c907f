"""Is every page Chinese for those who ask for it, down to its last sentence?"""

import json
import re
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, imports, people, projects, rounds, runs, sign_in
from app.language import LANGUAGES, speaking
from app.tables import Person, Purpose, Role, Round
from tests.admin_project import AdminProject, make_admin_project, make_label
from tests.factories import make_prompt, make_responses
from tests.web.reading import english_of
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]
CHINESE = {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}
LINES = [{"prompt": "说个质数", "responses": ["7", True]}, {"prompt": "天空的颜色", "responses": ["散射", "魔法"]}]

EVERYTHING = {
    "overall": "ranking",
    "ranking": {"ties": True, "partial": True},
    "all_bad": True,
    "score": {"lowest": 1, "highest": 5, "step": 0.1},
    "criteria": [
        {"key": "helpful", "name": "有用", "description": "有帮助", "kind": "score"},
        {"key": "honest", "name": "诚实", "kind": "ranking"},
        {"key": "harmless", "name": "无害", "kind": "pair"},
    ],
    "correction": "optional",
    "flags": [
        {"key": "harmful", "name": "有害"},
        {"key": "cannot_judge", "name": "无法评判", "of": "comparison", "excuses": True},
    ],
    "rationale": "required",
}


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    """A project that asks everything there is, with a label, an upload, a round that runs, invites and a snapshot."""
    with committed.begin() as session:
        place = make_admin_project(session, "故事")
        add_comparisons(session, place, 3)
        make_label(session, place)
        projects.new_version(
            session,
            place.project,
            guidelines="",
            consent_text="",
            judgement_form=EVERYTHING,
            by=place.admin,
        )
        content = "\n".join(json.dumps(line) for line in LINES)
        with speaking(LANGUAGES[1]):  # reasons are kept as they were given to whoever uploaded the file
            imports.preview_import(session, place.project, "问题.jsonl", content.encode(), place.admin)
        people.create_invite(session, project_id=place.project.id, role=Role.ADMIN, created_by=place.admin)
        round_ = rounds.start_round(session, place.project, by=place.admin)
        runs.claim(session, runs.list_runs(session, place.project.id, round_id=round_.id)[0].id)
        sign_in.create_token(session, place.admin, "导出")
        return place


def add_comparisons(session: Session, place: AdminProject, count: int) -> None:
    items = []
    for number in range(count):
        prompt = make_prompt(session, place.project, f"第 {number} 个开头")
        written = make_responses(session, prompt, ["结尾甲", "结尾乙"])
        ids = [response.id for response in written]
        items.append(
            comparisons.NewComparison(place.project.id, prompt.id, ids, 2, Purpose.TRAIN, selected_because="imported")
        )
    comparisons.create_comparisons(session, items)


ADMIN_PAGES = [
    "",
    "/import",
    "/import/1",
    "/prompts",
    "/prompts/1",
    "/responses",
    "/comparisons",
    "/comparisons/1",
    "/labels",
    "/rounds",
    "/rounds/1",
    "/reward-models",
    "/runs/1",
    "/exports",
    "/people",
    "/form",
    "/form/preview?example=3",
    "/guidelines",
    "/settings",
    "/audit",
    "/prompts?search=%E6%B2%A1%E6%9C%89",
    "/responses?search=%E6%B2%A1%E6%9C%89",
    "/comparisons?search=%E6%B2%A1%E6%9C%89",
    "/labels?search=%E6%B2%A1%E6%9C%89",
]


@pytest.mark.parametrize("path", ADMIN_PAGES)
def test_admin_page_holds_no_english_sentence(place: AdminProject, visit_as: VisitAs, path: str) -> None:
    page = visit_as(place.admin).get(place.root + path, **CHINESE)
    assert page.status_code == 200
    assert '<html lang="zh-Hans">' in page.text
    assert english_of(page.text) == []


@pytest.mark.parametrize(
    "path", ["/import", "/prompts", "/responses", "/comparisons", "/labels", "/rounds", "/exports"]
)
def test_empty_admin_page_holds_no_english_sentence(committed: Committed, visit_as: VisitAs, path: str) -> None:
    with committed.begin() as session:
        place = make_admin_project(session, "空")
    assert english_of(visit_as(place.admin).get(place.root + path, **CHINESE).text) == []


@pytest.mark.parametrize("path", ["/desk", "/labels", "/labels/1", "/guidelines"])
def test_annotators_page_holds_no_english_sentence(place: AdminProject, visit_as: VisitAs, path: str) -> None:
    page = visit_as(place.annotator).get(f"/projects/{place.project.slug}{path}", **CHINESE)
    assert page.status_code == 200
    assert english_of(page.text) == []


def test_desk_without_work_says_why_in_chinese(committed: Committed, visit_as: VisitAs) -> None:
    with committed.begin() as session:
        place = make_admin_project(session, "空")
    page = visit_as(place.annotator).get(f"/projects/{place.project.slug}/desk", **CHINESE).text
    assert english_of(page) == []
    assert "还没有可标注的内容" in page


def test_refusals_at_the_desk_are_chinese(place: AdminProject, visit_as: VisitAs) -> None:
    browser = visit_as(place.annotator)
    desk = f"/projects/{place.project.slug}/desk"
    (address,) = re.findall(r'action="([^"]+/label)"', browser.get(desk, **CHINESE).text)
    refused = browser.post(address, {"rationale": ""}, **CHINESE)
    assert refused.status_code == 422
    assert "请为每个回答排出名次" in refused.text or "请说明理由" in refused.text
    assert english_of(refused.text) == []
    for answer in (browser.get(f"{desk}/nowhere", **CHINESE), browser.post(desk, **CHINESE)):
        assert answer.status_code in {404, 405}
        assert english_of(answer.text) == []


def test_pages_of_ones_own_hold_no_english_sentence(place: AdminProject, visit_as: VisitAs) -> None:
    owner = visit_as(place.owner)
    for path in ("/", "/account", "/account/data", "/projects/new"):
        page = owner.get(path, **CHINESE)
        assert page.status_code == 200
        assert english_of(page.text) == [], path


def test_ways_in_hold_no_english_sentence(place: AdminProject, visitor: Visitor, committed: Committed) -> None:
    with committed.begin() as session:
        _invite, invited = people.create_invite(session, project_id=None, role=Role.ADMIN, created_by=place.owner)
        link = sign_in.create_sign_in_link(session, place.admin)
    for path in ("/sign-in", f"/invites/{invited}", f"/link/{link}", "/invites/nothing"):
        assert english_of(visitor.get(path, **CHINESE).text) == [], path


@pytest.mark.parametrize("field", ["k", "lease_minutes", "test_share", "loop.trigger_labels", "ppo.clip_range"])
def test_refused_settings_say_why_in_chinese(place: AdminProject, visit_as: VisitAs, field: str) -> None:
    admin = visit_as(place.admin)
    admin.get(f"{place.root}/settings")
    refused = admin.post(f"{place.root}/settings", {"base_model": "tiny", field: "1e9"}, **CHINESE)
    assert refused.status_code == 422
    assert english_of(refused.text) == []


def test_round_that_ended_holds_no_english_sentence(
    place: AdminProject, visit_as: VisitAs, committed: Committed
) -> None:
    with committed.begin() as session:
        rounds.cancel_round(session, session.scalars(select(Round)).one(), by=place.admin)
    for path in ("", "/rounds", "/rounds/1"):
        assert english_of(visit_as(place.admin).get(place.root + path, **CHINESE).text) == [], path

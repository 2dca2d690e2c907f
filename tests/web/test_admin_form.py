"""Can an admin put a judgement form together without JavaScript, try it, save it, and lose nothing that was typed?"""

import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.domain import audit, projects, queue
from app.domain.judgement import USUAL_FLAGS, JudgementForm, parse_form
from app.domain.ready_made import READY_MADE, ReadyMade
from app.errors import Invalid
from app.tables import Person
from app.web.judgement_fields import (
    ROWS,
    change_rows,
    errors_by_field,
    fields_of,
    form_data,
    rows,
    with_rows,
    without_blanks,
)
from tests.admin_project import AdminProject, make_admin_project, make_comparisons
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]

EVERYTHING: Mapping[str, str] = {
    "overall": "pair",
    "pair.scale": "anthropic",
    "all_bad": "1",
    "score": "1",
    "score.lowest": "0",
    "score.highest": "10",
    "score.step": "0.5",
    "criteria.0.name": "Helpful",
    "criteria.0.key": "",
    "criteria.0.description": "It helps.",
    "criteria.0.kind": "pair",
    "criteria.0.highest": "5",
    "criteria.0.required": "1",
    "criteria.1.name": "",
    "criteria.1.kind": "score",
    "criteria.1.highest": "5",
    "criteria.2.name": "诚实",
    "criteria.2.kind": "score",
    "criteria.2.highest": "7",
    "correction": "optional",
    "rationale": "required",
    "usual_flags.harmful": "1",
    "flags.0.name": "Off topic",
    "flags.0.of": "comparison",
    "flags.0.excuses": "1",
}


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        make_comparisons(session, place.project, 1)
        return place


@pytest.fixture
def admin(place: AdminProject, visit_as: VisitAs) -> Visitor:
    browser = visit_as(place.admin)
    browser.get(f"{place.root}/form")
    return browser


def form_of(committed: Committed, place: AdminProject) -> tuple[int, JudgementForm]:
    with committed() as session:
        version = projects.get_project(session, place.project.id).current_version
        assert version is not None
        return version.number, parse_form(version.judgement_form)


def value_of(page: str, name: str) -> str | None:
    """What an input of the page holds; a checkbox or radio "1" or its value where it is ticked, else ""."""
    for tag in re.findall(r"<input[^>]*>", page):
        if f'name="{name}"' not in tag:
            continue
        value = re.search(r'value="([^"]*)"', tag)
        if ('type="checkbox"' in tag or 'type="radio"' in tag) and not re.search(r"\bchecked\b", tag):
            continue
        return html.unescape(value[1]) if value else ""
    text = re.search(rf'<textarea[^>]*name="{re.escape(name)}"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    return html.unescape(text[1]) if text else None


def test_every_field_is_saved_as_the_next_version(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    assert admin.post(f"{place.root}/form", dict(EVERYTHING)).headers["location"] == f"{place.root}/form?saved=1"
    number, form = form_of(committed, place)
    assert number == 2
    assert form.model_dump() == {
        "overall": "pair",
        "ranking": {"ties": False, "partial": False},
        "pair": {"scale": "anthropic"},
        "all_bad": True,
        "score": {"lowest": 0, "highest": 10, "step": 0.5, "required": False},
        "criteria": (
            {
                "key": "helpful",
                "name": "Helpful",
                "description": "It helps.",
                "kind": "pair",
                "highest": 5,
                "required": True,
            },
            {"key": "criterion_1", "name": "诚实", "description": "", "kind": "score", "highest": 7, "required": False},
        ),
        "correction": "optional",
        "flags": (
            {"key": "harmful", "name": "Harmful", "of": "response", "excuses": False},
            {"key": "off_topic", "name": "Off topic", "of": "comparison", "excuses": True},
        ),
        "rationale": "required",
    }
    shown = admin.get(f"{place.root}/form").text
    assert value_of(shown, "overall") == "pair"
    assert value_of(shown, "score.highest") == "10"
    assert value_of(shown, "criteria.1.key") == "criterion_1"
    assert value_of(shown, "usual_flags.harmful") == "1"
    assert value_of(shown, "usual_flags.cannot_judge") is None
    with committed() as session:
        event, _ = audit.list_events(session, place.project.id)[0]
    assert event.details["judgement_form"]["overall"] == ["ranking", "pair"]


def test_guidelines_stay_with_a_new_form(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    admin.post(f"{place.root}/guidelines", {"guidelines": "# Be kind", "consent_text": "Yes?"})
    admin.post(f"{place.root}/form", dict(EVERYTHING))
    with committed() as session:
        version = projects.get_project(session, place.project.id).current_version
    assert (version.number, version.guidelines, version.consent_text) == (3, "# Be kind", "Yes?")


def refusal(fields: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The reasons beside the fields and above the form of a form that must be refused."""
    with pytest.raises(Invalid) as refused:
        parse_form(form_data(fields))
    return errors_by_field(refused.value, without_blanks(fields))


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"score.step": "0"}, "score.step", "greater than"),
        ({"score.lowest": "low"}, "score.lowest", "valid number"),
        ({"score.highest": ""}, "score.highest", "valid number"),
        ({"score.lowest": "10"}, "score", "at least a step above"),
        ({"criteria.0.key": "Not A Key"}, "criteria.0.key", "Lower-case letters"),
        ({"criteria.2.name": "", "criteria.2.description": "x"}, "criteria.1.name", "Give it a name"),
        ({"criteria.0.highest": "11"}, "criteria.0.highest", "less than or equal to 10"),
        ({"criteria.0.kind": "vote"}, "criteria.0.kind", "ranking"),
        ({"flags.0.of": "response"}, "flags.0", "Only a flag of the comparison"),
        ({"flags.0.key": "_x"}, "flags.0.key", "Lower-case letters"),
        ({"pair.scale": "lots"}, "pair.scale", "llama2"),
        ({"overall": "vote"}, "overall", "ranking"),
        ({"rationale": "maybe"}, "rationale", "optional"),
        (
            with_rows({}, "criteria", [{**ROWS["criteria"], "name": f"C{n}"} for n in range(13)]),
            "criteria",
            "at most 12",
        ),
    ],
)
def test_a_refused_field_has_its_reason_beside_it(change: dict[str, str], field: str, reason: str) -> None:
    beside, above = refusal({**EVERYTHING, **change})
    assert above == []
    assert reason in beside[field]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ({"overall": "none"}, "It asks nothing"),
        (with_rows({}, "flags", [{**ROWS["flags"], "name": name, "key": "a"} for name in "AB"]), "same key: a"),
        ({"criteria.0.name": "half \x00"}, "NUL"),
    ],
)
def test_what_belongs_to_no_field_stands_above(sent: dict[str, str], reason: str) -> None:
    beside, above = refusal({**fields_of(JudgementForm()), **sent})
    assert beside == {}
    assert len(above) == 1
    assert reason in above[0]


def test_a_refused_form_shows_each_reason_and_loses_nothing(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    changes = {"score.step": "0", "criteria.0.key": "Not A Key", "flags.0.of": "response", "pair.scale": "lots"}
    changes |= {"criteria.2.highest": "11", "criteria.2.name": "", "criteria.2.description": "<kept>"}
    refused = admin.post(f"{place.root}/form", {**EVERYTHING, **changes})
    assert refused.status_code == 422
    names = ["score.step", "criteria.0.key", "flags.0", "pair.scale", "criteria.1.highest", "criteria.1.name"]
    for name in names:
        assert f'id="{name.replace(".", "-")}-error"' in refused.text, name
    assert "Nothing was saved." in refused.text
    assert value_of(refused.text, "criteria.0.description") == "It helps."
    assert value_of(refused.text, "criteria.1.description") == "<kept>"
    assert value_of(refused.text, "flags.0.name") == "Off topic"
    assert value_of(refused.text, "score.step") == "0"
    for sent, reason in (
        ({"overall": "none"}, "It asks nothing"),
        ({"overall": "ranking", "ranking.ties": "1"}, "says the same"),
        ({"overall": "pair", "version": "7"}, "version 1 meanwhile"),
    ):
        refused = admin.post(f"{place.root}/form", sent)
        assert refused.status_code in {409, 422}
        assert reason in html.unescape(refused.text)
    assert form_of(committed, place)[0] == 1


def test_an_archived_project_keeps_its_form(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    admin.post(f"{place.root}/state", {"state": "archived"})
    refused = admin.post(f"{place.root}/form", dict(EVERYTHING))
    assert refused.status_code == 409
    assert "archived" in refused.text
    assert value_of(refused.text, "criteria.0.name") == "Helpful"


def test_rows_come_go_and_move_and_nothing_is_saved(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    def act(name: str, sent: Mapping[str, str]) -> str:
        answer = admin.post(f"{place.root}/form", {**sent, "act": name})
        assert answer.status_code == 200
        return answer.text

    names = {f"criteria.{index}.name": name for index, name in enumerate("ABC")}
    assert [value_of(act("criteria.up.2", names), f"criteria.{index}.name") for index in range(3)] == ["A", "C", "B"]
    assert [value_of(act("criteria.down.0", names), f"criteria.{index}.name") for index in range(3)] == ["B", "A", "C"]
    removed = act("criteria.remove.1", names)
    assert [value_of(removed, f"criteria.{index}.name") for index in range(3)] == ["A", "C", None]
    added = act("flags.add", names)
    assert value_of(added, "flags.0.name") == ""
    assert value_of(added, "criteria.2.name") == "C"
    assert re.search(r'name="flags.0.name"[^>]*autofocus', added)
    assert form_of(committed, place)[0] == 1


@pytest.mark.parametrize("act", ["criteria.up.9", "criteria.remove.-1", "criteria.fly.0", "nothing", "flags.up.²", "."])
def test_acts_of_stale_pages_change_no_rows(act: str) -> None:
    fields = {"criteria.0.name": "A", "criteria.1.name": "B"}
    changed, _ = change_rows(fields, act)
    assert [row["name"] for row in rows(changed, "criteria")] == ["A", "B"]


@pytest.mark.parametrize("begun", READY_MADE, ids=lambda begun: begun.key)
def test_fields_say_a_whole_form(begun: ReadyMade) -> None:
    assert parse_form(form_data(fields_of(begun.form))) == begun.form


def test_ready_made_forms_fill_the_fields_and_can_be_saved(
    place: AdminProject, admin: Visitor, committed: Committed
) -> None:
    for begun in READY_MADE:
        shown = admin.post(f"{place.root}/form", {"act": f"begin.{begun.key}", "overall": "none"}).text
        assert value_of(shown, "overall") == begun.form.overall
        assert re.findall(r'name="criteria.\d.key"[^>]*value="(\w+)"', shown) == [
            one.key for one in begun.form.criteria
        ]
    begun = READY_MADE[-1]
    assert admin.post(f"{place.root}/form", fields_of(begun.form)).status_code == 303
    assert form_of(committed, place)[1] == begun.form
    again = admin.post(f"{place.root}/form", {"act": "begin.saved", "overall": "pair"}).text
    assert value_of(again, "overall") == begun.form.overall


def test_usual_flags_and_own_ones_are_told_apart() -> None:
    own = USUAL_FLAGS[0].model_copy(update={"name": "Dangerous"})
    fields = fields_of(JudgementForm(flags=(own, *USUAL_FLAGS[1:3])))
    assert [row["name"] for row in rows(fields, "flags")] == ["Dangerous"]
    assert fields["usual_flags.harmful"] == ""
    assert [flag["key"] for flag in form_data(fields)["flags"]] == ["private_data", "wrong_language", "harmful"]


def test_keys_made_of_names_are_unique() -> None:
    names = ["Helpful", "helpful!", "42 Züge", "诚实", "诚", "x" * 80, "x" * 80]
    data = form_data({f"criteria.{index}.name": name for index, name in enumerate(names)})
    keys = [row["key"] for row in data["criteria"]]
    assert keys == ["helpful", "helpful_2", "zuge", "criterion_1", "criterion_2", "x" * 36, "x" * 36 + "_2"]


def test_no_refusal_has_no_errors() -> None:
    assert errors_by_field(None, {}) == ({}, [])


def test_work_that_goes_on_is_told_before_saving(place: AdminProject, admin: Visitor, committed: Committed) -> None:
    assert "1 waiting comparison has more than two responses" in admin.get(f"{place.root}/form").text
    with committed.begin() as session:
        queue.next_assignment(session, place.project.id, place.annotator_member.id)
    page = admin.get(f"{place.root}/form").text
    assert "1 comparison is being worked on under version 1; its label follows that version." in page
    assert "waiting comparison" not in page


# --- The preview ---


def test_preview_shows_the_newest_comparison_or_a_made_up_one(place: AdminProject, admin: Visitor) -> None:
    newest = admin.post(f"{place.root}/form/preview", {"overall": "ranking", "sample": "newest"})
    assert newest.status_code == 200
    assert len(re.findall(r'data-response="\d+"', newest.text)) == 4
    assert "Opening number 0" in newest.text
    for sample, shown in (("2", 2), ("1", 2), ("4", 4), ("junk", 4)):
        page = admin.post(f"{place.root}/form/preview", {"overall": "pair", "sample": sample}).text
        assert len(re.findall(r'data-response="\d+"', page)) == shown
    alone = admin.post(f"{place.root}/form/preview", {"overall": "none", "correction": "optional", "sample": "1"}).text
    assert len(re.findall(r'data-response="\d+"', alone)) == 1
    assert "Opening number 0" in admin.get(f"{place.root}/form/preview").text


def test_preview_says_why_a_form_does_not_work(place: AdminProject, admin: Visitor) -> None:
    refused = admin.post(f"{place.root}/form/preview", {"overall": "none"})
    assert refused.status_code == 422
    assert "it asks nothing" in refused.text
    assert "ranking-desk" not in refused.text


def test_preview_may_be_framed_by_our_own_pages_alone(place: AdminProject, admin: Visitor) -> None:
    policy = admin.get(f"{place.root}/form/preview").headers["content-security-policy"]
    assert "frame-ancestors 'self'" in policy
    assert "frame-src 'self'" in policy


def answer(admin: Visitor, place: AdminProject, form: Mapping[str, Any], **sent: str) -> tuple[int, str]:
    answered = admin.post(f"{place.root}/form/answer", {"asked": json.dumps(form), "sample": "2", **sent})
    return answered.status_code, html.unescape(answered.text)


def said(page: str) -> Any:
    found = re.search(r'<pre tabindex="0" data-said>(.*?)</pre>', page, re.DOTALL)
    assert found, page
    return json.loads(found[1])


def test_an_answer_to_the_preview_shows_what_a_label_would_say(place: AdminProject, admin: Visitor) -> None:
    form = {
        "overall": "pair",
        "score": {"step": 0.5},
        "criteria": [{"key": "honest", "name": "Honest"}],
        "rationale": "optional",
    }
    fields = {"strength": "2:3", "score_1": "1.5", "score_2": "4", "rationale": " because "}
    fields |= {"criterion_honest_score_1": "2", "criterion_honest_score_2": "5"}
    status, page = answer(admin, place, form, **fields)
    assert status == 200
    assert said(page) == {
        "groups": [[2], [1]],
        "answers": {
            "strength": 3,
            "scores": {"1": 1.5, "2": 4},
            "criteria": {"honest": {"scores": {"1": 2, "2": 5}}},
            "rationale": "because",
        },
    }


def test_an_answer_that_would_be_refused_says_why_and_keeps_what_was_filled_in(
    place: AdminProject, admin: Visitor
) -> None:
    status, page = answer(admin, place, {"score": {}}, rank_1="1", rank_2="2", score_1="9")
    assert status == 422
    assert "data-said" not in page
    assert 'role="alert"' in page
    assert value_of(page, "score_1") == "9"


def test_an_answer_to_a_form_that_is_none_is_refused(place: AdminProject, admin: Visitor) -> None:
    for asked in ("", "{", "[]", "3", '{"overall": "vote"}', "[" * 100_000):
        answered = admin.post(f"{place.root}/form/answer", {"asked": asked, "sample": "2"})
        assert answered.status_code == 422, asked


# --- Guidelines ---


def test_guidelines_are_previewed_and_refused_ones_are_kept(place: AdminProject, admin: Visitor) -> None:
    text = "Look:\n\n```example\nbetter: yes\nworse: no\n```"
    page = admin.post(f"{place.root}/guidelines/preview", {"guidelines": text, "consent_text": "*May we?*"}).text
    assert 'class="example"' in page
    assert "<em>May we?</em>" in page
    assert text in html.unescape(page)
    block = admin.post(f"{place.root}/guidelines/preview", {"guidelines": text}, **{"HX-Request": "true"}).text
    assert block.strip().startswith('<div id="shown"')
    refused = admin.post(f"{place.root}/guidelines", {"guidelines": "", "consent_text": ""})
    assert refused.status_code == 422
    assert "says the same" in refused.text
    stale = admin.post(f"{place.root}/guidelines", {"guidelines": text, "version": "0"})
    assert stale.status_code == 409
    assert text in html.unescape(stale.text)

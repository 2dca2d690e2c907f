"""Is the loop turned by hand and watched: rounds, runs, verdicts, and the way back to the labels?"""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.domain import policies, projects, reward_models, rounds, runs
from app.tables import Person, PolicyScore, RewardModelPurpose, Round, RoundState, Step
from tests.admin_project import AdminProject, make_admin_project, make_comparisons, make_label
from tests.web.visitor import Visitor

Committed = sessionmaker[Session]
VisitAs = Callable[[Person], Visitor]


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        make_comparisons(session, place.project, 12)
        return place


@pytest.fixture
def admin(place: AdminProject, visit_as: VisitAs) -> Visitor:
    return visit_as(place.admin)


def finish(committed: Committed, place: AdminProject, step: Step, *, verdict: dict[str, object] | None = None) -> None:
    """Do what a worker does around a step, without the work."""
    with committed.begin() as session:
        run = next(run for run in runs.list_runs(session, place.project.id) if run.step is step)
        attempt = runs.claim(session, run.id)
        rounds.finish_step(session, run.id, attempt, verdict=verdict)


def state_of(committed: Committed, place: AdminProject, number: int = 1) -> RoundState:
    with committed() as session:
        return rounds.get_round(session, place.project.id, number).state


def test_round_without_prompts_is_refused_on_the_overview(committed: Committed, visit_as: VisitAs) -> None:
    with committed.begin() as session:
        empty = make_admin_project(session, "Empty")
    admin = visit_as(empty.admin)
    assert "First, prompts" in admin.get(empty.root).text
    refused = admin.post(f"{empty.root}/rounds")
    assert refused.status_code == 409
    assert "import more prompts" in refused.text


def test_round_is_started_fired_and_watched_on_the_overview(
    place: AdminProject, committed: Committed, admin: Visitor
) -> None:
    assert "Start round 1" in admin.get(place.root).text
    assert admin.post(f"{place.root}/rounds").headers["location"] == place.root
    assert state_of(committed, place) is RoundState.SAMPLING
    page = admin.get(place.root).text
    assert 'aria-current="step"' in page
    assert 'hx-trigger="every 2s"' in page
    assert "Start round" not in page
    second = admin.post(f"{place.root}/rounds")
    assert second.status_code == 409
    assert "still sampling" in second.text
    early = admin.post(f"{place.root}/rounds/1/fire")
    assert early.status_code == 409
    assert "only a round that is labelling" in early.text

    finish(committed, place, Step.SAMPLE_RESPONSES)
    assert "0 of 200 new labels" in admin.get(place.root).text
    assert admin.post(f"{place.root}/rounds/1/fire").status_code == 409
    with committed.begin() as session:
        make_label(session, place)
    assert "1 of 200 new labels" in admin.get(place.root).text
    assert admin.post(f"{place.root}/rounds/1/fire").status_code == 303
    assert state_of(committed, place) is RoundState.FITTING


def test_refreshed_picture_is_the_block_alone(place: AdminProject, admin: Visitor) -> None:
    admin.post(f"{place.root}/rounds")
    block = admin.get(place.root, **{"HX-Request": "true"}).text
    assert block.strip().startswith('<section id="loop"')
    assert "<html" not in block


def test_round_is_cancelled_once(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    admin.post(f"{place.root}/rounds")
    assert admin.post(f"{place.root}/rounds/1/cancel").headers["location"] == f"{place.root}/rounds/1"
    assert state_of(committed, place) is RoundState.CANCELLED
    page = admin.get(f"{place.root}/rounds/1").text
    assert "An admin stopped it" in page
    assert "hx-trigger" not in page
    again = admin.post(f"{place.root}/rounds/1/cancel")
    assert again.status_code == 409
    assert "is cancelled" in again.text


def test_run_shows_its_bar_values_log_and_error(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    admin.post(f"{place.root}/rounds")
    with committed() as session:
        run = runs.list_runs(session, place.project.id)[0]
    address = f"{place.root}/runs/{run.id}"
    assert "Waiting for a worker" in admin.get(address).text
    with committed.begin() as session:
        attempt = runs.claim(session, run.id)
        points = {step: {"loss": 1 / (step + 1), "kl": float("nan")} for step in range(20)}
        runs.report(session, run.id, attempt, phase="sample_responses", done=20, total=80, points=points)
    page = " ".join(admin.get(address).text.split())
    assert '<progress class="run-bar" max="80" value="20"' in page
    assert "20 of 80" in page
    assert "attempt 1 begins" in page
    assert "0.05" in page
    assert 'hx-trigger="every 1s"' in page
    with committed.begin() as session:
        rounds.fail_step(session, run.id, attempt, "the disk is full", may_pass=False)
    ended = admin.get(address).text
    assert "the disk is full" in ended
    assert "hx-trigger" not in ended
    assert "the disk is full" in admin.get(place.root).text


@pytest.mark.parametrize(
    ("seconds", "said"), [(40, "about 1 minute left"), (3_000, "about 50 minutes left"), (9_000, "about 2 hours left")]
)
def test_run_says_when_it_will_end(
    place: AdminProject, committed: Committed, admin: Visitor, seconds: float, said: str
) -> None:
    admin.post(f"{place.root}/rounds")
    with committed.begin() as session:
        run = runs.list_runs(session, place.project.id)[0]
        attempt = runs.claim(session, run.id)
        points = {1: {"seconds/left": 9e9}, 2: {"seconds/left": float(seconds)}}
        runs.report(session, run.id, attempt, phase="PPO", done=2, total=8, points=points)
    assert said in admin.get(f"{place.root}/runs/{run.id}").text
    with committed.begin() as session:
        runs.report(session, run.id, attempt, phase="another", done=1, total=8)
    assert " left" not in admin.get(f"{place.root}/runs/{run.id}").text.replace("Seconds left", "")


def test_curves_are_sent_point_by_point(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    admin.post(f"{place.root}/rounds")
    with committed.begin() as session:
        run = runs.list_runs(session, place.project.id)[0]
        attempt = runs.claim(session, run.id)
        runs.report(session, run.id, attempt, phase="ppo", done=1, total=3, points={0: {"kl": 0.5}, 1: {"kl": 0.7}})
    address = f"{place.root}/runs/{run.id}/points"
    told = admin.get(address).json()
    assert (told["attempt"], told["going_on"]) == (1, True)
    assert [(one["phase"], one["step"], one["values"]) for one in told["points"]] == [
        ("ppo", 0, {"kl": 0.5}),
        ("ppo", 1, {"kl": 0.7}),
    ]
    last = told["points"][-1]["id"]
    assert admin.get(f"{address}?after={last}").json()["points"] == []


def label_and_add_results(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    """A first round with a label, a reward model and a new policy; its steps after the samples are still to be run."""
    admin.post(f"{place.root}/rounds")
    finish(committed, place, Step.SAMPLE_RESPONSES)
    with committed.begin() as session:
        make_label(session, place)
    admin.post(f"{place.root}/rounds/1/fire")
    with committed.begin() as session:
        add_results(session, rounds.get_round(session, place.project.id, 1))


def test_round_tells_its_verdict_scores_and_lineage(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    label_and_add_results(place, committed, admin)
    finish(committed, place, Step.FIT_REWARD_MODEL)
    finish(committed, place, Step.IMPROVE_POLICY)
    won = {"value": 0.75, "low": 0.7, "high": 0.8, "count": 400}
    judge = "the evaluation reward model"
    verdict: dict[str, Any] = {"judge": judge, "measured_by": judge, "winrate_parent": won, "winrate_version_0": won}
    best = [{"n": 1, "kl": 0.0, "score": 0.1}, {"n": 2, "kl": 0.19315, "score": 0.4}]
    verdict["best_of_n"] = {"n": 2, "kl": 0.19315, "score": 0.625, "winrate": won | {"value": 0.58}, "best": best}
    verdict["gold"] = won | {"value": 0.66}
    finish(committed, place, Step.EVALUATE_POLICY, verdict=verdict)

    page = " ".join(admin.get(f"{place.root}/rounds/1").text.split())
    assert "Promoted: the new policy is the current one." in page
    assert "Decided by: the evaluation reward model" in page
    assert "0.75" in page
    assert "0.710" in page  # the reward model's accuracy
    assert "77% (71%" in page  # a cell of the matrix
    assert "fitted on snapshot 1 (1 label by 1 annotator)" in page
    assert "0.981" in page  # a measure of the new policy
    assert "Win rate against the best of 2 of the parent</dt> <dd> 0.58" in page
    assert "the parent, best of 2" in page
    assert "≤ 0.19" in page
    assert "+0.625" in page
    assert "has come to prefer rightly </dt> <dd> 0.66" in page
    assert "version 1" in admin.get(f"{place.root}/rounds").text


@pytest.mark.parametrize(
    ("improve_by", "said"),
    [
        ("sft", "fine-tuned on corrections and winning responses of snapshot 1 (1 label by 1 annotator)"),
        ("sft_then_ppo", "fine-tuned on labels of snapshot 1, then learned from reward model"),
    ],
)
def test_round_tells_how_its_policy_was_improved(
    place: AdminProject, committed: Committed, admin: Visitor, improve_by: str, said: str
) -> None:
    with committed.begin() as session:
        project = projects.get_project(session, place.project.id)
        project.settings = {**project.settings, "loop": {"improve_by": improve_by}}
    admin.post(f"{place.root}/rounds")
    finish(committed, place, Step.SAMPLE_RESPONSES)
    with committed.begin() as session:
        make_label(session, place)
    admin.post(f"{place.root}/rounds/1/fire")
    with committed.begin() as session:
        round_ = rounds.get_round(session, place.project.id, 1)
        if improve_by == "sft":
            run = runs.list_runs(session, place.project.id)[0]
            policies.add_policy(session, round_, run, reward_model=None, uri="policies/1", content_hash="cd" * 32)
        else:
            add_results(session, round_)
    assert said in " ".join(admin.get(f"{place.root}/rounds/1").text.split())
    with committed() as session:
        link, base = policies.lineage(session, policies.get_policy(session, place.project.id, 1))
    assert (link.improved_by, base.improved_by) == (improve_by, None)


def test_a_win_rate_over_one_prompt_has_no_interval(place: AdminProject, committed: Committed, admin: Visitor) -> None:
    label_and_add_results(place, committed, admin)
    with committed.begin() as session:
        session.execute(update(PolicyScore).values(winrate_low=None, winrate_high=None))
    page = " ".join(admin.get(f"{place.root}/rounds/1").text.split())
    assert '<span class="quiet">77%</span>' in page


def add_results(session: Session, round_: Round) -> None:
    """What the steps of a round store."""
    run = runs.list_runs(session, round_.project_id)[0]
    card = {"accuracy": 0.71, "accuracy_low": 0.65, "accuracy_high": 0.77, "n": 200, "epochs": 2}
    model = reward_models.add_reward_model(
        session,
        round_,
        run,
        RewardModelPurpose.TRAINING,
        backbone="tiny",
        uri="reward/1",
        content_hash="ab" * 32,
        gain=1.0,
        offset=0.0,
        card=card,
    )
    new = policies.add_policy(session, round_, run, reward_model=model, uri="policies/1", content_hash="cd" * 32)
    policies.measure(session, new.id, {"kl": 9.2, "ended_rate": 0.981})
    session.add(
        PolicyScore(
            project_id=round_.project_id,
            round_id=round_.id,
            policy_id=new.id,
            reward_model_id=model.id,
            mean=1.3,
            winrate=0.77,
            winrate_low=0.71,
            winrate_high=0.83,
            samples=400,
        )
    )
    session.flush()

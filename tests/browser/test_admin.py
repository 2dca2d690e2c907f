"""Can an admin run a project in a real browser, from its first form to the download, by eye, keyboard and phone?"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from app.domain import comparisons, runs
from app.tables import Comparison, Person, Run
from tests.admin_project import AdminProject, make_admin_project, make_comparisons, make_label

Committed = sessionmaker[Session]
SignIn = Callable[[Page, Person], None]
Browse = Callable[..., Page]

LINES = [
    json.dumps({"prompt": "Why is the sky blue?", "responses": ["Scattering.", "Magic.", "It is not."]}),
    json.dumps({"prompt": "Name a prime.", "responses": ["7", True]}),
    "{broken",
]


@pytest.fixture
def place(committed: Committed) -> AdminProject:
    with committed.begin() as session:
        place = make_admin_project(session)
        make_comparisons(session, place.project, 12)
        for _ in range(3):
            make_label(session, place)
        return place


@pytest.fixture
def page(browser_page: Page, place: AdminProject, sign_in: SignIn) -> Page:
    sign_in(browser_page, place.admin)
    return browser_page


def test_project_from_its_form_to_its_first_comparison(
    browser_page: Page, committed: Committed, sign_in: SignIn, tmp_path: Path
) -> None:
    with committed.begin() as session:
        owner = make_admin_project(session).owner
    page = browser_page
    sign_in(page, owner)
    page.goto("/")
    page.get_by_role("link", name="New project").click()
    page.get_by_label("Name", exact=True).fill("Plain answers")
    page.get_by_label("Guidelines for annotators").fill("# Prefer the **true** one")
    page.get_by_label("Base model").fill("tiny")
    page.get_by_role("button", name="Create the project").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Import")

    (tmp_path / "answers.jsonl").write_text("\n".join(LINES))
    page.get_by_label("A JSON Lines file").set_input_files(tmp_path / "answers.jsonl")
    page.get_by_role("button", name="Check it").click()
    expect(page.get_by_text("a response is true, not a text")).to_be_visible()
    expect(page.get_by_role("button", name="Take all")).to_have_count(0)
    page.get_by_role("button", name="Take only the one good line").click()
    expect(page.get_by_role("status")).to_contain_text("new comparisons: 1")
    page.get_by_role("link", name="To the overview").click()
    expect(page.locator(".flow")).to_contain_text("1 open")
    expect(page.get_by_role("heading", name="Next, people")).to_be_visible()


def test_list_narrows_while_one_types_and_back_widens_it(page: Page, place: AdminProject) -> None:
    page.goto(f"{place.root}/comparisons")
    expect(page.locator("tbody tr")).to_have_count(12)
    page.get_by_label("Search").press_sequentially("number 11")
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page).to_have_url(f"{place.root}/comparisons?search=number+11&state=&purpose=&progress=&round_id=")
    expect(page.get_by_label("Search")).to_be_focused()
    page.reload()
    expect(page.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Search")).to_have_value("number 11")


def test_bulk_acts_take_the_ticked_rows_or_all_that_match(
    page: Page, place: AdminProject, committed: Committed
) -> None:
    def states() -> list[str]:
        with committed() as session:
            return [row.state.value for row in comparisons.list_comparisons(session, place.project.id)]

    page.goto(f"{place.root}/comparisons")
    page.get_by_label("Tick row").nth(4).check()
    page.get_by_label("Tick row").nth(5).check()
    expect(page.get_by_text("2 ticked")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status").first).to_have_text("2 rows changed.")
    assert states().count("paused") == 2
    page.get_by_label("Tick every row").check()
    expect(page.get_by_text("12 ticked")).to_be_visible()
    page.get_by_label("Tick every row").uncheck()

    page.get_by_text("Priority, k, assignees").click()
    page.get_by_label("All that match").check()
    page.get_by_label("Priority", exact=True).fill("9")
    page.get_by_label("Priority", exact=True).press("Enter")  # Enter in a field acts on no rows
    page.get_by_role("button", name="Set priority").click()
    expect(page.get_by_role("status").first).to_have_text("12 rows changed.")
    with committed() as session:
        assert set(session.scalars(select(Comparison.priority))) == {9}
    assert states().count("paused") == 2


def test_run_moves_while_one_watches(page: Page, place: AdminProject, committed: Committed) -> None:
    page.goto(place.root)
    page.get_by_role("button", name="Start round 1").click()
    expect(page.locator(".station[aria-current=step]")).to_contain_text("Sampling")
    page.get_by_role("link", name="waiting").click()
    bar = page.get_by_role("progressbar")
    expect(bar).not_to_have_attribute("value", "1")
    with committed.begin() as session:
        run = session.scalars(select(Run)).one()
        attempt = runs.claim(session, run.id)
    for done in (10, 30):
        points = {step: {"loss": 1 / (step + 1), "kl": step * 0.1} for step in range(done - 10, done)}
        with committed.begin() as session:
            runs.report(session, run.id, attempt, phase="sampling", done=done, total=40, points=points)
        expect(bar).to_have_attribute("value", str(done))
        expect(bar).to_have_attribute("max", "40")
        expect(page.locator("figcaption", has_text="kl")).to_contain_text(f"{(done - 1) * 0.1:.4g}")
    expect(page.locator(".curve-grid canvas")).to_have_count(2)
    # A table that is open stays open while the page refreshes itself.
    page.get_by_text("Last values: sampling").click()
    with committed.begin() as session:
        runs.report(session, run.id, attempt, phase="sampling", done=40, total=40, points={39: {"loss": 0.0123}})
    expect(page.get_by_role("cell", name="0.0123")).to_be_visible()
    with committed.begin() as session:
        again = runs.claim(session, run.id)
        runs.report(session, run.id, again, phase="sampling", done=1, total=40, points={0: {"reward": 0.5}})
    expect(page.get_by_text("attempt 2", exact=True)).to_be_visible()
    expect(page.locator("figcaption")).to_have_count(1)
    expect(page.locator("figcaption")).to_contain_text("reward")


def test_a_score_stands_beside_what_its_watcher_thinks(page: Page, place: AdminProject, committed: Committed) -> None:
    page.goto(place.root)
    page.get_by_role("button", name="Start round 1").click()
    with committed.begin() as session:
        run = session.scalars(select(Run)).one()
        attempt = runs.claim(session, run.id)
        points = {
            step: {
                "objective/scores": step * 0.5,
                "objective/kl": step * 0.2,
                "watched/evaluation": 1.0 - step * 0.25,
                "seconds/sample": 4.0,
                "seconds/learn": 8.0,
                "seconds/left": 60.0 * (9 - step),
                "val/clipfrac": 0.01,
            }
            for step in range(1, 6)
        }
        runs.report(session, run.id, attempt, phase="PPO", done=5, total=9, points=points)
    page.goto(f"{place.root}/runs/{run.id}")
    scores = page.locator("figure", has_text="watched alone")
    expect(scores.locator(".curve-name")).to_have_text(["scores 2.5", "evaluation -0.25"])
    expect(scores.get_by_role("img")).to_have_attribute(
        "aria-label", re.compile(r"scores 2\.5, evaluation -0\.25 \(5\)")
    )
    expect(page.locator("figure", has_text="Seconds a rollout").locator(".curve-name")).to_have_text(
        ["sample 4", "learn 8"]
    )
    expect(page.get_by_text("about 4 minutes left")).to_be_visible()
    expect(page.locator(".curve-grid").first.locator("figure")).to_have_count(3)
    folded = page.locator("figure", has_text="val/clipfrac")
    expect(folded).to_be_hidden()
    page.get_by_text("All other metrics").click()
    expect(folded.locator("canvas")).to_be_visible()
    colour = "() => getComputedStyle(document.querySelector('.curve-1'), '::before').color"
    light = page.evaluate(colour)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(colour) != light
    expect(scores.locator("canvas")).to_be_visible()
    with committed.begin() as session:  # killed, and gone on from the third step
        again = runs.claim(session, run.id)
        runs.report(session, run.id, again, phase="PPO", done=3, total=9, points={3: {"objective/scores": 7.0}})
    expect(scores.locator(".curve-name").first).to_have_text("scores 7")


def test_labels_are_downloaded(page: Page, place: AdminProject) -> None:
    page.goto(f"{place.root}/exports")
    page.get_by_role("button", name="Take a snapshot").click()
    with page.expect_download() as started:
        page.get_by_role("link", name="TRL preference").click()
    assert started.value.suggested_filename == f"{place.project.slug}-1-trl.jsonl"
    lines = Path(started.value.path()).read_text().splitlines()
    assert len(lines) == 18
    assert json.loads(lines[0])["chosen"] == "Ending A"


def test_invite_link_is_copied(browse: Browse, place: AdminProject, sign_in: SignIn, server: str) -> None:
    page = browse(permissions=["clipboard-read", "clipboard-write"])
    sign_in(page, place.admin)
    page.goto(f"{place.root}/people")
    page.get_by_role("button", name="Make an invite link").click()
    link = page.get_by_label("Invite link").input_value()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == link


def test_taking_somebody_out_asks_first(page: Page, place: AdminProject) -> None:
    page.goto(f"{place.root}/people")
    row = page.get_by_role("row", name="Bea Annotator")
    row.get_by_text("Change").click()
    page.once("dialog", lambda dialog: dialog.dismiss())
    row.get_by_role("button", name="Remove").click()
    expect(row).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("heading", name="Former members")).to_be_visible()
    expect(row.get_by_role("button", name="Remove")).to_have_count(0)


def test_everything_works_without_javascript(browse: Browse, place: AdminProject, sign_in: SignIn) -> None:
    page = browse(java_script_enabled=False)
    sign_in(page, place.admin)
    page.goto(f"{place.root}/comparisons")
    page.get_by_label("Search").fill("number 11")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Tick row").check()
    page.get_by_role("button", name="Close").click()
    expect(page.locator("tbody tr")).to_contain_text("closed")
    page.goto(place.root)
    page.get_by_role("button", name="Start round 1").click()
    page.get_by_role("link", name="waiting").click()
    expect(page.get_by_text("Waiting for a worker")).to_be_visible()


SECTIONS = "import prompts responses comparisons labels rounds exports people guidelines form settings audit"


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_pages_are_accessible_and_fit(
    browse: Browse,
    place: AdminProject,
    committed: Committed,
    sign_in: SignIn,
    no_violations: Callable[[Page], None],
    look: str,
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}}
    page = browse(**(phone if look == "phone" else {"color_scheme": look}))
    sign_in(page, place.owner)
    page.goto(place.root)
    page.get_by_role("button", name="Start round 1").click()
    with committed() as session:
        ids = {table.__tablename__: session.scalars(select(table.id)).first() for table in (Comparison, Run)}
        prompt = session.scalars(select(Comparison.prompt_id)).first()
    pages = ["", *(f"/{section}" for section in SECTIONS.split())]
    one = [f"/comparisons/{ids['comparisons']}", f"/runs/{ids['runs']}", f"/prompts/{prompt}", "/rounds/1"]
    for path in [*(place.root + part for part in pages + one), "/projects/new", "/account", "/"]:
        page.goto(path)
        no_violations(page)
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow <= 0, f"{path} is {overflow} pixels too wide"

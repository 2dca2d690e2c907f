"""How quick is the desk? A real Chromium, a real server with 5,000 comparisons, and a scripted person at the keys.

    .venv/bin/python benchmarks/desk.py [--quick] [--json FILE] [--device cpu]

A time runs from the browser's own stamp of the key event to the callback of the second animation frame after it: the
first frame that holds the change has been presented by then. That counts up to one frame (16.7 ms) too much and nothing
too little. The Event Timing API would be the other way; it rounds to 8 ms and leaves out whatever took less than 16.

Nothing else shows a ranking desk on this machine, so the goals stand where a peer would. At the end the database must
hold exactly the labels that were given, each as it was typed; otherwise there are no figures.
"""

import argparse
import json
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from sqlalchemy import select

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the tests, which know where Chromium is, are not installed

from app import children, embedded_postgres, schema  # noqa: E402
from app.config import settings  # noqa: E402
from app.database import engine, transaction  # noqa: E402
from app.domain import comparisons, people, projects, prompts, responses, sign_in  # noqa: E402
from app.domain.settings import ProjectSettings  # noqa: E402
from app.tables import Label, LabelRank, LabelRevision, Purpose, Role  # noqa: E402
from app.web.session import SESSION_COOKIE  # noqa: E402
from benchmarks.report import MET, Series, machine, result, write  # noqa: E402
from tests.browser.chromium import ARGUMENTS, executable  # noqa: E402

COMPARISONS = 5_000
SEED = 7
REPEATS = 3
READING = 1.0  # seconds that the reading person takes before the first key
KILOBYTE = 1_000
REAL_TEXTS = ROOT.parent / "shared" / "data" / "loadtest_content" / "content.jsonl"

# Every time is taken in the page itself; what a script of ours is told would come later than what a person sees.
TAKE_TIMES = """
globalThis.taken = { ranks: [], submits: [] };
globalThis.presented = (then) => requestAnimationFrame(() => requestAnimationFrame(() => then(performance.now())));
addEventListener("keydown", (event) => {
  if (/^Digit/.test(event.code)) presented((end) => taken.ranks.push(end - event.timeStamp));
  if (event.key !== "Enter") return;
  const before = document.getElementById("desk");
  const watch = new MutationObserver(() => {
    const now = document.getElementById("desk");
    if (!now || now === before) return;
    watch.disconnect();
    presented((end) => taken.submits.push(end - event.timeStamp));
  });
  watch.observe(document.getElementById("main"), { childList: true });
}, { capture: true });
"""


@dataclass
class Sitting:
    """What one scripted person did: answers by assignment, and the times that the page took, in milliseconds."""

    answers: dict[int, list[int]] = field(default_factory=dict)
    ranks: list[list[float]] = field(default_factory=list)  # one list a repeat
    submits: list[list[float]] = field(default_factory=list)
    a_minute: list[float] = field(default_factory=list)  # labels a minute, by repeat


@contextmanager
def database() -> Iterator[None]:
    """A database of this run's own, in a folder that is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="pl-"))  # short, so that the socket fits into it
    home.chmod(0o755)
    os.environ.pop("DATABASE_URL", None)
    os.environ["PREFLOOP_HOME"] = str(home)
    settings.cache_clear()
    try:
        schema.migrate()
        yield
    finally:
        engine().dispose()
        embedded_postgres.stop(home)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server() -> Iterator[str]:
    """The address of a `prefloop serve`, a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = children.start("app.commands", "serve", "--port", str(port))
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("The server does not start; what it says stands above.")
            time.sleep(0.1)
        yield address
    finally:
        children.end(process)


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/healthz").is_success
    except httpx.TransportError:
        return False


def texts() -> list[str]:
    """Texts of all lengths, math and code among them: real ones where they are at hand, made ones elsewhere."""
    if REAL_TEXTS.exists():
        rows = [json.loads(line) for line in REAL_TEXTS.read_text().splitlines()]
        return list(dict.fromkeys(row["response"] for row in rows if row["response"].strip()))
    print("No ../shared/data/loadtest_content here: the texts are made ones.")
    made = [
        f"Answer {number}. " + "A sentence of the usual length. " * (number * number // 12) for number in range(150)
    ]
    return [text + ("\n\n$$e^{i\\pi} + 1 = 0$$" if number % 4 == 0 else "") for number, text in enumerate(made)]


def fill() -> tuple[str, str]:
    """5,000 comparisons of 2 to 6 responses and somebody to judge them: the project's slug, the session's secret."""
    draw, pool = random.Random(SEED), texts()
    with transaction() as session:
        owner = people.create_person(session, email="owner@example.org", name="Owner", is_owner=True)
        chosen = ProjectSettings.model_validate({"base_model": "tiny"})
        project = projects.create_project(session, name="Bench", by=owner, settings=chosen)
        person = people.create_person(session, email="ann@example.org", name="Ann")
        people.add_member(session, project, person, Role.ANNOTATOR)
        items = [_prompt(number, draw.sample(pool, draw.randint(2, 6))) for number in range(COMPARISONS)]
        stored = prompts.add_prompts(session, project, items)
        new = [_comparison(project.id, found) for found in stored.responses]
        comparisons.create_comparisons(session, new)
        _, secret = sign_in.open_session(session, person)
        return project.slug, secret


def _prompt(number: int, answers: Sequence[str]) -> prompts.NewPrompt:
    new = tuple(responses.NewResponse(text=text) for text in answers)
    messages = [{"role": "user", "content": f"Question {number}: which of these would you rather read?"}]
    return prompts.NewPrompt(messages=messages, responses=new)


def _comparison(project_id: int, found: Sequence[Any]) -> comparisons.NewComparison:
    return comparisons.NewComparison(
        project_id=project_id,
        prompt_id=found[0].prompt_id,
        response_ids=[response.id for response in found],
        k=1,
        purpose=Purpose.TRAIN,
        selected_because="by_hand",
    )


class Person:
    """Somebody who ranks what is shown, in an order drawn by lot, by digit keys and Enter."""

    def __init__(self, page: Page, slug: str, reading: float, seed: int) -> None:
        self.page = page
        self.reading = reading
        self.draw = random.Random(seed)
        self.sitting = Sitting()
        page.goto(f"/projects/{slug}/desk")
        expect(page.locator("[data-strip] .groups")).to_be_visible()
        page.wait_for_load_state("networkidle")

    def sit(self, labels: int) -> Sitting:
        """Give so many labels, in REPEATS stretches."""
        for _ in range(REPEATS):
            self.page.evaluate("taken.ranks = []; taken.submits = []")
            began, number = time.perf_counter(), labels // REPEATS
            for _ in range(number):
                self._label()
            self.sitting.a_minute.append(60 * number / (time.perf_counter() - began))
            expect(self.page.locator("#desk")).to_have_attribute("data-unsent", "0")
            times = self.page.evaluate("new Promise((done) => presented(() => done(taken)))")
            self.sitting.ranks.append(times["ranks"])
            self.sitting.submits.append(times["submits"])
        return self.sitting

    def _label(self) -> None:
        shown = self.page.evaluate(
            "[document.getElementById('desk').dataset.assignment,"
            " [...document.querySelectorAll('[data-response]')].map((part) => Number(part.dataset.response))]"
        )
        assignment, ids = int(shown[0]), shown[1]
        order = self.draw.sample(range(1, len(ids) + 1), len(ids))
        time.sleep(self.reading)
        for number in order:
            self.page.keyboard.press(str(number))
        # Nobody submits what they have not seen; sooner, the next comparison would come before the last rank's paint.
        self.page.evaluate("new Promise((done) => presented(done))")
        self.page.keyboard.press("Enter")
        self.page.locator(f"#desk:not([data-assignment='{assignment}'])").wait_for()
        self.sitting.answers[assignment] = [ids[number - 1] for number in order]


def check(answers: dict[int, list[int]]) -> None:
    """The database holds these rankings and no others; else SystemExit."""
    query = (
        select(Label.assignment_id, LabelRevision.number, LabelRank.rank, LabelRank.response_id)
        .join(LabelRevision, LabelRevision.label_id == Label.id)
        .join(LabelRank, LabelRank.revision_id == LabelRevision.id)
        .order_by(Label.assignment_id, LabelRevision.number, LabelRank.rank)
    )
    stored: dict[int, list[tuple[int, int, int]]] = {}
    with transaction() as session:
        for assignment_id, *placed in session.execute(query):
            stored.setdefault(assignment_id, []).append((placed[0], placed[1], placed[2]))
    typed = {
        assignment_id: [(1, place, response_id) for place, response_id in enumerate(order, start=1)]
        for assignment_id, order in answers.items()
    }
    if stored != typed:
        wrong = sorted(key for key in stored.keys() | typed.keys() if stored.get(key) != typed.get(key))
        raise SystemExit(f"The database does not hold what was typed, in {len(wrong)} assignments: {wrong[:10]}.")
    print(f"All {len(answers)} labels are stored, each once and as it was typed.")


def listen(page: Page) -> list[Request]:
    """The scripts and style sheets that come over the wire from now on."""
    came: list[Request] = []

    def note(request: Request) -> None:
        if request.resource_type in ("script", "stylesheet"):
            came.append(request)

    page.on("requestfinished", note)
    return came


def kilobytes(came: Sequence[Request]) -> float:
    """Their size as it was sent, compressed, without headers."""
    return sum(request.sizes()["responseBodySize"] for request in came) / KILOBYTE


def measure(browser: Browser, address: str, slug: str, secret: str, labels: int) -> list[dict[str, Any]]:
    """Let one person hurry and one read, each giving so many labels; all results."""
    context = browser.new_context(base_url=address, viewport={"width": 1440, "height": 900})
    context.add_init_script(TAKE_TIMES)
    context.add_cookies([{"name": SESSION_COOKIE, "value": secret, "url": address}])
    page = context.new_page()
    came = listen(page)
    quick = Person(page, slug, 0.0, SEED).sit(labels)
    katex = [request for request in came if "/katex/" in request.url]
    if not katex:
        raise SystemExit("No math came up, so that nothing can be said of KaTeX: give more labels.")
    own = kilobytes([request for request in came if request not in katex])
    with_katex = own + kilobytes(katex)
    page.close()
    calm = Person(context.new_page(), slug, READING, SEED + 1).sit(labels)
    context.close()
    check(quick.answers | calm.answers)
    return [
        *_times("keystroke to painted rank", quick.ranks, 50.0),
        *_times("submit to next painted", quick.submits, 100.0),
        *_times(f"submit to next painted, {READING:g} s of reading", calm.submits, 100.0),
        row("javascript and css kB", "kB", [own], 150.0),
        row("javascript and css kB, with KaTeX", "kB", [with_katex], None),
        row("labels a minute", "labels/min", quick.a_minute, None),
        row(f"labels a minute, {READING:g} s of reading", "labels/min", calm.a_minute, None),
    ]


def _times(case: str, repeats: Sequence[Sequence[float]], goal_p95: float) -> list[dict[str, Any]]:
    p50 = [statistics.median(times) for times in repeats]
    p95 = [statistics.quantiles(times, n=20, method="inclusive")[-1] for times in repeats]
    return [row(f"{case} p50", "ms", p50, None), row(f"{case} p95", "ms", p95, goal_p95)]


def row(case: str, metric: str, runs: Sequence[float], goal: float | None) -> dict[str, Any]:
    """One line of the table. Where there is a goal, which is a most, the ratio is the goal over what was measured."""
    ours = statistics.median(runs)
    measured = Series(ours, runs).rounded(1)
    if goal is None:
        return result(case, metric, measured)
    ratio = Series(goal / ours, [goal / run for run in runs]).rounded(2)
    return result(case, metric, measured, ratio=ratio, goal=goal, met=ours <= goal)


def show(results: Sequence[dict[str, Any]]) -> None:
    """The table."""
    print(f"\n{'case':48} {'ours':>9} {'goal':>7}  met")
    for one in results:
        goal = f"{one['goal']:g}" if one["goal"] is not None else ""
        met = MET[one["met"]]
        print(f"{one['case']:48} {one['ours']:>9} {goal:>7}  {met:4} {one['metric']}, runs {one['ours_runs']}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="60 labels a person instead of 210")
    parser.add_argument("--json", type=Path, help="write the results to this file too")
    parser.add_argument("--device", choices=["cpu"], default="cpu", help="nothing here learns: cpu is all there is")
    asked = parser.parse_args()
    labels = 60 if asked.quick else 210
    with database(), sync_playwright() as playwright:
        print(f"Writing {COMPARISONS:,} comparisons ...", flush=True)
        slug, secret = fill()
        with server() as address:
            browser = playwright.chromium.launch(executable_path=executable(), args=ARGUMENTS)
            print(f"Two persons give {labels} labels each ...", flush=True)
            results = measure(browser, address, slug, secret, labels)
            measured_on = machine(chromium=browser.version)
            browser.close()
    if asked.json:
        write(asked.json, "desk", measured_on, results)
    show(results)


if __name__ == "__main__":
    main()

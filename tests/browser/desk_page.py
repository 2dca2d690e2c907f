"""The desk as a person sees it: what a test reads from it and does to it."""

import re

from playwright.sync_api import Locator, Page, expect

from app.tables import Project


class DeskPage:
    """A browser at the desk of a project."""

    def __init__(self, page: Page, project: Project) -> None:
        self.page = page
        self.root = f"/projects/{project.slug}"

    def open(self) -> "DeskPage":
        self.page.goto(f"{self.root}/desk")
        self.ready()
        return self

    def ready(self) -> None:
        """Wait until the script has taken over."""
        expect(self.page.locator("ranking-desk:defined .rank-bar")).to_be_visible()

    def sent(self) -> None:
        """Wait until the server has taken every answer: the next comparison is shown before."""
        expect(self.page.locator("#desk")).to_have_attribute("data-unsent", "0")

    @property
    def assignment(self) -> int:
        """The id of the assignment on the page."""
        action = self.page.locator("#ranking").get_attribute("action") or ""
        return int(re.findall(r"/assignments/(\d+)/label", action)[0])

    def next_assignment(self, after: int) -> int:
        """Wait until another comparison is shown than `after` and the answer is stored; return its assignment."""
        expect(self.page.locator("#ranking")).not_to_have_attribute("action", f"{self.root}/assignments/{after}/label")
        self.ready()
        self.sent()
        return self.assignment

    def question(self) -> str:
        """The name of the question at hand."""
        return self.page.locator(".question:visible").get_attribute("aria-label") or ""

    def said(self) -> Locator:
        """What is announced."""
        return self.page.locator("[data-announce]")

    def response_ids(self) -> list[int]:
        """Response ids in the order shown."""
        shown = self.page.locator("[data-response]")
        return [int(shown.nth(index).get_attribute("data-response") or 0) for index in range(shown.count())]

    def groups(self) -> list[list[int]]:
        """The ranking in the strip, by number shown."""
        return [
            [int(chip) for chip in group.locator(".chip").all_inner_texts()]
            for group in self.page.locator(".groups .group:visible").all()
        ]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def card(self, number: int) -> Locator:
        return self.page.locator(f".response[data-number='{number}']")

    def click(self, number: int, act: str) -> None:
        self.card(number).locator(f"[data-act={act}]").click()

    def drag(self, number: int, target: str) -> None:
        """Drag a response by its number in the strip onto `target`, a selector; it is looked for while dragging."""
        self.page.locator(f"[data-strip] [data-drag='{number}']").hover()
        self.page.mouse.down()
        x, y = middle(self.page.locator(f"[data-strip] [data-drag='{number}']"))
        self.page.mouse.move(x + 10, y, steps=2)
        self.page.mouse.move(*middle(self.page.locator(target)), steps=4)
        expect(self.page.locator(target)).to_have_class(re.compile("is-target"))
        self.page.mouse.up()

    def submit(self) -> None:
        self.page.get_by_role("button", name="Submit").click()


def middle(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

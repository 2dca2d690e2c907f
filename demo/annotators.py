"""Who labels in the demo? Simulated people, each a browser without JavaScript: they read pages and post their forms."""

import random
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from math import log
from threading import Event
from types import TracebackType
from typing import Self

import httpx

from demo.page import Form, Page
from demo.preference import score

_CLOSE = 0.25  # stories whose scores are nearer than this may be called equal
_CALLED_EQUAL = 0.5  # with this probability
_SHARPNESS = 2.0  # how much a point of score counts against the noise
_PATIENCE = 30.0  # seconds to wait for an answer

Ranking = list[list[str]]


@dataclass
class Taste:
    """How one annotator ranks. Seeded, so that the same stories in the same order are ranked the same again."""

    rng: random.Random
    sharpness: float = _SHARPNESS
    is_careless: bool = False

    def rank(self, stories: Mapping[str, str]) -> Ranking:
        """The ids of the stories, best group first.

        Sorting score * sharpness + Gumbel noise draws from the Plackett-Luce model, of which Bradley-Terry is the
        case of two (Yellott 1977, "The relationship between Luce's choice axiom, Thurstone's theory of comparative
        judgment, and the double exponential distribution", theorem 5).
        """
        ids = list(stories)
        if self.is_careless:
            self.rng.shuffle(ids)
            return [[id_] for id_ in ids]
        scores = {id_: score(story) for id_, story in stories.items()}
        felt = {id_: self.sharpness * scores[id_] - _log_exponential(self.rng) for id_ in ids}
        ids.sort(key=felt.__getitem__, reverse=True)
        groups = [[ids[0]]]
        for above, below in pairwise(ids):
            if abs(scores[above] - scores[below]) < _CLOSE and self.rng.random() < _CALLED_EQUAL:
                groups[-1].append(below)
            else:
                groups.append([below])
        return groups


def _log_exponential(rng: random.Random) -> float:
    """Minus a standard Gumbel variate: the logarithm of an exponential one."""
    return log(max(rng.expovariate(1.0), 1e-300))


def ranks(groups: Ranking) -> dict[str, int]:
    """The place of every id, 1 for the best; tied ones share a place."""
    return {id_: place for place, group in enumerate(groups, start=1) for id_ in group}


class Annotator:
    """One simulated person with a browser of their own."""

    def __init__(self, base_url: str, slug: str, taste: Taste) -> None:
        self._browser = httpx.Client(base_url=base_url, follow_redirects=True, timeout=_PATIENCE)
        self._desk = f"/projects/{slug}/desk"
        self._taste = taste

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._browser.close()

    def join(self, invite: str, *, name: str, email: str, password: str) -> None:
        """Open an invite link and fill in its form; afterwards the browser is signed in."""
        form = self._open(invite).form_to(httpx.URL(invite).path)
        self._post(form, {"name": name, "email": email, "password": password})

    def label(self, most: int, stop: Event, labelled: Callable[[], None]) -> int:
        """Answer comparisons until there is none left for this person, or `most` are done; return how many were."""
        page = self._open(self._desk)
        if (guidelines := page.find_form("/consent")) is not None:
            page = self._post(guidelines, {})
        for done in range(most):
            form = page.find_form("/label")
            if form is None or stop.is_set():
                return done
            # Who goes after the last one does not look at what the desk shows next: that would lease it.
            page = self._post(form, self._answer(form, page), follow=done + 1 < most)
            labelled()
        return most

    def _answer(self, form: Form, page: Page) -> dict[str, str]:
        ids = [name.removeprefix("rank_") for name in form.fields if name.startswith("rank_")]
        stories = {id_: page.texts[id_] for id_ in ids}
        return {f"rank_{id_}": str(place) for id_, place in ranks(self._taste.rank(stories)).items()}

    def _open(self, path: str) -> Page:
        return Page(self._browser.get(path).raise_for_status().text)

    def _post(self, form: Form, filled: Mapping[str, str], *, follow: bool = True) -> Page:
        answer = self._browser.post(form.action, data={**form.fields, **filled}, follow_redirects=follow)
        return Page("" if answer.is_redirect else answer.raise_for_status().text)


def tastes(count: int, seed: int) -> list[Taste]:
    """The tastes of `count` annotators. The last of three and more is careless."""
    return [
        Taste(random.Random(f"{seed}:{number}"), is_careless=count >= 3 and number == count - 1)
        for number in range(count)
    ]


def join_all(base_url: str, slug: str, invite: str, count: int, seed: int) -> list[Annotator]:
    """Let `count` annotators join a project through one invite link."""
    everybody = []
    for number, taste in enumerate(tastes(count, seed), start=1):
        annotator = Annotator(base_url, slug, taste)
        email = f"simulated-{number}-{secrets.token_hex(4)}@example.invalid"
        annotator.join(invite, name=f"Simulated {number}", email=email, password=secrets.token_urlsafe(16))
        everybody.append(annotator)
    return everybody


def label_all(
    annotators: Sequence[Annotator], stop: Event, labelled: Callable[[], None], most: int | None = None
) -> int:
    """Let all annotators label at the same time until the queue has nothing for them; return the number of labels.

    `most` bounds the labels of all together.
    """
    share = [None if most is None else len(range(place, most, len(annotators))) for place in range(len(annotators))]
    with ThreadPoolExecutor(len(annotators)) as pool:
        work = [
            pool.submit(annotator.label, 10**9 if limit is None else limit, stop, labelled)
            for annotator, limit in zip(annotators, share, strict=True)
        ]
        try:
            return sum(task.result() for task in work)
        except BaseException:
            stop.set()  # the pool waits for the others on its way out
            raise

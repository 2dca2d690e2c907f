"""How the simulated annotators rank, and what they read from a page."""

import random
from collections import Counter
from math import exp

import pytest

from demo import annotators
from demo.annotators import Taste, ranks
from demo.page import Page

STORIES = {"1": "Then he went home", "2": '"Hello," said the cat. They were happy friends.', "3": "The end."}


def test_a_ranking_names_every_story_once() -> None:
    taste = Taste(random.Random(1))
    for _ in range(50):
        groups = taste.rank(STORIES)
        assert sorted(id_ for group in groups for id_ in group) == ["1", "2", "3"]


def test_noise_is_that_of_plackett_luce(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frequencies of all six orders against the product formula of the model."""
    scores = {"a": 0.0, "b": 0.6, "c": 1.0}
    monkeypatch.setattr(annotators, "score", lambda story: scores[story])
    taste = Taste(random.Random(2), sharpness=1.5)
    draws = 20_000
    seen = Counter(tuple(group[0] for group in taste.rank({id_: id_ for id_ in scores})) for _ in range(draws))
    strength = {id_: exp(1.5 * value) for id_, value in scores.items()}
    for order, times in seen.items():
        expected = (
            strength[order[0]] / sum(strength.values()) * strength[order[1]] / (strength[order[1]] + strength[order[2]])
        )
        assert times / draws == pytest.approx(expected, abs=0.012), order
    assert len(seen) == 6


def test_close_stories_are_sometimes_called_equal() -> None:
    taste = Taste(random.Random(3))
    sizes = Counter(len(taste.rank({"1": "He sat down.", "2": "She sat down."})) for _ in range(200))
    assert sizes[1] > 50
    assert sizes[2] > 50
    assert ranks([["2"], ["1", "3"]]) == {"2": 1, "1": 2, "3": 2}


def test_the_careless_one_ranks_at_random() -> None:
    careless = annotators.tastes(8, seed=1)[-1]
    assert [taste.is_careless for taste in annotators.tastes(8, seed=1)] == [False] * 7 + [True]
    first = Counter(careless.rank(STORIES)[0][0] for _ in range(3000))
    assert all(900 < times < 1100 for times in first.values()), first


def test_a_page_is_read_as_a_browser_without_javascript_sees_it() -> None:
    page = Page(
        """<main><div data-response="7"><p>One &amp; <b>two</b></p><p>three<br>four</p></div>
        <form action="/search"><input name="q" value="x"></form>
        <form method="post" action="/a/5/label"><input type="hidden" name="csrf" value="s">
        <input type="checkbox" name="c">
        <select name="rank_7"><option value="1">1</option><option value="2" selected>2</option></select>
        <textarea name="why">be&lt;cause</textarea><button name="go" value="1">Go</button></form></main>"""
    )
    form = page.form_to("/label")
    assert (form.action, form.method) == ("/a/5/label", "post")
    assert form.fields == {"csrf": "s", "rank_7": "2", "why": "be<cause"}
    assert page.texts["7"].split() == ["One", "&", "two", "three", "four"]
    with pytest.raises(LookupError, match="no form to …/skip"):
        page.form_to("/skip")

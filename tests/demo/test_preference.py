"""What the hidden preference likes, and that it is no measure of length."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from demo.preference import WEIGHTS, Judgement, judge, score

TINY_STORIES = Path(__file__).parents[3] / "shared" / "data" / "tinystories" / "derived_clean_cased.txt"

GOOD = (
    '"Are you cold, little owl?" asked the baker. The owl nodded and shook her wet feathers. '
    '"Then come in, there is bread by the oven." They ate together, and the owl was happy and warm.'
)


def test_a_judgement_is_what_was_counted_by_hand() -> None:
    story = 'Tom sat down. "Hello you," said Mia. She gave him a hug and a smile.'
    # 2 spoken words of the 10 that are enough. Two warm words end it. Under 25 words: no variety.
    assert judge(story) == Judgement(dialogue=0.2, warmth=1, variety=0, finish=1, repetition=0)
    assert score(story) == pytest.approx(2.0 * 0.2 + 1.5 + 1.0)


def test_repetition_is_the_share_of_triples_that_came_before() -> None:
    # 9 words make 7 triples, two of them different.
    assert judge("run and run and run and run and run").repetition == 1
    assert judge("one two three four one two three five").repetition == pytest.approx((1 / 6) / 0.25)


def test_variety_is_the_moving_average_of_different_words() -> None:
    words = [f"{first}{second}" for first in "abcdefgh" for second in "klmno"]
    assert judge(" ".join(words[:25])).variety == 1  # all different
    mixed = [*words[:20], *words[:10]]  # windows of 25: 20 different words in each of the six
    assert judge(" ".join(mixed)).variety == pytest.approx((20 / 25 - 0.65) / 0.3)


@pytest.mark.parametrize(
    ("part", "worse"),
    [
        ("dialogue", GOOD.replace('"', "")),
        ("warmth", GOOD.replace("together, and the owl was happy and warm", "alone, and the owl was wet and tired")),
        ("finish", GOOD[:-1] + " and"),
        ("repetition", GOOD + " They ate bread by the oven." * 3),
    ],
)
def test_every_part_counts(part: str, worse: str) -> None:
    assert (getattr(judge(GOOD), part) - getattr(judge(worse), part)) * WEIGHTS[part] > 0
    assert score(worse) < score(GOOD) - 0.3


def test_typographic_quotes_are_speech_too() -> None:
    assert judge("“Come in,” said the fox.") == judge('"Come in," said the fox.')


@pytest.mark.parametrize("nothing", ["", "   ", "...", "123 456"])
def test_a_story_without_words_has_nothing_to_like(nothing: str) -> None:
    assert score(nothing) == 0


def test_nothing_depends_on_what_was_judged_before() -> None:
    assert score(GOOD) == score(GOOD) == score(GOOD)


def endings(lengths: range) -> list[str]:
    """The ends of real stories, cut to a drawn number of words; two in three are complete."""
    rng = np.random.default_rng(0)
    found = []
    for story in TINY_STORIES.read_text().split("<|endoftext|>"):
        words = story.split()
        if len(words) > 110:
            length = int(rng.integers(lengths.start, lengths.stop))
            start = len(words) - length if rng.random() < 2 / 3 else 20
            found.append(" ".join(words[start : start + length]))
    return found


@pytest.mark.skipif(not TINY_STORIES.exists(), reason="the public stories of ../shared/data/ are not here")
def test_longer_is_not_better() -> None:
    stories = endings(range(30, 80))
    lengths = [len(story.split()) for story in stories]
    correlation = stats.spearmanr(lengths, [score(story) for story in stories]).statistic
    assert len(stories) > 1000
    assert abs(correlation) < 0.15


@pytest.mark.skipif(not TINY_STORIES.exists(), reason="the public stories of ../shared/data/ are not here")
def test_stories_of_one_length_are_told_apart() -> None:
    scores = np.array([score(story) for story in endings(range(50, 51))])
    first, second = scores[: len(scores) // 2], scores[len(scores) // 2 : len(scores) // 2 * 2]
    # The median pair differs by more than what annotators call equal, and the spread is that of stories of any length.
    assert np.median(np.abs(first - second)) > 0.5
    assert scores.std() > 0.8 * np.std([score(story) for story in endings(range(30, 80))])

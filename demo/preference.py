"""What do the simulated annotators like? A hidden score of a story, known to the demo's process alone.

The reward model never sees this file: it has to find out from rankings. A story is liked for people who speak,
for a warm ending, for varied wording and for being finished; it is disliked for saying the same thing again. Every part
is a share or saturates, so that a longer story is not a better one; speech and warmth are counted, so that a shorter
one is not either. The score is deterministic and lies in [-2, 6].
"""

import re
from dataclasses import dataclass

WARM_WORDS = frozenset(
    "happy happily glad proud safe warm kind kindly gentle friend friends friendly together love loved loves "  # noqa: SIM905
    "hug hugged hugs smile smiled smiles smiling laugh laughed laughing thank thanked thanks thankful share shared "
    "sharing help helped helping cheer cheered cozy grateful forgave cuddled".split()
)
WEIGHTS = {"dialogue": 2.0, "warmth": 1.5, "variety": 1.5, "finish": 1.0, "repetition": -2.0}

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
_SPEECH = re.compile(r'"([^"]*)"')
_CURLY = str.maketrans("\u201c\u201d\u2018\u2019", "\"\"''")
_FINISHED = re.compile(r"[.!?]['\"]?\s*$")

_ENOUGH_SPEECH = 10  # spoken words
_ENOUGH_WARMTH = 2  # warm words in the ending
_ENDING = 25  # words
_WINDOW = 25  # words, for the variety of wording
_PLAIN_VARIETY, _RICH_VARIETY = 0.65, 0.95  # shares of different words that count 0 and 1
_MUCH_REPETITION = 0.25  # share of three-word sequences that came before


@dataclass(frozen=True)
class Judgement:
    """What was found in a story, each in [0, 1]."""

    dialogue: float
    warmth: float
    variety: float
    finish: float
    repetition: float

    @property
    def score(self) -> float:
        """The weighted sum."""
        return sum(weight * float(getattr(self, part)) for part, weight in WEIGHTS.items())


def judge(story: str) -> Judgement:
    """Look at a story's parts. A story without a word has none of them."""
    plain = story.translate(_CURLY).lower()
    words = _WORD.findall(plain)
    if not words:
        return Judgement(0.0, 0.0, 0.0, 0.0, 0.0)
    spoken = sum(len(_WORD.findall(speech)) for speech in _SPEECH.findall(plain))
    warm = len({word for word in words[-_ENDING:] if word in WARM_WORDS})
    return Judgement(
        dialogue=min(1.0, spoken / _ENOUGH_SPEECH),
        warmth=min(1.0, warm / _ENOUGH_WARMTH),
        variety=_between(_variety(words), _PLAIN_VARIETY, _RICH_VARIETY),
        finish=float(_FINISHED.search(plain) is not None),
        repetition=min(1.0, _repetition(words) / _MUCH_REPETITION),
    )


def score(story: str) -> float:
    """How much the story is liked: higher is better."""
    return judge(story).score


def _variety(words: list[str]) -> float:
    """The share of different words in a window, averaged over all windows, so that length does not matter.

    Covington and McFall 2010, "Cutting the Gordian knot: the moving-average type-token ratio".
    """
    if len(words) < _WINDOW:
        return 0.0  # too short to show variety
    windows = range(len(words) - _WINDOW + 1)
    return sum(len(set(words[start : start + _WINDOW])) for start in windows) / (_WINDOW * len(windows))


def _repetition(words: list[str]) -> float:
    """The share of three-word sequences that stood in the story before."""
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len(set(triples)) / len(triples) if triples else 0.0


def _between(value: float, low: float, high: float) -> float:
    return min(1.0, max(0.0, (value - low) / (high - low)))

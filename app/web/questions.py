"""What does the desk ask, one question after the other? The overall judgement, the score, then each criterion."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from app.domain.judgement import Criterion, JudgementForm, Kind, PairAsked
from app.language import gettext as _

MOST_BUTTONS = 11  # from 0 to 10
_FIELDS: dict[Kind, str] = {"ranking": "rank_", "pair": "strength", "score": "score_"}


@dataclass(frozen=True)
class Grade:
    """A place on a pair's scale: which of the two is better, and how much."""

    value: str  # what the form's field says
    number: int | None  # the better response by its number shown; None: neither
    level: int  # how much, 1 the least; 0: neither
    words: str


@dataclass(frozen=True)
class Question:
    """Something that is asked of all responses of a comparison."""

    key: str  # its name on the page
    name: str
    description: str
    kind: Kind
    field: str  # a pair's field; of the others, what the name of each response's field begins with
    required: bool
    ties: bool = True
    partial: bool = False
    grades: tuple[Grade, ...] = ()  # a pair's scale, from the first response significantly better to the second
    lowest: float = 1
    highest: float = 5
    step: float = 1

    @property
    def whole(self) -> list[int]:
        """The scores that have a button and a digit of their own: whole numbers, where they are few."""
        numbers = range(int(-(-self.lowest // 1)), int(self.highest // 1) + 1)
        on_steps = [number for number in numbers if _is_whole((number - self.lowest) / self.step)]
        return on_steps if len(on_steps) <= MOST_BUTTONS else []


def questions(asked: JudgementForm, response_ids: Sequence[int]) -> list[Question]:
    """What `asked` asks of these responses, in the order shown."""
    found = [_overall(asked, response_ids)] if asked.overall != "none" and len(response_ids) > 1 else []
    if score := asked.score:
        found.append(
            Question(
                key="score",
                name=_("Score"),
                description=_(
                    "How good is it by itself, from %(lowest)s to %(highest)s?",
                    lowest=f"{score.lowest:g}",
                    highest=f"{score.highest:g}",
                ),
                kind="score",
                field="score_",
                required=score.required,
                lowest=score.lowest,
                highest=score.highest,
                step=score.step,
            )
        )
    # Where there is one response, nothing can be compared with it.
    criteria = [one for one in asked.criteria if one.kind == "score" or len(response_ids) > 1]
    return found + [_criterion(asked, criterion, response_ids) for criterion in criteria]


def _overall(asked: JudgementForm, ids: Sequence[int]) -> Question:
    is_pair = asked.is_pair(asked.overall, len(ids))
    return Question(
        key="overall",
        name=_("Overall"),
        description=_("Which response is better?") if is_pair else _("Rank the responses, the best first."),
        kind="pair" if is_pair else "ranking",
        field="strength" if is_pair else "rank_",
        required=True,
        ties=asked.ranking.ties,
        partial=asked.ranking.partial,
        grades=_grades(asked.pair, ids) if is_pair else (),
    )


def _criterion(asked: JudgementForm, criterion: Criterion, ids: Sequence[int]) -> Question:
    is_pair = asked.is_pair(criterion.kind, len(ids))
    kind: Kind = "pair" if is_pair else "score" if criterion.kind == "score" else "ranking"
    name = f"criterion_{criterion.key}"
    return Question(
        key=name,
        name=criterion.name,
        description=criterion.description,
        kind=kind,
        field=f"{name}_{_FIELDS[kind]}",
        required=criterion.required,
        ties=asked.ranking.ties,
        partial=asked.ranking.partial,
        grades=_grades(asked.pair, ids) if is_pair else (),
        highest=criterion.highest,
    )


def _grades(asked: PairAsked, ids: Sequence[int]) -> tuple[Grade, ...]:
    words = scale_words(asked.scale)
    first = [Grade(f"{ids[0]}:{level}", 1, level, words[level - 1]) for level in range(asked.levels, 0, -1)]
    second = [Grade(f"{ids[1]}:{level}", 2, level, words[level - 1]) for level in range(1, asked.levels + 1)]
    neither = [Grade("tie", None, 0, _("about equal"))] if asked.ties else []
    return (*first, *neither, *second)


def scale_words(scale: Literal["better", "llama2", "anthropic"]) -> list[str]:
    """What each level is called, the weakest first."""
    if scale == "better":
        return [_("better")]
    if scale == "llama2":
        return [_("slightly better"), _("better"), _("significantly better")]
    return [_("slightly better"), _("better"), _("much better"), _("far better")]


def _is_whole(number: float) -> bool:
    return abs(number - round(number)) < 1e-6  # far less than any step, far more than rounding leaves

"""What does a line of a file say of the responses in it? Orders, grades, scores, and by whom."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from worker.learning.json_lines import Json, Row
from worker.learning.records import Judgement, Label, Scale
from worker.learning.reward.observations import OVERALL, SCORE
from worker.learning.reward.shapes import (
    Asked,
    BadLine,
    Groups,
    Messages,
    is_number,
    kind,
    read_shape,
    read_text,
)

MOST_LEVELS = 100
"""A scale has a learned threshold for every grade; whoever has more of them has scores."""
LARGEST_NUMBER = 1e9
"""Of scores, to either side, and weights: the squares and sums of larger ones leave single precision."""
SMALLEST_WEIGHT = 1e-30
"""Of those that are not 0: single precision knows few smaller numbers, and the products of weights must be some."""


@dataclass(frozen=True)
class Line:
    """What a line says.

    `responses` are those that stand in it, in its order. `labels` are what was said of them: the line's own, and one
    for each correction. `open_levels` names the judgements (`overall`, criteria) whose number of grades the line does
    not say, `open_ties` those of which it does not say whether responses could be tied. Lines of one `group` stay on
    one side of a split; `split` is the side that the line names.
    """

    prompt: Messages
    responses: tuple[str, ...]
    labels: tuple[Label, ...]
    open_levels: frozenset[str]
    open_ties: frozenset[str]
    group: str
    split: str | None


def parse_line(row: Json) -> Line:
    """Reads the value of one line.

    Raises:
        BadLine: if it fits no shape, or a field does not hold what it should.
    """
    asked = read_shape(row)
    overall, criteria = _overall(row, asked), _criteria(row, asked)
    read = {OVERALL: overall, **criteria}
    label = Label(
        prompt=asked.prompt,
        responses=asked.responses,
        overall=overall.judgement,
        criteria={output: one.judgement for output, one in criteria.items()},
        annotator=_name(row, "annotator", "annotator_id"),
        shown=_shown(row, asked),
        weight=_weight(row),
        implied=bool(_flag(row, "implied")),
    )
    return Line(
        prompt=asked.prompt,
        responses=asked.responses,
        labels=(label, *_corrections(row, asked, label)),
        open_levels=frozenset(output for output, one in read.items() if one.open_levels),
        open_ties=frozenset(output for output, one in read.items() if one.open_ties),
        group=_name(row, "group") or json.dumps(_root(asked.prompt)),
        split=_name(row, "split"),
    )


def is_scored(row: Row) -> bool:
    """Whether a reward model has scored the line: then `given_scores` stands in it, null where people gave none.

    `scores` and `deviations` alone may be somebody's own.
    """
    return "given_scores" in row and "deviations" in row


def output_of(criterion: str) -> str:
    """What a reward model calls the output of a criterion: its name, where no output of its own is called so."""
    return f"{criterion} (criterion)" if criterion in {OVERALL, SCORE} else criterion


# What is said of them


@dataclass(frozen=True)
class _Judged:
    """A judgement, and what the line leaves open of its scale: until the whole file is read, a guess stands there."""

    judgement: Judgement
    open_levels: bool
    open_ties: bool


def _overall(row: Row, asked: Asked) -> _Judged:
    answers = _object(row.get("answers"), '"answers"')
    said = {key: row.get(key) for key in ("ranking", "groups", "strength", "levels", "ties")}
    if said["strength"] is None:
        said["strength"] = answers.get("strength")
    if asked.is_pair and said["strength"] == 0:
        said["strength"] = None  # so do the exports mark a pair that was not graded
    scores = _given_scores(row)
    said["scores"] = answers.get("scores") if scores is None else scores
    return _judgement(said, asked, asked.groups, "")


def _criteria(row: Row, asked: Asked) -> dict[str, _Judged]:
    given = row.get("criteria")
    if given is None:
        given = _object(row.get("answers"), '"answers"').get("criteria")
    judged: dict[str, _Judged] = {}
    for key, said in _object(given, '"criteria"').items():
        where = f'"criteria"."{key}"'
        if not isinstance(said, dict):
            raise BadLine(f'{where} is {kind(said)}, and must be an object with "ranking" or "scores"')
        judged[output_of(key)] = _judgement(said, asked, (), f"{where}.")
    return judged


def _judgement(said: Row, asked: Asked, implied: Groups, where: str) -> _Judged:
    groups = _groups(said, asked, implied, where)
    strength = _whole(said.get("strength"), f'{where}"strength"')
    levels = _whole(said.get("levels"), f'{where}"levels"')
    if strength == 0 and not groups and len(asked.responses) == 2:
        groups = ((0, 1),)
    _check_grade(groups, strength, levels, where)
    ties = _flag(said, "ties", where)
    if ties is False and any(len(group) > 1 for group in groups):
        raise BadLine(f'{where}"ties" is false, and the order has a tie')
    is_pair, is_tie = sum(map(len, groups)) == 2, len(groups) == 1
    scale = Scale(levels or strength or 1 if is_pair else 1, ties is not False)
    scores = _scores(said.get("scores"), len(asked.responses), f'{where}"scores"')
    is_graded = is_pair and (strength is not None or is_tie)
    return _Judged(Judgement(groups, strength or None, scale, scores), is_graded and levels is None, ties is None)


def _check_grade(groups: Groups, strength: int | None, levels: int | None, where: str) -> None:
    """Raises BadLine where a pair is not graded as its order and its scale say."""
    is_pair, is_tie = sum(map(len, groups)) == 2, len(groups) == 1
    if levels is not None and not 1 <= levels <= MOST_LEVELS:
        raise BadLine(
            f'{where}"levels" is {levels}: it says how many grades there are to each side, 1 to {MOST_LEVELS}'
        )
    if strength is not None and not is_pair:
        raise BadLine(f'{where}"strength" says how much better one of two is: it needs a "ranking" of two responses')
    if strength is not None and (strength == 0) != is_tie:
        raise BadLine(f'{where}"strength" is {strength} and does not fit the ranking: 0 is a tie, 1 the weakest grade')
    if strength and strength > (levels or MOST_LEVELS):
        raise BadLine(f'{where}"strength" is {strength}, and the strongest grade is {levels or MOST_LEVELS}')


def _groups(said: Row, asked: Asked, implied: Groups, where: str) -> Groups:
    """The order: `ranking` holds places in the responses, `groups` their ids where they have some."""
    groups = implied
    if said.get("ranking") is not None:
        groups = _read_groups(said["ranking"], _by_place(asked), f'{where}"ranking"')
    elif said.get("groups") is not None:
        groups = _read_groups(said["groups"], _by_id(asked), f'{where}"groups"')
    if implied and groups != implied:
        raise BadLine("it orders its responses twice, and differently: leave one of the orders out")
    return groups


def _read_groups(value: Json, place_of: Mapping[Json, int], where: str) -> Groups:
    if not isinstance(value, list):
        raise BadLine(f"{where} is {kind(value)}, and must be a list of groups, the best first, such as [[2], [0, 1]]")
    groups = [group if isinstance(group, list) else [group] for group in value]
    places = tuple(tuple(_place(one, place_of, where) for one in group) for group in groups if group)
    named = [place for group in places for place in group]
    if len(set(named)) != len(named):
        raise BadLine(f"{where} names a response twice: {json.dumps(value)}")
    if len(named) == 1:
        raise BadLine(f"{where} names one response, and an order needs two; leave it empty where nothing is said")
    return places


def _by_place(asked: Asked) -> dict[Json, int]:
    return {place: place for place in range(len(asked.responses))}


def _by_id(asked: Asked) -> dict[Json, int]:
    """The responses' places by their ids; where they have none, by their places."""
    if not asked.ids:
        return _by_place(asked)
    if not all(map(_is_name, asked.ids)) or len(set(asked.ids)) != len(asked.ids):
        raise BadLine(f"the ids of the responses must be different texts or whole numbers: {json.dumps(asked.ids)}")
    return {name: place for place, name in enumerate(asked.ids)}


def _place(value: Json, place_of: Mapping[Json, int], where: str) -> int:
    if not _is_name(value) or value not in place_of:
        raise BadLine(f"{where} names {json.dumps(value)}, and the responses are {', '.join(map(str, place_of))}")
    return place_of[value]


def _given_scores(row: Row) -> Json:
    """The scores that people gave: where a reward model has scored the line since, `given_scores`."""
    if is_scored(row):
        return row["given_scores"]
    if row.get("scores") is not None and row.get("given_scores") is not None:
        raise BadLine('it has "scores" and "given_scores": leave out those that no annotator gave')
    return row.get("given_scores") if row.get("scores") is None else row["scores"]


def _scores(value: Json, count: int, where: str) -> tuple[float | None, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(score is None or is_number(score) for score in value):
        raise BadLine(f"{where} must be a list of numbers, with null where there is none")
    if too_large := [score for score in value if score is not None and abs(score) > LARGEST_NUMBER]:
        bounds = f"{-LARGEST_NUMBER:g} and {LARGEST_NUMBER:g}"
        raise BadLine(f"{where} holds {float(too_large[0])}, and a score lies between {bounds}")
    if len(value) != count:
        raise BadLine(f"{where} must have one entry a response: {len(value)} do not match {count} responses")
    if all(score is None for score in value):
        return ()
    return tuple(None if score is None else float(score) for score in value)


def _shown(row: Row, asked: Asked) -> tuple[int, ...]:
    """The order in which the responses were shown: `shown` holds places, `shown_order` ids."""
    key = "shown" if row.get("shown") is not None else "shown_order"
    order = row.get(key) or []
    if not isinstance(order, list):
        raise BadLine(f'"{key}" is {kind(order)}, and must be a list of all responses as they were shown')
    place_of = _by_place(asked) if key == "shown" or not order else _by_id(asked)
    return tuple(_place(one, place_of, f'"{key}"') for one in order)


def _corrections(row: Row, asked: Asked, label: Label) -> list[Label]:
    """A label for each correction: what was written is preferred to what it corrects."""
    given = row.get("corrections") or []
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise BadLine('"corrections" must be a list of {"corrects_id", "text"}')
    return [
        Label(
            prompt=asked.prompt,
            responses=(
                read_text(one.get("text"), '"corrections"."text"'),
                asked.responses[_place(one.get("corrects_id"), _by_id(asked), '"corrections"."corrects_id"')],
            ),
            overall=Judgement(((0,), (1,))),
            annotator=label.annotator,
            weight=label.weight,
            implied=True,
        )
        for one in given
    ]


# Their parts


def _object(value: Json, where: str) -> Row:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadLine(f"{where} must be an object, not {kind(value)}")
    return value


def _whole(value: Json, where: str) -> int | None:
    if value is None:
        return None
    if not is_number(value) or value != int(value):
        raise BadLine(f"{where} is {kind(value)}, not a whole number")
    if value < 0:
        raise BadLine(f"{where} is {value}: put the better response first in the ranking, and write {-value}")
    return int(value)


def _weight(row: Row) -> float:
    value = row.get("weight")
    if value is None:
        return 1.0
    if not is_number(value) or not 0 <= value <= LARGEST_NUMBER:
        raise BadLine(f'"weight" is {json.dumps(value)}, and must be a number from 0 to {LARGEST_NUMBER:g}')
    if 0 < value < SMALLEST_WEIGHT:
        raise BadLine(f'"weight" is {value}, too small to count: write 0, or {SMALLEST_WEIGHT:g} and more')
    return float(value)


def _flag(row: Row, key: str, where: str = "") -> bool | None:
    """True or false; None where nothing is said."""
    value = row.get(key)
    if value is not None and not isinstance(value, bool):
        raise BadLine(f'{where}"{key}" is {kind(value)}, not true or false')
    return value


def _name(row: Row, *keys: str) -> str | None:
    """A name under the first of the keys that is there; a number is a name too."""
    key = next((key for key in keys if row.get(key) is not None), None)
    if key is None:
        return None
    if isinstance(row[key], bool) or not isinstance(row[key], str | int | float):
        raise BadLine(f'"{key}" is {kind(row[key])}, not a text or a number')
    return str(row[key])


def _is_name(value: Json) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _root(prompt: Messages) -> Messages:
    """Its beginning, up to the first message of the user: what conversations that grew apart share."""
    first = next((place for place, message in enumerate(prompt) if message["role"] == "user"), 0)
    return prompt[: first + 1]

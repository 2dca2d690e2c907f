"""What does a reward model's card say in plain words? Its figures beside people's, its probes, and its curves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.language import gettext as _
from app.language import grouped, mark, percent
from app.web.plots import Axis, Plot, draw, steps

Card = Mapping[str, Any]
Share = Mapping[str, Any]

_FORMATS = {
    "list": mark("a list"),
    "heading": mark("a heading"),
    "code": mark("a block of code"),
    "bold": mark("bold text"),
    "table": mark("a table"),
    "emoji": mark("an emoji"),
}


@dataclass(frozen=True)
class Bar:
    """A share with its interval, beside others of its kind."""

    name: str
    value: float
    low: float | None
    high: float | None
    count: int | None
    is_own: bool = False


@dataclass(frozen=True)
class Finding:
    """What a probe found. `worry`: the model leans on it more than people do, or people's own order shown matters.

    None where nobody can say.
    """

    title: str
    sentences: Sequence[str]
    worry: bool | None


def bars(card: Card) -> list[Bar]:
    """The model's accuracy among what it can be held against."""
    found = [_bar(_("This reward model"), _estimate(card, "accuracy"), is_own=True)]
    ceiling = card.get("noise_ceiling") or {}
    found += [
        _bar(_("Another annotator"), ceiling.get("another_annotator")),
        _bar(_("The majority of the other annotators"), ceiling.get("majority_of_others")),
        _bar(_("This model, on pairs that several judged"), ceiling.get("model"), is_own=True),
        _bar(_("Always the longer response"), (card.get("longer_wins") or {}).get("characters")),
    ]
    return [bar for bar in found if bar is not None]


def summary(card: Card) -> list[str]:
    """The card in a few sentences."""
    own = _estimate(card, "accuracy")
    if own is None:
        return [_("Its accuracy is not known: no label of a test prompt puts one response above another.")]
    said = [
        _(
            "Of two responses to a prompt it has never seen, it prefers the one that people prefer in %(share)s.",
            share=spread(own),
        )
    ]
    longer = (card.get("longer_wins") or {}).get("characters")
    people = (card.get("noise_ceiling") or {}).get("another_annotator")
    if longer:
        share = percent(longer["value"])
        said.append(
            _("Always taking the longer one would be right in %(share)s: it knows more than that.", share=share)
            if own["low"] is not None and own["low"] > longer["value"]
            else _("Always taking the longer one would be right in %(share)s: it is not surely better.", share=share)
        )
    if people:
        said.append(_("Two people agree in %(share)s of the pairs that both judged.", share=spread(people)))
    if card.get("ece") is not None:
        said.append(_calibration(card))
    return said


def _calibration(card: Card) -> str:
    by_chance = card.get("ece_by_chance")
    if by_chance is not None and card["ece"] <= by_chance:
        return _("Its certainty is as right as %(n)s pairs can tell.", n=grouped(card["n"]))
    return _(
        "Its certainty is off by %(off)s on average; by chance alone it would be %(chance)s on so few pairs.",
        off=percent(card["ece"]),
        chance=percent(by_chance or 0),
    )


def findings(card: Card) -> list[Finding]:
    """What the probes found, those that need a look first."""
    probes = card.get("probes") or {}
    found = [
        *_position(probes.get("position") or {}),
        *_length(probes.get("length") or {}),
        *_formats(probes.get("format") or {}),
        *_written(probes.get("written_by_a_person") or {}),
    ]
    return sorted(found, key=lambda finding: not finding.worry)


def _position(probe: Mapping[str, Share | None]) -> Iterator[Finding]:
    chosen = probe.get("chosen_first")
    if not chosen:
        return
    said = [
        _("People prefer the response that they were shown first in %(share)s of pairs.", share=spread(chosen)),
        *_two_accuracies(
            probe.get("accuracy_first"),
            probe.get("accuracy_last"),
            mark("Where the first one was better it is right in %(first)s, where a later one was in %(second)s."),
        ),
    ]
    yield Finding(_("Position"), said, _differs(chosen, 0.5))


def _length(probe: Mapping[str, Any]) -> Iterator[Finding]:
    chosen, preferred = probe.get("chosen"), probe.get("preferred")
    if not (chosen and preferred):
        return
    said = [
        _(
            "People prefer the longer response in %(people)s of pairs, the model in %(model)s.",
            people=spread(chosen),
            model=spread(preferred),
        ),
        *_two_accuracies(
            probe.get("accuracy_longer"),
            probe.get("accuracy_shorter"),
            mark("Where the longer one was better it is right in %(first)s, where the shorter one was in %(second)s."),
        ),
    ]
    if probe.get("correlation") is not None:
        said.append(_("Within a prompt, score and length correlate by %(n)s.", n=f"{probe['correlation']:+.2f}"))
    yield Finding(_("Length"), said, _differs(preferred, chosen["value"]))


def _formats(probes: Mapping[str, Mapping[str, Share | None]]) -> Iterator[Finding]:
    for name, probe in probes.items():
        chosen, preferred = probe.get("chosen"), probe.get("preferred")
        if chosen and preferred:
            sentence = _(
                "Where only one of two has %(format)s, people prefer it in %(people)s of pairs, the model does in"
                " %(model)s.",
                format=_(_FORMATS.get(name, name)),
                people=spread(chosen),
                model=spread(preferred),
            )
            yield Finding(_("Format"), [sentence], _differs(preferred, chosen["value"]))


def _written(probe: Mapping[str, Share | None]) -> Iterator[Finding]:
    """The shortcut that corrections teach: whatever a person wrote is better."""
    accuracy, own, other = (probe.get(name) for name in ("accuracy", "borrowed_correction", "borrowed_response"))
    if not accuracy:
        return
    said = [_("It prefers a correction to what was corrected in %(share)s.", share=spread(accuracy))]
    if own and other:
        said.append(
            _(
                "A correction of another prompt, which answers nothing here, beats the response in %(own)s; what was"
                " corrected there does in %(other)s.",
                own=spread(own),
                other=spread(other),
            )
        )
    worry = own["low"] > other["high"] if own and other and None not in (own["low"], other["high"]) else None
    yield Finding(_("Written by a person"), said, worry)


def _two_accuracies(first: Share | None, second: Share | None, sentence: str) -> list[str]:
    if not (first and second):
        return []
    return [_(sentence, first=percent(first["value"]), second=percent(second["value"]))]


def _differs(share: Share, value: float) -> bool | None:
    """Whether a value lies outside of a share's interval; None where there is none."""
    if share["low"] is None:
        return None
    return not share["low"] <= value <= share["high"]


def reliability(card: Card) -> Plot | None:
    """How often the model is right, by how sure it is: on the diagonal it knows itself."""
    rows = card.get("reliability") or []
    if not rows:
        return None
    shares = Axis(0.5, 1, steps(0.5, 1, 0.1), percent)
    return draw(
        (
            (
                row["probability"],
                row["right"],
                row["right_low"],
                row["right_high"],
                _(
                    "%(sure)s sure, right in %(right)s",
                    sure=percent(row["probability"]),
                    right=spread({"value": row["right"], "low": row["right_low"], "high": row["right_high"]}),
                ),
            )
            for row in rows
        ),
        shares,
        _shares_from(_bottom(rows, "right")),
        diagonal=True,
    )


def learning_curve(card: Card) -> Plot | None:
    """Accuracy over the number of labels that were fitted on."""
    return _curve(card.get("learning_curve") or [])


def over_rounds(cards: Sequence[Card]) -> Plot | None:
    """The same over the reward models of several rounds, each on the test labels of its time."""
    return _curve([{**card, "labels": card["labels"]["fitted_on"]} for card in cards if "labels" in card])


def _curve(rows: Sequence[Card]) -> Plot | None:
    rows = [row for row in rows if row.get("accuracy") is not None]
    if len(rows) < 2:
        return None
    most = max(row["labels"] for row in rows)
    return draw(
        (
            (
                row["labels"],
                row["accuracy"],
                row["accuracy_low"],
                row["accuracy_high"],
                _("%(n)s labels: %(share)s", n=grouped(row["labels"]), share=spread(_estimate(row, "accuracy") or {})),
            )
            for row in rows
        ),
        Axis(0, most, steps(0, most, most / 4), lambda value: grouped(round(value))),
        _shares_from(_bottom(rows, "accuracy")),
    )


def _bottom(rows: Iterable[Mapping[str, Any]], name: str) -> float:
    """The whole tenth below the lowest of some shares with their intervals, and at most a half: chance."""
    lows = [row[name] if row[f"{name}_low"] is None else row[f"{name}_low"] for row in rows]
    return int(min(0.5, *lows) * 10) / 10


def _shares_from(bottom: float) -> Axis:
    """An axis of shares up to 1, with a tick at every tenth, or at every fifth where there are many."""
    step = 0.1 if bottom > 0.3 else 0.2
    return Axis(bottom, 1, [1 - step * number for number in range(int((1 - bottom) / step + 1.001))], percent)


@dataclass(frozen=True)
class Row:
    """Figures on a part of the pairs."""

    name: str
    figures: Card

    @property
    def curve(self) -> Plot | None:
        """How often the model is right on this part, by how sure it is."""
        return reliability(self.figures)


@dataclass(frozen=True)
class Part:
    """The pairs, divided by something."""

    title: str
    rows: Sequence[Row]

    @property
    def has_curves(self) -> bool:
        """Whether any row has a curve; cards of earlier releases have none."""
        return any(row.figures.get("reliability") for row in self.rows)


def parts(card: Card, criteria: Mapping[str, str]) -> list[Part]:
    """The figures by grade, criterion, agreement and deviation. `criteria` gives names to keys."""
    found = [
        Part(_("By how much better it was"), [Row(_grade(row), row) for row in card.get("by_grade") or []]),
        Part(
            _("By criterion"),
            [Row(criteria.get(key) or key, row) for key, row in (card.get("by_criterion") or {}).items()],
        ),
        Part(_("By how many agreed"), [Row(_agreed(row), row) for row in card.get("by_agreement") or []]),
        Part(_("By how sure of the scores it is"), _by_deviation(card.get("uncertainty") or {})),
    ]
    return [part for part in found if part.rows]


@dataclass(frozen=True)
class Annotator:
    """What the card says of an annotator, who stands here by the pseudonym."""

    id: str
    labels: int
    weight: float | None
    quality: float | None
    position_bias: float | None
    figures: Card


def annotators(card: Card) -> list[Annotator]:
    """Everybody whose labels were fitted on or measured with."""
    measured = card.get("by_annotator") or {}
    fitted = {row["annotator"]: row for row in card.get("annotators") or []}
    return [
        Annotator(
            id_,
            row.get("labels", 0),
            row.get("weight"),
            row.get("quality"),
            row.get("position_bias"),
            measured.get(id_, {}),
        )
        for id_ in sorted({*fitted, *measured} - {None}, key=lambda id_: (len(id_), id_))
        for row in [fitted.get(id_, {})]
    ]


def _grade(row: Card) -> str:
    if row["levels"] == 1:
        return _("better, not graded")
    return _("grade %(n)s of %(levels)s", n=row["grade"], levels=row["levels"])


def _agreed(row: Card) -> str:
    if row["low"] == row["high"]:
        return _("all agreed")
    return _("%(low)s to %(high)s agreed", low=percent(row["low"]), high=percent(row["high"]))


def _by_deviation(uncertainty: Card) -> list[Row]:
    rows = uncertainty.get("by_deviation") or []
    return [
        Row(
            _("deviation %(low)s to %(high)s of the difference", low=f"{row['low']:.2f}", high=f"{row['high']:.2f}"),
            row,
        )
        for row in rows
    ]


def spread(share: Share) -> str:
    """A share with its interval: 71 % (65 %-77 %)."""
    if share.get("low") is None:
        return percent(share["value"])
    return f"{percent(share['value'])} ({percent(share['low'])}–{percent(share['high'])})"  # noqa: RUF001 - a dash of ranges


def _estimate(row: Mapping[str, Any], name: str) -> Share | None:
    """`name`, `name_low` and `name_high` as one share."""
    if row.get(name) is None:
        return None
    return {
        "value": row[name],
        "low": row.get(f"{name}_low"),
        "high": row.get(f"{name}_high"),
        "count": row.get("n", row.get(f"{name}_pairs")),  # the latter in cards of earlier releases
    }


def _bar(name: str, share: Share | None, *, is_own: bool = False) -> Bar | None:
    if not share:
        return None
    return Bar(name, share["value"], share.get("low"), share.get("high"), share.get("count"), is_own)

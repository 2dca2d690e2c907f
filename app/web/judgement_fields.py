"""How does a judgement form stand in a web form? Its fields by name, both ways, and its rows that come, go and move.

The fields are named as the form's parts are: overall, ranking.ties, pair.scale, all_bad, score (asked at all),
score.lowest, criteria.0.name, correction, usual_flags.harmful, flags.0.name, rationale. A checkbox says "1".
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from app.domain.judgement import USUAL_FLAGS, Criterion, Flag, JudgementForm, ScoreAsked
from app.errors import PrefloopError
from app.language import gettext as _

Fields = dict[str, str]
ROWS: Mapping[str, Fields] = {
    "criteria": {"name": "", "key": "", "description": "", "kind": "score", "highest": "5", "required": "1"},
    "flags": {"name": "", "key": "", "of": "response", "excuses": ""},
}
_TYPED = {"criteria": ("name", "key", "description"), "flags": ("name", "key")}
_ROW = re.compile(r"(criteria|flags)\.([0-9]{1,3})\.([a-z]+)")
_LONGEST_KEY = 40


def fields_of(form: JudgementForm) -> Fields:
    """The fields that say `form`. Every flag that is not a usual one is a row."""
    fields = {
        "overall": form.overall,
        "ranking.ties": _box(form.ranking.ties),
        "ranking.partial": _box(form.ranking.partial),
        "pair.scale": form.pair.scale,
        "all_bad": _box(form.all_bad),
        "score": _box(form.score is not None),
        "correction": form.correction,
        "rationale": form.rationale,
    }
    score = form.score or ScoreAsked()
    fields |= {f"score.{key}": _written(getattr(score, key)) for key in ("lowest", "highest", "step", "required")}
    fields |= {f"usual_flags.{flag.key}": _box(flag in form.flags) for flag in USUAL_FLAGS}
    own = [flag for flag in form.flags if flag not in USUAL_FLAGS]
    return fields | _numbered("criteria", form.criteria) | _numbered("flags", own)


def _numbered(part: str, items: tuple[Criterion, ...] | list[Flag]) -> Fields:
    return {
        f"{part}.{index}.{key}": _written(getattr(item, key)) for index, item in enumerate(items) for key in ROWS[part]
    }


def _box(is_ticked: bool) -> str:
    return "1" if is_ticked else ""


def _written(value: object) -> str:
    return _box(value) if isinstance(value, bool) else f"{value:.12g}" if isinstance(value, float) else str(value)


def rows(fields: Mapping[str, str], part: str) -> list[Fields]:
    """The rows of `criteria` or `flags` in their order; what a row was not sent with is empty."""
    found: dict[int, Fields] = {}
    for name, value in fields.items():
        named = _ROW.fullmatch(name)
        if named and named[1] == part and named[3] in ROWS[part]:
            found.setdefault(int(named[2]), dict.fromkeys(ROWS[part], ""))[named[3]] = value
    return [found[index] for index in sorted(found)]


def with_rows(fields: Mapping[str, str], part: str, new: list[Fields]) -> Fields:
    """The fields with other rows of `part`."""
    others = {name: value for name, value in fields.items() if not name.startswith(f"{part}.")}
    return others | {f"{part}.{index}.{key}": value for index, row in enumerate(new) for key, value in row.items()}


def without_blanks(fields: Mapping[str, str]) -> Fields:
    """The fields without rows in which nothing was written."""
    for part, typed in _TYPED.items():
        fields = with_rows(fields, part, [row for row in rows(fields, part) if any(row[key].strip() for key in typed)])
    return dict(fields)


def change_rows(fields: Fields, act: str) -> tuple[Fields, str]:
    """Do `act` (criteria.add, flags.remove.0, criteria.up.1); return the fields, and the one to go on at.

    An act that means no row, from a page that has gone stale, changes nothing.
    """
    part, _dot, what = act.partition(".")
    if part not in ROWS:
        return fields, ""
    found = rows(fields, part)
    verb, _dot, number = what.partition(".")
    index = int(number) if number.isascii() and number.isdecimal() else len(found)
    if verb == "add":
        return with_rows(fields, part, [*found, dict(ROWS[part])]), f"{part}.{len(found)}.name"
    if index >= len(found):
        return fields, ""
    row = found.pop(index)
    if verb == "remove":
        return with_rows(fields, part, found), f"{part}.add"
    index = max(0, index + {"up": -1, "down": 1}.get(verb, 0))
    found.insert(index, row)
    return with_rows(fields, part, found), f"{part}.{verb}.{min(index, len(found) - 1)}"


def form_data(fields: Mapping[str, str]) -> dict[str, Any]:
    """What the fields say, for `parse_form` to check. Blank rows say nothing; a key left empty comes from the name."""
    fields = without_blanks(fields)
    overall = fields.get("overall", "ranking")
    ticked = [flag.model_dump() for flag in USUAL_FLAGS if fields.get(f"usual_flags.{flag.key}")]
    return {
        "overall": overall,
        "ranking": {key: bool(fields.get(f"ranking.{key}")) for key in ("ties", "partial")},
        "pair": {"scale": fields.get("pair.scale", "llama2")},
        # Where there is no overall judgement, the page hides the box: what is hidden does not count.
        "all_bad": overall != "none" and bool(fields.get("all_bad")),
        "score": _score(fields) if fields.get("score") else None,
        "criteria": _keyed(rows(fields, "criteria"), [], "criterion", ("required",)),
        "correction": fields.get("correction", "no"),
        "flags": ticked + _keyed(rows(fields, "flags"), [flag["key"] for flag in ticked], "flag", ("excuses",)),
        "rationale": fields.get("rationale", "no"),
    }


def _score(fields: Mapping[str, str]) -> dict[str, Any]:
    numbers = {key: fields.get(f"score.{key}", "").strip() for key in ("lowest", "highest", "step")}
    return {**numbers, "required": bool(fields.get("score.required"))}


def _keyed(found: list[Fields], taken: list[str], noun: str, boxes: tuple[str, ...]) -> list[dict[str, Any]]:
    """The rows with a key each and their checkboxes as truth values."""
    taken = [*taken, *(key for row in found if (key := row["key"].strip()))]
    keyed: list[dict[str, Any]] = []
    for row in found:
        key = row["key"].strip()
        if not key:
            key = _free(row["name"], taken, noun)
            taken.append(key)
        keyed.append(row | {"key": key} | {box: bool(row[box]) for box in boxes})
    return keyed


def _free(name: str, taken: list[str], noun: str) -> str:
    """A key made of a name; of one without Latin letters a numbered one."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = "_".join(re.findall(r"[a-z0-9]+", plain)).lstrip("0123456789_")[: _LONGEST_KEY - 4].rstrip("_")
    base = words or noun
    numbered = (f"{base}_{number}" for number in range(1 if not words else 2, 1_000))
    return base if words and base not in taken else next(key for key in numbered if key not in taken)


def errors_by_field(refusal: PrefloopError | None, fields: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Why a form was refused: beside its fields, by their names, and above it. `fields` must have no blank rows."""
    if refusal is None:
        return {}, []
    reasons: dict[str, str] = dict(refusal.details.get("fields", {}))  # type: ignore[call-overload]
    beside: dict[str, str] = {}
    above: list[str] = [] if reasons else [str(refusal)]
    usual = sum(1 for flag in USUAL_FLAGS if fields.get(f"usual_flags.{flag.key}"))
    for path, reason in reasons.items():
        name = _own_name(path, usual)
        if name in fields or name in {"criteria", "flags"} or re.fullmatch(r"flags\.[0-9]+", name):
            beside[name] = _reason(name, reason)
        else:
            above.append(_reason(name, reason))
    return beside, above


def _own_name(path: str, usual: int) -> str:
    """The field's name for the form's path: among the flags the usual ones come first, and are no rows."""
    part, _dot, rest = path.partition(".")
    index, _dot, key = rest.partition(".")
    return f"flags.{int(index) - usual}{'.' if key else ''}{key}" if part == "flags" and index.isdecimal() else path


def _reason(name: str, reason: str) -> str:
    if name.endswith(".key"):
        return _("Lower-case letters, digits and underscores, a letter first. Left empty, it is made from the name.")
    if name.endswith(".name"):
        return _("Give it a name of at most 80 characters.")
    said = reason.removeprefix("Value error, ").removeprefix("Input ")
    return _("%(sentence)s.", sentence=said[:1].upper() + said[1:].rstrip("."))

"""How does a person set what a dataclass of settings holds? By a JSON or TOML file, or one by one."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from app.domain.validation import listed, reasons_of

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], file: Path | None, changes: Sequence[str]) -> Settings:
    """Settings from a file, with `NAME=VALUE` changes over it; what neither names keeps its default.

    Settings inside others are named with a dot, such as `sampling.temperature`, or stand in an object of their own.

    Raises:
        ValueError: if the file cannot be read, or a name or a value is none that the settings know.
    """
    given = _flat(_from_file(file)) if file is not None else {}
    values = {**given, **dict(map(_change, changes))}
    known = names_of(kind)
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f" Is {close[0]} meant?" if close else ""
            raise ValueError(f"there is no setting {name}.{meant} Known are {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(_nested(values))
    except ValidationError as error:
        raise ValueError(f"settings: {listed(reasons_of(error))}") from error


def names_of(kind: type) -> list[str]:
    """The names of all settings that a dataclass holds, those of a dataclass inside it with a dot."""
    names: list[str] = []
    for name, own in get_type_hints(kind).items():
        names += [f"{name}.{inner}" for inner in names_of(own)] if is_dataclass(own) else [name]  # type: ignore[arg-type]
    return names


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{start}{name}.") if isinstance(value, dict) else {f"{start}{name}": _said(value)}
    return flat


def _said(value: Any) -> Any:
    """True and false as `--set` has them, in letters: pydantic would take them for 1 and 0 where a number belongs."""
    return str(value).lower() if isinstance(value, bool) else value


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        outer, dot, inner = name.partition(".")
        if dot:
            nested.setdefault(outer, {})[inner] = value
        else:
            nested[name] = value
    return {name: _nested(value) if isinstance(value, dict) else value for name, value in nested.items()}


def _from_file(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        values = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as {file.suffix.lstrip('.') or 'json'}: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f'{file} must hold one object, such as {{"epochs": 2}}')  # noqa: TRY004
    return values


def _change(change: str) -> tuple[str, str | None]:
    name, equals, value = change.partition("=")
    if not equals:
        raise ValueError(f"{change} is no NAME=VALUE, such as epochs=2")
    return name.strip(), None if value.strip() in {"none", "null"} else value.strip()

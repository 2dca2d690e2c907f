"""How does a person set what a dataclass of settings holds? By a JSON or TOML file, or one by one."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.domain.validation import listed, reasons_of

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], file: Path | None, changes: Sequence[str]) -> Settings:
    """Settings from a file, with `NAME=VALUE` changes over it; what neither names keeps its default.

    Raises:
        ValueError: if the file cannot be read, or a name or a value is none that the settings know.
    """
    given = _from_file(file) if file is not None else {}
    values = {**given, **dict(map(_change, changes))}
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type] # a dataclass
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            meant = f" Is {close[0]} meant?" if close else ""
            raise ValueError(f"there is no setting {name}.{meant} Known are {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise ValueError(f"settings: {listed(reasons_of(error))}") from error


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

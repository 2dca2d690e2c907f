"""What is wrong with a value? The reasons of pydantic, in the language of the request."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from app.language import gettext as _
from app.language import mark

_REASONS = {
    "missing": mark("Field required"),
    "extra_forbidden": mark("Extra inputs are not permitted"),
    "greater_than": mark("Input should be greater than %(gt)s"),
    "greater_than_equal": mark("Input should be greater than or equal to %(ge)s"),
    "less_than": mark("Input should be less than %(lt)s"),
    "less_than_equal": mark("Input should be less than or equal to %(le)s"),
    "multiple_of": mark("Input should be a multiple of %(multiple_of)s"),
    "finite_number": mark("Input should be a finite number"),
    "int_type": mark("Input should be a valid integer"),
    "int_parsing": mark("Input should be a valid integer, unable to parse string as an integer"),
    "int_parsing_size": mark("Unable to parse input string as an integer, exceeded maximum size"),
    "int_from_float": mark("Input should be a valid integer, got a number with a fractional part"),
    "float_type": mark("Input should be a valid number"),
    "float_parsing": mark("Input should be a valid number, unable to parse string as a number"),
    "bool_type": mark("Input should be a valid boolean"),
    "bool_parsing": mark("Input should be a valid boolean, unable to interpret input"),
    "string_type": mark("Input should be a valid string"),
    "string_too_short": mark("String should have at least %(min_length)s characters"),
    "string_too_long": mark("String should have at most %(max_length)s characters"),
    "string_pattern_mismatch": mark("String should match pattern '%(pattern)s'"),
    "literal_error": mark("Input should be %(expected)s"),
    "enum": mark("Input should be %(expected)s"),
    "list_type": mark("Input should be a valid list"),
    "tuple_type": mark("Input should be a valid tuple"),
    "dict_type": mark("Input should be a valid dictionary"),
    "model_type": mark("Input should be a valid dictionary or instance of %(class_name)s"),
    "json_invalid": mark("JSON decode error"),
}


def reason(error: Mapping[str, Any]) -> str:
    """The sentence for one of a ValidationError's `errors()`; pydantic's own English where we know no other."""
    said = str(error["msg"]).removeprefix("Value error, ")
    known = _REASONS.get(error["type"])
    if known is None or _(known) == known:
        return said
    context = error.get("ctx", {})
    return _(known, **{name: f"{value:g}" if isinstance(value, float) else value for name, value in context.items()})


def reasons_of(error: ValidationError, say: Callable[[Any], str] = reason) -> dict[str, str]:
    """What is wrong with each bad field, by its path such as "criteria.0.key"; with the whole, under an empty one."""
    return {".".join(str(part) for part in one["loc"]): say(one) for one in error.errors()}


def listed(reasons: Mapping[str, str]) -> str:
    """All reasons in one line."""
    return _("; ").join(f"{field}: {why}" if field else why for field, why in reasons.items())

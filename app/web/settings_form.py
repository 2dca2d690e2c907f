"""How do a project's settings become a form, and a form settings? From the model's own fields and sentences."""

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from app.domain.overrides import PPOOverrides, RewardOverrides, SFTOverrides
from app.domain.settings import LoopSettings, ProjectSettings, SamplingChoice
from app.errors import PrefloopError

_NESTED: Mapping[str, type[BaseModel]] = {"loop": LoopSettings, "sampling": SamplingChoice}
_OVERRIDES: Mapping[str, type[BaseModel]] = {"reward": RewardOverrides, "sft": SFTOverrides, "ppo": PPOOverrides}
_TITLES = {
    "": "Work",
    "loop": "The loop",
    "sampling": "Sampling",
    "reward": "Reward model",
    "sft": "Supervised fine-tuning",
    "ppo": "PPO",
}
_LABELS = {
    "k": "Labels a comparison (k)",
    "top_p": "Top-p",
    "gae_lambda": "GAE lambda",
    "best_of_n": "Best of n",
    "kl_in": "KL in",
    "kl_coefficient": "KL coefficient",
    "kl_target": "KL target",
    "kl_horizon": "KL horizon",
    "kl_budget": "KL budget",
    "epoch_kl_limit": "Epoch KL limit",
    "lora_rank": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "grpo_scale": "GRPO scale",
}


@dataclass(frozen=True)
class FormField:
    """One input. `name` is the setting's path, such as `loop.trigger_labels`."""

    name: str
    label: str
    description: str
    kind: Literal["whole", "number", "text", "checkbox", "choice"]
    value: str
    choices: Sequence[str] = ()
    minimum: float | None = None
    maximum: float | None = None
    error: str | None = None

    @property
    def id(self) -> str:
        """For the page: dots would need escaping in selectors."""
        return self.name.replace(".", "-")


@dataclass(frozen=True)
class Fieldset:
    """The inputs of one part of the settings. Advanced ones are folded away and all optional."""

    title: str
    description: str
    fields: list[FormField]
    is_advanced: bool


@dataclass(frozen=True)
class FormErrors:
    """Why a form was refused: beside the inputs, by their names, and above the form."""

    by_field: Mapping[str, str]
    general: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.by_field or self.general)


def fieldsets(data: Mapping[str, Any], errors: Mapping[str, str]) -> list[Fieldset]:
    """The whole form, filled with `data` (nested, values typed or as they were sent) and errors by path."""
    parts = [Fieldset(_TITLES[""], "", list(_model_fields(ProjectSettings, "", data, errors)), is_advanced=False)]
    for name, model in _NESTED.items():
        fields = list(_model_fields(model, f"{name}.", data.get(name, {}), errors))
        parts.append(Fieldset(_TITLES[name], _sentence(name), fields, is_advanced=False))
    for name, model in _OVERRIDES.items():
        values = data.get(name, {})
        fields = [
            FormField(path, _label(key), _default(info), "text", _overridden(values, key), error=errors.get(path))
            for key, info in sorted(model.model_fields.items())
            for path in [f"{name}.{key}"]
        ]
        parts.append(Fieldset(_TITLES[name], _sentence(name), fields, is_advanced=True))
    return parts


def read_form(form: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a sent form describes, nested as the model is, for `parse_settings` to check."""
    data: dict[str, Any] = {}
    for part in fieldsets({}, {}):
        for field in part.fields:
            section, _, key = field.name.rpartition(".")
            target = data.setdefault(section, {}) if section else data
            sent = str(form.get(field.name, "")).strip()
            if field.kind == "checkbox":
                target[key] = bool(sent)
            elif section in _OVERRIDES:
                if sent:
                    target[key] = _override(sent, _OVERRIDES[section].model_fields[key])
            elif field.kind == "choice":
                if sent:
                    target[key] = sent
            else:
                target[key] = None if not sent and _is_optional(_NESTED.get(section, ProjectSettings), key) else sent
    return data


def errors_of(refusal: PrefloopError | None) -> FormErrors:
    """Where the reasons of a refused form belong."""
    if refusal is None:
        return FormErrors({}, [])
    reasons: dict[str, str] = dict(refusal.details.get("fields", {}))  # type: ignore[call-overload]
    if not reasons:
        return FormErrors({}, [str(refusal)])
    names = {field.name for part in fieldsets({}, {}) for field in part.fields}
    return FormErrors(reasons, [reason for path, reason in reasons.items() if path not in names])


def _model_fields(
    model: type[BaseModel], prefix: str, data: Mapping[str, Any], errors: Mapping[str, str]
) -> Iterator[FormField]:
    for key, info in model.model_fields.items():
        if key in _NESTED or key in _OVERRIDES:
            continue
        path = prefix + key
        default = "" if info.is_required() else info.get_default()
        yield FormField(
            name=path,
            label=_label(key),
            description=info.description or "",
            kind=_kind(info),
            value=_shown(data.get(key, default)),
            choices=get_args(info.annotation) if _is_choice(info) else (),
            minimum=_bound(info, annotated_types.Ge, "ge", annotated_types.Gt, "gt"),
            maximum=_bound(info, annotated_types.Le, "le", annotated_types.Lt, "lt"),
            error=errors.get(path),
        )


def _default(info: FieldInfo) -> str:
    """What an override that is left empty means, and the words that may stand there."""
    if _is_choice(info):
        return f"{info.default} ({' / '.join(get_args(info.annotation))})"
    return "" if info.default is None else f"{info.default:g}" if isinstance(info.default, float) else str(info.default)


def _is_choice(info: FieldInfo) -> bool:
    return get_origin(info.annotation) is Literal


def _types(info: FieldInfo) -> tuple[Any, ...]:
    return get_args(info.annotation) if get_origin(info.annotation) in {Union, types.UnionType} else (info.annotation,)


def _kind(info: FieldInfo) -> Literal["whole", "number", "text", "checkbox", "choice"]:
    if _is_choice(info):
        return "choice"
    for python, kind in ((bool, "checkbox"), (float, "number"), (int, "whole")):
        if python in _types(info):
            return kind  # type: ignore[return-value]
    return "text"


def _is_optional(model: type[BaseModel], key: str) -> bool:
    return type(None) in _types(model.model_fields[key])


def _bound(info: FieldInfo, inclusive: type, name: str, exclusive: type, other: str) -> float | None:
    for limit in info.metadata:
        if isinstance(limit, inclusive):
            return float(getattr(limit, name))
        if isinstance(limit, exclusive):
            return float(getattr(limit, other))
    return None


def _label(key: str) -> str:
    words = key.replace("_", " ")
    return _LABELS.get(key) or words[:1].upper() + words[1:]


def _sentence(name: str) -> str:
    return ProjectSettings.model_fields[name].description or ""


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else ""
    return "" if value is None else f"{value:.12g}" if isinstance(value, float) else str(value)


def _overridden(values: Mapping[str, Any], key: str) -> str:
    """An override as it is typed in: `none` switches off what the worker does by itself."""
    return "none" if key in values and values[key] is None else _shown(values.get(key))


def _override(sent: str, info: FieldInfo) -> bool | int | float | str | None:
    if _is_choice(info):  # a word, also where it looks like a number
        return sent
    if sent.lower() == "none" and type(None) in _types(info):
        return None
    if sent.lower() in {"true", "false"}:
        return sent.lower() == "true"
    for kind in (int, float):
        try:
            return kind(sent)
        except ValueError:
            continue
    return sent

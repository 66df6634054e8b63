"""From a YAML file and `--set key=value` to a checked `Config`; a refusal names key, value and what is allowed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from patchead.errors import SettingsError, nearest_name
from patchead.redaction import REDACTED, redacted_values, secret_in, secrets_in
from patchead.settings.model import Config
from patchead.settings.without_use import without_use
from patchead.settings.yaml_text import MOST_BYTES, parse_yaml

#: For what reads no archive and writes no lake.
UNUSED_PLACES = {"archive.uri": "unused://archive", "lake.uri": "unused://lake"}
_MOST_SHOWN = 300  # characters of a refused value


def load_config(
    path: Path | None,
    overrides: Iterable[str] = (),
    given: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    *,
    unused_ok: bool = False,
) -> Config:
    """Read ``path``, apply ``section.key=value`` overrides (values are YAML), then ``given`` ones as they are; check.

    ``names`` are what an error calls a key, where the person who reads it knows it by another name. With ``unused_ok``
    a setting may be given that has no effect, as the others are.

    Raises:
        SettingsError: the file, a key or a value cannot be used; all faults are listed at once.
    """
    values = _read_yaml(path) if path else {}
    for override in overrides:
        _apply(values, *_parsed(override))
    for key, value in (given or {}).items():
        _apply(values, key, value)
    # An empty section, and one that is left out, means its defaults (and names what is required in it).
    sections = [name for name, field in Config.model_fields.items() if _section(field)]
    values |= {name: {} for name in sections if values.get(name) is None}
    try:
        config = Config.model_validate(values)
    except ValidationError as exc:
        faults = (_with_names(_sentence(fault, names or {}), names or {}) for fault in exc.errors())
        raise SettingsError("\n".join(faults)) from exc
    if not unused_ok and (unused := without_use(config)):
        raise SettingsError("\n".join(_with_names(why.told(key), names or {}) for key, why in unused.items()))
    return config


def iter_fields(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """List every setting as ``("scoring.fraction", field)``, in the order of the file."""
    for name, field in model.model_fields.items():
        if section := _section(field):
            yield from iter_fields(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise SettingsError(f"cannot read the settings file {path}: {exc.strerror}.") from exc
    values = parse_yaml(data, f"the settings file {path}")
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(
            f"the settings file {path} must hold sections such as archive and lake; got {_shown(values)}."
        )
    return values


def _parsed(override: str) -> tuple[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"--set must be section.key=value, e.g. scoring.fraction=0.3; got {_shown(override)}.")
    key = key.strip()
    text_alone = _takes_text_alone(key)
    if text_alone and text.strip().startswith(("{", "[")):
        return key, text.strip()  # a template, which needs no quotes within those of the shell
    value = parse_yaml(text.encode(errors="surrogateescape"), f"the value of --set {_without_secret(key)}")
    return key, text.strip() if text_alone and isinstance(value, (bool, int, float, dt.date)) else value


def _takes_text_alone(key: str) -> bool:
    """Whether a setting is text or nothing: 20261121 is a run's name there, and no number."""
    field = next((field for name, field in iter_fields() if name == key), None)
    return field is not None and field.annotation in (str, str | None)


def _apply(values: dict[str, Any], key: str, value: Any) -> None:
    *sections, name = key.split(".")
    node = values
    for section in sections:
        child = node.get(section)
        if not isinstance(child, dict):
            child = node[section] = {}
        node = child
    node[name] = value


def _sentence(fault: Mapping[str, Any], names: Mapping[str, str]) -> str:
    location = [_without_secret(str(part)) for part in fault["loc"]]
    key = ".".join(location) or "settings"
    key = names.get(key, key)
    if fault["type"] == "extra_forbidden":
        return _unknown_key(location)
    if fault["type"] == "missing":
        return f"{key} is required: {_description(location)} Set it in the file or with --set {key}=…"
    rule = (
        fault["msg"]
        .removeprefix("Value error, ")
        .replace("Input should", "must", 1)
        .replace("String should", "must", 1)
    )
    got = "" if isinstance(fault["input"], dict) else f"; got {_shown(fault['input'])}"
    return f"{key}: {rule}{got}. {_description(location)}".rstrip()


def _with_names(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\b[a-z]+\.[a-z_]+\b", lambda found: names.get(found[0], found[0]), text)


def _without_secret(text: str) -> str:
    return REDACTED if secret_in(text) else text


def _shown(value: Any) -> str:
    """A refused value as an error quotes it: not at all if it holds a secret, and not at any length."""
    if next(secrets_in(value), None):
        return "a value with a secret in it"
    text = repr(redacted_values(value))
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} …"


def _unknown_key(location: list[str]) -> str:
    known = [key for key, _ in iter_fields()]
    section = ".".join(location[:-1])
    if around := next((key for key in known if section.startswith(f"{key}.")), None):
        return f"{'.'.join(location)} is not a setting. {around}: {_description(location)}"
    siblings = [key for key in known if key.rpartition(".")[0] == section]
    allowed = ", ".join(key.rpartition(".")[2] for key in siblings if section) or ", ".join(Config.model_fields)
    hint = nearest_name(".".join(location), known if section else Config.model_fields)
    return f"{'.'.join(location)} is not a setting.{hint} Allowed in {section or 'the file'}: {allowed}."


def _description(location: list[str]) -> str:
    """The docstring of the field that ``location`` points at or into (list positions and such are passed over)."""
    model: type[BaseModel] | None = Config
    for part in location:
        field = model.model_fields.get(part) if model else None
        if field is None:
            return ""
        model = _section(field)
        if model is None:
            return field.description or ""
    return ""


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is; what is filed under names of the user's own, as thresholds are, is none."""
    kinds = [field.annotation, *(() if get_origin(field.annotation) is dict else get_args(field.annotation))]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)

"""YAML of settings, read within bounds: an untrusted or broken text ends in one clear line, before it takes memory."""

from __future__ import annotations

from typing import Any

import yaml

from patchead.errors import SettingsError

MOST_BYTES = 1 << 20
_MOST_VALUES = 10_000  # with every alias counted as what it stands for
_MOST_DEPTH = 32
#: What PyYAML's constructors raise on a value that is none of the type that it says or seems to be.
_BAD_VALUE = (ValueError, LookupError, AttributeError, TypeError, OverflowError)


def parse_yaml(data: bytes, source: str) -> Any:
    """Read one YAML document into plain values.

    Args:
        data: UTF-8.
        source: what it is, at the beginning of an error.

    Raises:
        SettingsError: it is no YAML, has a value that is none, or is larger, deeper or more repeated than settings are.
    """
    if len(data) > MOST_BYTES:
        raise SettingsError(f"{source} is longer than {MOST_BYTES} bytes, which settings never are.")
    try:
        text = data.decode()
        _refuse_excess(text, source)
        return yaml.safe_load(text)
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{source} is not valid YAML: byte {exc.start} is not UTF-8.") from exc
    except yaml.YAMLError as exc:
        raise SettingsError(f"{source} is not valid YAML: {_place(exc)}") from exc
    except _BAD_VALUE as exc:
        raise SettingsError(
            f"{source} has a value that YAML cannot read ({type(exc).__name__}: {str(exc)[:200]}); quote it if it is "
            "text, e.g. '2026-13-45'."
        ) from exc


def _refuse_excess(text: str, source: str) -> None:
    """Count values, aliases as often as they would be repeated, over the parser's events: nothing is built."""
    sizes: list[int] = [0]
    names: list[str | None] = [None]
    complete: dict[str, int] = {}
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            repeated = str(event.anchor)
            if repeated in names:
                raise SettingsError(f"{source}: *{repeated[:50]} stands inside what it repeats; settings cannot.")
            sizes[-1] += complete.get(repeated, 1)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            sizes.append(1)
            names.append(event.anchor)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            size, name = sizes.pop(), names.pop()
            sizes[-1] += size
            if name is not None:
                complete[name] = size
        elif isinstance(event, yaml.ScalarEvent):
            sizes[-1] += 1
            if event.anchor is not None:
                complete[event.anchor] = 1
        if len(sizes) > _MOST_DEPTH:
            raise SettingsError(f"{source} is nested more than {_MOST_DEPTH} deep, which settings never are.")
        if sum(sizes) > _MOST_VALUES:
            raise SettingsError(
                f"{source} holds more than {_MOST_VALUES} values, each alias counted as what it repeats."
            )


def _place(exc: yaml.YAMLError) -> str:
    """What is wrong and where, in one line; the text itself, which may hold a key, is not quoted."""
    if not isinstance(exc, yaml.MarkedYAMLError):
        return " ".join(str(exc).split())[:200]
    mark = exc.problem_mark or exc.context_mark
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{(exc.problem or exc.context or 'it cannot be read')[:200]}{where}."

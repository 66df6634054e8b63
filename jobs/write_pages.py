"""`make pages`: write the pages of docs/ that are made from the code: tables.md and settings.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic.fields import FieldInfo

from patchead.atomic_files import write_atomically
from patchead.kept_tables import KEPT_DICTIONARY
from patchead.markdown import markdown_table
from patchead.schema import DICTIONARY, PARTITIONS, SCHEMA_VERSION, Described
from patchead.settings.identity import DECIDES, Decides
from patchead.settings.load import iter_fields
from patchead.settings.model import Config
from patchead.settings.presets import PRESETS
from patchead.states import STATES, STATUSES

DOCS = Path(__file__).parent.parent / "docs"
_MADE = "<!-- Made from the code by `make pages`. Do not edit. -->"
_FILES = {"manifest", "receipts", "word_links"}


def tables_page() -> str:
    """Describe every table, file, column and status of `patchead.schema`, as Markdown."""
    tables = [_table_section(name, DICTIONARY[name]) for name in DICTIONARY if name not in _FILES]
    tables += [_table_section(name, KEPT_DICTIONARY[name]) for name in KEPT_DICTIONARY]
    files = [_table_section(name, DICTIONARY[name]) for name in DICTIONARY if name in _FILES]
    parts = [
        _MADE,
        "# Tables",
        f"Every column of every table, schema version {SCHEMA_VERSION}. The result tables are Delta Lake (Parquet "
        "files and a transaction log) in `tables/` of the lake. How to query them: [operations.md](operations.md#sql).",
        *tables,
        "## Status of an image",
        markdown_table(["status", "meaning"], ([f"`{status}`", meaning] for status, meaning in STATUSES.items())),
        "## State of a run",
        markdown_table(["state", "meaning"], ([f"`{state}`", meaning] for state, meaning in STATES.items())),
        "# Files between the stages",
        "They are the program's own: their form may change with any version.",
        *files,
    ]
    return "\n\n".join(parts) + "\n"


def settings_page() -> str:
    """List every setting with its default, what it may be and its meaning, as Markdown."""
    parts = [
        _MADE,
        "# Settings",
        "One YAML file holds a run's settings, one section per heading; `--set section.key=value` overrides one of "
        "them. `none` stands for a value that is left out. An unknown key is refused by name, and so are some that "
        "have no effect as the others are. `patchead settings` prints this list.",
        "*Decides* says what changes with a setting: which images are scored, their embeddings, their scores, their "
        "verdicts, or only heatmaps and regions (explanations); what decides one decides those behind it. `-`: it "
        "changes none of them.",
    ]
    for name, field in Config.model_fields.items():
        found = [(key, setting) for key, setting in iter_fields() if key == name or key.startswith(f"{name}.")]
        rows = ([f"`{key}`", _default(of), _allowed(of), _decides(key), of.description or ""] for key, of in found)
        meaning = "" if found == [(name, field)] else str(getattr(field.annotation, "__doc__", "")).strip()
        parts += [
            f"## {name}",
            *filter(None, [meaning]),
            markdown_table(["setting", "default", "allowed", "decides", "meaning"], rows),
        ]
    parts += ["## Presets", "What each `preset` sets where nothing is given; a setting that is given wins.", _presets()]
    return "\n\n".join(parts) + "\n"


PAGES = {"tables.md": tables_page, "settings.md": settings_page}


def main() -> None:
    """Write every page anew and print where it is."""
    for name, page in PAGES.items():
        write_atomically(DOCS / name, page())
        print(DOCS / name)


def _table_section(name: str, described: Described) -> str:
    partitions = PARTITIONS.get(name)
    where = f"In the lake: {described.where}." if "`" in described.where else f"Where: {described.where}."
    if partitions:
        where += f" Partitioned by {' and '.join(partitions)}."
    rows = ([f"`{column}`", _type(type), meaning] for column, type, meaning in described.columns)
    return f"## {name}\n\n{described.meaning} {where}\n\n{markdown_table(['column', 'type', 'meaning'], rows)}"


def _type(type: pa.DataType) -> str:
    return {"timestamp[us, tz=UTC]": "timestamp (µs, UTC)", "date32[day]": "date"}.get(str(type), str(type))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    if value is None or value in ((), {}):
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else json.dumps(value).strip('"')


def _allowed(field: FieldInfo) -> str:
    """The values that the type admits, in words that are short enough for a table."""
    text = re.sub(r"\b(?:typing\.|Annotated\b)", "", str(field.annotation))
    if names := re.search(r"Literal\[(.*?)\]", text):
        words = ", ".join(name.strip(" '") for name in names[1].split(","))
        return f"{words}, or numbers" if re.search(r"\bint\b", text.replace(names[0], "")) else words
    limits = [_limit(part) for part in field.metadata]
    return ", ".join(limit for limit in limits if limit)


def _presets() -> str:
    names = [name for name, settings in PRESETS.items() if settings]
    keys = dict.fromkeys(key for name in names for key in PRESETS[name])
    rows = ([f"`{key}`", *(_plain(PRESETS[name].get(key)) for name in names)] for key in keys)
    return markdown_table(["setting", *(f"`preset: {name}`" for name in names)], rows)


def _plain(value: Any) -> str:
    return "" if value is None else json.dumps(value).strip('"')


def _decides(key: str) -> str:
    if key not in DECIDES:  # a preset: the settings that it stands for decide
        return ""
    decides = DECIDES[key]
    return "-" if decides is Decides.NOTHING else decides.name.lower()


def _limit(constraint: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    for name, sign in signs.items():
        if (value := getattr(constraint, name, None)) is not None:
            return f"{sign} {value:g}"
    return ""


if __name__ == "__main__":
    main()

"""`patchead encoders` and `patchead settings`: what there is to choose from."""

from __future__ import annotations

from rich.table import Column, Table

from patchead.commands.options import out
from patchead.printed import add_cells, say
from patchead.settings.load import iter_fields


def encoders() -> None:
    """Print the encoders that have a short name; any other of timm or open_clip works by timm/… or open_clip/…."""
    from patchead.encoders.registry import table as registry_table

    shown = ("name", "library_name", "patch_size", "dim", "grid", "mask", "licence")
    table = Table(*(Column(name.replace("_", " "), overflow="fold") for name in shown))
    for row in registry_table():
        add_cells(table, (row[name] for name in shown))
    out.print(table)


def settings() -> None:
    """Print every setting with its default and meaning, and the settings of each preset."""
    from patchead.settings.presets import PRESETS

    table = Table(Column("setting", no_wrap=True), "default", "meaning")
    for key, field in iter_fields():
        add_cells(table, [key, "required" if field.is_required() else str(field.get_default()), field.description])
    out.print(table)
    for name, values in PRESETS.items():
        if values:
            given = ", ".join(f"{key}={value}" for key, value in values.items())
            say(out, f"preset {name}: {given}")

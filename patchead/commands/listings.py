"""`patchead encoders` and `patchead settings`: what there is to choose from."""

from __future__ import annotations

from rich.table import Column, Table

from patchead.commands.machine import JsonOption, print_json
from patchead.commands.options import out
from patchead.printed import add_cells, say, tell
from patchead.settings.load import iter_fields

_NUMBERS = ("work", "patch", "dim")
_WIDE = 140  # columns, from which on the library's names are shown too


def encoders(as_json: JsonOption = False) -> None:
    """Print the encoders that have a short name; any other of timm or open_clip works by timm/… or open_clip/….

    Work is that of one image of 448 px, in times the default's. Wider terminals and --json have the library's names.
    """
    from patchead.encoders.advice import advised_table

    rows = advised_table()
    if as_json:
        print_json(rows)
        return
    wide = out.width >= _WIDE
    names = ("name", "speed", "work", *(("patch", "dim") if wide else ()), "mask", "licence", "which to try")
    columns = (Column(name, no_wrap=True, justify="right" if name in _NUMBERS else "left") for name in names)
    table = Table(*columns, *(["library name"] if wide else []), box=None, pad_edge=False)
    for row in rows:
        work, (licence, _, _) = row["work"], row["licence"].partition(" ")
        sizes, library = ((row["patch_size"], row["dim"]), (row["library_name"],)) if wide else ((), ())
        mask = "yes" if row["mask"] else "no"
        shown = f"{work:.{0 if work >= 10 else 1 if work >= 1 else 2}f}x"
        add_cells(table, (row["name"], row["speed"], shown, *sizes, mask, licence, row["advice"], *library))
    out.print(table)
    for licence in dict.fromkeys(row["licence"] for row in rows if " " in row["licence"]):
        say(out, licence.replace(" (", ": ").rstrip(")"))


def settings() -> None:
    """Print every setting with its default and meaning, and the settings of each preset."""
    from patchead.settings.presets import PRESETS

    table = Table(Column("setting", no_wrap=True), *(Column(name, overflow="fold") for name in ("default", "meaning")))
    for key, field in iter_fields():
        add_cells(table, [key, "required" if field.is_required() else str(field.get_default()), field.description])
    out.print(table)
    for name, values in PRESETS.items():
        if values:
            given = ", ".join(f"{key}={value}" for key, value in values.items())
            tell(out, f"preset {name}: {given}")

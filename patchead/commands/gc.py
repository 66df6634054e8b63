"""`patchead gc`: what a lake no longer needs, and its removal."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from patchead.commands.machine import JsonOption, print_json
from patchead.commands.options import ConfigOption, LakeOption, SetOption, out, settings_of
from patchead.printed import say
from patchead.settings.load import UNUSED_PLACES
from patchead.settings.object_storage import storage


def gc(
    config: ConfigOption = None,
    lake: LakeOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this nothing is changed.")] = False,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """Print what a lake no longer needs, by sort, and remove it with --apply.

    How long each sort is kept is in the settings (retention). What published rows and accepted runs name always stays.
    Safe beside a running night.
    """
    from patchead.lake.collect import Retention, collect

    given = {"lake.uri": lake} if config else {**UNUSED_PLACES, "lake.uri": lake}
    settings = settings_of(config, overrides, given)
    kept = Retention(**settings.retention.model_dump())
    if as_json:
        print_json(
            [asdict(freed) for freed in collect(settings.lake.uri, storage(settings), kept, apply=apply)],
        )
        return
    files = size = 0
    say(out, f"{settings.lake.uri}: {'removed' if apply else 'would remove'}")
    for freed in collect(settings.lake.uri, storage(settings), kept, apply=apply):
        say(out, _line(freed.files, freed.size, freed.what))
        if freed.left:
            say(out, f"    {freed.left}")
        files, size = files + freed.files, size + freed.size
    say(out, _line(files, size, "together" if apply else "together; remove it with --apply"))


def _line(files: int, size: int, what: str) -> str:
    return f"{files:>9,} files {size:>15,} B  {what}"

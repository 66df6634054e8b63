"""What the commands share: where they print, their options, and the settings that they read."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from patchead.errors import SettingsError
from patchead.settings.load import UNUSED_PLACES, load_config
from patchead.settings.model import Config
from patchead.settings.object_storage import storage
from patchead.storage import Storage

# A file or a pipe has no width: lines are not cut for it.
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with the settings.")]
ArchiveOption = Annotated[str | None, typer.Option(help="Short for --set archive.uri=…")]
OneLakeOption = Annotated[str, typer.Option(help="Folder or URL of the lake.")]
LakeOption = Annotated[str | None, typer.Option(help="Short for --set lake.uri=…")]
NightOption = Annotated[str | None, typer.Option(help="This night only: YYYY-MM-DD; `score` also takes FIRST..LAST.")]
ProductOption = Annotated[list[str] | None, typer.Option(help="This product only; may be repeated.")]
LimitOption = Annotated[int | None, typer.Option(help="The first LIMIT images only.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one setting; see `patchead settings`."),
]
CalibrationOption = Annotated[
    Path | None,
    typer.Option(help="Speeds written by `patchead calibrate`; default: ~/.cache/patchead/calibration.json."),
]


def finite(number: float | None) -> float | None:
    """Refuse infinity and NaN, which no bound of an option keeps out: a callback of typer's."""
    if number is not None and not math.isfinite(number):
        raise typer.BadParameter(f"must be a finite number; got {number}.")
    return number


def short_options(
    archive: str | None, lake: str | None, night: str | None, product: list[str] | None, limit: int | None
) -> dict[str, Any]:
    """Give the settings that the short options stand for; those that were not given are left out."""
    short = {
        "archive.uri": archive,
        "lake.uri": lake,
        "archive.night": night,
        "archive.products": product or None,
        "archive.limit": limit,
    }
    return {key: value for key, value in short.items() if value is not None}


def require_one_night(nights: str | None, given: Sequence[str]) -> None:
    """Refuse options that do not go with a range of nights, and ``--parallel`` without one.

    Raises:
        SettingsError: one of ``given`` is such an option.
    """
    if nights is None and "--parallel" in given:
        raise SettingsError("--parallel is for a range of nights: --night 2026-01-01..2026-03-31.")
    if nights is not None and (alone := [name for name in given if name != "--parallel"]):
        raise SettingsError(f"{' and '.join(alone)} take one night; got --night {nights}. Name one date.")


def settings_of(config: Path | None, overrides: list[str] | None, given: Mapping[str, Any]) -> Config:
    """Read the checked settings: the file, ``--set`` over it, and over both what ``given`` names and is not None."""
    return load_config(config, overrides or [], {key: value for key, value in given.items() if value is not None})


def storage_of(lake: str, overrides: list[str] | None) -> Storage:
    """Read how a lake is reached, for a command that needs no other setting."""
    return storage(settings_of(None, overrides, {**UNUSED_PLACES, "lake.uri": lake}))

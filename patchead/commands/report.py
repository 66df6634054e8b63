"""`patchead report`: a page to look at, of one night."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from patchead.commands.options import NightOption, OneLakeOption, SetOption, out, settings_of
from patchead.commands.outside import errors_from_outside
from patchead.errors import PatcheadError, ReportError
from patchead.printed import say
from patchead.settings.load import UNUSED_PLACES
from patchead.settings.model import Config

if TYPE_CHECKING:
    from patchead.nightly.run_record import RunRecord


def report(
    *,
    lake: OneLakeOption,
    night: NightOption = None,
    to: Annotated[
        str | None, typer.Option("--out", help="Folder or URL of the page; default: reports/night=… in the lake.")
    ] = None,
    lane: Annotated[str | None, typer.Option(help="Short for --set run.lane=…: which results are shown.")] = None,
    overrides: SetOption = None,
) -> None:
    """Write a page to look at: what is bad on a night, where, and since when. Default: the newest night.

    A folder that opens from a disk and from any static host: no server, no request to anywhere. How much of the night
    is on it say report.images, report.pictures and report.compared.
    """
    _write(
        settings_of(None, overrides, {**UNUSED_PLACES, "lake.uri": lake, "archive.night": night, "run.lane": lane}),
        None,
        to,
        out,
    )


def require_what_it_needs(settings: Config) -> None:
    """Refuse `run.report` where a library of the page is not installed: before the night, not after it.

    Raises:
        SettingsError: naming it.
    """
    if settings.run.report:
        from patchead.report.command import require_libraries

        require_libraries()


def report_of_run(record: RunRecord, console: Console) -> None:
    """Write the reports of the nights that a run has published, or had before, where `run.report` asks for them.

    Raises:
        ReportError: one of them cannot be written. The nights are published all the same.
    """
    settings = record.config
    if not settings.run.report or not record.state.endswith("published"):
        return
    wanted: list[dt.date | None] = [*record.nights] if record.nights else [None]
    told: tuple[type[Exception], ...] = (PatcheadError, *errors_from_outside())
    for night in wanted:
        try:
            _write(settings, night, None, console)
        except told as exc:
            raise ReportError(
                f"published, but the report of {night or 'the night'} could not be written: {exc} "
                "The same --run-id tries it again, and so does `patchead report`."
            ) from exc


def _write(settings: Config, night: dt.date | None, to: str | None, console: Console) -> None:
    from patchead.report.command import make_report

    written = make_report(settings, settings.lake.uri, to, lambda line: say(console, line), night)
    if written.unseen:
        say(
            console,
            f"warning: {written.unseen} of {written.shown} images have no picture: their originals cannot be read.",
        )
    say(console, f"open      {written.uri}")

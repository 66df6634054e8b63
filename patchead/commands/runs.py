"""`patchead runs`: which nights are published, failed, dead or under way; where one is that is under way."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from patchead.commands.machine import JsonOption, print_json
from patchead.commands.options import (
    ArchiveOption,
    ConfigOption,
    OneLakeOption,
    SetOption,
    finite,
    settings_of,
    storage_of,
)
from patchead.printed import plain, say

if TYPE_CHECKING:
    from patchead.lake.run_list import Run

_INDENT = " " * 10


def runs(
    lake: OneLakeOption,
    limit: Annotated[int, typer.Option(min=1, help="The newest LIMIT runs only.")] = 30,
    follow: Annotated[str | None, typer.Option(metavar="RUN", help="Say where RUN is, until it has ended.")] = None,
    gaps: Annotated[bool, typer.Option("--gaps", help="List nights of --archive without a published run.")] = False,
    archive: ArchiveOption = None,
    config: ConfigOption = None,
    every: Annotated[
        float, typer.Option(min=0.1, max=100_000, callback=finite, help="Seconds between two looks of --follow.")
    ] = 10.0,
    as_json: JsonOption = False,
    overrides: SetOption = None,
) -> None:
    """List the runs of a lake, the newest first: published, failed, dead (killed), running, or stopped after a stage.

    In a pipe each run is one line; in a terminal the reason stands below it. With --follow, a run that is under way on
    any machine says where it is, a line per look; the exit code is 0 if it is published at its end, else 1.
    """
    if gaps:
        from patchead.commands.backfill_gaps import print_gaps

        print_gaps(settings_of(config, overrides, {"lake.uri": lake, "archive.uri": archive}), Console(soft_wrap=True))
        return
    if follow is not None:
        from patchead.commands.follow import follow_run

        follow_run(lake, storage_of(lake, overrides), follow, every, Console(soft_wrap=True))
        return
    from patchead.lake.run_list import list_runs

    found = list_runs(lake, storage_of(lake, overrides))
    if as_json:
        print_json([asdict(run) for run in found[:limit]])
        return
    console, piped = Console(), not sys.stdout.isatty()
    say(console, _line("state", "night", "started (UTC)", "images", "failed", "run"))
    for run in found[:limit]:
        state, _, stage = run.state.partition(" ")  # "stopped after embed"
        reason = plain(stage or run.reason or "")
        line = _line(state, _nights(run), _started(run), str(run.images), str(run.failed), run.run_id)
        say(console, f"{line}  {reason}".rstrip() if piped else line)
        if reason and not piped:
            say(console, _indented(reason, console.width))
    if len(found) > limit:
        say(console, f"… and {len(found) - limit} more: --limit {len(found)}")


def _line(state: str, night: str, started: str, images: str, failed: str, run: str) -> str:
    """One run in at most 80 columns, if its id is one that this program makes."""
    return f"{state:<9} {night:<10} {started:<16} {images:>6} {failed:>6} {run}"


def _nights(run: Run) -> str:
    if not run.nights:
        return "-"
    return run.nights[0] if len(run.nights) == 1 else f"{len(run.nights)} nights"


def _started(run: Run) -> str:
    return f"{run.started_at:%Y-%m-%d %H:%M}" if run.started_at else "-"


def _indented(reason: str, width: int) -> str:
    room = max(20, width - len(_INDENT))
    return "\n".join(_INDENT + reason[start : start + room] for start in range(0, len(reason), room))

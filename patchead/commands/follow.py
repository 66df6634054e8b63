"""`patchead runs --follow RUN`: where a run is, from any machine that sees the lake: its heartbeat says it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import typer
from rich.console import Console

from patchead.errors import LakeError
from patchead.lake.heartbeat import HEARTBEAT_FILE, is_alive, read_json
from patchead.lake.publication import PUBLISHED
from patchead.lake.run_list import RUNNING, true_state
from patchead.lake.staging import RunFolder
from patchead.printed import say
from patchead.runtime.pace import line
from patchead.storage import Storage


def follow_run(lake_uri: str, storage: Storage, run_id: str, every: float, console: Console) -> None:
    """Print where a run is each time that it has said so, until it has ended.

    Args:
        lake_uri: of the lake.
        storage: how it is reached.
        run_id: of the run.
        every: seconds between two looks.
        console: where it is printed.

    Raises:
        LakeError: the lake has no such run, or cannot be read.
        typer.Exit: it has ended, and is not published.
    """
    folder, told = RunFolder(lake_uri, storage, run_id).files, ""
    while True:
        record, beat = read_json(folder, "run.json"), read_json(folder, HEARTBEAT_FILE)
        if record is None and beat is None:
            raise LakeError(f"{lake_uri} has no run {run_id!r}. `patchead runs --lake {lake_uri}` lists its runs.")
        state = true_state((record or {}).get("state"), None, alive=is_alive(beat))
        if state != RUNNING:
            why = (record or {}).get("error")
            say(console, f"run {run_id}: {state}" + (f": {why}" if why else ""))
            if state != PUBLISHED:
                raise typer.Exit(1)
            return
        if beat is not None and (text := where(beat)) != told:
            say(console, text)
            told = text
        time.sleep(every)


def where(beat: Mapping[str, Any]) -> str:
    """Write what a heartbeat says: ``"03:15:20 embed    320 of 4000 images, 32.5 images/s, 1 min 53 s left"``."""
    progress, at = beat.get("progress") or {}, str(beat["time"])[11:19]
    if not progress.get("stage"):
        return f"{at} between two stages; so far: {', '.join(progress.get('seconds', {})) or 'none'}"
    values = (progress[name] for name in ("stage", "done", "total", "rate", "seconds_left"))
    return f"{at} {line(*values)}"

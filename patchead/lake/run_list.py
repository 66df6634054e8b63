"""Every run of a lake with its true state: what the tables, the run's folder and its heartbeat say together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchead.batches import concurrently
from patchead.files import Folder
from patchead.lake.heartbeat import HEARTBEAT_FILE, is_alive, read_json
from patchead.lake.migration import current_runs
from patchead.lake.publication import PUBLISHED, PUBLISHING
from patchead.storage import Storage, join

FAILED, DEAD, RUNNING = "failed", "dead", "running"
_COLUMNS = ["run_id", "night", "state", "reason", "started_at", "finished_at", "images", "failed"]


@dataclass(frozen=True)
class Run:
    """Hold one run: ``state`` is one of the four, or ``stopped after STAGE``."""

    run_id: str
    state: str
    nights: tuple[str, ...]
    """Dates, those that it covered, or the one that it was asked for; none where that is not known."""
    started_at: dt.datetime | None
    finished_at: dt.datetime | None
    images: int
    failed: int
    reason: str | None
    """Why it is not published, if it is not."""


def list_runs(lake_uri: str, storage: Storage) -> list[Run]:
    """List the runs of a lake, the newest first.

    Raises:
        LakeError: the lake cannot be read.
    """
    rows = _by_run(current_runs(lake_uri, storage).select(_COLUMNS).to_pylist())
    folder = Folder(join(lake_uri, "runs"), storage)
    names = [name for name in folder.names("") if name not in rows or rows[name]["state"] != PUBLISHED]
    records = concurrently(lambda name: _read(Folder(folder.uri_of(name), storage)), names)
    found = dict(zip(names, records, strict=True))
    runs = [_run(run_id, rows.get(run_id), *found.get(run_id, (None, None))) for run_id in {*rows, *found}]
    begun = dt.datetime.min.replace(tzinfo=dt.timezone.utc)
    return sorted(runs, key=lambda run: (run.started_at or begun, run.run_id), reverse=True)


def true_state(recorded: str | None, row: str | None, *, alive: bool) -> str:
    """Tell a run's state.

    Args:
        recorded: in ``run.json``; None where it cannot be read.
        row: in the table of runs; None without a row.
        alive: what its heartbeat says.
    """
    if row == PUBLISHED:
        return PUBLISHED
    if recorded == RUNNING or (recorded is None and row in (None, PUBLISHING)):
        return RUNNING if alive else DEAD
    return recorded or row or DEAD


def _run(run_id: str, row: Mapping[str, Any] | None, record: Mapping[str, Any] | None, beat: Any) -> Run:
    known, said = row or {}, record or {}
    state = true_state(said.get("state"), known.get("state"), alive=is_alive(beat))
    reason = None if state == PUBLISHED else said.get("error") or known.get("reason")
    if state == DEAD:
        reason = _last_words(beat)
        if known.get("state") == PUBLISHING:
            reason += "; it was publishing: run it again under its id"
    asked = known.get("night") or (said.get("config", {}).get("archive") or {}).get("night")
    nights = known.get("nights") or said.get("nights") or ([asked] if asked else [])
    return Run(
        run_id=run_id,
        state=state,
        nights=tuple(map(str, nights)),
        started_at=_time(said.get("started_at") or known.get("started_at")),
        finished_at=None if state in (RUNNING, DEAD) else _time(said.get("finished_at") or known.get("finished_at")),
        images=said.get("images", known.get("images")) or 0,
        failed=said.get("failed", known.get("failed")) or 0,
        reason=reason,
    )


def _by_run(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The rows of each run as one: its nights, and the sums of its counts."""
    found: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: str(row["night"])):
        run = found.setdefault(row["run_id"], row | {"nights": [], "images": 0, "failed": 0})
        run["nights"] += [] if row["night"] is None else [row["night"]]
        for name in ("images", "failed"):
            run[name] += row[name] or 0
    return found


def _last_words(beat: Mapping[str, Any] | None) -> str:
    if beat is None:
        return "it left no heartbeat"
    return f"process {beat['pid']} on {beat['host']} is gone; last heartbeat {beat['time'][:19]}Z"


def _read(folder: Folder) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The record and the heartbeat of a run; None for what is not there or is no JSON."""
    return read_json(folder, "run.json"), read_json(folder, HEARTBEAT_FILE)


def _time(value: object) -> dt.datetime | None:
    found = dt.datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, dt.datetime):
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.timezone.utc)

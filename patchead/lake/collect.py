"""What a lake no longer needs, by sort, and its removal; safe while a night runs.

What a published row or an accepted run names always stays, and so do the files of a run that a process works on. No
embeddings are removed while any does: it may use those of every earlier night.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from patchead.lake.embeddings import EmbeddingStore
from patchead.lake.heartbeat import HEARTBEAT_FILE
from patchead.lake.lease import LeaseError, lease
from patchead.lake.migration import migrate, named_heatmaps
from patchead.lake.publication import PUBLISHED
from patchead.lake.staging import RunFolder
from patchead.lake.stored_files import DAY_S, Stored, delete_stored, list_stored, total
from patchead.lake.tables import delta_errors, delta_uri, read_rows, repeated
from patchead.lake.unused_embeddings import forget_units, needed, unused_units
from patchead.lake.unused_files import RunFiles, by_run, left_over, living_runs, unnamed_heatmaps
from patchead.storage import Storage


@dataclass(frozen=True)
class Retention:
    """Say how long each sort is kept: the fields of `settings.places.RetentionConfig` of the same names."""

    embeddings_nights: int
    staged_days: float
    unfinished_days: float
    replaced_days: float
    set_aside_days: float


_LOG_DAYS = 30
"""Of Delta (``delta.logRetentionDuration``): who reads a version of that time needs its entries."""
_DIGITS = 20  # with which the name of an entry begins: its version


@dataclass(frozen=True)
class Freed:
    """Hold what one sort takes, or took: files and bytes; ``left`` says why some of it has to wait."""

    what: str
    files: int
    size: int
    left: str = ""


@dataclass(frozen=True)
class _Lake:
    """What was found before anything is removed; files were listed first, then the runs, then the tables."""

    uri: str
    storage: Storage
    retention: Retention
    embeddings: list[Stored]
    heatmaps: list[Stored]
    runs: RunFiles
    apply: bool

    def remove(self, what: str, files: list[Stored], left: str = "") -> Freed:
        if self.apply:
            delete_stored(self.uri, self.storage, files)
        return Freed(what, len(files), total(files), left)


def collect(lake_uri: str, storage: Storage, retention: Retention, *, apply: bool = False) -> Iterator[Freed]:
    """Find what a lake no longer needs and, with ``apply``, remove it; yield each sort when it is done.

    Raises:
        LakeError: the lake cannot be read, or a file not be removed. What was removed before was not needed.
    """
    if apply:
        migrate(lake_uri, storage)
    embeddings, heatmaps, files = (list_stored(lake_uri, storage, name) for name in ("embeddings", "heatmaps", "runs"))
    living = living_runs(lake_uri, storage)
    states = read_rows(lake_uri, storage, "runs", ["run_id"], [("state", "=", PUBLISHED)])
    runs = RunFiles(by_run(files), set(states["run_id"].to_pylist()), set(living))
    lake = _Lake(lake_uri, storage, retention, embeddings, heatmaps, runs, apply)
    yield _embeddings(lake)
    yield lake.remove("staged groups of published runs", runs.staged(retention.staged_days * DAY_S))
    given_up = runs.given_up(retention.unfinished_days * DAY_S)
    yield _unfinished(lake, given_up)
    yield _heatmaps(lake, given_up)
    yield _log(lake)  # first: the commits of the others may remove them, too
    yield _replaced(lake)
    yield _joined(lake)
    rest = left_over([*embeddings, *heatmaps, *files], retention.set_aside_days * DAY_S)
    yield lake.remove("set aside as damaged, or half written", rest)


def _embeddings(lake: _Lake) -> Freed:
    what = f"embeddings outside the newest {lake.retention.embeddings_nights} nights"
    if lake.runs.living:
        return Freed(what, 0, 0, _at_work(lake))
    needs = needed(lake.uri, lake.storage, lake.retention.embeddings_nights)
    found, left = list[Stored](), ""
    for store_id in sorted({file.path.split("/")[1] for file in lake.embeddings}):
        folder = f"embeddings/{store_id}/units/"
        inside = [f for f in lake.embeddings if f.path.startswith(folder) and not f.is_left_over]
        store = EmbeddingStore(lake.uri, lake.storage, store_id)
        unused = unused_units(store, inside, needs, lake.retention.unfinished_days * DAY_S)
        if lake.apply and unused:
            forget_units(store, [file.name for file in unused])
            # A run writes its heartbeat, then reads the index: who is not seen here does not find them any more.
            if living_runs(lake.uri, lake.storage):
                left = "a run has begun meanwhile: the files go the next time"
                continue
            delete_stored(lake.uri, lake.storage, unused)
        found += unused
    return Freed(what, len(found), total(found), left)


def _unfinished(lake: _Lake, given_up: list[str]) -> Freed:
    what = f"runs not published, silent for {lake.retention.unfinished_days:g} days"
    found, left = list[Stored](), ""
    for run in given_up:
        if lake.apply:
            folder = RunFolder(lake.uri, lake.storage, run)
            try:
                with lease(folder, run):  # who goes on with this run meanwhile is told that it is being removed
                    delete_stored(lake.uri, lake.storage, lake.runs.files[run])
            except LeaseError:
                left = f"{run} goes on"
                continue
            delete_stored(lake.uri, lake.storage, [Stored(f"runs/{run}/{HEARTBEAT_FILE}", 0, 0.0)])  # the removal's own
        found += lake.runs.files[run]
    return Freed(what, len(found), total(found), left)


def _heatmaps(lake: _Lake, given_up: list[str]) -> Freed:
    named = named_heatmaps(lake.uri, lake.storage)
    unfinished = {*lake.runs.living, *lake.runs.files} - {*lake.runs.published, *given_up} | {*lake.runs.living}
    old = lake.retention.replaced_days * DAY_S
    return lake.remove("heatmaps of replaced runs", unnamed_heatmaps(lake.heatmaps, named, unfinished, old))


def _replaced(lake: _Lake) -> Freed:
    """Files of the tables that the newest version does not have, by Delta's own vacuum."""
    days = lake.retention.replaced_days
    what = f"replaced files of the tables, {days:g} days old"
    if lake.runs.living and days < 1:  # a file that is not committed yet looks like one that nobody needs
        return Freed(what, 0, 0, _at_work(lake))
    sizes, there = {f.path: f.size for f in list_stored(lake.uri, lake.storage, "tables")}, list[int]()
    for name in sorted({path.split("/")[1] for path in sizes}):
        for path in repeated(partial(_vacuum, lake, name)):
            full = f"tables/{name}/{path}"  # Delta may write a partition's value as in an address, or name what is gone
            there += [sizes[known] for known in dict.fromkeys([full, unquote(full)]) if known in sizes]
    return Freed(what, len(there), sum(there))


def _log(lake: _Lake) -> Freed:
    """Entries of the tables' logs that a checkpoint holds too, once that is old."""
    found, expired = list[Stored](), _expired(lake)
    for name, old in sorted(expired.items()):
        if lake.apply and old:
            uri = delta_uri(lake.uri, lake.storage, name)
            with delta_errors("shorten the log of", uri):
                DeltaTable(uri, storage_options=lake.storage.patient_delta_options(uri)).cleanup_metadata()
        found += old
    if lake.apply and found:
        left = {file.path for old in _expired(lake).values() for file in old}
        found = [file for file in found if file.path not in left]
    return Freed(f"log entries of the tables, {_LOG_DAYS} days old", len(found), total(found))


def _expired(lake: _Lake) -> dict[str, list[Stored]]:
    """Of each table, the entries before its newest checkpoint that has its time behind it."""
    entries: dict[str, list[tuple[int, Stored]]] = {}
    for file in list_stored(lake.uri, lake.storage, "tables"):
        _, name, *inside = file.path.split("/")
        if inside[0] == "_delta_log" and file.name[:_DIGITS].isdigit() and file.age_s > _LOG_DAYS * DAY_S:
            entries.setdefault(name, []).append((int(file.name[:_DIGITS]), file))
    found = {}
    for name, old in entries.items():
        kept = max((version for version, file in old if ".checkpoint." in file.name), default=0)
        found[name] = [file for version, file in old if version < kept]
    return found


def _joined(lake: _Lake) -> Freed:
    """Small files of one night as one, as whoever asks opens fewer then; the old ones are replaced files."""
    what, small, joined = "small files of the tables, joined", 0, 0
    if not lake.apply:
        return Freed(what, 0, 0, "")
    for name in sorted({path.path.split("/")[1] for path in list_stored(lake.uri, lake.storage, "tables")}):
        uri = delta_uri(lake.uri, lake.storage, name)
        with delta_errors("join files of", uri):
            table = DeltaTable(uri, storage_options=lake.storage.patient_delta_options(uri))
            try:
                done = table.optimize.compact(min_commit_interval=None)
            except CommitFailedError:  # a run publishes meanwhile: the next time
                continue
            small, joined = small + done["numFilesRemoved"], joined + done["numFilesAdded"]
    left = f"{small} files are {joined} now; the old ones go as replaced files" if small else ""
    return Freed(what, 0, 0, left)


def _vacuum(lake: _Lake, name: str) -> list[str]:
    uri = delta_uri(lake.uri, lake.storage, name)
    with delta_errors("clean up", uri):
        table = DeltaTable(uri, storage_options=lake.storage.patient_delta_options(uri))
        hours = int(lake.retention.replaced_days * 24)
        return table.vacuum(hours, dry_run=not lake.apply, enforce_retention_duration=False, full=True)


def _at_work(lake: _Lake) -> str:
    return f"{', '.join(sorted(lake.runs.living)[:3])} at work: the next time"

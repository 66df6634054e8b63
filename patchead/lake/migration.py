"""Tables that an earlier version wrote, taken to the columns of this one: once, in place, by the first who writes.

Delta keeps what was there before: a reader who has opened the table goes on, and `patchead gc` removes the old files as
it does those of replaced nights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, QueryBuilder, write_deltalake

from patchead.lake.region_shares import with_shares
from patchead.lake.replaced_groups import sql_literal
from patchead.lake.tables import (
    VERSION_NOTE,
    committed,
    delta_uri,
    open_table,
    read_as_written,
    read_rows,
    without_unused,
)
from patchead.result_tables import MAIN, TABLES_VERSION
from patchead.schema import FAILED, OK, PARTITIONS, RUNS, SKIPPED, STAGED_REGIONS, TABLES, completed, table
from patchead.storage import Storage

_SHARED = ("seconds", "gpu_seconds", "cpu_seconds")
_COUNTS = ("images", "ok", "failed", "skipped", "anomalous", "groups")


def migrate(lake_uri: str, storage: Storage, before_commit: Callable[[], None] = lambda: None) -> list[str]:
    """Take the result tables to this version of their columns, and name those that were not there yet.

    Each table is written anew in one commit, and says then that it is of this version: a migration that was cut off
    goes on. Old rows are of the lane `MAIN`.

    Args:
        lake_uri, storage: the lake.
        before_commit: raises where this process must not write any more.

    Raises:
        LakeError: a table cannot be read or written.
    """
    found = [name for name in TABLES if is_old(open_table(lake_uri, storage, name))]
    for name in found:  # runs come last: they tell where the archive of old scores was
        before_commit()
        committed(lambda name=name: _migrate(lake_uri, storage, name), delta_uri(lake_uri, storage, name))  # type: ignore[misc]
    return found


def is_old(there: DeltaTable | None) -> bool:
    """Tell whether a table is there and has rows of an earlier version of its columns."""
    return there is not None and there.metadata().description != VERSION_NOTE


def _migrate(lake_uri: str, storage: Storage, name: str) -> None:
    """Write the table anew in one commit, with the columns and the partitions of this version."""
    opened = open_table(lake_uri, storage, name)
    if opened is None or not is_old(opened):
        return
    if name == "runs":
        rows: Any = current_runs(lake_uri, storage)
    elif name == "regions":
        rows = _regions(lake_uri, storage)
    else:
        there = {field.name for field in opened.schema().fields}
        now = scores_now(archives_of(lake_uri, storage)) if name == "scores" else {"lane": sql_literal(MAIN)}
        columns = [f"{now[c.name]} AS {c.name}" if c.name in now else f'"{c.name}"' for c in TABLES[name]
                   if c.name in now or c.name in there]  # fmt: skip
        rows = QueryBuilder().register("asked", opened).execute(f"SELECT {', '.join(columns)} FROM asked")
    if isinstance(rows, pa.Table):
        rows = without_unused(rows)
    how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "overwrite", "partition_by": PARTITIONS[name] or None}
    write_deltalake(opened, rows, **how)
    opened.alter.set_table_description(VERSION_NOTE)


def scores_now(archives: list[str]) -> dict[str, str]:
    """Write the SQL of columns of scores that earlier versions held as whole addresses."""
    path = "uri"
    for root in archives:
        quoted = sql_literal(f"{root}/")
        path = f"CASE WHEN starts_with(uri, {quoted}) THEN substr(uri, {len(root) + 2}) ELSE {path} END"
    of_the_lake = "'heatmaps/night=' || split_part(heatmap_uri, '/heatmaps/night=', 2)"  # it may have been moved
    return {"lane": sql_literal(MAIN), "path": path, "heatmap_path": of_the_lake}


def archives_of(lake_uri: str, storage: Storage) -> list[str]:
    """List the archives that runs have read, the longest address last, which is tried first."""
    settings = pc.unique(read_rows(lake_uri, storage, "runs", ["config_json"])["config_json"]).drop_null().to_pylist()
    return sorted({_archive_of(text) or "" for text in settings} - {""}, key=len)


def _archive_of(config_json: str | None) -> str | None:
    uri = (json.loads(config_json or "{}").get("archive") or {}).get("uri")
    return uri and uri.removeprefix("file://").rstrip("/")


def _regions(lake_uri: str, storage: Storage) -> pa.Table:
    """Regions of earlier versions, with shares of pictures whose scores are still there."""
    rows = read_rows(lake_uri, storage, "regions", STAGED_REGIONS.names)
    images = read_rows(lake_uri, storage, "scores", ["image_id", "width", "height"])
    return with_shares(rows, images, MAIN)


def _old_runs(lake_uri: str, storage: Storage, rows: pa.Table) -> pa.Table:
    """Take rows of runs that an earlier version wrote to one per night: RUNS."""
    old = rows.to_pylist()
    counts = _counted(lake_uri, storage, [row["run_id"] for row in old if len(row.get("nights") or []) > 1])
    return table([night for row in old for night in _nights_of(row, counts.get(row["run_id"], {}))], RUNS)


def _nights_of(row: Mapping[str, Any], counts: Mapping[Any, Mapping[str, int]]) -> Iterator[dict[str, Any]]:
    """One old row as one per night; what its scores, if they are still there, do not tell of a night is null."""
    same: dict[str, Any] = {name: row.get(name) for name in RUNS.names}
    same |= {"lane": MAIN, "schema_version": TABLES_VERSION, "archive_uri": _archive_of(row.get("config_json"))}
    if row.get("finished_at") and row.get("started_at"):
        same["seconds"] = (row["finished_at"] - row["started_at"]).total_seconds()
    nights = row.get("nights") or [row.get("night")]
    if len(nights) == 1:
        yield same | {"night": nights[0]}
        return
    total = sum(of["images"] for of in counts.values())
    for night in nights:
        known = counts.get(night, {})
        share = known.get("images", 0) / total if total else 1 / len(nights)
        shares = {name: same[name] * share for name in _SHARED if same[name] is not None}
        own = {name: known.get(name) for name in _COUNTS}
        yield same | {"night": night, "embedded": None, "reused": None} | shares | own


def _counted(lake_uri: str, storage: Storage, runs: list[str]) -> dict[str, dict[Any, dict[str, int]]]:
    """Of these runs, as far as their scores are still there: counts by night."""
    if not runs:
        return {}
    columns = ["run_id", "night", "group_id", "status", "is_anomalous"]
    rows = read_rows(lake_uri, storage, "scores", columns, [("run_id", "in", runs)])
    masks = {"ok": [OK], "failed": [FAILED], "skipped": [*SKIPPED]}
    of = {name: pc.is_in(rows["status"], value_set=pa.array(values)).cast(pa.int64()) for name, values in masks.items()}
    of["anomalous"] = pc.fill_null(rows["is_anomalous"], False).cast(pa.int64())
    told = pa.table({"run_id": rows["run_id"], "night": rows["night"], "group_id": rows["group_id"], **of})
    wanted = [("ok", "count"), *((name, "sum") for name in of), ("group_id", "count_distinct")]
    found: dict[str, dict[Any, dict[str, int]]] = {}
    for row in told.group_by(["run_id", "night"]).aggregate(wanted).to_pylist():
        counts = {"images": row["ok_count"], "groups": row["group_id_count_distinct"]}
        counts |= {name: row[f"{name}_sum"] for name in of}
        found.setdefault(row["run_id"], {})[row["night"]] = counts
    return found


def current_runs(lake_uri: str, storage: Storage) -> pa.Table:
    """Read the table of runs as this version writes it, while nothing has migrated it: RUNS.

    Raises:
        LakeError: it cannot be read.
    """
    rows = read_as_written(lake_uri, storage, "runs")
    if rows is None:
        return RUNS.empty_table()
    lanes = rows["lane"] if "lane" in rows.column_names else pa.nulls(rows.num_rows)
    new = completed(rows.filter(pc.is_valid(lanes)), RUNS)
    return pa.concat_tables([new, _old_runs(lake_uri, storage, rows.filter(pc.is_null(lanes)))])


def named_heatmaps(lake_uri: str, storage: Storage) -> set[str]:
    """Find the heatmaps that rows of scores name, relative to the lake, also in what nothing has migrated yet.

    Raises:
        LakeError: they cannot be read.
    """
    rows = read_as_written(lake_uri, storage, "scores", ("heatmap_path", "heatmap_uri"))
    columns = [] if rows is None else rows.columns
    found = set().union(*(column.drop_null().to_pylist() for column in columns))
    return {f"heatmaps/night={uri.partition('heatmaps/night=')[2]}" for uri in found}

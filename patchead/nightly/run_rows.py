"""Rows of the table of runs: one per night that a run covered, with its counts and its share of seconds and cost."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pyarrow as pa

from patchead.nightly.run_record import RunRecord, git_commit, versions
from patchead.redaction import redacted_values
from patchead.result_tables import TABLES_VERSION
from patchead.schema import RUNS, table

_COUNTS = ("images", "ok", "failed", "skipped", "embedded", "reused", "groups", "groups_failed", "anomalous")


def run_rows(record: RunRecord) -> pa.Table:
    """Make the rows of a run that has ended, RUNS; one where it ended before its nights were known."""
    of_the_run = _of_the_run(record)
    asked = record.config.archive.night
    nights = record.by_night or {str(asked or ""): {}}
    total = sum(counts.get("images", 0) for counts in nights.values())
    rows = []
    for night, counts in sorted(nights.items()):
        share = counts.get("images", 0) / total if total else 1 / len(nights)
        row = {"night": dt.date.fromisoformat(night) if night else None}
        rows.append(of_the_run | row | {name: counts.get(name, 0) for name in _COUNTS} | _taken(record, share))
    return table(rows, RUNS)


def _of_the_run(record: RunRecord) -> dict[str, Any]:
    settings = record.config.model_dump(mode="json")
    return {
        "run_id": record.run_id,
        "lane": record.config.run.lane,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "state": record.state,
        "reason": redacted_values(record.error),
        "ignored": record.ignored_files,
        "archive_uri": redacted_values(record.archive_root or record.config.archive.uri),
        "config_json": json.dumps(redacted_values(settings), separators=(",", ":")),
        "encoder_id": record.encoder_id,
        "versions_json": json.dumps(versions()),
        "seconds_json": json.dumps(record.seconds),
        "scoring_json": json.dumps(redacted_values(record.scoring)),
        "git_commit": git_commit(),
        "schema_version": TABLES_VERSION,
    }


def _taken(record: RunRecord, share: float) -> dict[str, float | None]:
    """What the run took, times ``share``."""
    took = (record.finished_at or record.started_at) - record.started_at
    run = record.config.run
    prices, cost = (run.price_per_gpu_hour, run.price_per_cpu_hour), None
    if any(price is not None for price in prices):
        cost = sum(
            seconds / 3600 * (price or 0.0)
            for seconds, price in zip((record.gpu_seconds, record.cpu_seconds), prices, strict=True)
        )
    return {
        "seconds": took.total_seconds() * share,
        "gpu_seconds": record.gpu_seconds * share,
        "cpu_seconds": record.cpu_seconds * share,
        "cost": None if cost is None else cost * share,
    }

"""Rows to publish: a manifest, its scores, its regions and the run's row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from patchead.result_tables import MAIN
from patchead.schema import FAILED, MANIFEST, OK, REGIONS, RUNS, SCORES, TOO_FEW_IMAGES, VERDICTS, table

NIGHT = dt.date(2026, 11, 20)
NEXT_NIGHT = dt.date(2026, 11, 21)
AWKWARD = "o'brien 50%/a"
AWKWARD_TOO = "ü=1 & 'x' \"y\" #?+;\\ %2F"


@dataclass(frozen=True)
class Rows:
    """What one run publishes."""

    manifest: pa.Table
    scores: pa.Table
    regions: pa.Table
    verdicts: pa.Table
    run: pa.Table

    def changed(self, **tables: pa.Table) -> Rows:
        return replace(self, **tables)

    @property
    def tables(self) -> tuple[pa.Table, ...]:
        """As `publish` takes them."""
        return self.manifest, self.scores, self.regions, self.verdicts, self.run


def group(night: dt.date | None, product: str | None, *images: str, **values: Any) -> list[dict[str, Any]]:
    """Score rows of one group, all ok, with one region each."""
    known = bool(night and product)
    keys = {"night": night, "product": product, "group_id": f"night={night}/product={product}" if known else None}
    return [keys | {"image_id": image, "status": OK} | values for image in images]


def failed(night: dt.date | None, product: str | None, *images: str) -> list[dict[str, Any]]:
    return group(night, product, *images, status=FAILED, error="not an image")


def rows_of(run_id: str, groups: Sequence[list[dict[str, Any]]], *, regions: bool = True, lane: str = MAIN) -> Rows:
    """A consistent set of rows of the run ``run_id``."""
    entries = [entry for entries in groups for entry in entries]
    scored = {
        "score": 0.25, "rank": 1, "z": 0.5, "max_patch": 0.5, "is_anomalous": False, "n_references": 4,
        "threshold_score": 0.5, "verdict_rule": "mad",
    }  # fmt: skip
    own = {"run_id": run_id, "lane": lane}
    scores = [{**own, **(scored if entry["status"] == OK else {}), **entry} for entry in entries]
    boxes = [
        {**own, "region": 1, "x": 1, "y": 2, "width": 3, "height": 4, "area_px": 9, "peak": 0.5, "mean": 0.4}
        | {name: entry[name] for name in ("image_id", "night", "product", "group_id")}
        for entry in entries
        if entry["status"] == OK and regions
    ]
    nights = sorted({entry["night"] for entry in entries}, key=str) or [None]
    run = [own | {"night": night} | _counts([e for e in entries if e["night"] == night]) for night in nights]
    manifest = [{name: entry[name] for name in ("image_id", "night", "product", "group_id")} for entry in entries]
    tables = [(manifest, MANIFEST), (scores, SCORES), (boxes, REGIONS), (verdicts_of(scores), VERDICTS), (run, RUNS)]
    return Rows(*(table(entries, schema) for entries, schema in tables))


def _counts(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    counts = {"ok": OK, "failed": FAILED, "skipped": TOO_FEW_IMAGES}
    found = {name: sum(entry["status"] == status for entry in entries) for name, status in counts.items()}
    return found | {"images": len(entries), "anomalous": 0, "state": "published"}


def verdicts_of(scores: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rows of `SCORES` say of the verdict of each of their groups."""
    verdicts = []
    for name in dict.fromkeys(row["group_id"] for row in scores if row["status"] != FAILED):
        rows = [row for row in scores if row["group_id"] == name and row["status"] != FAILED]
        ok = [row for row in rows if row["status"] == OK]
        counts = {"images": len(rows), "scored": len(ok), "flagged": sum(row["is_anomalous"] for row in ok)}
        decided = {"threshold_score": 0.5, "verdict_rule": "mad"} if ok else {}
        verdicts.append(
            {key: rows[0][key] for key in ("run_id", "lane", "night", "product", "group_id")} | counts | decided
        )
    return verdicts

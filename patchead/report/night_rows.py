"""Read what the page of one night shows from the lake's tables, and from the records of the runs that wrote them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.errors import LakeError, SettingsError
from patchead.lake.heartbeat import read_json
from patchead.lake.query import query_all
from patchead.lake.replaced_groups import sql_literal
from patchead.lake.staging import RunFolder
from patchead.lake.word_links import read_links
from patchead.result_tables import MAIN
from patchead.storage import Storage

HISTORY_NIGHTS = 60
"""Nights before this one that the drift is shown of."""

_NIGHTS = "SELECT DISTINCT night FROM scores WHERE lane = {lane} ORDER BY night DESC NULLS LAST"
_IMAGES = """
SELECT run_id, image_id, uri, member, product, group_id, score, rank, group_size, z, p_value, is_anomalous, max_patch,
       threshold_score, repeat_group, part_id, content_hash, keys_json, captured_at, heatmap_uri, width, height, status,
       error
FROM latest WHERE {of_night}
ORDER BY is_anomalous DESC NULLS LAST, z DESC NULLS LAST, score DESC NULLS LAST, image_id
"""
_REGIONS = """
SELECT r.run_id, r.image_id, r.region, r.x, r.y, r.width, r.height, r.peak, r.family, r.family_medoid, r.defect_type
FROM regions AS r
JOIN (SELECT run_id, image_id FROM latest WHERE {of_night}) USING (run_id, image_id)
WHERE r.{of_night} ORDER BY r.image_id, r.region
"""
_VERDICTS = """
SELECT v.* FROM verdicts AS v
JOIN (SELECT DISTINCT run_id, group_id FROM latest WHERE {of_night}) USING (run_id, group_id)
ORDER BY v.product NULLS LAST, v.group_id
"""
_HISTORY = """
SELECT night, product, group_id, run_id, scored, flagged, median, centre, scale, encoder_id
FROM verdicts WHERE lane = {lane} AND night <= {night} AND night > {night} - 400 ORDER BY night, group_id, run_id
"""
_FAILURES = """
SELECT night, count(*) AS images, count(*) FILTER (status = 'failed') AS failed FROM latest
WHERE {of_night} OR night = {before} GROUP BY night
"""
_PLACES_BEFORE = """
SELECT keys_json, count(*) AS scored, count(*) FILTER (is_anomalous) AS flagged FROM latest
WHERE night = {before} AND status = 'ok' AND keys_json IS NOT NULL GROUP BY keys_json
"""
_RUNS = """
SELECT * FROM runs WHERE lane = {lane} AND (
  (run_id IN (SELECT run_id FROM latest WHERE {of_night}) AND ({of_night} OR night IS NULL))
  OR (state = 'failed' AND {of_night}))
QUALIFY row_number() OVER (PARTITION BY run_id ORDER BY night NULLS LAST) = 1
ORDER BY started_at, run_id
"""
_RUNS_BEFORE = """
SELECT config_json, versions_json, encoder_id FROM runs
WHERE run_id IN (SELECT run_id FROM latest WHERE night = {before}) AND night = {before}
ORDER BY started_at, run_id
"""
_FAMILIES = """
SELECT family, product, min(night) AS first_night, count(DISTINCT night) AS nights FROM regions
WHERE lane = {lane} AND family IN (SELECT family FROM regions WHERE lane = {lane} AND {of_night})
GROUP BY family, product
"""
_LABELS = """
SELECT l.run_id, l.image_id, arg_max(f.verdict, f.given_at) AS verdict
FROM feedback AS f JOIN latest AS l ON f.image_id = l.image_id
WHERE l.{of_night} AND (f.content_hash IS NULL OR f.content_hash = l.content_hash) GROUP BY l.run_id, l.image_id
"""


@dataclass(frozen=True)
class NightRows:
    """Hold the rows of one night, and of the nights before it what they are compared by."""

    night: dt.date | None
    before: dt.date | None
    """The night before that is published; None for the first."""
    images: pa.Table
    """Each image once, the worst first."""
    regions: dict[str, list[dict[str, Any]]]
    """By image id, the highest peak first."""
    verdicts: list[dict[str, Any]]
    history: list[dict[str, Any]]
    """Of every group and night up to this one, its verdict's numbers; oldest first."""
    failed: dict[dt.date | None, int]
    """Images that failed, of this night and the one before."""
    runs: list[dict[str, Any]]
    """Those that wrote the rows, and those of this night that failed; oldest first."""
    runs_before: list[dict[str, Any]] = field(default_factory=list)
    """Settings and versions of the night before."""
    places_before: list[dict[str, Any]] = field(default_factory=list)
    """Of the night before: how many images with the same keys have a score, and how many are flagged."""
    records: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """``run.json`` by run id, where it is still there."""
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    """What people said of the night's images, by run and image id."""
    links: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """By run and image id: patches that names by words rest on, the highest contrast first."""
    families: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """First night and number of nights of the night's families, by their name and product."""

    @cached_property
    def published(self) -> list[dict[str, Any]]:
        """Give the runs whose rows these are; the others failed."""
        named = set(pc.unique(self.images["run_id"]).to_pylist())
        return [run for run in self.runs if run["run_id"] in named]


def read_night(lake_uri: str, storage: Storage, night: dt.date | None = None, lane: str = MAIN) -> NightRows:
    """Read one night of a lane; without ``night`` the newest that is published.

    Raises:
        SettingsError: no image of that night is published.
        LakeError: nothing is published yet, DuckDB is not installed, or a table cannot be read.
    """
    of_lane = sql_literal(lane)
    nights = query_all(lake_uri, storage, _NIGHTS.format(lane=of_lane), lane)[0]["night"].to_pylist()
    if not nights:
        raise LakeError(f"no image is published in lane {lane} of {lake_uri} yet: run `patchead score` first.")
    if night is not None and night not in nights:
        newest = ", ".join(str(each) for each in nights[:5] if each)
        raise SettingsError(f"--night: {lake_uri} has no image of {night}; its newest nights are {newest}.")
    chosen = nights[0] if night is None else night
    before = None if chosen is None else max((each for each in nights if each and each < chosen), default=None)
    # No `IS NOT DISTINCT FROM`: on a partition, DuckDB's delta extension ends with an internal error.
    of_night = "night IS NULL" if chosen is None else f"night = {_date(chosen)}"
    at = {"night": _date(chosen), "before": _date(before), "of_night": of_night, "lane": of_lane}
    statements = (_IMAGES, _REGIONS, _VERDICTS, _HISTORY, _FAILURES, _RUNS, _RUNS_BEFORE, _PLACES_BEFORE, _LABELS)
    images, regions, verdicts, history, failures, runs, runs_before, places, labels, families = query_all(
        lake_uri, storage, ";".join(statement.format(**at) for statement in (*statements, _FAMILIES)), lane
    )
    of_runs = runs.to_pylist()
    found = {run["run_id"]: _record(lake_uri, storage, run["run_id"]) for run in of_runs}
    return NightRows(
        night=chosen,
        before=before,
        images=images,
        regions=_by_image(regions.to_pylist()),
        verdicts=verdicts.to_pylist(),
        history=_newest_nights(history.to_pylist()),
        failed={row["night"]: row["failed"] for row in failures.to_pylist()},
        runs=of_runs,
        runs_before=runs_before.to_pylist(),
        places_before=places.to_pylist(),
        records={run_id: record for run_id, record in found.items() if record is not None},
        labels={(row["run_id"], row["image_id"]): row["verdict"] for row in labels.to_pylist()},
        links=_links(lake_uri, storage, found),
        families={(row["family"], row["product"] or ""): row for row in families.to_pylist()},
    )


def _date(night: dt.date | None) -> str:
    return "CAST(NULL AS DATE)" if night is None else f"DATE '{night.isoformat()}'"


def _record(lake_uri: str, storage: Storage, run_id: str) -> Mapping[str, Any] | None:
    return read_json(RunFolder(lake_uri, storage, run_id).files, "run.json")


def _links(lake_uri: str, storage: Storage, runs: Iterable[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run_id in runs:
        links = read_links(RunFolder(lake_uri, storage, run_id).files)
        for link in links.sort_by([("contrast", "descending")]).to_pylist():
            found.setdefault((run_id, link["image_id"]), []).append(link)
    return found


def _by_image(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append(row)
    return found


def _newest_nights(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    nights = sorted({row["night"] for row in rows})[-HISTORY_NIGHTS:]
    return [row for row in rows if row["night"] in nights]

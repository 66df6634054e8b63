"""Arrow schemas of everything that crosses a stage boundary, and their version.

Result tables (scores, regions, runs) use only types that every SQL engine reads: string, int32/int64, float64,
bool, date32 and timestamp[us, UTC]. float16 and fixed-size tensors stay in the embedding files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1

# Row status. Every image of the manifest ends as exactly one row with one of these.
OK = "ok"
FAILED = "failed"
TOO_FEW_IMAGES = "too_few_images"
SKIPPED = (TOO_FEW_IMAGES,)

_timestamp = pa.timestamp("us", tz="UTC")

MANIFEST = pa.schema(
    [
        ("image_id", pa.string()),  # relative URI, plus '#member' (tar) or '#row key' (Parquet); never a position
        ("uri", pa.string()),  # full URI of the file or shard that holds the image
        ("key", pa.string()),  # tar member or Parquet row key; null for a loose file
        ("format", pa.string()),  # files | tar | parquet
        ("size", pa.int64()),  # bytes of the image, -1 where the shard does not tell
        ("offset", pa.int64()),  # where a tar member's bytes begin in its shard; null otherwise
        ("etag", pa.string()),  # what changes when the file changes: etag, or size and modification time
        ("night", pa.date32()),
        ("product", pa.string()),
        ("group_id", pa.string()),  # 'night=2026-11-21/product=screw'
        ("part_id", pa.string()),  # images of one physical part are never references of each other
        ("captured_at", _timestamp),
        ("status", pa.string()),  # 'failed' where the catalog already knows; else null
        ("error", pa.string()),
    ]
)

# What embedding one image left behind. 'uri' + 'row' address the vectors; both null where the image failed.
RECEIPTS = pa.schema(
    [
        ("image_id", pa.string()),
        ("etag", pa.string()),
        ("size", pa.int64()),
        ("content_hash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("embedding_uri", pa.string()),
        ("row", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
    ]
)

SCORES = pa.schema(
    [
        ("run_id", pa.string()),
        ("image_id", pa.string()),
        ("uri", pa.string()),
        ("night", pa.date32()),
        ("product", pa.string()),
        ("group_id", pa.string()),
        ("score", pa.float64()),
        ("rank", pa.int32()),  # 1 = the most anomalous of its group
        ("group_size", pa.int32()),
        ("n_references", pa.int32()),
        ("z", pa.float64()),
        ("p_value", pa.float64()),  # null unless a reference run is named
        ("is_anomalous", pa.bool_()),
        ("max_patch", pa.float64()),
        ("aligned", pa.bool_()),  # null unless alignment is on
        ("heatmap_uri", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("content_hash", pa.string()),
        ("encoder_id", pa.string()),
        ("captured_at", _timestamp),
        ("status", pa.string()),  # ok | failed | too_few_images
        ("error", pa.string()),
        ("schema_version", pa.int32()),
    ]
)

REGIONS = pa.schema(
    [
        ("run_id", pa.string()),
        ("image_id", pa.string()),
        ("night", pa.date32()),
        ("product", pa.string()),
        ("group_id", pa.string()),
        ("region", pa.int32()),  # 1 = the region with the highest peak
        ("x", pa.int32()),  # left, top, width, height: pixels of the original image
        ("y", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("area_px", pa.int64()),
        ("peak", pa.float64()),
        ("mean", pa.float64()),
    ]
)

RUNS = pa.schema(
    [
        ("run_id", pa.string()),
        ("night", pa.date32()),  # the night asked for; null where the run covered several
        ("started_at", _timestamp),
        ("finished_at", _timestamp),
        ("state", pa.string()),  # published
        ("images", pa.int64()),  # images = ok + failed + skipped
        ("ok", pa.int64()),
        ("failed", pa.int64()),
        ("skipped", pa.int64()),
        ("embedded", pa.int64()),
        ("reused", pa.int64()),
        ("groups", pa.int64()),
        ("anomalous", pa.int64()),
        ("config_json", pa.string()),
        ("encoder_id", pa.string()),
        ("versions_json", pa.string()),
        ("seconds_json", pa.string()),  # seconds per stage
        ("scoring_json", pa.string()),  # schedules, precision, tiles
        ("gpu_seconds", pa.float64()),
        ("cpu_seconds", pa.float64()),
        ("git_commit", pa.string()),
        ("schema_version", pa.int32()),
    ]
)

PARTITIONS = {"scores": ["night", "product"], "regions": ["night", "product"], "runs": []}
TABLES: dict[str, pa.Schema] = {"scores": SCORES, "regions": REGIONS, "runs": RUNS}


def table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows as an Arrow table of exactly ``schema``; a missing key is null, an unknown key raises ``KeyError``."""
    names = set(schema.names)
    for row in rows:
        if unknown := set(row) - names:
            raise KeyError(f"not a column of the schema: {sorted(unknown)}")
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)

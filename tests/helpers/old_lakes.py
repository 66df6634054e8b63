"""A lake as the code of schema version 1 left it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from patchead.lake.tables import delta_uri
from tests.helpers.sample_rows import Rows

_COLUMNS = {
    "scores": "run_id image_id uri night product group_id score rank group_size n_references z p_value is_anomalous "
    "max_patch aligned heatmap_uri width height content_hash encoder_id captured_at status error schema_version",
    "regions": "run_id image_id night product group_id region x y width height area_px peak mean",
    "runs": "run_id night started_at finished_at state images ok failed skipped embedded reused groups anomalous "
    "config_json encoder_id versions_json seconds_json scoring_json gpu_seconds cpu_seconds git_commit schema_version",
}
"""Columns of its tables, in their order."""


def publish_as_version_1(lake: Any, rows: Rows) -> None:
    """Write the tables that version 1 had, with the columns that it knew."""
    tables = {"scores": rows.scores, "regions": rows.regions, "runs": rows.run}
    for name, columns in _COLUMNS.items():
        uri = delta_uri(lake.uri, lake.storage, name)
        partitions = [] if name == "runs" else ["night", "product"]
        wanted, rows = columns.split(), tables[name]
        old = rows.select([column for column in wanted if column in rows.column_names])
        for column in set(wanted) - set(old.column_names):  # whole addresses
            old = old.append_column(column, pa.array([f"/archive/{i}" for i in old["image_id"].to_pylist()]))
        write_deltalake(uri, old, partition_by=partitions, storage_options=lake.storage.delta_options(uri))

"""Families of earlier nights, as the lake has them: one medoid of each family and night."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.lake.described_regions import described_regions
from patchead.lake.tables import read_rows
from patchead.schema import REGION_VECTORS
from patchead.storage import Storage

_COLUMNS = ["product", "night", "family", "reach", "vector", "run_id", "image_id", "region"]


def known_families(
    lake_uri: str,
    storage: Storage,
    *,
    lane: str,
    encoder_id: str,
    vectors_id: str,
    nights: Collection[dt.date | None],
    most_nights: int,
) -> pa.Table:
    """Read the medoids of families whose vectors can be compared: `_COLUMNS` of REGION_VECTORS, in a fixed order.

    Args:
        lake_uri, storage: the lake.
        lane: of the run.
        encoder_id, vectors_id: of its vectors.
        nights: that it covers; the nights nearest to them are read, themselves included.
        most_nights: that are read, at most.

    Raises:
        LakeError: a table cannot be read.
    """
    same: list[tuple[str, str, Any]] = [("lane", "=", lane), ("encoder_id", "=", encoder_id)]
    same += [("vectors_id", "=", vectors_id), ("family_medoid", "=", True)]
    there = read_rows(lake_uri, storage, "region_vectors", ["night"], same)
    known = pc.unique(there["night"]).drop_null().to_pylist()
    wanted = sorted(known, key=lambda night: (_away(night, nights), night))[:most_nights]
    if not wanted:
        return REGION_VECTORS.empty_table().select(_COLUMNS)
    rows = described_regions(lake_uri, storage, _COLUMNS, [*same, ("night", "in", wanted)])
    return rows.sort_by([(name, "ascending") for name in ("night", "run_id", "image_id", "region")])


def _away(night: dt.date, nights: Collection[dt.date | None]) -> int:
    return min((abs((night - other).days) for other in nights if other is not None), default=0)

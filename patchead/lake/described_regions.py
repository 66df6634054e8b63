"""Regions that published runs have described by vectors: what families and names of later nights go by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import values
from patchead.lake.tables import read_rows
from patchead.storage import Storage


def described_regions(
    lake_uri: str, storage: Storage, columns: Sequence[str], filters: Sequence[tuple[str, str, Any]]
) -> pa.Table:
    """Read the described regions of runs that are published.

    Args:
        lake_uri, storage: the lake.
        columns: of REGION_VECTORS, run_id among them.
        filters: as `tables.read_rows` takes them.

    Raises:
        LakeError: a table cannot be read.
    """
    found = read_rows(lake_uri, storage, "region_vectors", list(columns), list(filters))
    published = read_rows(lake_uri, storage, "runs", ["run_id"], [("state", "=", "published")])["run_id"]
    return found.filter(pc.is_in(found["run_id"], value_set=values(published)))

"""The table of prototypes: regions that people have named, with their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.arrow_columns import values
from patchead.kept_tables import KEPT_TABLES
from patchead.lake.kept_rows import keep_rows
from patchead.lake.tables import read_rows
from patchead.schema import SCHEMA_VERSION, table
from patchead.storage import Storage

_SCHEMA = KEPT_TABLES["prototypes"]


def read_prototypes(lake_uri: str, storage: Storage) -> pa.Table:
    """Read every example that has a name, each once, as it was named last; in order of their ids.

    Raises:
        LakeError: the table cannot be read.
    """
    rows = read_rows(lake_uri, storage, "prototypes", _SCHEMA.names)
    rows = rows.sort_by([("given_at", "ascending"), ("example_id", "ascending"), ("defect_type", "ascending")])
    keys = zip(rows["product"].to_pylist(), rows["example_id"].to_pylist(), strict=True)
    newest = {key: place for place, key in enumerate(keys)}
    found = rows.take(pa.array(sorted(newest.values()), pa.int64()))
    found = found.filter(pc.is_valid(found["defect_type"]))
    return found.sort_by([("product", "ascending"), ("example_id", "ascending")])


def keep_prototypes(lake_uri: str, storage: Storage, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to the table.

    Raises:
        LakeError: the table cannot be written.
    """
    made = table([{**row, "schema_version": SCHEMA_VERSION} for row in rows], _SCHEMA)
    keep_rows(lake_uri, storage, "prototypes", made)


def vectors_of(rows: pa.Table) -> np.ndarray:
    """Stack the column ``vector`` of rows: float32 (n, D); all are of one length."""
    lists = values(rows["vector"])
    flat = np.asarray(lists.flatten(), np.float32)
    return flat.reshape(len(lists), -1) if len(lists) else np.empty((0, 0), np.float32)

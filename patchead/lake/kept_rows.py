"""Rows of the tables that people's decisions are kept in: added, or put in the place of others, in one commit."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

from patchead.lake.tables import committed, create_table, delta_uri
from patchead.storage import Storage


def keep_rows(lake_uri: str, storage: Storage, name: str, rows: pa.Table, *, instead_of: str | None = None) -> None:
    """Add rows to one of `KEPT_TABLES`, which is made where it is not there, in one commit.

    Args:
        lake_uri, storage: the lake.
        name: of the table.
        rows: of its schema; columns that a table of an earlier version lacks are added to it.
        instead_of: SQL that holds for the rows which these replace; default: none is replaced.

    Raises:
        LakeError: the table cannot be written.
    """
    create_table(lake_uri, storage, name)
    uri = delta_uri(lake_uri, storage, name)

    def add() -> None:
        options = storage.patient_delta_options(uri)
        if instead_of is None:
            write_deltalake(uri, rows, mode="append", schema_mode="merge", storage_options=options)
        else:
            how: dict[str, Any] = {"mode": "overwrite", "schema_mode": "merge", "predicate": instead_of}
            write_deltalake(uri, rows, storage_options=options, **how)

    committed(add, uri, repeatable=instead_of is not None)

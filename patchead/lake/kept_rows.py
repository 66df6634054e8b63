"""Rows of the tables that people's decisions are kept in: added, or put in the place of others, in one commit."""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake

from patchead.lake.tables import committed, create_table, delta_uri
from patchead.storage import Storage


def keep_rows(lake_uri: str, storage: Storage, name: str, rows: pa.Table, *, instead_of: str | None = None) -> None:
    """Add rows to one of `KEPT_TABLES`, which is made where it is not there, in one commit.

    Args:
        lake_uri, storage: the lake.
        name: of the table.
        rows: of its schema.
        instead_of: SQL that holds for the rows which these replace; default: none is replaced.

    Raises:
        LakeError: the table cannot be written.
    """
    create_table(lake_uri, storage, name)
    uri = delta_uri(lake_uri, storage, name)

    def add() -> None:
        options = storage.patient_delta_options(uri)
        if instead_of is None:
            write_deltalake(uri, rows, mode="append", storage_options=options)
        else:
            write_deltalake(uri, rows, mode="overwrite", predicate=instead_of, storage_options=options)

    committed(add, uri, repeatable=instead_of is not None)

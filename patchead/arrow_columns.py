"""Small Arrow helpers: a million rows are handled as columns, never as a million Python objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.hashing import joined_digest
from patchead.redaction import redacted


def values(column: pa.ChunkedArray) -> pa.Array:
    """Join a column to one contiguous array, also when it has no chunk at all."""
    return column.combine_chunks() if column.num_chunks else pa.array([], column.type)


def run_boundaries(rows: pa.Table, columns: Sequence[str]) -> list[int]:
    """Find where the runs of equal values in ``columns`` of a sorted table begin, and its length: [0, …, n]."""
    if not rows.num_rows:
        return [0]
    change = np.zeros(rows.num_rows, dtype=bool)
    change[0] = True
    for name in columns:
        column = values(rows[name])
        differs = pc.fill_null(pc.not_equal(column[1:], column[:-1]), False)
        null_edge = pc.xor(pc.is_null(column[1:]), pc.is_null(column[:-1]))
        change[1:] |= np.asarray(pc.or_(differs, null_edge))
    return [*np.flatnonzero(change).tolist(), rows.num_rows]


def by_group(rows: pa.Table) -> dict[str, pa.Table]:
    """Slice the rows by group_id, in its order, each in order of image_id."""
    ordered = rows.sort_by([("group_id", "ascending"), ("image_id", "ascending")])
    edges = run_boundaries(ordered, ["group_id"])
    return {ordered["group_id"][a].as_py(): ordered.slice(a, b - a) for a, b in pairwise(edges)}


def keys(rows: pa.Table, columns: Sequence[str]) -> pa.Array:
    """Write one text per row that is equal where all ``columns`` are; null is a value of its own: large_string (n,).

    Large, because the texts of a lake can be more than the 2 GB that a plain string array holds.
    """
    texts = [values(rows[name].cast(pa.large_string())) for name in columns]
    separator = pa.scalar("\n", pa.large_string())
    return pc.binary_join_element_wise(*texts, separator, null_handling="replace", null_replacement="\0")


def first_of_each(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Take the first row of every distinct combination of values in ``columns``, in order; nulls count as equal."""
    numbered = rows.append_column("number", pa.array(np.arange(rows.num_rows)))
    first = numbered.group_by(list(columns)).aggregate([("number", "min")])["number_min"]
    return rows.take(np.sort(np.asarray(first)))


def codes(column: pa.ChunkedArray) -> np.ndarray:
    """Turn equal values into equal int64 codes (n,), null into -1."""
    return np.asarray(pc.fill_null(values(column).dictionary_encode().indices, -1)).astype(np.int64)


def count(rows: pa.Table, status: str) -> int:
    """Count the rows that have this status."""
    return pc.sum(pc.equal(rows["status"], status)).as_py() or 0


def digest(tables: Iterable[pa.Table], columns: Sequence[str]) -> str:
    """Hash the values of ``columns``, strings or integers, over all tables, in their order."""

    def lines(rows: pa.Table) -> str:
        parts = [pc.fill_null(values(rows[name].cast(pa.string())), "\0") for name in columns]
        return "\n".join(pc.binary_join_element_wise(*parts, "\t").to_pylist())

    return joined_digest(lines(rows) for rows in tables)


def compact(rows: pa.Table) -> pa.Table:
    """Copy a table so that it holds its own rows alone: a slice sent to a worker would carry its parent's buffers."""
    return rows.take(np.arange(rows.num_rows))


def set_column(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Put a column in the place of the one of its name."""
    return rows.set_column(rows.schema.get_field_index(name), name, column)


def redacted_column(rows: pa.Table, name: str) -> pa.Table:
    """Take the secrets out of a column of texts, where the table has it: for what is about to be written."""
    if name not in rows.column_names or rows[name].null_count == rows.num_rows:
        return rows
    clean = pa.array([None if text is None else redacted(text) for text in rows[name].to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), clean)

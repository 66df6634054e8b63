"""What listing the inside of one shard yields, whatever its format, and how ids are made unique."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import COLUMN
from patchead.archive.left_out import LeftOut
from patchead.arrow_columns import set_column

_MEMBERS = [("key", pa.string()), ("size", pa.int64()), ("offset", pa.int64()), ("error", pa.string())]


@dataclass(frozen=True)
class Listed:
    """Hold the members of a shard: key, size, offset, error and any ``column:<name>``, in the shard's order.

    ``left_out`` counts what is no image; ``broken`` says why the listing is not complete, null where it is.
    """

    members: pa.Table
    left_out: LeftOut = field(default_factory=LeftOut)
    broken: str | None = None

    @property
    def ignored(self) -> int:
        """Count what is no image."""
        return self.left_out.total


def members_schema(columns: Sequence[str]) -> pa.Schema:
    """Make the schema of `Listed.members` with a string column for each of ``columns``."""
    return pa.schema([*_MEMBERS, *((COLUMN + name, pa.string()) for name in columns)])


def number_duplicates(table: pa.Table) -> pa.Table:
    """Give every later occurrence of an ``image_id`` the id ``…~2``, ``…~3`` and an error; the first one stays."""
    ids = table["image_id"].combine_chunks()
    order = pc.sort_indices(ids).to_numpy()  # stable: the first one comes first
    ordered = ids.take(pa.array(order))
    again = np.zeros(len(ids), dtype=bool)
    again[1:] = pc.equal(ordered[1:], ordered[:-1]).to_numpy(zero_copy_only=False)
    if not again.any():
        return table
    places = np.arange(len(ids))
    ordinal = places - np.maximum.accumulate(np.where(again, 0, places)) + 1
    rows = order[again]
    names = _free_names(ids.take(pa.array(rows)).to_pylist(), ordinal[again].tolist(), ids)
    later = np.zeros(len(ids), dtype=bool)
    later[rows] = True
    by_row = [name for _, name in sorted(zip(rows.tolist(), names, strict=True))]
    new_ids = pc.replace_with_mask(ids, pa.array(later), pa.array(by_row))
    error = pa.scalar(
        "duplicate key: an image of the same id comes earlier in the archive and is the one that is used. Where the "
        "column of a Parquet file repeats, it is a label and no id: set archive.id_column"
    )
    errors = pc.coalesce(table["error"], pc.if_else(pa.array(later), error, pa.scalar(None, pa.string())))
    return set_column(set_column(table, "image_id", new_ids), "error", errors)


def _free_names(names: list[str], ordinals: list[int], taken: pa.Array) -> list[str]:
    numbered = [f"{name}~{ordinal}" for name, ordinal in zip(names, ordinals, strict=True)]
    clashes = pc.is_in(pa.array(numbered), value_set=taken)
    if not pc.any(clashes).as_py():
        return numbered
    # An offset of the table's length cannot meet another number of the same name.
    moved = [
        ordinal + len(taken) if clash else ordinal for ordinal, clash in zip(ordinals, clashes.to_pylist(), strict=True)
    ]
    return _free_names(names, moved, taken)

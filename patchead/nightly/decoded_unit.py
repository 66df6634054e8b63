"""What decoding hands to an encoder: the receipts and the pixels of one unit, as one row of a dataset."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from patchead.schema import RECEIPTS

_ARRAYS = ("pixels", "valid", "motions", "blocks")


class DecodedUnit(NamedTuple):
    """Hold what an actor gets of one unit; the arrays are those of `samples.recipe.stacked`, flat."""

    unit_id: str
    receipts: pa.Table
    """RECEIPTS of every image; those that are ok and have no embedding yet have pixels, in this order."""
    pixels: np.ndarray
    """uint8 (M · S · S · 3,) of their views."""
    valid: np.ndarray
    """bool (n · V · P,)."""
    motions: np.ndarray
    """float32 (n · V · 2 · 3,)."""
    blocks: np.ndarray
    """int16 (n · B,)."""
    group_id: str | None
    read_bytes: int
    """Of the encoded images."""

    def as_row(self) -> pa.Table:
        """Pack it as one row of list columns, which travels between the stages."""
        receipts = pa.array([self.receipts.to_pylist()], pa.list_(pa.struct(RECEIPTS)))
        arrays = {name: _one_list(getattr(self, name)) for name in _ARRAYS}
        told = {"group_id": pa.array([self.group_id], pa.string()), "read_bytes": [self.read_bytes]}
        return pa.table({"unit_id": [self.unit_id], "receipts": receipts, **arrays, **told})

    @classmethod
    def of(cls, row: pa.Table) -> DecodedUnit:
        """Unpack what `as_row` has packed; the pixels are not copied."""
        receipts = pa.Table.from_struct_array(row["receipts"][0].values).cast(RECEIPTS)
        arrays = (row[name][0].values.to_numpy(zero_copy_only=False) for name in _ARRAYS)
        told = (row[name][0].as_py() for name in ("group_id", "read_bytes"))
        return cls(row["unit_id"][0].as_py(), receipts, *arrays, *told)


def _one_list(array: np.ndarray) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array([0, array.size], pa.int64()), pa.array(array.reshape(-1)))

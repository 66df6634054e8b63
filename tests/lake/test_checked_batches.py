"""A flipped bit anywhere in the values of a batch is found; honest values always pass."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest

from patchead.lake.checked_batches import checksum, read_checked, write_checked


def batch(n: int, seed: int = 0) -> pa.RecordBatch:
    rng = np.random.default_rng(seed)
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(rng.normal(size=(n, 5, 7)).astype(np.float16))
    names = pa.array([f"image {i} ä" for i in range(n)])
    return pa.record_batch([names, tensors, rng.normal(size=n), pa.nulls(n, pa.bool_())], ["id", "vectors", "s", "a"])


def written(rows: pa.RecordBatch) -> bytearray:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        write_checked(writer, rows)
        write_checked(writer, rows.slice(1))
    return bytearray(sink.getvalue())


def read(data: bytes) -> list[pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.BufferReader(bytes(data)))
    return [read_checked(reader, number) for number in range(reader.num_record_batches)]


def test_batches_and_slices_come_back(n: int = 6) -> None:
    rows = batch(n)
    first, second = read(written(rows))
    assert first.equals(rows)
    assert second.equals(rows.slice(1))
    assert checksum(rows.slice(2, 3)) == checksum(
        pa.Table.from_batches([rows.slice(2, 3)]).combine_chunks().to_batches()[0]
    )


def test_every_flipped_bit_of_a_value_is_found() -> None:
    rows = batch(6)
    data = written(rows)
    start = bytes(data).index(rows.column(1).to_numpy_ndarray().tobytes())
    rng = np.random.default_rng(1)
    for place in rng.integers(0, 6 * 5 * 7 * 2, 200):
        damaged = data.copy()
        damaged[start + place] ^= 1 << int(rng.integers(8))
        with pytest.raises(pa.ArrowInvalid, match="checksum"):
            read(damaged)


def test_a_batch_of_an_earlier_version_has_no_checksum_and_is_read() -> None:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, batch(3).schema) as writer:
        writer.write_batch(batch(3))
    assert read(sink.getvalue()) == [batch(3)]

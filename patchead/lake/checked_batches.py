"""Record batches of Arrow IPC files with a checksum of their values: a bit that flipped on a disk is no vector."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

_KEY = b"crc32"


def write_checked(writer: pa.ipc.RecordBatchFileWriter, batch: pa.RecordBatch) -> None:
    """Write a batch with the checksum of its values in its metadata."""
    writer.write_batch(batch, custom_metadata={_KEY: checksum(batch)})


def write_batches(sink: pa.NativeFile, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write a whole Arrow IPC file of batches, each with its checksum."""
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            write_checked(writer, batch)


def read_checked(reader: pa.ipc.RecordBatchFileReader, number: int, *, verify: bool = True) -> pa.RecordBatch:
    """Read a batch; with ``verify`` its values are compared with their checksum, if it was written with one.

    Raises:
        ArrowInvalid: the values are not those that were written.
    """
    batch, metadata = reader.get_batch_with_custom_metadata(number)
    written = (metadata or {}).get(_KEY)
    if verify and written is not None and written != (found := checksum(batch)):
        raise pa.ArrowInvalid(f"checksum {found.decode()} instead of {written.decode()} in batch {number}")
    return batch


def checksum(batch: pa.RecordBatch) -> bytes:
    """Compute the CRC-32 of a batch's values, column by column: tensors as their bytes, all else as its text."""
    found = 0
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        found = zlib.crc32(name.encode(), found)
        if isinstance(column, pa.FixedShapeTensorArray):
            found = zlib.crc32(np.ascontiguousarray(column.to_numpy_ndarray()).reshape(-1).view(np.uint8).data, found)
        else:
            found = zlib.crc32(repr(column.to_pylist()).encode(errors="surrogatepass"), found)
    return b"%08x" % found

"""One part of the index of embeddings: the receipts of one run, or of several small ones, and two ways to find some.

A part is three files. ``<part>.receipts.parquet`` holds RECEIPTS in order of image id, in row groups of `GROUP_ROWS`;
it is written last, so a part that has it is whole. ``<part>.folders.parquet`` says which of its rows belong to which
folder of the archive, ``<part>.hashes.arrow`` in which row group the receipts of a content hash are. Both are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patchead.arrow_columns import redacted_column, run_boundaries, values
from patchead.errors import LakeError
from patchead.files import Folder, undamaged
from patchead.schema import RECEIPTS, completed

GROUP_ROWS = 16_384
RECEIPTS_FILE = ".receipts.parquet"
REMEDY = "Delete it and run again: its images are then embedded anew."
_FOLDERS_FILE, _HASHES_FILE = ".folders.parquet", ".hashes.arrow"
_FOLDERS = pa.schema([("folder", pa.string()), ("start", pa.int64()), ("stop", pa.int64())])
_HASHES = pa.schema([("prefix", pa.uint32()), ("row_group", pa.uint16())])
_NEEDED = {"image_id", "content_hash", "embedding_uri", "row", "status"}
_PREFIX_DIGITS = 8
_REPEATING = ["role", "guides_digest", "embedding_uri", "status"]  # columns worth a dictionary


@dataclass(frozen=True)
class Hashes:
    """Say where the receipts of a content hash are: ``prefix`` uint32 (n,), ascending; ``row_group`` uint16 (n,).

    Another hash may begin like it: the receipt decides.
    """

    prefix: np.ndarray
    row_group: np.ndarray

    @property
    def nbytes(self) -> int:
        """Count the bytes of both arrays."""
        return int(self.prefix.nbytes + self.row_group.nbytes)

    def row_groups(self, content_hash: str) -> list[int]:
        """Number the row groups that may hold receipts of this content."""
        prefix = np.uint32(int(content_hash[:_PREFIX_DIGITS], 16))
        first = int(self.prefix.searchsorted(prefix))
        if first == len(self.prefix) or self.prefix[first] != prefix:
            return []
        return np.unique(self.row_group[first : self.prefix.searchsorted(prefix, "right")]).tolist()


def folders_of(image_ids: pa.Array) -> pa.Array:
    """Cut the folder of each image: its id up to the last slash."""
    return pc.replace_substring_regex(image_ids, r"[^/]*$", "")


def write_part(folder: Folder, part: str, receipts: pa.Table) -> None:
    """Write one part; another one of that name is replaced.

    Args:
        folder: of the index.
        part: names it.
        receipts: RECEIPTS with embedding file names; in memory twice.

    Raises:
        LakeError: a content hash is none, or a file cannot be written.
    """
    rows = receipts.sort_by([("image_id", "ascending"), ("turn", "ascending")]).combine_chunks()
    named = rows.select(["image_id"]).set_column(0, "folder", folders_of(values(rows["image_id"])))
    edges = run_boundaries(named, ["folder"])
    runs = pa.table(
        {"folder": named["folder"].take(pa.array(edges[:-1], pa.int64())), "start": edges[:-1], "stop": edges[1:]},
        schema=_FOLDERS,
    )
    prefix = _prefixes(values(rows["content_hash"]))
    order = np.argsort(prefix, kind="stable")
    hashes = pa.record_batch([prefix[order], (order // GROUP_ROWS).astype(np.uint16)], schema=_HASHES)

    def fill_hashes(sink: pa.NativeFile) -> None:
        with pa.ipc.new_file(sink, _HASHES) as writer:
            writer.write_batch(hashes)

    folder.write(f"{part}{_HASHES_FILE}", fill_hashes)
    folder.write(f"{part}{_FOLDERS_FILE}", lambda sink: pq.write_table(runs, sink, compression="zstd"))
    folder.write(f"{part}{RECEIPTS_FILE}", lambda sink: write_receipts(rows, sink))


def delete_part(folder: Folder, part: str) -> None:
    """Remove one part, the receipts first: what is left without them is no part.

    Raises:
        LakeError: a file cannot be removed.
    """
    for name in files_of(f"{part}{RECEIPTS_FILE}"):
        folder.delete(name)


def files_of(name: str) -> list[str]:
    """Name the files of the part that the file ``name`` belongs to, the receipts first: without them it is no part."""
    suffixes = (RECEIPTS_FILE, _FOLDERS_FILE, _HASHES_FILE)
    part = next(name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix))
    return [f"{part}{suffix}" for suffix in suffixes]


def row_groups_of(folder: Folder, part: str, wanted: pa.Array) -> list[int]:
    """Number the row groups that hold images of the folders ``wanted``, string (n,), of the archive.

    Raises:
        FileNotFoundError: there is no such part.
        LakeError: a file is damaged or cannot be read.
    """
    name = f"{part}{_FOLDERS_FILE}"
    file = folder.open(name)
    with undamaged(folder.uri_of(name), REMEDY), file:
        runs = pq.read_table(file, schema=_FOLDERS)
    there = runs.filter(pc.is_in(runs["folder"], value_set=wanted))
    groups: set[int] = set()
    for start, stop in zip(there["start"].to_pylist(), there["stop"].to_pylist(), strict=True):
        groups.update(range(start // GROUP_ROWS, (stop - 1) // GROUP_ROWS + 1))
    return sorted(groups)


def read_hashes(folder: Folder, part: str) -> Hashes:
    """Read where the content hashes of a part are; from a local disk they are mapped.

    Raises:
        FileNotFoundError: there is no such part.
        LakeError: the file is damaged or cannot be read.
    """
    name = f"{part}{_HASHES_FILE}"
    file = folder.open(name)
    with undamaged(folder.uri_of(name), REMEDY):
        return Hashes(*(column.to_numpy() for column in pa.ipc.open_file(file).get_batch(0).columns))


@contextmanager
def opened(folder: Folder, part: str) -> Iterator[pq.ParquetFile]:
    """Open the receipts of a part, to read some row groups of: see `read_group`.

    Raises:
        FileNotFoundError: there is no such part.
        LakeError: the file is damaged or cannot be read.
    """
    name = f"{part}{RECEIPTS_FILE}"
    file = folder.open_parts(name)
    try:
        with undamaged(folder.uri_of(name), REMEDY), file:
            yield _receipts_file(file, folder.uri_of(name))
    except LakeError as exc:
        if isinstance(exc.__cause__, FileNotFoundError):  # a remote file went while it was read
            raise exc.__cause__ from exc
        raise


def read_group(file: pq.ParquetFile, number: int) -> pa.Table:
    """Read the RECEIPTS of one row group, with embedding file names."""
    return completed(file.read_row_group(number), RECEIPTS)


def first_and_last_id(file: pq.ParquetFile, number: int) -> tuple[str | None, str | None]:
    """Look up a row group's smallest and largest image id, in its statistics; None where they are too long."""
    column = file.metadata.row_group(number).column(file.schema_arrow.get_field_index("image_id"))
    if column.statistics is None or not column.statistics.has_min_max:
        return None, None
    return column.statistics.min, column.statistics.max


def write_receipts(receipts: pa.Table, sink: pa.NativeFile) -> None:
    """Write RECEIPTS as Parquet, in row groups of `GROUP_ROWS`."""
    pq.write_table(
        redacted_column(receipts, "error"),
        sink,
        row_group_size=GROUP_ROWS,
        compression="zstd",
        use_dictionary=_REPEATING,
        write_statistics=["image_id"],
        write_page_checksum=True,
    )


def read_receipts(folder: Folder, name: str) -> pa.Table:
    """Read one whole file's RECEIPTS, with embedding file names; columns that an earlier version lacked are null.

    Raises:
        FileNotFoundError: there is none.
        LakeError: it is damaged, no file of receipts, or cannot be read.
    """
    file = folder.open(name)
    with undamaged(folder.uri_of(name), REMEDY), file:
        return completed(_receipts_file(file, folder.uri_of(name)).read(), RECEIPTS)


def _receipts_file(file: pa.NativeFile, uri: str) -> pq.ParquetFile:
    opened = pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True)
    if not _NEEDED.issubset(opened.schema_arrow.names):
        raise LakeError(f"{uri} does not have the columns of receipts. {REMEDY}")
    return opened


def _prefixes(hashes: pa.Array) -> np.ndarray:
    """The first 32 bits of hashes in hex digits. Returns uint32 (n,)."""
    digits = pc.utf8_slice_codeunits(hashes, 0, _PREFIX_DIGITS).cast(pa.binary())
    try:
        text = bytes(digits.cast(pa.binary(_PREFIX_DIGITS)).buffers()[1] or b"")[: _PREFIX_DIGITS * len(hashes)]
        found = np.frombuffer(bytes.fromhex(text.decode()), ">u4").astype(np.uint32)
    except (pa.ArrowInvalid, ValueError) as exc:
        raise LakeError(f"a content hash is not {_PREFIX_DIGITS} or more hex digits ({exc}).") from exc
    return found

"""Parquet shards: list their row keys and read the images of some rows, row group by row group.

The image column is binary or, as Hugging Face writes it, a struct with ``bytes`` and ``path``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patchead.archive.listing import BATCH_ROWS
from patchead.archive.members import Listed, members_schema
from patchead.archive.parquet_pages import INFLATED, WatchedPages
from patchead.arrow_columns import set_column
from patchead.errors import ArchiveError
from patchead.hashing import content_hash

ID_COLUMNS = ("image_id", "id", "key", "filename", "path")
_IMAGES_AT_ONCE = 16
_LONGEST_TEXT = 4096
_ROWS = 1000  # in the smallest of files
_BUFFER_BYTES = 1 << 20
MAX_BYTES = 1_000_000_000
"""Bytes of one image, at most."""
BYTES_UNPACKED = 1 << 28
"""Bytes that a page may unpack to."""
_TEXT_BYTES = 1 << 28  # of a column in a row group


class _File(NamedTuple):
    """An open file, and what is known of its pages before they are read."""

    parquet: pq.ParquetFile
    pages: WatchedPages
    most: int
    max_bytes: int

    def images_at_once(self, group: int, leaf: str) -> int:
        """Rows that are unpacked together: one where a few bytes of the file may stand for many."""
        for chunk in self.pages.chunks(group, leaf):
            first = self.pages.page_at(chunk.start) if chunk.has_dictionary else None
            if first and first.unpacked * _IMAGES_AT_ONCE > self.most:
                return 1
            if chunk.unpacked > INFLATED * chunk.packed:
                return 1
        return _IMAGES_AT_ONCE

    def require_short(self, group: int, leaves: Sequence[str]) -> None:
        """Refuse texts of a row group that are read together and are too many bytes."""
        for leaf in leaves:
            size = sum(chunk.unpacked for chunk in self.pages.chunks(group, leaf))
            if size > _TEXT_BYTES:
                told = f"column {leaf!r} of row group {group} unpacks to {size} bytes of text"
                raise ArchiveError(f"{told}; allowed are {_TEXT_BYTES}")


class _Layout(NamedTuple):
    image: str  # leaf column that holds the bytes
    id: str  # leaf column that holds the row key
    names_itself: bool = False  # whether a row without a key is named by the hash of its image


def list_parquet(stream: IO[bytes], columns: Sequence[str], *, image_column: str, id_column: str | None) -> Listed:
    """List the row keys, and the values of those of ``columns`` that exist; no image is read.

    A file without the columns it needs, or that is damaged, keeps the rows before the damage and says so in
    `Listed.broken`.
    """
    batches: list[pa.RecordBatch] = []
    schema, broken = members_schema([]), None
    try:
        with _readable():
            stored = _open(stream).parquet.schema_arrow
            layout = _layout(stored, image_column, id_column)
            present = [name for name in columns if name in stored.names]
            schema = members_schema(present)
            leaves = list(dict.fromkeys([layout.id, *present]))
            file = _open(stream, _texts(stored, leaves))
            for group in range(file.parquet.num_row_groups):  # one by one: damage in one leaves those before it
                file.require_short(group, leaves)
                found = file.parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=leaves)
                batches += _filled(file, group, layout, [_members(batch, layout, present, schema) for batch in found])
    except ArchiveError as exc:
        broken = str(exc)
    return Listed(pa.Table.from_batches(batches, schema=schema), broken=broken)


def read_parquet(
    stream: IO[bytes],
    keys: Sequence[str],
    *,
    image_column: str,
    id_column: str | None,
    max_bytes: int = MAX_BYTES,
    bytes_in_flight: int = BYTES_UNPACKED,
) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield the index into ``keys`` and the bytes (or the error) of each row, in the order of the rows.

    Row groups that hold none of the keys are not read beyond their ids. Keys that the file does not hold are not
    yielded. An image of more than ``max_bytes`` is an error and not copied.

    Raises:
        ArchiveError: the file is damaged, lacks a column, or has a page that unpacks to more than ``bytes_in_flight``
            and 20 times its bytes in the file; what was yielded before stands.
    """
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    with _readable():
        file = _open(stream, most=bytes_in_flight, max_bytes=max_bytes)
        layout = _layout(file.parquet.schema_arrow, image_column, id_column)
        for group in range(file.parquet.num_row_groups):
            if not places:
                return
            rows, unnamed = _rows_of(file, group, layout, places)
            for row, data in _images(file, group, layout, rows.keys() | unnamed):
                if row in unnamed and isinstance(data, bytes):
                    rows[row] = places.pop(content_hash(data), [])
                yield from ((index, data) for index in rows.get(row, []))


def _open(
    stream: IO[bytes], texts: Sequence[str] = (), *, most: int = BYTES_UNPACKED, max_bytes: int = MAX_BYTES
) -> _File:
    # Page by page: by default a whole row group of images would be held before the first is seen. Texts as
    # dictionaries: one long text may stand in a few bytes for a million of them.
    pages = WatchedPages(stream, most)
    file = pq.ParquetFile(pages, buffer_size=_BUFFER_BYTES, pre_buffer=False, read_dictionary=list(texts))
    if file.metadata.num_rows > max(_ROWS, stream.seek(0, os.SEEK_END)):
        raise ArchiveError(f"damaged: {file.metadata.num_rows} rows are announced, more than the file has bytes")
    pages.watch()
    return _File(file, pages, most, max_bytes)


def _texts(schema: pa.Schema, leaves: Sequence[str]) -> list[str]:
    """Those of the columns that hold text."""
    types = {}
    for leaf in leaves:
        parent, _, child = leaf.rpartition(".")
        nested = leaf not in schema.names and parent in schema.names
        types[leaf] = schema.field(parent).type.field(child).type if nested else schema.field(leaf).type
    return [leaf for leaf, type in types.items() if pa.types.is_string(type) or pa.types.is_binary(type)]


def _filled(file: _File, group: int, layout: _Layout, members: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Members whose path is null, as Hugging Face writes it for images without a file, named by their content."""
    if not layout.names_itself or not any(batch["error"].null_count < batch.num_rows for batch in members):
        return members
    together = pa.Table.from_batches(members).combine_chunks()
    keys, errors = together["key"].to_pylist(), together["error"].to_pylist()
    unnamed = {row for row, error in enumerate(errors) if error}
    for row, data in _images(file, group, layout, unnamed):
        if isinstance(data, bytes):
            keys[row], errors[row] = content_hash(data), None
        else:
            keys[row], errors[row] = f"row group {group}, row {row}", str(data)
    filled = set_column(together, "key", pa.array(keys, pa.string()))
    return set_column(filled, "error", pa.array(errors, pa.string())).to_batches()


def _members(batch: pa.RecordBatch, layout: _Layout, present: Sequence[str], schema: pa.Schema) -> pa.RecordBatch:
    keys = _text(_leaf(batch, layout.id), layout.id)
    lost = pa.scalar(f"the row key in column {layout.id!r} is null")
    arrays = [
        pc.fill_null(keys, ""),
        pa.repeat(pa.scalar(-1, pa.int64()), batch.num_rows),
        pa.nulls(batch.num_rows, pa.int64()),
        pc.if_else(keys.is_null(), lost, pa.scalar(None, pa.string())),
        *(_text(batch[name], name) for name in present),
    ]
    return pa.record_batch(arrays, schema=schema)


def _rows_of(
    file: _File, group: int, layout: _Layout, places: dict[str, list[int]]
) -> tuple[dict[int, list[int]], set[int]]:
    """Rows of the group that hold a key still looked for, and those that only their content names.

    The keys found are taken out of ``places``.
    """
    file.require_short(group, [layout.id])
    ids = _text(_leaf(file.parquet.read_row_group(group, columns=[layout.id]), layout.id), layout.id)
    hits = pc.indices_nonzero(pc.is_in(ids, value_set=pa.array(list(places), pa.string())))
    rows = zip(hits.to_pylist(), ids.take(hits).to_pylist(), strict=True)
    named = {row: places.pop(key) for row, key in rows if key in places}
    unnamed = pc.indices_nonzero(ids.is_null()).to_pylist() if layout.names_itself and places else []
    return named, set(unnamed)


def _images(file: _File, group: int, layout: _Layout, rows: set[int]) -> Iterator[tuple[int, bytes | ArchiveError]]:
    if not rows:
        return
    start, last = 0, max(rows)
    at_once = file.images_at_once(group, layout.image)
    for batch in file.parquet.iter_batches(at_once, row_groups=[group], columns=[layout.image]):
        images = _leaf(batch, layout.image)
        for place in range(len(images)):
            if start + place in rows:
                yield start + place, _bytes(images[place], file.max_bytes)
        start += len(images)
        if start > last:
            return


def _bytes(value: pa.Scalar, max_bytes: int) -> bytes | ArchiveError:
    if not value.is_valid:
        return ArchiveError("the row has no image bytes")
    if (size := value.as_buffer().size) > max_bytes:
        return ArchiveError(f"too many bytes: {size} > `max_bytes` {max_bytes}")
    return value.as_py()


def _layout(schema: pa.Schema, image_column: str, id_column: str | None) -> _Layout:
    there = f"columns: {', '.join(schema.names) or 'none'}"
    if image_column not in schema.names:
        raise ArchiveError(f"no image column {image_column!r} (set archive.image_column); {there}")
    type = schema.field(image_column).type
    inside = {type.field(place).name: type.field(place).type for place in range(type.num_fields)}
    wrapped = pa.types.is_struct(type)
    if pa.types.is_list(type) or pa.types.is_large_list(type):
        raise ArchiveError(
            f"column {image_column!r} (archive.image_column) has type {type}: several images in a row. Write one row "
            "for each image, with an id of its own"
        )
    if not _is_binary(inside.get("bytes") if wrapped else type):
        raise ArchiveError(
            f"column {image_column!r} (archive.image_column) has type {type}; it must be binary, or a struct with a "
            f"binary field 'bytes'; {there}"
        )
    image = f"{image_column}.bytes" if wrapped else image_column
    if id_column is not None:
        if id_column not in schema.names:
            raise ArchiveError(f"no id column {id_column!r} (set archive.id_column); {there}")
        return _Layout(image, id_column)
    if name := next((name for name in ID_COLUMNS if name in schema.names and name != image_column), None):
        return _Layout(image, name)
    if wrapped and "path" in inside:
        return _Layout(image, f"{image_column}.path", names_itself=True)
    raise ArchiveError(f"no id column: none of {', '.join(ID_COLUMNS)} (set archive.id_column); {there}")


def _is_binary(type: pa.DataType | None) -> bool:
    checks = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return type is not None and any(check(type) for check in checks)


def _leaf(batch: pa.RecordBatch | pa.Table, name: str) -> pa.Array:
    if name in batch.schema.names:
        column = batch[name]
    else:
        parent, _, field = name.rpartition(".")
        column = pc.struct_field(batch[parent], field)
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _text(column: pa.Array, name: str) -> pa.Array:
    if name == "night" and pa.types.is_timestamp(column.type):
        column = column.cast(pa.date32())
    try:
        if pa.types.is_dictionary(column.type):
            longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            if longest > _LONGEST_TEXT:
                raise ArchiveError(f"column {name!r} holds a text of {longest} bytes; allowed are {_LONGEST_TEXT}")
        text = column.cast(pa.string())
        text.validate(full=True)  # the cast believes what the file says
    except pa.ArrowNotImplementedError as exc:
        raise ArchiveError(f"column {name!r} has type {column.type}; it must be text, a number or a date") from exc
    except pa.ArrowInvalid as exc:
        raise ArchiveError(f"column {name!r} holds text that is not valid UTF-8: {exc}") from exc
    return text


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as exc:
        raise ArchiveError(f"not a readable Parquet file: {exc}") from exc
    except OSError as exc:
        if exc.errno is not None:  # from the filesystem, not from Arrow
            raise
        raise ArchiveError(f"not a readable Parquet file: {exc}") from exc

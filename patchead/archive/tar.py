"""Tar shards (WebDataset): list their images and read them, member by member, without extracting anything.

A member's JSON sidecar (``a/b.json`` next to ``a/b.png``) may hold values of its group keys.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc

from patchead.archive.keys import COLUMN
from patchead.archive.left_out import NO_FILES, SYMBOLIC_LINKS, LeftOut
from patchead.archive.listing import BATCH_ROWS, HIDDEN, storable, suffix_pattern
from patchead.archive.members import Listed, members_schema
from patchead.errors import ArchiveError

_IMAGE = re.compile(suffix_pattern("files"))
_MAX_SIDECAR_BYTES = 1 << 20
_MAX_BYTES = (1 << 63) - 1
_LONGEST_NAME = 4096
_ZEROS = 1 << 20  # bytes that are looked at together, behind an end marker
_LINKED = "a hard link to {!r}, whose bytes are not one range of the tar; store it as a plain file"
# What tarfile raises for damaged headers.
_DAMAGE = (tarfile.TarError, EOFError, ValueError, OverflowError, MemoryError)


def list_tar(stream: IO[bytes], columns: Sequence[str]) -> Listed:
    """List the images of a tar file, with the values of ``columns`` that their JSON sidecars hold.

    Symbolic links and devices are counted, like other files; a hard link to an image is that image under another name.
    Tars that were joined by ``cat`` are read to the end. A damaged or cut file keeps the members before the damage and
    says so in `Listed.broken`. A member's offset is null where its bytes are not one range of the file: a sparse one,
    or one that is cut off.
    """
    contents = _Contents(columns, stream.seek(0, os.SEEK_END))
    stream.seek(0)
    broken = None
    try:
        for archive, member in _walk(stream):
            contents.take(archive, member)
    except ArchiveError as exc:
        broken = str(exc)
    return contents.listed(broken)


def read_tar(stream: IO[bytes], keys: Sequence[str]) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Yield the index into ``keys`` and the bytes (or the error) of each member, in the order of the tar.

    The tar is read once.

    Keys that the tar does not hold are not yielded.

    Raises:
        ArchiveError: the tar is damaged; what was yielded before stands.
    """
    places: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    for archive, member in _walk(stream):
        if not (member.isreg() or member.islnk()) or not (indices := places.pop(_plain(member.name), None)):
            continue
        data = _content(archive, member) if member.isreg() else ArchiveError(_LINKED.format(member.linkname))
        yield from ((index, data) for index in indices)
        if not places:
            return


class _Contents:
    """Collects what `list_tar` returns, in Arrow batches."""

    def __init__(self, columns: Sequence[str], end: int) -> None:
        self._columns = tuple(columns)
        self._end = end  # of the tar, in bytes
        self._images = _Rows(members_schema([]))
        self._sidecars = _Rows(pa.schema([(name, pa.string()) for name in ("stem", *columns)]))
        self._left_out = LeftOut()
        self._links: list[tuple[str, str]] = []  # name and target

    def take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _plain(member.name)
        unsafe = name.startswith("/") or ".." in name.split("/")
        if member.isdir() or (re.search(HIDDEN, name) and not unsafe):
            return
        if member.islnk() and _IMAGE.search(name) and not unsafe:
            self._links.append((name, _plain(member.linkname)))
        elif not member.isreg():
            self._left_out.add(SYMBOLIC_LINKS if member.issym() else NO_FILES, storable(name)[0])
        elif _IMAGE.search(name):
            name, error = storable(name)
            if len(name) > _LONGEST_NAME:
                name, error = name[:_LONGEST_NAME], f"a name of {len(name)} characters; allowed are {_LONGEST_NAME}"
            if unsafe:
                error = f"unsafe member name {name!r}: an absolute path or one with '..'"
            self._images.add((name, member.size, self._offset(member), error))
        elif name.endswith(".json"):
            self._take_sidecar(name, archive, member)
        else:
            self._left_out.add_paths(pa.array([storable(name)[0]]))

    def _offset(self, member: tarfile.TarInfo) -> int | None:
        # tarfile takes the size that pax names for a sparse file even where it does not know that kind of sparse file.
        sparse = member.issparse() or any(name.startswith("GNU.sparse.") for name in member.pax_headers)
        inside = member.size >= 0 and member.offset_data + member.size <= self._end
        return member.offset_data if inside and not sparse else None

    def _take_sidecar(self, name: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        data = _content(archive, member) if member.size <= _MAX_SIDECAR_BYTES else b""
        if isinstance(data, ArchiveError):
            return
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            return  # other tools' JSON is none of our business; a key it should have given will be missed by name
        if isinstance(fields, dict):
            values = (fields.get(column) for column in self._columns)
            texts = (storable(str(value))[0] if isinstance(value, str | int | float) else None for value in values)
            self._sidecars.add((storable(name)[0].removesuffix(".json"), *texts))

    def listed(self, broken: str | None) -> Listed:
        self._take_links()
        images, sidecars = self._images.table(), self._sidecars.table()
        stems = sidecars["stem"].combine_chunks()
        # WebDataset ends the key at the first dot, everyone else at the last.
        exact = pc.index_in(pc.replace_substring_regex(images["key"], r"\.[^./]*$", ""), value_set=stems)
        first = pc.index_in(pc.replace_substring_regex(images["key"], r"\.[^/]*$", ""), value_set=stems)
        found = sidecars.take(pc.coalesce(exact, first))
        for column in self._columns:
            images = images.append_column(COLUMN + column, found[column])
        return Listed(images, self._left_out, broken)

    def _take_links(self) -> None:
        """Hard links, as images at the place of what they link to: that comes before them, and may be a link itself."""
        if not self._links:
            return
        images = self._images.table()
        places = dict(zip(images["key"].to_pylist(), range(images.num_rows), strict=True))
        rows = images.select(["size", "offset"])
        for name, target in self._links:
            if (place := places.get(storable(target)[0])) is None:
                self._left_out.add(NO_FILES, storable(name)[0])
                continue
            size, offset = (rows[column][place].as_py() for column in ("size", "offset"))
            key, error = storable(name)
            places.setdefault(key, place)
            error = error or (_LINKED.format(target) if offset is None else None)
            self._images.add((key, size, offset, error))


class _Rows:
    """Rows turned into Arrow batches as they come."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[object, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def add(self, row: tuple[object, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == BATCH_ROWS:
            self._flush()

    def table(self) -> pa.Table:
        self._flush()
        return pa.Table.from_batches(self._batches, schema=self._schema)

    def _flush(self) -> None:
        columns = [pa.array([row[place] for row in self._rows], type) for place, type in enumerate(self._schema.types)]
        self._batches.append(pa.record_batch(columns, schema=self._schema))
        self._rows = []


def _walk(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    """Every member, also of further tars that were joined to the first one: tarfile ends at the first end marker."""
    count = 0
    start: int | None = 0
    try:
        while start is not None:
            stream.seek(start)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined] # or it would remember every member
                    if member.size > _MAX_BYTES:
                        raise tarfile.ReadError(f"a member of {member.size} bytes")
                    count += 1
                    yield archive, member
                start = _next_tar(stream, archive.offset)
    except _DAMAGE as exc:
        state = f"damaged or cut off after {count} members" if count else "not a readable, uncompressed tar file"
        raise ArchiveError(f"{state}: {exc}") from exc


def _next_tar(stream: IO[bytes], offset: int) -> int | None:
    """Where another tar begins behind the end of one, None where only zeros follow."""
    # tarfile takes a damaged header, or the lack of one, for the end.
    stream.seek(offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end marker is missing")
    if block.strip(b"\0"):
        raise tarfile.ReadError(f"bad header at byte {offset}")
    place = offset + len(block)
    while zeros := stream.read(_ZEROS):
        if behind := zeros.lstrip(b"\0"):
            return (place + len(zeros) - len(behind)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        place += len(zeros)
    return None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | ArchiveError:
    if member.issparse():  # a few bytes may stand for terabytes of zeros
        return ArchiveError(f"member {member.name!r} is a sparse file; store it as a plain one")
    try:
        file = archive.extractfile(member)
        data = file.read() if file else b""
    except _DAMAGE as exc:
        return ArchiveError(f"member {member.name!r} cannot be read: {exc}")
    if len(data) < member.size:
        return ArchiveError(f"member {member.name!r} is cut off: {len(data)} of {member.size} bytes")
    return data


def _plain(name: str) -> str:
    return re.sub(r"^(\./+)+", "", name)

"""Pages of a Parquet file, looked at as they pass, before Arrow unpacks them: a small file must not become gigabytes.

A page is unpacked as a whole, and its header alone says to how many bytes. What the footer announces need not be true.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import IO, NamedTuple

from patchead.archive.thrift import Struct, read_struct
from patchead.errors import ArchiveError

INFLATED = 20
"""Times that data may grow when they are unpacked: encoded pictures do not, but for blank ones."""
_HEADER_BYTES = 1 << 16
_END = b"PAR1"
_NOT_READABLE = "not a readable Parquet file"


class Page(NamedTuple):
    """Hold the bytes of a page's header, and of its data as they are in the file and unpacked."""

    header: int
    packed: int
    unpacked: int


class Chunk(NamedTuple):
    """Hold what the footer says of a column in a row group; ``start`` is that of the first page."""

    name: str
    start: int
    packed: int
    unpacked: int
    has_dictionary: bool

    @property
    def end(self) -> int:
        """Tell where its last page ends."""
        return self.start + self.packed


class _Waiting(NamedTuple):
    """A page that is still to pass: where its chunk ends, and the bytes to which the rest of it may unpack."""

    end: int
    left: int


class WatchedPages(io.RawIOBase):
    """Be a file of which no page is read that unpacks to more than ``most`` bytes, unless the file has as many.

    Raises:
        ArchiveError: the file has no footer; in `read`, for such a page, and for pages that are larger than the footer
            announces.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most
        self._chunks = chunks_of(stream)
        self._starts, self._waiting = list[int](), dict[int, _Waiting]()
        stream.seek(0)

    def watch(self) -> None:
        """Look at all pages from now on: whoever reads a footer may read pages along."""
        every = [chunk for group in self._chunks for chunk in group]
        self._waiting = {chunk.start: _Waiting(chunk.end, chunk.unpacked) for chunk in every}
        self._starts = sorted(self._waiting)

    def chunks(self, group: int, name: str) -> list[Chunk]:
        """List what the footer says of a column, or of those that it consists of, in a row group."""
        found = self._chunks[group] if group < len(self._chunks) else []
        return [chunk for chunk in found if f"{chunk.name}.".startswith(f"{name}.")]

    def page_at(self, place: int) -> Page | None:
        """Read the header of the page that begins at a byte of the file; None where there is none."""
        if place < 0:
            return None
        before = self._stream.tell()
        self._stream.seek(place)
        try:
            return page_header(self._stream.read(_HEADER_BYTES))
        finally:
            self._stream.seek(before)

    def read(self, size: int = -1) -> bytes:
        """Read on; see the class."""
        start = self._stream.tell()
        data = self._stream.read(size)
        place = bisect_left(self._starts, start)
        while place < len(self._starts) and self._starts[place] < start + len(data):
            self._pass(self._starts.pop(place), data, start)
        return data

    def _pass(self, place: int, data: bytes, start: int) -> None:
        """Look at the page that begins at ``place``, and wait for the one behind it."""
        chunk = self._waiting.pop(place)
        page = page_header(data[place - start : place - start + _HEADER_BYTES]) or self.page_at(place)
        if page is None:
            return  # Arrow tells what is wrong with it
        if page.unpacked > max(self._most, INFLATED * page.packed):
            raise ArchiveError(
                f"a page of {page.packed} bytes unpacks to {page.unpacked}, above `bytes_in_flight` {self._most}. "
                "Write fewer images to a page, or raise it"
            )
        left = chunk.left - page.header - page.unpacked
        if left < 0:
            raise ArchiveError(f"{_NOT_READABLE}: its pages unpack to more bytes than it announces")
        behind = place + page.header + page.packed
        if behind < chunk.end and behind not in self._waiting:
            insort(self._starts, behind)
            self._waiting[behind] = _Waiting(chunk.end, left)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Tell the byte that is read next."""
        return self._stream.tell()


def page_header(data: bytes) -> Page | None:
    """Read a page's header; None where ``data`` do not begin with a whole one."""
    try:
        found, size = read_struct(data)
        page = Page(size, found[3], found[2])
    except (ValueError, KeyError):
        return None
    return page if _are_sizes(page) else None


def chunks_of(stream: IO[bytes]) -> list[list[Chunk]]:
    """Read what the footer says of each column of each row group.

    Raises:
        ArchiveError: there is no footer.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _END or length > size - 8:
        raise ArchiveError(f"{_NOT_READABLE}: no footer at its end")
    stream.seek(size - 8 - length)
    try:
        footer, _ = read_struct(stream.read(length))
        return [[_chunk(column[3]) for column in group[1]] for group in footer.get(4, [])]
    except (ValueError, LookupError, TypeError) as exc:
        raise ArchiveError(f"{_NOT_READABLE}: damaged, what its footer says of columns is not whole") from exc


def _chunk(column: Struct) -> Chunk:
    data, dictionary = column[9], column.get(11, 0)
    name, has_dictionary = b".".join(column[3]).decode(), 0 < dictionary < data
    chunk = Chunk(name, dictionary if has_dictionary else data, column[7], column[6], has_dictionary)
    if not _are_sizes(chunk[1:4]):
        raise ValueError(chunk)
    return chunk


def _are_sizes(values: Sequence[object]) -> bool:
    return all(isinstance(value, int) and value >= 0 for value in values)

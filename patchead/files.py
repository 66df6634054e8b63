"""Whole files, on a local disk or in an object store: written complete or not at all, opened, listed."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from patchead.atomic_files import written_atomically
from patchead.errors import DamagedFileError, LakeError, bad_value
from patchead.storage import Storage, explained, join

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Folder:
    """Describe one folder of files: no connection, so that it travels to the workers. The first write makes it."""

    uri: str
    storage: Storage

    def uri_of(self, name: str) -> str:
        """Give the full URI of the file ``name``."""
        return join(self.uri, name)

    def names(self, suffix: str) -> list[str]:
        """List the names that end in ``suffix``, sorted; none where the folder does not exist.

        Raises:
            LakeError: the folder cannot be listed.
        """
        found = (entry.rstrip("/").rpartition("/")[2] for entry in self._inside(detail=False))
        return sorted(name for name in found if name.endswith(suffix) and not name.startswith("."))

    def sizes(self, suffix: str) -> dict[str, int]:
        """Look up the bytes of each file whose name ends in ``suffix``, by name; none where the folder does not exist.

        Raises:
            LakeError: the folder cannot be listed.
        """
        known = {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] for entry in self._inside(detail=True)}
        return {name: size for name, size in known.items() if name.endswith(suffix) and not name.startswith(".")}

    def exists(self, name: str) -> bool:
        """Tell whether there is a file ``name``.

        Raises:
            LakeError: it cannot be told.
        """
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        try:
            _unless_missing(lambda: filesystem.info(path), uri)
        except FileNotFoundError:
            return False
        return True

    def write(self, name: str, fill: Callable[[pa.NativeFile], object]) -> str:
        """Write one file with ``fill(sink)`` and return its URI; another file of that name is replaced at once.

        Raises:
            LakeError: the file cannot be written.
        """
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        with explained("write", uri, LakeError):
            if isinstance(filesystem, LocalFileSystem):
                with written_atomically(Path(path)) as temporary, pa.OSFile(str(temporary), "wb") as sink:
                    fill(sink)
            else:
                sink = pa.BufferOutputStream()
                fill(sink)
                filesystem.pipe_file(path, sink.getvalue().to_pybytes())
        return uri

    def open(self, name: str) -> pa.NativeFile:
        """Open a file for reading: a local one memory-mapped, a remote one read at once.

        Raises:
            FileNotFoundError: there is none.
            LakeError: it cannot be read for another reason.
        """
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        if isinstance(filesystem, LocalFileSystem):
            return _unless_missing(lambda: pa.memory_map(path), uri)
        return _unless_missing(lambda: pa.BufferReader(filesystem.cat_file(path)), uri)

    def open_parts(self, name: str) -> pa.NativeFile:
        """Open a file to read parts of: a local one memory-mapped, a remote one fetched by byte range, as it is read.

        Raises:
            FileNotFoundError: there is none.
            LakeError: it cannot be read for another reason, now or when a part is read.
        """
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        if isinstance(filesystem, LocalFileSystem):
            return _unless_missing(lambda: pa.memory_map(path), uri)
        size = _unless_missing(lambda: filesystem.size(path), uri)
        return pa.PythonFile(_RemoteFile(filesystem, path, uri, size), mode="r")

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Tell a local file's time of change in ns and its size, as long as it is not written again; None elsewhere."""
        filesystem, path = self.storage.filesystem(self.uri_of(name))
        if not isinstance(filesystem, LocalFileSystem):
            return None
        found = Path(path).stat()
        return found.st_mtime_ns, found.st_size

    def head(self, name: str, size: int) -> bytes:
        """Read the first ``size`` bytes of a file. Raises as :meth:`open` does."""
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        return _unless_missing(lambda: filesystem.cat_file(path, start=0, end=size), uri)

    def delete(self, name: str) -> None:
        """Remove one file; it is no error if another process was quicker.

        Raises:
            LakeError: the file cannot be removed.
        """
        uri = self.uri_of(name)
        filesystem, path = self.storage.filesystem(uri)
        with explained("delete", uri, LakeError):
            try:
                filesystem.rm_file(path)
            except FileNotFoundError:
                return

    def set_aside(self, name: str) -> str:
        """Move one file to the folder ``damaged`` next to this one, and return its URI there; a missing one is left.

        Raises:
            LakeError: the file cannot be moved.
        """
        away = Folder(join(self.uri.rstrip("/").rpartition("/")[0], "damaged"), self.storage)
        target = away.uri_of(f"{self.uri.rstrip('/').rpartition('/')[2]}-{name}")
        filesystem, path = self.storage.filesystem(self.uri_of(name))
        with explained("set aside", self.uri_of(name), LakeError):
            _, there = self.storage.filesystem(target)
            if isinstance(filesystem, LocalFileSystem):
                Path(there).parent.mkdir(parents=True, exist_ok=True)
            try:
                filesystem.mv(path, there)
            except FileNotFoundError:
                return target
        return target

    def _inside(self, *, detail: bool) -> list[Any]:
        """What fsspec lists: paths, or with ``detail`` mappings with name and size."""
        filesystem, path = self.storage.filesystem(self.uri)
        with explained("list", self.uri, LakeError):
            try:
                entries = filesystem.ls(path, detail=detail)
            except FileNotFoundError:
                return []
        names = (entry["name"] if detail else entry for entry in entries)
        # Some stores list the folder itself.
        return [entry for entry, name in zip(entries, names, strict=True) if name.rstrip("/") != path]


class _RemoteFile(io.RawIOBase):
    """One file of an object store, of which exactly the bytes that are asked for are fetched."""

    def __init__(self, filesystem: AbstractFileSystem, path: str, uri: str, size: int) -> None:
        self._filesystem, self._path, self._uri, self._size, self._place = filesystem, path, uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def read(self, size: int = -1) -> bytes:
        end = self._size if size < 0 else min(self._place + size, self._size)
        if end <= self._place:
            return b""
        with explained("read", self._uri, LakeError):
            data = self._filesystem.cat_file(self._path, start=self._place, end=end)
        self._place += len(data)
        return data


def plain_name(parameter: str, value: str) -> str:
    """Give ``value`` back if it can be part of a file name everywhere; else raise ``LakeError``."""
    if not _NAME.fullmatch(value):
        raise LakeError(bad_value(parameter, value, "1 to 200 letters, digits, '.', '_' or '-'"))
    return value


@contextmanager
def undamaged(uri: str, remedy: str) -> Iterator[None]:
    """Turn what Arrow raises on broken bytes into one ``DamagedFileError`` that names the file and what to do."""
    try:
        yield
    except pa.ArrowMemoryError:
        raise  # the file is well
    except (pa.ArrowException, OSError) as exc:
        if getattr(exc, "errno", None) not in (None, errno.EIO):
            raise LakeError(f"cannot read {uri}: {exc}.") from exc
        raise DamagedFileError(f"{uri} is damaged ({exc}). {remedy}", uri) from exc


def _unless_missing(read: Callable[[], Result], uri: str) -> Result:
    with explained("read", uri, LakeError):
        try:
            return read()
        except FileNotFoundError as exc:
            missing = exc
    raise missing

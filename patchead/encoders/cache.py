"""The local cache of weight files: one folder, files written atomically and checked when they are read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from fsspec.spec import AbstractFileSystem
from safetensors.torch import load, save
from torch import Tensor

from patchead.atomic_files import written_atomically
from patchead.errors import WeightsError
from patchead.hashing import bytes_sha256, file_sha256


def cache_folder() -> Path:
    """Name the cache folder: ``$XDG_CACHE_HOME/patchead``, else ``~/.cache/patchead``; it need not exist yet."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "patchead"


@contextmanager
def cache_file(path: Path) -> Iterator[Path]:
    """Give a temporary file that becomes ``path``, a file of the cache folder; see `files.written_atomically`.

    Raises:
        WeightsError: the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            temporary = stack.enter_context(written_atomically(path))
        except OSError as exc:
            raise WeightsError(
                f"cannot write the cache folder {path.parent}: {exc.strerror}. "
                "Set XDG_CACHE_HOME to a folder that can be."
            ) from exc
        yield temporary


def write_verified(path: Path, state: dict[str, Tensor]) -> None:
    """Write ``state`` as safetensors, then the SHA-256 of those bytes next to it, as ``<name>.sha256``."""
    data = save(state)
    with cache_file(path) as temporary:
        temporary.write_bytes(data)
    with cache_file(_digest_file(path)) as temporary:
        temporary.write_text(bytes_sha256(data))


def read_verified(path: Path) -> dict[str, Tensor] | None:
    """Read what `write_verified` wrote; None where it is missing or its bytes are not those that were written."""
    try:
        data, digest = path.read_bytes(), _digest_file(path).read_text()
    except FileNotFoundError:
        return None
    return load(data) if bytes_sha256(data) == digest else None


def cached_copy(filesystem: AbstractFileSystem, path: str, uri: str) -> Path:
    """Copy a remote file to the cache, once per address, size and etag, and check it each time it is used.

    Raises:
        WeightsError: the copy is shorter than the file is said to be, or the folder cannot be written.
        OSError: the filesystem's own errors.
    """
    info = filesystem.info(path)
    version = next((str(info[key]) for key in ("ETag", "etag", "mtime", "LastModified", "created") if key in info), "")
    key = bytes_sha256(f"{uri}\n{info['size']}\n{version}".encode())[:32]
    copy = cache_folder() / f"{key}{Path(path).suffix}"
    try:
        if file_sha256(copy) == _digest_file(copy).read_text():
            return copy
    except FileNotFoundError:
        pass  # not downloaded yet, or interrupted before the digest was written
    with cache_file(copy) as temporary:
        with filesystem.open(path, "rb") as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 22)
        if info["size"] is not None and temporary.stat().st_size != info["size"]:
            raise WeightsError(f"{uri} ended after {temporary.stat().st_size} of {info['size']} bytes. Try again.")
        digest = file_sha256(temporary)
    with cache_file(_digest_file(copy)) as temporary:
        temporary.write_text(digest)
    return copy


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")

"""Files on a local disk: written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary file that takes the place of ``path`` when the block ends well and is gone when it does not.

    It lies in the same folder, made where it is not there, because a rename is atomic only within one file system. Its
    bytes, and then its name, are on the disk when this ends: a machine that loses its power has the old file or the
    new one, never an empty one.

    Raises:
        OSError: the folder cannot be made or written, or ``path`` cannot be replaced.
    """
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        _on_disk(temporary)
        temporary.replace(path)
        _on_disk(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each with its name on the disk."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _on_disk(folder.parent)


def _on_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace the whole file at once: readers see the old one or the new one. Raises as `written_atomically`."""
    with written_atomically(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)

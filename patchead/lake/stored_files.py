"""Files of a lake as they are stored: where, how large and how old."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem

from patchead.batches import concurrently
from patchead.errors import LakeError
from patchead.files import Folder
from patchead.storage import Storage, explained, join, written_at

DAY_S = 86_400.0


class Stored(NamedTuple):
    """Hold one file: ``path`` relative to the lake, bytes, and seconds since it was written."""

    path: str
    size: int
    age_s: float

    @property
    def name(self) -> str:
        """Give its name without its folders."""
        return self.path.rpartition("/")[2]

    @property
    def is_left_over(self) -> bool:
        """Tell whether it was being written when its process ended, a day ago or longer."""
        return self.name.startswith(".") and self.name.endswith(".tmp") and self.age_s > DAY_S


def list_stored(lake_uri: str, storage: Storage, folder: str) -> list[Stored]:
    """List all files below a folder of the lake; none where it does not exist.

    Raises:
        LakeError: it cannot be listed.
    """
    uri = join(lake_uri, folder)
    filesystem, path = storage.filesystem(uri)
    with explained("list", uri, LakeError):
        try:
            found: dict[str, Any] = filesystem.find(path, detail=True)
        except FileNotFoundError:
            return []
    start, now = len(path.rstrip("/")) + 1, time.time()
    files = (info for info in found.values() if info["type"] == "file")
    # A file of a store that does not tell when it was written is as new.
    return [Stored(f"{folder}/{i['name'][start:]}", int(i["size"]), now - (written_at(i) or now)) for i in files]


def delete_stored(lake_uri: str, storage: Storage, files: Iterable[Stored]) -> None:
    """Delete files; one that is gone already is no error. On a disk, folders that are empty then go as well.

    Raises:
        LakeError: a file cannot be deleted.
    """
    folders = dict[str, None]()

    def delete(file: Stored) -> None:
        folder, _, name = file.path.rpartition("/")
        Folder(join(lake_uri, folder), storage).delete(name)
        folders[folder] = None

    for _ in concurrently(delete, files):
        pass
    filesystem, root = storage.filesystem(lake_uri)
    for folder in folders if isinstance(filesystem, LocalFileSystem) else ():
        while "/" in folder:  # the lake's own folders stay
            with suppress(OSError):  # not empty
                Path(root, folder).rmdir()
            folder = folder.rpartition("/")[0]  # noqa: PLW2901


def total(files: Iterable[Stored]) -> int:
    """Add up their bytes."""
    return sum(file.size for file in files)

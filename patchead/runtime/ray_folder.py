"""The folder of Ray's own files: on a disk without room Ray starts no process, and says nothing of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import ray

from patchead.errors import WorkerError

LEAST = 2**20
"""Bytes below which Ray may not start a process: it opens logs for each."""
ROOM = (
    "Make room on that disk, or start Ray with another folder (ray start --temp-dir; RAY_TMPDIR). "
    "Run again under the same run id: what was finished is kept."
)


def require_room() -> None:
    """Refuse to begin where Ray's folder on this machine has no room.

    Raises:
        WorkerError: it has none.
    """
    if without := without_room():
        raise WorkerError(f"{without}. {ROOM}")


class RayFolder:
    """Watch over Ray's folder on this machine, where nothing comes."""

    def __init__(self, wait_minutes: float, tell: Callable[[str], None]) -> None:
        self._wait_minutes, self._tell = wait_minutes, tell
        self._since: float | None = None

    def check(self) -> None:
        """Tell that there is no room, and end the wait for it after some minutes.

        Raises:
            WorkerError: there was none for so long.
        """
        if (without := without_room()) is None:
            self._since = None
            return
        now, minutes = time.monotonic(), f"{self._wait_minutes:g} minutes"
        if self._since is None:
            self._since = now
            self._tell(f"warning: {without}; waiting up to {minutes} for some")
        if now - self._since >= 60 * self._wait_minutes:
            raise WorkerError(f"{without}, and there was none for the {minutes} of resources.wait_minutes. {ROOM}")


def without_room() -> str | None:
    """Say that Ray's folder has no room; None where it has, or this process is connected to no Ray."""
    if (node := ray._private.worker._global_node) is None:
        return None
    folder = node.get_session_dir_path()
    if (free := shutil.disk_usage(folder).free) >= LEAST:
        return None
    return f"Ray starts no process, as the disk of its folder {folder} has {free} bytes left"

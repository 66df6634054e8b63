"""Who works on a run, and when it last said so: `runs/<run_id>/heartbeat.json`, written again and again."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patchead.errors import LakeError
from patchead.files import Folder

HEARTBEAT_FILE = "heartbeat.json"
INTERVAL_S = 20.0
MISSED = 6
"""Beats, after which a process that cannot be looked at is taken for dead."""


@contextmanager
def heartbeat(write: Callable[[str, dict[str, Any]], None], interval_s: float = INTERVAL_S) -> Iterator[list[str]]:
    """Write a heartbeat at once, then every ``interval_s`` seconds for as long as the block runs.

    Args:
        write: writes a file of that name of plain JSON values, see `RunFolder.write_json`.
        interval_s: seconds.

    Yields:
        Texts of the heartbeats after the first that could not be written: they end nothing.

    Raises:
        LakeError: the first one cannot be written.
    """
    ended, missed = threading.Event(), list[str]()

    def beat() -> None:
        write(HEARTBEAT_FILE, beat_of(interval_s))

    def go_on() -> None:
        while not ended.wait(interval_s):
            try:
                beat()
            except LakeError as exc:
                missed.append(str(exc))

    beat()
    thread = threading.Thread(target=go_on, name="patchead-heartbeat", daemon=True)
    thread.start()
    try:
        yield missed
    finally:
        ended.set()
        thread.join()


def this_process() -> dict[str, Any]:
    """Say which process this is: ``host``, ``pid``, when it started, and where its number means something."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid()), "place": _place()}


def beat_of(interval_s: float) -> dict[str, Any]:
    """Make one heartbeat of this process, for now."""
    return {**this_process(), "time": _now().isoformat(), "interval_s": interval_s}


def is_alive(beat: Mapping[str, Any] | None, now: dt.datetime | None = None) -> bool:
    """Tell whether the process of a heartbeat still works.

    On the machine where it runs, its process is looked up; from elsewhere a heartbeat that is six intervals old means
    that it does not.

    Args:
        beat: content of the file; None where there is none.
        now: with a time zone; default: the time.
    """
    if beat is None or beat.get("ended"):
        return False
    if beat["place"] == _place():
        return _started(beat["pid"]) == beat["started"] is not None
    age = (now or _now()) - dt.datetime.fromisoformat(beat["time"])
    return age.total_seconds() < MISSED * beat["interval_s"]


def is_here(beat: Mapping[str, Any]) -> bool:
    """Tell whether a heartbeat is of a process that can be looked up, which a stopped one can be too."""
    return bool(beat["place"] == _place())


def read_json(folder: Folder, name: str) -> Mapping[str, Any] | None:
    """Read a file of plain JSON values; None for what is not there or is no JSON.

    Raises:
        LakeError: it is there, and cannot be read.
    """
    try:
        with folder.open(name) as file:
            found = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return None
    except LakeError:
        if folder.exists(name):
            raise
        return None
    return found if isinstance(found, Mapping) else None


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)


def _place() -> str | None:
    """The boot and the process namespace: within them a process number and its start time are one process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None  # not Linux: the age decides


def _started(pid: int) -> int | None:
    """When a process started, in ticks since the boot; None if there is none, or one that has ended already."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])

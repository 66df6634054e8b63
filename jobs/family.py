"""A process and all that it has started: their memory, and an actor of theirs that is killed. Linux."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import NamedTuple

_ACTORS = ("MapWorker", "ray::Worker")


class Moment(NamedTuple):
    """What a look saw: memory that is no file's, in MB, and how many processes and open files there are."""

    seconds: float
    driver_mb: float
    family_mb: float
    processes: int
    driver_files: int


class Family:
    """Follow the processes below ``pid``; those that were seen once are remembered by their start."""

    def __init__(self, pid: int) -> None:
        self._pid, self._seen = pid, dict[int, str]()

    def look(self, seconds: float) -> Moment:
        """Look at all of them."""
        members = self._members()
        memory = {pid: _anonymous_mb(pid) for pid in members}
        return Moment(
            round(seconds, 1),
            round(memory.get(self._pid, 0.0), 1),
            round(sum(memory.values()), 1),
            len(members),
            _open_files(self._pid),
        )

    def kill_an_actor(self, rng: random.Random) -> str:
        """Kill one that embeds or scores, and say which; "" where there is none that has started."""
        actors = {pid: title for pid in self._members() if (title := _title(pid)).find("ray::") == 0}
        wanted = sorted(
            pid
            for pid, title in actors.items()
            if any(name in title for name in _ACTORS) and not title.endswith("__init__")
        )
        if not wanted:
            return ""
        chosen = rng.choice(wanted)
        os.kill(chosen, signal.SIGKILL)
        return actors[chosen]

    def alive(self) -> list[str]:
        """Name those that were seen and still live."""
        return [f"process {pid}: {_title(pid)}" for pid, start in self._seen.items() if _stat(pid)[1] == start]

    def _members(self) -> list[int]:
        parents = {int(entry.name): _stat(int(entry.name)) for entry in Path("/proc").glob("[0-9]*")}
        found = {self._pid}
        while more := {pid for pid, (parent, _) in parents.items() if parent in found} - found:
            found |= more
        living = [pid for pid in found if parents.get(pid, (0, ""))[1]]
        self._seen |= {pid: parents[pid][1] for pid in living}
        return living


def _stat(pid: int) -> tuple[int, str]:
    """The parent of a process and when it started; "" of one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0, ""
    return int(fields[1]), "" if fields[0] == "Z" else fields[19]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _anonymous_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0

"""Who may work on a run: one process at a time, the one whose heartbeat is in its folder.

A second attempt of a run id, e.g. of a job that was started again while its first pod still lives, waits until it knows
whether the first one does. One that was stopped for long, and finds that another has taken over, stops before it
publishes. The heartbeat says whose it is; a store needs no more than that a file is replaced as a whole.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from patchead.errors import LakeError
from patchead.lake.heartbeat import (
    HEARTBEAT_FILE,
    INTERVAL_S,
    MISSED,
    beat_of,
    heartbeat,
    is_alive,
    is_here,
    read_json,
    this_process,
)
from patchead.lake.staging import RunFolder

_POLLS = 10  # per interval, while another one is waited for
_HELD: set[str] = set()  # by this process


class LeaseError(LakeError):
    """Another process works on this run."""


class Lease:
    """Hold the right to work on one run; another process may take it once this one has been silent for long."""

    def __init__(self, folder: RunFolder, run_id: str) -> None:
        self._run, self._folder, self.token = run_id, folder, uuid.uuid4().hex
        self._taken_by: Mapping[str, Any] | None = None
        self._began = False
        self.progress: Callable[[], Mapping[str, Any]] = dict
        """Says where the run is: what is written with each heartbeat, as plain JSON values."""
        self.missed: list[str] = []
        """Texts of the heartbeats that could not be written."""

    def require(self) -> None:
        """Look whether this process still is who works on the run.

        Raises:
            LeaseError: another one has taken over.
            LakeError: the run's folder cannot be read.
        """
        found = self._taken_by or read_json(self._folder.files, HEARTBEAT_FILE)
        if found is not None and found.get("owner") != self.token:
            self._taken_by = found
        self.require_unless_told()

    def require_unless_told(self) -> None:
        """Do what `require` does by what the last heartbeat found, without reading anything."""
        if self._taken_by is not None:
            raise LeaseError(
                f"{_process(self._taken_by)} has taken over run {self._run}, as nothing had been heard of this one for "
                "long: this one ends, and publishes nothing more."
            )

    @property
    def is_ours(self) -> bool:
        """Tell whether `require` passes; where the store does not answer, what was known last."""
        try:
            self.require()
        except LeaseError:
            return False
        except LakeError:
            return self._taken_by is None
        return True

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a heartbeat, unless another process has taken over. Raises `LakeError` where it cannot be written."""
        if not self._began or self.is_ours:
            self._folder.write_json(name, {**value, "owner": self.token, "progress": self.progress()})
            self._began = True

    def wait_for_others(self, say: Callable[[str], None], interval_s: float) -> None:
        """Return once no other process works on the run.

        Raises:
            LeaseError: another one does: it is there, or has written a heartbeat while this one waited.
        """
        first = read_json(self._folder.files, HEARTBEAT_FILE)
        if first is None or not is_alive(first) or (is_here(first) and not self._is_at_work(first)):
            return
        if not is_here(first):
            seconds = MISSED * float(first["interval_s"])
            say(f"{_process(first)} may still work on run {self._run}: its heartbeat is waited for, {seconds:.0f} s")
            ends = time.monotonic() + seconds
            while (found := read_json(self._folder.files, HEARTBEAT_FILE)) == first:
                if not is_alive(found) or time.monotonic() > ends:
                    return
                time.sleep(interval_s / _POLLS)
            if not is_alive(found):
                return
            first = found or first
        raise LeaseError(
            f"{_process(first)} works on run {self._run}: two attempts at once would do its work twice. This one ends. "
            "Wait until the other has ended, or end it, and run again under the same run id."
        )

    def _is_at_work(self, beat: Mapping[str, Any]) -> bool:
        """Of a process of this machine that lives: this one may have ended the run of that heartbeat."""
        return beat.get("owner") in _HELD or beat["pid"] != this_process()["pid"]


@contextmanager
def lease(
    folder: RunFolder, run_id: str, say: Callable[[str], None] = lambda text: None, interval_s: float = INTERVAL_S
) -> Iterator[Lease]:
    """Hold the lease of a run for as long as the block runs, with a heartbeat every ``interval_s`` seconds.

    Args:
        folder: of the run.
        run_id: its id, for messages.
        say: is told where another process has to be waited for.
        interval_s: seconds.

    Raises:
        LeaseError: another process works on the run.
        LakeError: the folder cannot be read or written.
    """
    held = Lease(folder, run_id)
    held.wait_for_others(say, interval_s)
    _HELD.add(held.token)
    try:
        with heartbeat(held.write, interval_s) as held.missed:
            yield held
        held.write(HEARTBEAT_FILE, beat_of(interval_s) | {"ended": True})
    except BaseException:
        with suppress(LakeError):  # what ended the run is told, whether or not its end can be noted
            held.write(HEARTBEAT_FILE, beat_of(interval_s) | {"ended": True})
        raise
    finally:
        _HELD.discard(held.token)


def _process(beat: Mapping[str, Any]) -> str:
    return f"process {beat['pid']} on {beat['host']} (last heartbeat {beat['time'][:19]}Z)"

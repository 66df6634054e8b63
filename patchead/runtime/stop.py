"""A run that is asked to end by SIGTERM, as before a spot machine is taken away: it ends its unit, then itself."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from patchead.errors import StoppedError


class Stop:
    """Hold whether a run was asked to end. After ``grace_seconds`` its process ends, whatever it does then.

    What is finished is in the lake by then, and all files are written whole: nothing is lost but the unit in hand.
    """

    def __init__(self, run_id: str, grace_seconds: float, say: Callable[[str], None]) -> None:
        self._run_id, self._grace_seconds, self._say = run_id, grace_seconds, say
        self._asked, self._ended = threading.Event(), threading.Event()

    def may_go_on(self) -> None:
        """Raise `StoppedError` once the run was asked to end: called between two units of work."""
        if self._asked.is_set():
            raise StoppedError(f"asked to end (SIGTERM). {what_is_kept(self._run_id)}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGTERM for a request to end while the block runs; in a thread other than the first, do nothing."""
        # A handler interrupts whatever is printing or holds a lock: all but the note that it came is done by a thread.
        threading.Thread(target=self._wait, name="patchead-stop", daemon=True).start()
        with self.again():
            try:
                yield
            finally:
                self._ended.set()
                self._asked.set()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Take SIGTERM again where another library has taken it meanwhile: Ray does when it starts."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def _wait(self) -> None:
        self._asked.wait()
        if self._ended.is_set():
            return
        self._say(f"asked to end (SIGTERM): the work in hand is finished, for at most {self._grace_seconds:g} s")
        if self._ended.wait(self._grace_seconds):
            return
        self._say(f"the work in hand was not finished within run.grace_seconds. {what_is_kept(self._run_id)}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(StoppedError.exit_code)


def what_is_kept(run_id: str) -> str:
    """Say what a run that ends early leaves, and how to go on."""
    return (
        "What was listed, embedded, scored and drawn so far is kept; nothing is published yet. To go on: the same "
        f"command with --run-id {run_id}"
    )

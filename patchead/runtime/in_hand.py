"""What a process had in hand when it ended: a piece of work that ends its process is named, and the rest goes on.

A process that is ended by a crash or by the kernel says nothing. So work that is begun a second time notes each of its
pieces before it takes it; a piece that was in hand at two ends is left out of every later start. Work that ends well
costs one call.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from patchead.errors import DecodeError, WorkerError, argument

MOST_PIECES = 16
"""Pieces of one work that may end their processes; more are no fault of a piece."""
MOST_STARTS = 2 * MOST_PIECES + 4
"""Times that one work may be begun: twice for each of its worst pieces, and some for lost machines."""
_MOST_OF_A_RUN = 100
_ENDS = 2  # at the same piece: one may be a lost machine
_BETWEEN = ""  # pieces: while it reads, or puts together
_MOST_BETWEEN = 5
_GRACE = 10.0  # seconds, for a decoder that lets no other thread run
_CRASHED = "killed its decoder: a crash, or no memory left"
_REMEDY = "Run again under the same run id: what was finished is kept."


@dataclass(frozen=True)
class Begun:
    """Say what is known of a work that is begun: its starts, this one too, and the pieces to leave out, with why."""

    starts: int
    left_out: Mapping[str, str]


class InHand(Protocol):
    """Remember the pieces in hand. See `Memory`; it is reached from every process."""

    def begin(self, work: str, seconds: float) -> Begun:
        """Note one start of ``work``, of which a piece may take so many seconds."""

    def take(self, work: str, piece: str) -> None:
        """Note that ``piece`` is in hand; it is noted when this returns."""

    def late(self, work: str) -> None:
        """Note that what is in hand takes too long, and that its process will be ended for that."""

    def end(self, work: str) -> None:
        """Note that nothing of ``work`` is in hand any more."""


class Memory:
    """Hold the starts of every work, and what was in hand at each end. Pure; one process keeps it for all."""

    def __init__(self) -> None:
        self._starts = Counter[str]()
        self._held: dict[str, tuple[str, float]] = {}
        self._late = set[str]()
        self._ends: dict[str, dict[str, list[str]]] = {}
        self._left_out: dict[str, dict[str, str]] = {}

    def begin(self, work: str, seconds: float) -> Begun:
        """Note one start; what is still in hand has ended the last one.

        Raises:
            WorkerError: too many pieces, of this work or of all, have ended their processes, or this work did so again
                and again with no piece in hand.
        """
        self._starts[work] += 1
        if (held := self._held.pop(work, None)) is not None:
            after, why = time.monotonic() - held[1], _CRASHED
            if work in self._late:
                why = f"took longer than {argument('max_image_seconds')} {seconds:g} to decode"
            elif after >= seconds + _GRACE:  # the kernel may have ended what did not let the timer speak
                why = f"{_CRASHED}, or it took longer than {argument('max_image_seconds')} {seconds:g}"
            self._ended(work, held[0], why)
        if self._starts[work] > 1:
            self.take(work, _BETWEEN)
        return Begun(self._starts[work], self._left_out.get(work, {}))

    def take(self, work: str, piece: str) -> None:
        """Note what is in hand."""
        self._held[work] = piece, time.monotonic()
        self._late.discard(work)

    def late(self, work: str) -> None:
        """Note that it takes too long."""
        self._late.add(work)

    def end(self, work: str) -> None:
        """Forget what was in hand; what is left out stays so, if the work is done again."""
        self._held.pop(work, None)

    def _ended(self, work: str, piece: str, why: str) -> None:
        ends = self._ends.setdefault(work, {}).setdefault(piece, [])
        ends.append(why)
        if piece == _BETWEEN and len(ends) >= _MOST_BETWEEN:
            raise WorkerError(
                f"{work} ended its process {len(ends)} times, and no image was being decoded. Look at the memory of "
                f"the nodes and at the files. {_REMEDY}"
            )
        if piece == _BETWEEN or len(ends) < _ENDS:
            return
        of_work = self._left_out.setdefault(work, {})
        of_work[piece] = told = f"tried {1 + len(ends)} times: {why}"
        everything = sum(map(len, self._left_out.values()))
        if len(of_work) > MOST_PIECES or everything > _MOST_OF_A_RUN:
            raise WorkerError(
                f"{everything} images have ended the processes that decoded them, the last one {piece}, {told}. "
                "So many are no fault of the images: look at the memory of the nodes and at what is installed there. "
                f"{_REMEDY}"
            )


class Watch:
    """Watch over one work in the process that does it, and end that process where a piece takes too long.

    ``in_hand`` None watches over nothing: a process that is not to be ended.
    """

    def __init__(self, in_hand: InHand | None, work: str, seconds: float = 0.0) -> None:
        self._in_hand, self._work, self._seconds = in_hand, work, seconds
        self._begun = in_hand.begin(work, seconds) if in_hand is not None else Begun(1, {})

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *ended: object) -> None:
        if self._in_hand is not None and self._begun.starts > 1:
            self._in_hand.end(self._work)

    @contextmanager
    def over(self, piece: str) -> Iterator[None]:
        """Take a piece in hand; after ``seconds`` the kernel ends this process, whatever holds it.

        Raises:
            DecodeError: it has ended its process before.
        """
        if piece in self._begun.left_out:
            raise DecodeError(self._begun.left_out[piece])
        if self._in_hand is None:
            yield
            return
        if self._begun.starts == 1:
            with _kernel_ends_it_after(self._seconds):
                yield
            return
        self._in_hand.take(self._work, piece)
        timer = threading.Timer(self._seconds, self._end_this_process)
        timer.start()
        try:
            with _kernel_ends_it_after(self._seconds + _GRACE):
                yield
        finally:
            timer.cancel()
            timer.join()
            self._in_hand.take(self._work, _BETWEEN)

    def _end_this_process(self) -> None:
        assert self._in_hand is not None
        self._in_hand.late(self._work)
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _kernel_ends_it_after(seconds: float) -> Iterator[None]:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

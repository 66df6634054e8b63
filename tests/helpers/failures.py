"""Functions and actors that fail in the ways of this world; a module of its own, as Ray's workers import it by name."""

from __future__ import annotations

import errno
import os
import time

import pyarrow as pa

from patchead.errors import DamagedFileError, DecodeError
from patchead.runtime.in_hand import InHand, Watch


class UnpicklableError(Exception):
    """Cannot travel: it takes two arguments, and holds a file."""

    def __init__(self, text: str, more: str) -> None:
        super().__init__(text)
        self.file = open(os.devnull)  # noqa: PTH123, SIM115


def fail(how: str) -> None:
    """Raise what ``how`` says."""
    if how == "die":
        os._exit(1)  # as a decoder does that reads where it must not
    if how == "ours":
        raise DamagedFileError("u1.arrow is damaged.", "/lake/u1.arrow")
    if how == "caused":
        try:
            raise DamagedFileError("u1.arrow is damaged.", "/lake/u1.arrow")
        except DamagedFileError as exc:
            raise RuntimeError("while reading") from exc
    if how == "cut":
        from aiohttp import ClientPayloadError  # a quarter of a second of each of the many processes that start

        raise ClientPayloadError("Response payload is not completed")
    faults = {
        "disk": OSError(errno.ENOSPC, "No space left on device"),
        "memory": pa.ArrowMemoryError("malloc of size 9 failed"),
        "bug": TypeError("\x1b[31mnot a number\x1b[0m\nsecond line"),
        "stuck": UnpicklableError("cannot travel", "at all"),
        "long": ValueError("x" * 10_000),
    }
    raise faults[how]


def failing(unit: pa.Table) -> pa.Table:
    """Fail in the first stage, if the unit says so."""
    if unit["stage"][0].as_py() == "function":
        fail(unit["how"][0].as_py())
    return unit


class FailingActor:
    """Fails when it is set up, or in the second stage."""

    def setup(self, spec: str) -> None:
        if spec:
            fail(spec)

    def __call__(self, unit: pa.Table) -> pa.Table:
        fail(unit["how"][0].as_py())
        return unit

    def call(self, how: str) -> None:
        fail(how)


def watched(pieces: str, in_hand: InHand) -> list[str]:
    """The pieces of a work that ended well, and why others were refused; h hangs."""
    done = []
    with Watch(in_hand, pieces, 0.5) as watch:
        for piece in pieces:
            try:
                with watch.over(piece):
                    while piece == "h":
                        time.sleep(0.01)
                    done.append(piece)
            except DecodeError as exc:
                done.append(str(exc))
    return done

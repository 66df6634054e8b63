"""Images that end the process that decodes them, or hold it; a module of its own, as Ray's workers import it by name.

They are whole PNG files with a text in them, which a reader that is put before the real one obeys, in workers alone.
"""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, PngImagePlugin

from patchead.nightly import decode
from patchead.nightly.decode import DecodeSettings, Shared

KILLED = "tried 3 times: killed its decoder: a crash, or no memory left"
"""What is told of an image that ends each process that decodes it."""
_TEXT = b"poison:"
_real = decode.decode


def poisoned(image: np.ndarray, how: str) -> bytes:
    """A PNG of which the decoder ends as ``how`` says: exit, segfault, hang, hold, once:FILE if FILE is not there."""
    sink, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("note", f"{_TEXT.decode()}{how}\n")
    Image.fromarray(image).save(sink, "PNG", pnginfo=text)
    return sink.getvalue()


def decode_unit(batch: pa.Table, *, settings: DecodeSettings, shared: Sequence[Shared]) -> pa.Table:
    """The real one, in a process whose decoder obeys poisoned files."""
    decode.decode = _obeying
    return decode.decode_unit(batch, settings=settings, shared=shared)


def _obeying(data: bytes, **settings: Any) -> np.ndarray:
    _, found, rest = data.partition(_TEXT)
    how = rest.partition(b"\n")[0].decode() if found else ""
    if how == "exit":
        os._exit(7)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    while how == "hang":
        pass
    if how == "hold":
        re.match(r"(x+x+)+y", "x" * 40)  # no other thread runs meanwhile
    if how.startswith("once:") and not Path(how[5:]).exists():
        Path(how[5:]).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return _real(data, **settings)

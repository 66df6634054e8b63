"""What the decoders' libraries raise for damaged files, and the limits that hold before anything is decoded."""

from __future__ import annotations

import logging
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
from PIL import Image

from patchead.errors import DecodeError

# What Pillow, cv2, tifffile and imagecodecs raise for damaged files; found by fuzzing.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    LookupError,
    EOFError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    MemoryError,
    RuntimeError,
    TypeError,
    struct.error,
    zlib.error,
    cv2.error,
)
_LONGEST = 160
_ZEROS, _SHARE = 64, 50
NAMED = "a png, jpeg, bmp, tiff, webp, gif, pnm, jpeg 2000 or avif"

# They tell a terminal of each damaged file what its row tells.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


@contextmanager
def damage_told(where: str = "") -> Iterator[None]:
    """Around calls of the libraries alone, whose errors say that a file is damaged: a mistake of ours must not.

    ``where`` stands before their text.

    Raises:
        DecodeError: in the place of theirs.
    """
    try:
        yield
    except Image.UnidentifiedImageError as exc:
        raise DecodeError(f"not an image: no readable header of {NAMED}") from exc
    except DAMAGE as exc:
        text = re.sub(r"\s+", " ", str(exc)) or type(exc).__name__
        what = "truncated" if "truncated" in text.lower() else "damaged"
        raise DecodeError(f"{what}: {where}{text[:_LONGEST]}") from exc


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture without pixels or with more than ``max_pixels``.

    Raises:
        DecodeError: it is one.
    """
    if width * height > max_pixels:
        raise DecodeError(f"too many pixels: {width}x{height} > `max_pixels` {max_pixels}")
    if width * height == 0:
        raise DecodeError(f"no pixels: {width}x{height}")


def refuse_zeros_at_end(data: bytes) -> None:
    """Refuse a compressed file that ends in so many zeros that it must have been cut off and filled up.

    Raises:
        DecodeError: it does.
    """
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros > max(_ZEROS, len(data) // _SHARE):
        raise DecodeError(f"truncated: cut off and filled up, as the last {zeros} of {len(data)} bytes are zeros")

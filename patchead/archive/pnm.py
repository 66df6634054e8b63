"""PGM and PPM, binary, of 8 or 16 bits: the header tells the largest value."""

from __future__ import annotations

import re

import numpy as np

from patchead.archive.damage import check_size
from patchead.archive.pixels import Deep, ends_in_fill, filled_up
from patchead.errors import DecodeError

_GAP = rb"(?:\s|#[^\n\r]*[\n\r])+"
_HEADER = re.compile(
    rb"P([56])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})(?:#[^\n\r]*[\n\r]|\s)"
)


def header_of_pnm(data: bytes) -> re.Match[bytes] | None:
    """Match the header of a binary PGM (P5) or PPM (P6); None for all others."""
    return _HEADER.match(data[:4096])


def read_pnm(data: bytes, header: re.Match[bytes], max_pixels: int) -> np.ndarray | Deep:
    """Read the picture: RGB uint8 (H, W, 3) where the largest value is 255, else `Deep`.

    Raises:
        DecodeError: cut off, too large, or a largest value that is none.
    """
    width, height, white = (int(header[place]) for place in (2, 3, 4))
    check_size(width, height, max_pixels)
    if not 0 < white < 1 << 16:
        raise DecodeError(f"damaged: a PNM whose largest value is {white}; allowed are 1 to 65535")
    channels = 1 if header[1] == b"5" else 3
    dtype = np.dtype(np.uint8 if white < 256 else ">u2")
    expected, there = width * height * channels * dtype.itemsize, len(data) - header.end()
    if there < expected:
        raise DecodeError(f"truncated: {there} of {expected} bytes of pixels are in the file")
    values = np.frombuffer(data, dtype, width * height * channels, header.end()).reshape(height, width, channels)
    if filled := ends_in_fill(values):
        raise DecodeError(filled_up(filled, height))
    if white == 255:
        return np.repeat(values, 3, axis=2) if channels == 1 else values.copy()
    return Deep(values.astype(np.uint16), white=white)

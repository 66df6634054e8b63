"""PNG: what of its chunks concerns pixels. A note that is too long or damaged is no reason to refuse a picture."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from patchead.archive.damage import damage_told
from patchead.archive.pixels import NOT_TO_BE_SEEN, Deep
from patchead.errors import DecodeError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXELS, _NOTES = (b"IHDR", b"PLTE", b"tRNS", b"IDAT"), (b"sBIT", b"eXIf")
_END = b"\0\0\0\0IEND\xaeB`\x82"


class _Chunk(NamedTuple):
    name: bytes
    start: int  # of its length
    end: int  # behind its checksum
    length: int


def is_png(data: bytes) -> bool:
    """Tell a PNG by its first bytes."""
    return data.startswith(SIGNATURE)


def bit_depth_of(data: bytes) -> int:
    """Read the bits of each sample from the header, which comes first."""
    return data[24] if len(data) > 24 else 0


def pixels_alone(data: bytes) -> bytes:
    """Leave out all chunks that say nothing of pixels or orientation, and notes whose checksum is wrong.

    Raises:
        DecodeError: a chunk of pixels is longer than the file.
    """
    kept = [SIGNATURE]
    for chunk in _chunks(data):
        whole = data[chunk.start : chunk.end]
        if chunk.name in _PIXELS or (chunk.name in _NOTES and zlib.crc32(whole[4:-4]) == _number(whole[-4:])):
            kept.append(whole)
    return b"".join([*kept, _END])


def read_deep_png(data: bytes) -> Deep:
    """Read a PNG of 16 bits; of its colours sBIT may tell the bits in use.

    Raises:
        DecodeError: damaged or cut off, or a chunk is longer than the file: cv2 would allocate its length, up to 4 GiB.
    """
    significant = _significant_bits(data)
    with damage_told():
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise DecodeError("damaged or truncated 16-bit image")
    samples = pixels[..., None] if pixels.ndim == 2 else pixels
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) else None
    if alpha is not None and not alpha.any():
        raise DecodeError(NOT_TO_BE_SEEN)
    colours = samples[..., 2::-1] if samples.shape[2] >= 3 else samples[..., :1]
    shown = _shown(data, colours) if alpha is None else alpha / np.float32(65535)
    return Deep(colours, shown, significant=significant)


def _shown(data: bytes, colours: np.ndarray) -> np.ndarray | None:
    """float32 (H, W), 0 where a pixel has the one value that tRNS declares transparent; None without tRNS."""
    for chunk in _chunks(data):
        if chunk.name == b"tRNS" and chunk.length == 2 * colours.shape[2]:
            transparent = np.frombuffer(data, ">u2", colours.shape[2], chunk.start + 8)
            shown = (colours != transparent).any(axis=2)
            if not shown.any():
                raise DecodeError(NOT_TO_BE_SEEN)
            return shown.astype(np.float32)
    return None


def _significant_bits(data: bytes) -> int | None:
    """The largest colour entry of the sBIT chunk; None without."""
    bits = None
    for chunk in _chunks(data):
        if chunk.name == b"sBIT":
            entries = data[chunk.start + 8 : chunk.start + 8 + min(chunk.length, 3 if chunk.length >= 3 else 1)]
            bits = max(entries, default=0)
    return bits if bits is not None and 1 <= bits <= 16 else None


def _number(four: bytes) -> int:
    return int.from_bytes(four, "big")


def _chunks(data: bytes) -> Iterator[_Chunk]:
    place = len(SIGNATURE)
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        over = place + length + 12 > len(data)
        if name == b"IEND" or (over and name not in _PIXELS):
            return  # a picture that lacks its end marker, or a part of its notes, is one
        if over:
            raise DecodeError(f"truncated: a PNG chunk announces {length} bytes, more than the file has")
        yield _Chunk(name, place, place + length + 12, length)
        place += length + 12

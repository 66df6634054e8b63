"""JPEG 2000: 8 bits by Pillow, more by imagecodecs. Alpha is what a channel definition calls so."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from patchead.archive.damage import check_size, damage_told, refuse_zeros_at_end
from patchead.archive.pixels import NOT_TO_BE_SEEN, Deep
from patchead.errors import DecodeError

_CODESTREAM = b"\xff\x4f\xff\x51"
_BOXES = b"\0\0\0\x0cjP  \r\n\x87\n"
_END = b"\xff\xd9"
_OPACITY = (1, 2)


def is_jpeg2000(data: bytes) -> bool:
    """Tell a JP2 file or a bare codestream by its first bytes."""
    return data.startswith((_CODESTREAM, _BOXES))


def read_jpeg2000(data: bytes, max_pixels: int) -> np.ndarray | Deep:
    """Read it: RGB uint8 (H, W, 3), or what has more than 8 bits.

    Raises:
        DecodeError: damaged, too large, of signed values, or of samples that are neither grey nor colour.
    """
    import imagecodecs

    place = data.find(_CODESTREAM)
    if place < 0 or place + 44 > len(data):
        raise DecodeError("truncated: a JPEG 2000 without a codestream")
    right, lower, left, upper = struct.unpack_from(">4I", data, place + 8)
    components, depth = struct.unpack_from(">HB", data, place + 40)
    check_size(max(0, right - left), max(0, lower - upper), max_pixels)
    bits = (depth & 0x7F) + 1
    if depth & 0x80 or bits > 16 or components > 4:
        raise DecodeError(
            f"unsupported: a JPEG 2000 of {components} components of {bits} {'signed ' * (depth >> 7)}bits; allowed "
            "are grey and RGB of up to 16 bits"
        )
    if not data.rstrip(b"\0").endswith(_END):
        refuse_zeros_at_end(data)
    with damage_told():
        samples: Any = imagecodecs.jpeg2k_decode(data)
    samples = samples[..., None] if samples.ndim == 2 else samples
    alpha = samples[..., -1] if samples.shape[2] in (2, 4) and _last_is_alpha(data[:place], components) else None
    if alpha is not None and not alpha.any():
        raise DecodeError(NOT_TO_BE_SEEN)
    colours = samples[..., :3] if samples.shape[2] >= 3 else samples[..., :1]
    white = (1 << bits) - 1
    return Deep(colours.astype(np.uint16), None if alpha is None else alpha / np.float32(white), white)


def _last_is_alpha(boxes: bytes, components: int) -> bool:
    place = boxes.find(b"cdef")
    if place < 0 or place + 6 > len(boxes):
        return False
    entries = struct.unpack_from(">H", boxes, place + 4)[0]
    there = boxes[place + 6 : place + 6 + 6 * entries]
    kinds = dict(struct.unpack_from(">HH", there, at) for at in range(0, len(there) // 6 * 6, 6))
    return kinds.get(components - 1) in _OPACITY

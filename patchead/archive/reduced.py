"""A picture in little, for people to look at: JPEG is decoded at an eighth to a whole of its size, not in full."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from patchead.archive import jpeg
from patchead.archive.damage import DAMAGE, check_size
from patchead.archive.decode import decode, orientation_of
from patchead.archive.pixels import upright


def decode_reduced(
    data: bytes, side: int, *, max_pixels: int = 100_000_000, bit_depth: Literal["auto"] | int = "auto"
) -> np.ndarray:
    """Decode an image as `decode` does, no larger than it needs to be, and shrink its longer side to ``side`` pixels.

    libjpeg leaves out the coefficients that a smaller JPEG has no room for: a photo of 12 megapixels takes a fraction
    of the time. What is smaller already stays as it is.

    Returns:
        RGB uint8 (H, W, 3), upright.

    Raises:
        DecodeError: as `decode`.
    """
    found = _reduced_jpeg(data, side, max_pixels) if jpeg.is_jpeg(data) else None
    if found is None:
        found = decode(data, max_pixels=max_pixels, bit_depth=bit_depth)
    return shrunk(found, side)


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink RGB uint8 (H, W, 3) so that its longer side is ``side``; a smaller one is left."""
    if max(image.shape[:2]) <= side:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    return np.asarray(picture)


def _reduced_jpeg(data: bytes, side: int, max_pixels: int) -> np.ndarray | None:
    """Grey and colour of 8 bits; None where the whole picture must be decoded to know."""
    import simplejpeg

    frame = jpeg.frame_of(data)
    if frame is None or frame[0] != 8 or frame[3] not in (1, 3):
        return None
    _, width, height, _ = frame
    check_size(width, height, max_pixels)
    scale = min(1.0, side / max(width, height, 1))
    with suppress(ValueError, *DAMAGE):  # libjpeg has something to say: `decode` tells what it means
        least = {"min_height": max(1, round(height * scale)), "min_width": max(1, round(width * scale))}
        pixels = simplejpeg.decode_jpeg(jpeg.completed(data), **least)
        return np.ascontiguousarray(upright(pixels, orientation_of(Image.open(BytesIO(data), formats=["JPEG"]))))
    return None

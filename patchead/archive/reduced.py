"""A picture in little, for people to look at: JPEG is decoded at an eighth to a half of its size, not in full."""

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

_WORTH = 0.5
"""Of the size; above, the whole is decoded as fast: libjpeg-turbo's transforms to 5 to 7 eighths are plain loops."""


def decode_reduced(
    data: bytes, side: int, *, max_pixels: int = 100_000_000, bit_depth: Literal["auto"] | int = "auto"
) -> np.ndarray:
    """Decode an image as `decode_at_least` does, and shrink its longer side to ``side`` pixels; a smaller one is left.

    Returns:
        RGB uint8 (H, W, 3), upright.

    Raises:
        DecodeError: as `decode`.
    """
    return shrunk(decode_at_least(data, side, max_pixels=max_pixels, bit_depth=bit_depth), side)


def decode_at_least(
    data: bytes,
    side: int,
    *,
    max_pixels: int = 100_000_000,
    bit_depth: Literal["auto"] | int | None = "auto",
    clip: bool = True,
) -> np.ndarray:
    """Decode an image as `decode` does, a JPEG no larger than it takes for a longer side of ``side`` pixels.

    libjpeg leaves out the coefficients that a smaller JPEG has no room for: a photo of 12 megapixels takes a fraction
    of the memory and, with what is done to its pixels afterwards, of the time.

    Returns:
        RGB uint8 (H, W, 3), upright: one to four eighths of a JPEG of twice ``side`` or more, else the whole picture.

    Raises:
        DecodeError: as `decode`.
    """
    found = _reduced_jpeg(data, side, max_pixels) if jpeg.is_jpeg(data) else None
    return decode(data, max_pixels=max_pixels, bit_depth=bit_depth, clip=clip) if found is None else found


def shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Shrink RGB uint8 (H, W, 3) so that its longer side is ``side``; a smaller one is left."""
    if max(image.shape[:2]) <= side:
        return image
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2)
    return np.asarray(picture)


def _reduced_jpeg(data: bytes, side: int, max_pixels: int) -> np.ndarray | None:
    """Grey and colour of 8 bits, twice ``side`` at least; None where the whole picture is decoded."""
    import simplejpeg

    frame = jpeg.frame_of(data)
    if frame is None or frame[0] != 8 or frame[3] not in (1, 3):
        return None
    _, width, height, _ = frame
    check_size(width, height, max_pixels)
    scale = side / max(width, height, 1)
    if scale > _WORTH:
        return None
    whole = jpeg.completed(data)
    with suppress(ValueError, *DAMAGE):  # libjpeg has something to say: `decode` tells what it means
        least = {"min_height": max(1, round(height * scale)), "min_width": max(1, round(width * scale))}
        pixels = simplejpeg.decode_jpeg(whole, **least)
        jpeg.refuse_unsaid(whole)
        return np.ascontiguousarray(upright(pixels, orientation_of(Image.open(BytesIO(data), formats=["JPEG"]))))
    return None

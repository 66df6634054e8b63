"""One scale for all images that are compared: how many bits their 16-bit values use, told from several of them.

Told by each image alone, a dark photo would come out bright. Hot pixels do not count: one of them would make all photos
four times as dark; they are white.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from patchead.archive import png
from patchead.archive.decode import read_picture
from patchead.archive.pixels import bits_in_use
from patchead.archive.tiff import is_tiff
from patchead.errors import DecodeError

HEAD_BYTES = 64
"""What `may_need_scale` looks at."""
TELLS_ITSELF = r"(?i)\.(jpe?g|jpe|jfif|bmp|webp|gif|avif|pgm|ppm|pnm|jp2|j2k)$"
"""Pattern of the names of images that have 8 bits, or say what their largest value is."""


class Largest(NamedTuple):
    """Hold what one image of 16 bits tells: its largest value but for hot pixels, and a PNG's sBIT."""

    value: int
    significant: int | None


def may_need_scale(head: bytes) -> bool:
    """Tell by its first bytes whether an image may have 16 bits of which its header does not say how many are used."""
    return is_tiff(head) or (png.is_png(head) and png.bit_depth_of(head) == 16)


def largest_of(data: bytes, max_pixels: int) -> Largest | None:
    """Look at an image: its largest value, where nothing else tells its scale; None for others and damaged ones."""
    if not may_need_scale(data):
        return None
    try:
        found = read_picture(data, max_pixels)
    except DecodeError:
        return None  # it becomes a row with its error when it is scored
    return (
        None if isinstance(found, np.ndarray) or found.white is not None else Largest(found.largest, found.significant)
    )


def settled(images: Iterable[Largest | None]) -> int | None:
    """Settle the bits for all of them: what sBIT says where every value fits, else 8, 10, 12, 14 or 16.

    None where no image needs to be told. The order does not matter.
    """
    found = [image for image in images if image is not None]
    if not found:
        return None
    said = [image.significant for image in found if image.significant is not None]
    return bits_in_use(max(image.value for image in found), max(said) if len(said) == len(found) else None)

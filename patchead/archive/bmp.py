"""BMP: 32 bits of which the fourth byte is empty, and files that were cut off and filled up."""

from __future__ import annotations

import numpy as np
from PIL import Image

from patchead.archive.pixels import FILL_ROWS, ends_in_fill, filled_up
from patchead.errors import DecodeError


def opaque_if_empty(image: Image.Image) -> Image.Image:
    """Take a bitmap whose alpha is 0 everywhere as opaque: its writer left the fourth byte empty."""
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[1] == 0:
        return image.convert("RGB")
    return image


def is_bottom_up(image: Image.Image) -> bool:
    """Tell, before it is loaded, whether the last row of the file is the first of the picture."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and tiles[0][3][-1] == -1


def refuse_filled_up(image: Image.Image, *, bottom_up: bool) -> None:
    """Refuse a loaded bitmap that was cut off and filled up.

    Raises:
        DecodeError: its last rows, in the order of the file, hold nothing but one value.
    """
    width, height = image.size
    end = image.crop((0, 0, width, FILL_ROWS) if bottom_up else (0, max(0, height - FILL_ROWS), width, height))
    if any(low != high for low, high in np.reshape(end.getextrema(), (-1, 2))):
        return  # the usual case, without a copy of the picture
    rows = np.asarray(image)
    if filled := ends_in_fill(rows[::-1] if bottom_up else rows):
        raise DecodeError(filled_up(filled, height))

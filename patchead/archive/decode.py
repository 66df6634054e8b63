"""Encoded bytes to 8-bit RGB, and RGB to the square the encoder takes.

Each format is read by the library that reads it exactly: Pillow for headers, palettes, EXIF and what has 8 bits,
simplejpeg for JPEG, tifffile for TIFF, cv2 for PNG of 16 bits, imagecodecs for JPEG 2000 and deep JPEG.
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image

from patchead.archive import bmp, jpeg, png
from patchead.archive.damage import DAMAGE, check_size, damage_told, refuse_zeros_at_end
from patchead.archive.jpeg2000 import is_jpeg2000, read_jpeg2000
from patchead.archive.pixels import NOT_TO_BE_SEEN, Deep, scaled, upright
from patchead.archive.pnm import header_of_pnm, read_pnm
from patchead.archive.resize import LARGE, resized
from patchead.archive.room import Room
from patchead.archive.tiff import is_tiff, read_tiff
from patchead.errors import DecodeError, SettingsError, bad_argument

# Pillow's own limit is one for the whole process and cannot be a setting; `decode` has its own.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM", "AVIF")
READING = 4
"""Counts the changes of `decode` and `fit` that give a file other pixels: what was embedded before is embedded anew."""
FITS = ("squash", "crop", "pad")
_MODES_8_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112


def decode(
    data: bytes,
    *,
    max_pixels: int = 100_000_000,
    bit_depth: Literal["auto"] | int | None = "auto",
    clip: bool = True,
    room: Room | None = None,
) -> np.ndarray:
    """Decode an image to RGB uint8 (H, W, 3) (method.md §1): upright, palette and alpha resolved, alpha on black.

    Of several frames the first. Values of more than 8 bits are scaled by 255 / (2^bits - 1); bits are those of the
    header where it tells (12-bit TIFF, PNM, JPEG), else ``bit_depth``, or for auto what this image's sBIT and largest
    value say, and for None an error. Images that are compared need one ``bit_depth``: see `archive.bit_depth`. A larger
    value is white, or without ``clip`` an error. With a ``room`` a large JPEG may lie in it, until the next does.

    Raises:
        DecodeError: not an image, damaged, cut off, transparent everywhere, larger than ``max_pixels``, or a layout
            that is not read; the text says which.
    """
    found = read_picture(data, max_pixels, room)
    return found if isinstance(found, np.ndarray) else scaled(found, bit_depth, clip=clip)


def read_picture(data: bytes, max_pixels: int, room: Room | None = None) -> np.ndarray | Deep:
    """Read an image, upright: RGB uint8 (H, W, 3), or what has more than 8 bits. Raises as `decode`."""
    if not data:
        raise DecodeError("empty file")
    if jpeg.is_jpeg(data):
        return _jpeg(data, max_pixels, room)
    if is_tiff(data):
        return read_tiff(data, max_pixels)
    if header := header_of_pnm(data):
        return read_pnm(data, header, max_pixels)
    if is_jpeg2000(data):
        return read_jpeg2000(data, max_pixels)
    if png.is_png(data):
        return _png(data, max_pixels)
    if data.startswith(b"RIFF") or data[4:8] == b"ftyp":  # WebP, AVIF
        refuse_zeros_at_end(data[: 8 + int.from_bytes(data[4:8], "little")] if data.startswith(b"RIFF") else data)
    return _by_pillow(data, max_pixels)


def fit(image: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Resize RGB uint8 (H, W, 3) to (size, size, 3), bicubic with antialias (method.md §1).

    How a large picture is resized is told by `resize.resized`.

    squash: both sides to ``size``; crop: the centre square; pad: the longer side to ``size``, black around it.

    Raises:
        SettingsError: ``mode`` is none of the three.
    """
    if mode not in FITS:
        raise SettingsError(bad_argument("mode", mode, f"one of {', '.join(FITS)}"))
    height, width = image.shape[:2]
    if mode == "squash":
        return resized(image, (size, size))
    if mode == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return resized(image, (size, size), (left, top, left + side, top + side))
    scale = size / max(width, height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    square = np.zeros((size, size, 3), np.uint8)
    left, top = (size - across) // 2, (size - down) // 2
    square[top : top + down, left : left + across] = resized(image, (across, down))
    return square


def _jpeg(data: bytes, max_pixels: int, room: Room | None) -> np.ndarray | Deep:
    frame = jpeg.frame_of(data)
    if frame is not None and frame[0] != 8:
        return jpeg.read_deep_jpeg(data, frame, max_pixels)
    whole = jpeg.completed(data)
    with _opened(whole, max_pixels) as image:
        if image.mode not in ("L", "RGB"):
            jpeg.refuse_incomplete(whole, image)
            return _eight_bit(image)
        large = image.width * image.height >= LARGE
        # A small one is resized by Pillow, which would have to leave out each fourth byte, and by less.
        pixels = jpeg.pixels_of_jpeg(whole, image, room if large else None, smooth_colour=not large)
        orientation = orientation_of(image)
    return pixels if orientation == 1 else np.ascontiguousarray(upright(pixels, orientation))


def _png(data: bytes, max_pixels: int) -> np.ndarray | Deep:
    if png.bit_depth_of(data) == 16:
        alone = png.pixels_alone(data)
        with _opened(alone, max_pixels) as image:
            found = png.read_deep_png(alone)
            with suppress(*DAMAGE):
                image.load()  # its notes may come after its pixels
            orientation = orientation_of(image)
        alpha = None if found.alpha is None else upright(found.alpha, orientation)
        return Deep(upright(found.values, orientation), alpha, significant=found.significant)
    try:
        return _by_pillow(data, max_pixels)
    except DecodeError:
        if (alone := png.pixels_alone(data)) == data:
            raise
    return _by_pillow(alone, max_pixels)  # refused for one of its notes


def _by_pillow(data: bytes, max_pixels: int) -> np.ndarray:
    with _opened(data, max_pixels) as image:
        return _eight_bit(image)


def _opened(data: bytes, max_pixels: int) -> Image.Image:
    with damage_told():
        image = Image.open(BytesIO(data), formats=FORMATS)
    check_size(*image.size, max_pixels)
    return image


def _eight_bit(image: Image.Image) -> np.ndarray:
    if image.mode not in _MODES_8_BIT:
        raise DecodeError(
            f"unsupported: {image.format} with pixels of mode {image.mode!r}; allowed are 1- and 8-bit grey, palette, "
            "RGB, CMYK and YCbCr, and unsigned 16-bit grey and RGB"
        )
    is_bmp, bottom_up = image.format == "BMP", image.format == "BMP" and bmp.is_bottom_up(image)
    with damage_told():
        image.load()
    if is_bmp:
        bmp.refuse_filled_up(image, bottom_up=bottom_up)
        image = bmp.opaque_if_empty(image)
    with damage_told():
        flat = _without_alpha(image)
    pixels, orientation = np.array(flat), orientation_of(image)
    return pixels if orientation == 1 else np.ascontiguousarray(upright(pixels, orientation))


def _without_alpha(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    colours = image.convert("RGBA")
    alpha = colours.getchannel("A")
    if alpha.getextrema()[1] == 0:
        raise DecodeError(NOT_TO_BE_SEEN)
    flat = Image.new("RGB", image.size)
    flat.paste(colours, mask=alpha)
    return flat


def orientation_of(image: Image.Image) -> int:
    """Read the orientation in the notes of a picture, 1 to 8; damaged notes leave it as it is."""
    with suppress(*DAMAGE):
        return int(image.getexif().get(_ORIENTATION, 1))
    return 1

"""TIFF: every layout of strips, tiles and planes, 1 to 16 bits, by tifffile and imagecodecs; what it shows by its tags.

Pillow and cv2 read planar, white-is-zero, CMYK and four samples of 16 bits as something else, without an error.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from patchead.archive.damage import check_size, damage_told
from patchead.archive.pixels import NOT_TO_BE_SEEN, Deep, ends_in_fill, filled_up, on_black, upright
from patchead.errors import DecodeError

if TYPE_CHECKING:
    from tifffile import TiffPage

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _RGB: 3, _PALETTE: 1, _CMYK: 4, _YCBCR: 3}
_NAMES = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB"}
_RAW = {32803: "a Bayer mosaic (CFA)", 34892: "linear raw"}
_SAMPLE_FORMATS = {2: "signed integer", 3: "floating-point", 5: "complex integer", 6: "complex"}
_JPEG_IN_TIFF = (6, 7)
_UNCOMPRESSED = 1
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_SAMPLES = 8
_INK_SET, _ORIENTATION = 332, 274


def is_tiff(data: bytes) -> bool:
    """Tell a TIFF or BigTIFF by its first bytes."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff(data: bytes, max_pixels: int) -> np.ndarray | Deep:
    """Read the first picture of a TIFF, upright: RGB uint8 (H, W, 3), or what has more than 8 bits.

    The fourth sample of RGB is alpha where ExtraSamples says so, and is dropped otherwise.

    Raises:
        DecodeError: damaged, cut off, too large, or a layout that is not read; the text names it.
    """
    from tifffile import TiffFile

    with damage_told("no readable TIFF directory in it: "):
        file = TiffFile(BytesIO(data))
        page = _first(file)
        width, height = int(page.imagewidth), int(page.imagelength)
    if width * height == 0:
        raise DecodeError(f"truncated: a TIFF directory that tells no size ({width}x{height})")
    check_size(width, height, max_pixels)
    _check_layout(page)
    _check_whole(page, len(data), max_pixels)
    with damage_told():
        samples = _by_pixel(page, page.asarray(maxworkers=1))
    if page.compression == _UNCOMPRESSED and (filled := ends_in_fill(samples)):
        raise DecodeError(filled_up(filled, height))
    return _picture(page, samples)


def _first(file: Any) -> TiffPage:
    page = file.pages.first
    if page.is_reduced and len(file.pages) > 1:
        return next((other for other in file.pages if not other.is_reduced), page)
    if page.is_reduced and page.subifds:  # a thumbnail, as a DNG has it
        return page.pages[0]
    return page


def _check_layout(page: TiffPage) -> None:
    photometric, samples = int(page.photometric), page.samplesperpixel
    if photometric in _RAW:
        raise DecodeError(f"unsupported: {_told(page)}: {_RAW[photometric]}, no picture yet; develop it to RGB or grey")
    if int(page.sampleformat) in _SAMPLE_FORMATS:
        kind = _SAMPLE_FORMATS[int(page.sampleformat)]
        raise DecodeError(
            f"unsupported: {_told(page)} of {kind} values, whose black and white nobody tells; allowed are unsigned 1- "
            "to 16-bit values: scale it to 8 or 16 bits"
        )
    if photometric not in _COLOURS or int(page.tags.valueof(_INK_SET, 1)) != 1:
        raise DecodeError(f"unsupported: {_told(page)}; allowed are grey, palette, RGB, CMYK and YCbCr")
    flat = isinstance(page.bitspersample, int) and page.imagedepth == 1
    if not flat or not 1 <= page.bitspersample <= 16 or (photometric == _YCBCR and page.bitspersample != 8):
        raise DecodeError(f"unsupported: {_told(page)}; allowed are flat pictures of 1 to 16 bits per sample")
    extra = samples - _COLOURS[photometric]
    if not 0 <= extra <= _MOST_SAMPLES or (
        photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and extra > 1 and _alpha_of(page) is None
    ):
        raise DecodeError(f"unsupported: {_told(page)} with {samples} samples per pixel, which no tag names")


def _told(page: TiffPage) -> str:
    """``16-bit CMYK TIFF, LZMA``, and what else is not ordinary."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    compression = getattr(page.compression, "name", str(page.compression))
    words = [f"{page.bitspersample}-bit {_NAMES.get(int(page.photometric), photometric)} TIFF"]
    words += [compression.replace("_", " ")] if page.compression != _UNCOMPRESSED else []
    words += ["planar"] if page.planarconfig == 2 and page.samplesperpixel > 1 else []
    return ", ".join(words)


def _check_whole(page: TiffPage, size: int, max_pixels: int) -> None:
    """Refuse a file that lacks strips or tiles, which tifffile takes for black ones, or that would fill the memory."""
    with damage_told():
        area = page.tilewidth * page.tilelength * page.tiledepth if page.is_tiled else page.imagewidth
        places, expected = list(zip(page.dataoffsets, page.databytecounts, strict=True)), math.prod(page.chunked)
        missing = sum(count <= 0 or offset <= 0 or offset + count > size for offset, count in places)
    missing += max(0, expected - len(places))
    if area > max(max_pixels, 1 << 20):
        raise DecodeError(f"unsupported: {_told(page)} with tiles of {page.tilewidth}x{page.tilelength} pixels")
    if missing:
        parts = "tiles" if page.is_tiled else "strips"
        raise DecodeError(f"truncated: {missing} of {expected} {parts} are not in the file")


def _by_pixel(page: TiffPage, samples: np.ndarray) -> np.ndarray:
    """(H, W, samples), of uint8 or uint16."""
    if page.axes.startswith("S"):
        samples = np.moveaxis(samples, 0, -1)
    if samples.ndim == 2:
        samples = samples[..., None]
    return samples.astype(np.uint8) if samples.dtype == bool else samples


def _alpha_of(page: TiffPage) -> tuple[int, bool] | None:
    """Index of the sample that is alpha, and whether the colours have been multiplied by it; None without."""
    colours = _COLOURS[int(page.photometric)]
    for place, meaning in enumerate(page.extrasamples):
        if int(meaning) in (_ASSOCIATED, _UNASSOCIATED) and colours + place < page.samplesperpixel:
            return colours + place, int(meaning) == _ASSOCIATED
    return None


def _picture(page: TiffPage, samples: np.ndarray) -> np.ndarray | Deep:
    photometric, bits = int(page.photometric), page.bitspersample
    orientation = int(page.tags.valueof(_ORIENTATION, 1))
    white, alpha = (1 << bits) - 1, None
    if (place := _alpha_of(page)) is not None:
        alpha = samples[..., place[0]]
        if not alpha.any():
            raise DecodeError(NOT_TO_BE_SEEN)
        # On black, colours that alpha multiplies are what they are.
        alpha = None if place[1] else upright(alpha, orientation) / np.float32(white)
    colours = upright(samples[..., : _COLOURS[photometric]], orientation)
    if photometric == _PALETTE:
        colours = _palette(page)[colours[..., 0]]
    elif photometric == _CMYK:
        colours = _cmyk(colours, white)
    elif photometric == _YCBCR and page.compression not in _JPEG_IN_TIFF:
        colours = np.array(Image.fromarray(np.ascontiguousarray(colours), "YCbCr").convert("RGB"))
    if photometric == _CMYK or colours.dtype == np.uint8:
        eight = colours if photometric in (_PALETTE, _CMYK) else _eight_bit(colours, white, photometric)
        eight = eight if alpha is None else on_black(eight, alpha)
        return np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else np.ascontiguousarray(eight)
    return Deep(colours, alpha, white if bits < 16 else None, inverted=photometric == _WHITE_IS_ZERO)


def _eight_bit(values: np.ndarray, white: int, photometric: int) -> np.ndarray:
    if white == 255:
        return 255 - values if photometric == _WHITE_IS_ZERO else values
    steps = np.minimum(np.arange(256) * (255 / white) + 0.5, 255).astype(np.uint8)
    return (255 - steps if photometric == _WHITE_IS_ZERO else steps)[values]


def _palette(page: TiffPage) -> np.ndarray:
    """uint8 (entries, 3). Some writers fill its 16-bit entries with 8-bit values."""
    colours = page.colormap
    if colours is None:
        raise DecodeError("damaged: a palette TIFF without a colour map")
    table = np.asarray(colours).T
    entries = max(1 << page.bitspersample, len(table))
    full = np.zeros((entries, 3), np.uint8)
    full[: len(table)] = table if table.max() < 256 else table >> 8
    return full


def _cmyk(inks: np.ndarray, white: int) -> np.ndarray:
    """RGB uint8 of inks (H, W, 4), from 0 to ``white``: (1 - ink) (1 - black)."""
    light = 255 * (1 - inks[..., :3] / np.float32(white)) * (1 - inks[..., 3:] / np.float32(white))
    return (light + np.float32(0.5)).astype(np.uint8)

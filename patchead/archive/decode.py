"""Encoded bytes to 8-bit RGB, and RGB to the square the encoder takes.

Pillow first: it reads a header without decoding (so the pixel limit acts in time), knows palettes, EXIF and CMYK,
and refuses a picture that is cut off, where cv2.imread returns it filled up with grey. 16-bit pictures go through
cv2: of 16-bit colour Pillow keeps only the upper 8 bits.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageOps

from patchead.errors import DecodeError, SettingsError, bad_argument

# Pillow's own limit is one for the whole process and cannot be a setting; `decode` has its own.
Image.MAX_IMAGE_PIXELS = None

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
FITS = ("squash", "crop", "pad")
_MODES_8_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_BIT_DEPTHS = (8, 10, 12, 14, 16)
# What Pillow and cv2 raise for damaged files; found by fuzzing.
_DAMAGE = (
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


def decode(data: bytes, *, max_pixels: int = 100_000_000, bit_depth: Literal["auto"] | int = "auto") -> np.ndarray:
    """Decode an image to RGB uint8 (H, W, 3) (method.md §1): upright, palette and alpha resolved, alpha on black.

    Of several frames the first. 16-bit values are scaled by 255 / (2^bits - 1); bits is ``bit_depth`` or, for
    auto, the PNG's sBIT, else the smallest of 8, 10, 12, 14, 16 that holds the largest value.

    Raises:
        DecodeError: not an image, damaged, larger than ``max_pixels``, or pixels that are neither 8-bit nor
            unsigned 16-bit.
    """
    if not data:
        raise DecodeError("empty file")
    file = BytesIO(data)
    with _damage_told():
        opened = Image.open(file, formats=FORMATS)
    with opened as image:
        _check_size(image, max_pixels)
        picture = _picture_16_bit(data, image, bit_depth) if _is_16_bit(image) else _picture_8_bit(image)
    return np.array(picture)


def fit(image: np.ndarray, size: int, mode: str) -> np.ndarray:
    """Resize RGB uint8 (H, W, 3) to (size, size, 3), bicubic with antialias (method.md §1).

    squash: both sides to ``size``; crop: the centre square; pad: the longer side to ``size``, black around it.

    Raises:
        SettingsError: ``mode`` is none of the three.
    """
    if mode not in FITS:
        raise SettingsError(bad_argument("mode", mode, f"one of {', '.join(FITS)}"))
    picture = Image.fromarray(image)
    width, height = picture.size
    if mode == "squash":
        return np.array(picture.resize((size, size), Image.Resampling.BICUBIC))
    if mode == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
    scale = size / max(width, height)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = Image.new("RGB", (size, size))
    place = ((size - small[0]) // 2, (size - small[1]) // 2)
    square.paste(picture.resize(small, Image.Resampling.BICUBIC), place)
    return np.array(square)


@contextmanager
def _damage_told() -> Iterator[None]:
    """Around calls of Pillow and cv2 alone, whose errors say that a file is damaged: a mistake of ours must not."""
    try:
        yield
    except Image.UnidentifiedImageError as exc:
        raise DecodeError("not an image: no readable header of a png, jpeg, bmp, tiff or webp") from exc
    except _DAMAGE as exc:
        what = "truncated" if "truncated" in str(exc).lower() else "damaged"
        raise DecodeError(f"{what}: {exc or type(exc).__name__}") from exc


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise DecodeError(f"too many pixels: {width}x{height} > `max_pixels` {max_pixels}")
    if width * height == 0:
        raise DecodeError(f"no pixels: {width}x{height}")


def _raw_modes(image: Image.Image) -> list[str]:
    # A tile's last part is the raw mode, or a tuple that starts with it.
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [str(raw[0] if isinstance(raw, tuple) and raw else raw) for raw in arguments]


def _is_16_bit(image: Image.Image) -> bool:
    """Whether each channel has 16 bits; a bitmap's BGR;16 has them for all three."""
    return image.mode.startswith("I;16") or (
        image.mode in _MODES_8_BIT and any(";16" in raw and raw != "BGR;16" for raw in _raw_modes(image))
    )


def _picture_8_bit(image: Image.Image) -> Image.Image:
    if image.mode not in _MODES_8_BIT:
        raise DecodeError(
            f"pixels of mode {image.mode!r} cannot be used; allowed are 1- and 8-bit grey, palette, RGB, CMYK and "
            "YCbCr, and unsigned 16-bit grey and RGB"
        )
    with _damage_told():
        image.load()
        _turn_upright(image)  # after loading: Pillow turns a TIFF itself then, and forgets its orientation
        if not image.has_transparency_data:
            return image.convert("RGB")
        colours = image.convert("RGBA")
        flat = Image.new("RGB", image.size)
        flat.paste(colours, mask=colours.getchannel("A"))
        return flat


def _picture_16_bit(data: bytes, image: Image.Image, bit_depth: Literal["auto"] | int) -> Image.Image:
    significant, encoded = _significant_bits(data), np.frombuffer(data, np.uint8)
    with _damage_told():
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise DecodeError("damaged or truncated 16-bit image")
    channels = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = channels[..., :3] if channels.shape[2] >= 3 else channels[..., :1]
    bits = bit_depth if isinstance(bit_depth, int) else _bits(int(colours.max()), significant)
    steps = np.arange(1 << 16) * (255 / ((1 << bits) - 1))
    scaled = np.minimum(steps + 0.5, 255).astype(np.uint8)[colours[..., ::-1]]
    if channels.shape[2] in (2, 4):
        scaled = (scaled * (channels[..., -1:] / np.float32(65535)) + np.float32(0.5)).astype(np.uint8)
    rgb = np.repeat(scaled, 3, axis=2) if scaled.shape[2] == 1 else scaled
    picture = Image.fromarray(np.ascontiguousarray(rgb))
    if image.format != "TIFF":  # which cv2 turns upright itself, whatever the flags, and no other format
        with suppress(*_DAMAGE):
            image.load()  # a PNG's notes may come after its pixels
        picture.info = image.info
        _turn_upright(picture)
    return picture


def _bits(largest: int, significant: int | None) -> int:
    # A writer that follows the PNG standard shifts 12-bit values up to 16; then the largest is beyond 12 bits.
    if significant is not None:
        return significant if largest < 1 << significant else 16
    return next(bits for bits in _BIT_DEPTHS if largest < 1 << bits)


def _significant_bits(data: bytes) -> int | None:
    """The largest colour entry of a PNG's sBIT chunk; None for other formats and PNGs without.

    Raises:
        DecodeError: a chunk is longer than the file; cv2 would allocate its length first, up to 4 GiB.
    """
    bits, place = None, 8
    name = b""
    while data.startswith(b"\x89PNG") and name != b"IEND" and place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if place + length + 12 > len(data):
            raise DecodeError(f"truncated: a PNG chunk announces {length} bytes, more than the file has")
        if name == b"sBIT":
            bits = max(data[place + 8 : place + 8 + min(length, 3 if length >= 3 else 1)], default=0)
        place += length + 12
    return bits if bits is not None and 1 <= bits <= 16 else None


def _turn_upright(picture: Image.Image) -> None:
    """Turn a loaded picture, in place, as the EXIF in its ``info`` says."""
    # Damaged notes leave the picture as it is, and it is turned before they are written again.
    with suppress(*_DAMAGE):
        ImageOps.exif_transpose(picture, in_place=True)

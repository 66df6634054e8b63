"""Images that a caller gives instead of an archive: paths, encoded bytes, or pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from patchead.archive.decode import decode
from patchead.errors import DecodeError
from patchead.hashing import content_hash

ImageLike = str | Path | bytes | np.ndarray
"""A path, encoded bytes, or pixels uint8 RGB (H, W, 3) or grey (H, W)."""


@dataclass(frozen=True)
class Reading:
    """Say how images are decoded; see `archive.decode.decode`."""

    max_pixels: int = 100_000_000
    bit_depth: Literal["auto"] | int = "auto"


DEFAULT_READING = Reading()


def name_of(image: ImageLike, index: int, what: str = "image") -> str:
    """Say what an error calls an image: its path, else ``what`` and its place in the list."""
    return str(image) if isinstance(image, (str, Path)) else f"{what} {index}"


def pixels_of(image: ImageLike, index: int, reading: Reading = DEFAULT_READING, what: str = "image") -> np.ndarray:
    """Read an image as uint8 RGB (H, W, 3); ``index`` and ``what`` name it in an error.

    Raises:
        DecodeError: it cannot be decoded.
        OSError: its path cannot be read.
        ValueError: pixels of another form.

    Examples:
        >>> pixels_of(np.zeros((40, 60), np.uint8), 0).shape
        (40, 60, 3)
    """
    name = name_of(image, index, what)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
            raise ValueError(f"{name} must be uint8 RGB (H, W, 3) or grey (H, W); got {image.dtype} {image.shape}")
        return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    try:
        return decode(data, max_pixels=reading.max_pixels, bit_depth=reading.bit_depth)
    except DecodeError as exc:
        raise DecodeError(f"{name}: {exc}") from exc


def pixels_and_hash(image: ImageLike, index: int, reading: Reading, what: str = "image") -> tuple[np.ndarray, str]:
    """Read an image as `pixels_of`, and hash its pixels: the same photo is known however it is given."""
    rgb = pixels_of(image, index, reading, what)
    return rgb, content_hash(str(rgb.shape).encode() + rgb.tobytes())

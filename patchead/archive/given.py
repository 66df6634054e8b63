"""Images that a caller gives instead of an archive: paths, encoded bytes, or pixels."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from patchead.archive.bit_depth import HEAD_BYTES, largest_of, may_need_scale, settled
from patchead.archive.blocks import blocks_of
from patchead.archive.decode import decode
from patchead.archive.listing import formats_of
from patchead.errors import ArchiveError, DecodeError
from patchead.hashing import content_hash

ImageLike = str | Path | bytes | np.ndarray
"""A path, encoded bytes, or pixels uint8 RGB (H, W, 3) or grey (H, W)."""


@dataclass(frozen=True)
class Reading:
    """Say how images are decoded; see `archive.decode.decode`."""

    max_pixels: int = 100_000_000
    bit_depth: Literal["auto"] | int = "auto"


DEFAULT_READING = Reading()


def listed(images: Sequence[ImageLike] | str | Path) -> Sequence[ImageLike]:
    """List the images of a folder, with those in its folders, or of a pattern such as ``photos/*.png``, by name.

    A list stays as it is.

    Raises:
        ArchiveError: there is no such folder, or no image in it or of the pattern.
    """
    if not isinstance(images, (str, Path)):
        return images
    given = Path(images).expanduser()
    if given.is_dir():
        paths = (path for path in given.rglob("*") if path.is_file())
    else:
        paths = (Path(path) for path in glob.iglob(str(given), recursive=True))  # noqa: PTH207 - a whole pattern
    names = sorted(map(str, paths))
    formats = formats_of(pa.array(names, pa.string())).to_pylist()
    found: list[ImageLike] = [name for name, format in zip(names, formats, strict=True) if format == "files"]
    if not found:
        raise ArchiveError(f"no image in {images}: give a folder of photos, a pattern such as photos/*.png, or a list.")
    return found


def settled_reading(images: Sequence[ImageLike], reading: Reading = DEFAULT_READING) -> Reading:
    """Settle one bit depth for all images that are compared, where ``reading`` leaves it open (method.md §1.1).

    Of images that have not 16 bits only the first bytes are read.

    Raises:
        OSError: a path cannot be read.

    Examples:
        >>> settled_reading([np.zeros((40, 60), np.uint8)]).bit_depth
        'auto'
    """
    if reading.bit_depth != "auto":
        return reading
    asked = [image for image in images if not isinstance(image, np.ndarray) and _may_need_scale(image)]
    found = (largest_of(_bytes_of(image), reading.max_pixels) for image in asked)
    return replace(reading, bit_depth=settled(found) or "auto")


def _may_need_scale(image: str | Path | bytes) -> bool:
    if isinstance(image, bytes):
        return may_need_scale(image[:HEAD_BYTES])
    with Path(image).open("rb") as file:
        return may_need_scale(file.read(HEAD_BYTES))


def _bytes_of(image: str | Path | bytes) -> bytes:
    return image if isinstance(image, bytes) else Path(image).read_bytes()


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
    return _decoded(_bytes_of(image), name, reading)


def _decoded(data: bytes, name: str, reading: Reading) -> np.ndarray:
    try:
        return decode(data, max_pixels=reading.max_pixels, bit_depth=reading.bit_depth)
    except DecodeError as exc:
        raise DecodeError(f"{name}: {exc}") from exc


class Given(NamedTuple):
    """Hold an image as it is compared: RGB uint8 (H, W, 3), a hash of these pixels, and its `archive.blocks`."""

    pixels: np.ndarray
    content: str
    blocks: np.ndarray


def read_given(image: ImageLike, index: int, reading: Reading, what: str = "image") -> Given:
    """Read an image as `pixels_of`; by the hash of its pixels the same photo is known however it is given."""
    data = None if isinstance(image, np.ndarray) else _bytes_of(image)
    rgb = pixels_of(image, index, what=what) if data is None else _decoded(data, name_of(image, index, what), reading)
    return Given(rgb, content_hash(str(rgb.shape).encode() + rgb.tobytes()), blocks_of(rgb, data))


def read_or_fault(image: ImageLike, index: int, reading: Reading) -> Given | str:
    """Read an image as `read_given`; of one that cannot be decoded, say why."""
    try:
        return read_given(image, index, reading)
    except DecodeError as exc:
        return str(exc).removeprefix(f"{name_of(image, index)}: ")


def first_of(images: Sequence[ImageLike], reading: Reading) -> np.ndarray:
    """Read the first image that can be decoded, as `pixels_of`.

    Raises:
        DecodeError: none can be.
    """
    for index, image in enumerate(images):
        try:
            return pixels_of(image, index, reading)
        except DecodeError:
            if index == len(images) - 1:
                raise
    raise ValueError("images must hold at least one; got none")

"""Originals that are read a second time, to draw on or to cut out of: only where they are still what was scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from patchead.archive.decode import decode
from patchead.archive.reduced import decode_at_least
from patchead.errors import ArchiveError
from patchead.hashing import content_hash
from patchead.nightly.decode import DecodeSettings, encoded
from patchead.nightly.units import PLACE

Image = Mapping[str, Any]
"""A row of the manifest with its receipt, in plain values: `units.PLACE`, content_hash, and maybe bit_depth."""


def shard_of(image: Image) -> tuple[str, str]:
    """Name what holds an image: its shard, or its format where it is a file of its own."""
    return image["format"], image["uri"] if image["key"] else ""


def originals(images: Sequence[Image], settings: DecodeSettings) -> Iterator[tuple[int, bytes | ArchiveError]]:
    """Read the encoded bytes of images, each with its place among them; an error where one cannot be read.

    Args:
        images: those of one shard follow each other, as each shard is opened once.
        settings: where and how they are read.
    """
    for _, part in groupby(enumerate(images), key=lambda one: shard_of(one[1])):
        numbers, together = zip(*part, strict=True)
        places: dict[str, list[Any]] = {name: [image[name] for image in together] for name in PLACE}
        places["etag"] = [None] * len(together)  # each image's own hash says whether it is the same
        for number, data in encoded(places, settings):
            yield numbers[number], data


def require_same(image: Image, data: bytes | ArchiveError) -> bytes:
    """Give the bytes that were read of an image.

    Raises:
        ArchiveError: it could not be read, or has another content than when it was scored.
    """
    if isinstance(data, ArchiveError):
        raise data
    if content_hash(data) != image["content_hash"]:
        raise ArchiveError(f"{image['uri']} has another content than when it was scored")
    return data


def decoded(image: Image, data: bytes, settings: DecodeSettings, *, side: int | None = None) -> np.ndarray:
    """Decode an image as it was when it was scored: uint8 RGB (H, W, 3).

    Args:
        image, data, settings: what it is and how it is read.
        side: pixels of the longer side that are enough (`reduced.decode_at_least`); default: the whole.

    Raises:
        DecodeError: it cannot be decoded.
    """
    limits: dict[str, Any] = {"max_pixels": settings.max_pixels, **settings.scaling(image.get("bit_depth"))._asdict()}
    return decode(data, **limits) if side is None else decode_at_least(data, side, **limits)

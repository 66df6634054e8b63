"""Heatmap files: where each one is, and how it is written."""

from __future__ import annotations

import datetime as dt
from typing import IO, Literal
from urllib.parse import quote

import numpy as np
from PIL import Image

from patchead.errors import LakeError, bad_value
from patchead.files import Folder
from patchead.hashing import text_digest
from patchead.storage import Storage, join

Format = Literal["png", "webp"]

_UNKNOWN = "__HIVE_DEFAULT_PARTITION__"


def heatmap_uri(
    lake_uri: str, night: dt.date | None, product: str | None, run_id: str, image_id: str, format: Format
) -> str:
    """Name the file: ``heatmaps/night=…/product=…/<run_id>/<hash of the image id>.<format>``; product URL-quoted."""
    name = text_digest(image_id)
    keys = (f"night={night or _UNKNOWN}", f"product={quote(product, safe='') if product else _UNKNOWN}")
    return join(lake_uri, "heatmaps", *keys, run_id, f"{name}.{format}")


def write_image(uri: str, storage: Storage, rgb: np.ndarray, format: Format) -> None:
    """Write one picture.

    Args:
        uri: from :func:`heatmap_uri`.
        rgb: uint8 (H, W, 3).
        format: of the file.

    Raises:
        LakeError: the array is no picture, or the file cannot be written.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or not rgb.size:
        raise LakeError(bad_value("a heatmap", f"{rgb.dtype} {rgb.shape}", "uint8 of shape (height, width, 3)"))
    folder, _, name = uri.rpartition("/")
    Folder(folder, storage).write(name, lambda sink: save_picture(rgb, sink, format))


def save_picture(rgb: np.ndarray, sink: IO[bytes], format: Format) -> None:
    """Encode uint8 (H, W, 3) as the file of a heatmap."""
    # Level 3 takes half the time of PNG's default and makes the file a fifth larger.
    options = {"compress_level": 3} if format == "png" else {"quality": 85}
    Image.fromarray(np.ascontiguousarray(rgb)).save(sink, format.upper(), **options)

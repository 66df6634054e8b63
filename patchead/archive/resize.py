"""Bicubic resizing with antialias, as Pillow does it with a reducing gap; large pictures by torch, in half the time.

Small pictures are the same pixel for pixel. Of large ones every pixel is resampled: they are within one grey level of
what Pillow makes of them without a gap, very narrow ones within two.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from PIL import Image

from patchead.archive.room import with_fourth_byte

LARGE = 4_000_000
"""Pixels from which torch resizes. Below, a process that decodes need not import it, which takes 2 s and 300 MB."""
SHRINK = 2
"""Times the wanted side that a picture has at least before it is resized as it should be; see `resized`."""
_SUPPORT = 1.5  # pixels of the result by which a cubic reaches beyond its own, before and behind
_STRIP = 1 << 19  # pixels that are brought into Pillow's layout at a time: they stay in the cache


def resized(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> np.ndarray:
    """Resize RGB uint8 (H, W, 3) to ``size``, bicubic with antialias: uint8 (height, width, 3).

    Of `LARGE` pictures every pixel is resampled, where they lie if that is a `room.Room`. A smaller one of more than
    twice what it becomes is first reduced by whole numbers, each pixel the mean of a box, to no less than `SHRINK`
    times that. Pillow does the same with ``reducing_gap``, and spends most of the time on copying the whole picture.

    Args:
        image: the picture.
        size: width and height in pixels.
        box: left, top, right and bottom of what becomes the result, of a large picture in whole pixels; default: all.
    """
    height, width = image.shape[:2]
    left, top, right, bottom = box or (0, 0, width, height)
    if (right - left) * (bottom - top) >= LARGE:
        return _by_torch(image[int(top) : int(bottom), int(left) : int(right)], size)
    across, down = (
        int(length / of / SHRINK) or 1 for length, of in zip((right - left, bottom - top), size, strict=True)
    )
    if across == down == 1:
        return np.array(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=box))
    x, columns = _reach(left, right, size[0], width)
    y, rows = _reach(top, bottom, size[1], height)
    small = _means(image[y:rows, x:columns], across, down)
    box = (left - x) / across, (top - y) / down, (right - x) / across, (bottom - y) / down
    return np.array(Image.fromarray(small).resize(size, Image.Resampling.BICUBIC, box=box))


def _by_torch(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import torch
    from torch.nn.functional import interpolate

    pixels = with_fourth_byte(image)
    if pixels is None:  # torch takes no pixels that it must not write to, and none that run backwards
        pixels = np.require(image, requirements=["C", "W"])
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = interpolate(values, (size[1], size[0]), mode="bicubic", antialias=True)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy()[..., :3])


def _reach(start: float, stop: float, size: int, whole: int) -> tuple[int, int]:
    """Which pixels of a side a stretch needs as it becomes ``size`` pixels: the first, and the one after the last."""
    support = _SUPPORT * (stop - start) / size
    return max(0, int(start - support)), min(whole, ceil(stop + support))


def _means(image: np.ndarray, across: int, down: int) -> np.ndarray:
    """Means of boxes: uint8 (ceil(H / down), ceil(W / across), 3); those at the end may have fewer pixels."""
    height, width = image.shape[:2]
    out = np.empty((-(-height // down), -(-width // across), 3), np.uint8)
    strip = max(1, _STRIP // (width * down))
    for start in range(0, len(out), strip):
        part = Image.fromarray(image[start * down : (start + strip) * down])
        out[start : start + strip] = np.asarray(part.reduce((across, down)))
    return out

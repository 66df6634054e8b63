"""Blocks of a picture as JPEG saves them: what its losses leave of them tells one frame from two that are alike.

A JPEG keeps 64 coefficients of each 8 x 8 block, each rounded to a multiple of its step. However strong the losses, two
files of one frame differ in each by no more than half of both steps; different frames differ by more somewhere.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from patchead.archive import jpeg

BLOCKS = 64
"""Blocks of a picture that are looked at, at most."""
_LOW = [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4]  # the first of a zigzag, row by row
_PARTS = 8  # of a grey level, in which coefficients are kept
_LOW_COSINES = np.stack([cv2.dct(one.reshape(8, 8)).reshape(64)[_LOW] for one in np.eye(64, dtype=np.float32)]) * _PARTS
_UNKNOWN = np.iinfo(np.int16).min  # of a block that is black or white somewhere, where JPEG's values were cut
_SLACK = 2.5  # grey levels in a coefficient by which decoded pixels are rounded
_LEAST = 8 * len(_LOW)  # coefficients to judge by
_HEAD = 2 + len(_LOW)
SIZE = _HEAD + BLOCKS * len(_LOW)
"""Values that are kept of a picture."""
NOTHING = np.zeros(SIZE, np.int16)
"""Stands for a picture of which no block is known."""


def blocks_of(pixels: np.ndarray, data: bytes | None = None) -> np.ndarray:
    """Look at some blocks of an image: its size, the steps of its file, and the low coefficients of its brightness.

    Args:
        pixels: RGB uint8 (H, W, 3), as decoded.
        data: the file; None where there is none.

    Returns:
        int16 (`SIZE`,), at the same places for all images of a size; `NOTHING` for one that has no block.
    """
    height, width = pixels.shape[:2]
    down, across = height // 8, width // 8
    if not down * across:
        return NOTHING
    found = NOTHING.copy()
    found[:2] = np.array([height, width]) % (1 << 15)
    found[2:_HEAD] = _steps(data)
    rows, columns = np.divmod(_places(down * across), across)
    cells = pixels[: 8 * down, : 8 * across].reshape(down, 8, across, 8, 3)[rows, :, columns]
    grey = cv2.cvtColor(cells.reshape(-1, 8, 3), cv2.COLOR_RGB2GRAY).reshape(-1, 8, 8)
    low = np.round(grey.reshape(-1, 64).astype(np.float32) @ _LOW_COSINES).astype(np.int16)
    cut = cells.reshape(len(cells), -1)
    low[(cut.min(axis=1) <= 1) | (cut.max(axis=1) >= 254)] = _UNKNOWN
    found[_HEAD : _HEAD + low.size] = low.reshape(-1)
    return found


def steps_in(blocks: np.ndarray) -> np.ndarray:
    """Cut out the steps of the files: int16 (n, SIZE) to (n, S), equal where they were saved alike."""
    return blocks[:, 2:_HEAD]


def beyond_losses(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Count what cannot be the losses of one frame: the share of coefficients that differ by more, float64 (n,).

    1 for pictures of different sizes, and where too few blocks are known.

    Args:
        one: int16 (`SIZE`,), of `blocks_of`.
        others: int16 (n, `SIZE`).
    """
    mine, theirs = one[_HEAD:].astype(np.float64), others[:, _HEAD:].astype(np.float64)
    step = (one[2:_HEAD] + others[:, 2:_HEAD].astype(np.float64)) / 2 + _SLACK
    beyond = np.abs(mine - theirs) > np.tile(step, BLOCKS) * _PARTS
    known = (mine != _UNKNOWN) & (theirs != _UNKNOWN) & (np.arange(mine.size) < _coefficients(one))
    count = known.sum(axis=1)
    share = (beyond & known).sum(axis=1) / np.maximum(count, 1)
    comparable = (others[:, :2] == one[:2]).all(axis=1) & (count >= _LEAST)
    return np.where(comparable, share, 1.0)


@lru_cache(maxsize=64)
def _places(count: int) -> np.ndarray:
    """Which of ``count`` blocks are looked at."""
    return np.random.default_rng(0).choice(count, min(BLOCKS, count), replace=False)


def _coefficients(blocks: np.ndarray) -> int:
    height, width = blocks[:2].astype(int) % (1 << 15)
    return min(BLOCKS, (height // 8) * (width // 8)) * len(_LOW)


def _steps(data: bytes | None) -> np.ndarray:
    """Steps of the coefficients `_LOW`, int16; 1 where a file says nothing of them."""
    table = jpeg.steps_of(data) if data is not None and jpeg.is_jpeg(data) else None
    return np.minimum(np.ones(64, np.int16) if table is None else table, 1 << 14)[_LOW].astype(np.int16)

"""From the samples that a file holds to 8-bit RGB: bit depth, alpha, orientation (method.md §1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from patchead.errors import DecodeError

FILL_ROWS = 5
"""Rows of one value at the end of a file that may mean that it was cut off."""
_BACKGROUND = 0.1
_ROWS = 64
_HOT, _HOT_ONE_IN, _HOT_AT_MOST_ONE_IN = 8, 10_000, 500
BIT_DEPTHS = (8, 10, 12, 14, 16)
NOT_TO_BE_SEEN = (
    "nothing can be seen: alpha is 0 (transparent) everywhere, and the picture would be black. Save it without alpha"
)


@dataclass(frozen=True)
class Deep:
    """Hold a picture of more than 8 bits as it is stored, upright."""

    values: np.ndarray
    """uint16 (H, W, 1 or 3): grey or RGB."""
    alpha: np.ndarray | None = None
    """float32 (H, W), from 0 to 1; colours that alpha multiplies already have none."""
    white: int | None = None
    """The largest value that the header announces; None where it does not tell, as in 12 bits stored in 16."""
    significant: int | None = None
    """What a PNG's sBIT says of the bits in use; a writer may have shifted them up to 16."""
    inverted: bool = False
    """Whether 0 is white."""

    @property
    def largest(self) -> int:
        """Find the largest value that more than a few values reach: hot pixels say nothing of the bits in use.

        A few are up to 8, or 1 in 10,000, but no more than 1 in 500.
        """
        few = min(max(_HOT, self.values.size // _HOT_ONE_IN), self.values.size // _HOT_AT_MOST_ONE_IN)
        top = int(self.values.max())
        if not few or top < 1 << BIT_DEPTHS[0]:
            return top
        counts = np.zeros(top + 1, np.int64)
        for start in range(0, len(self.values), _ROWS):  # in stripes: numpy counts whole numbers of 8 bytes
            counts += np.bincount(self.values[start : start + _ROWS].reshape(-1), minlength=top + 1)
        return top - int(np.searchsorted(np.cumsum(counts[::-1]), few, side="right"))


def bits_in_use(largest: int, significant: int | None = None) -> int:
    """Tell how many bits hold ``largest``: what sBIT says where it can be, else 8, 10, 12, 14 or 16.

    A writer that follows the PNG standard shifts 12-bit values up to 16; then the largest is beyond 12 bits.
    """
    if significant is not None:
        return significant if largest < 1 << significant else 16
    return next(bits for bits in BIT_DEPTHS if largest < 1 << bits)


def scaled(deep: Deep, bit_depth: Literal["auto"] | int | None, *, clip: bool = True) -> np.ndarray:
    """Scale to RGB uint8 (H, W, 3) by 255 / (2^bits - 1) (method.md §1).

    ``bit_depth`` counts where the header announces no largest value; auto is `bits_in_use` of this picture alone. A
    larger value is white, or without ``clip`` an error where it is more than hot pixels, see `Deep.largest`.

    Raises:
        DecodeError: ``bit_depth`` is None; without ``clip``, a value is larger than ``bit_depth`` bits hold.
    """
    if deep.white is not None:
        white = deep.white
    elif isinstance(bit_depth, int):
        white = (1 << bit_depth) - 1
        if not clip and deep.values.max() > white and (largest := deep.largest) > white:
            raise DecodeError(
                f"its largest value {largest} is above the {bit_depth} bits that its group was seen to use, and "
                "another scale would be another picture; set `bit_depth`, where larger values are white"
            )
    elif bit_depth is None:
        raise DecodeError(
            "a 16-bit image in a group of others: how many of its bits are used was told by none that was looked at; "
            "set `bit_depth`"
        )
    else:
        white = (1 << bits_in_use(deep.largest, deep.significant)) - 1
    steps = np.minimum(np.arange(1 << 16) * (255 / white) + 0.5, 255).astype(np.uint8)
    grey = (255 - steps if deep.inverted else steps)[deep.values]
    if deep.alpha is not None:
        grey = on_black(grey, deep.alpha)
    return np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else np.ascontiguousarray(grey)


def on_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay uint8 (H, W, C) with straight ``alpha``, float32 (H, W) from 0 to 1, on black, in place where it can be.

    Raises:
        DecodeError: alpha is zero everywhere.
    """
    if not alpha.any():
        raise DecodeError(NOT_TO_BE_SEEN)
    out = colours if colours.flags.writeable else colours.copy()
    for start in range(0, len(out), _ROWS):  # in stripes: as float32 the whole would take four times its memory
        stripe = slice(start, start + _ROWS)
        out[stripe] = out[stripe] * alpha[stripe, :, None] + np.float32(0.5)
    return out


def upright(pixels: np.ndarray, orientation: int | None) -> np.ndarray:
    """Turn an array (H, W, …) as the orientation tag of EXIF and TIFF says (1 to 8; others leave it as it is)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def ends_in_fill(rows: np.ndarray) -> int:
    """Count the rows, in the order of the file, that a cut-off file was filled up with; 0 where it was not.

    At least 5 last rows of one value, after a row that has hardly any of it, in a picture that does not begin with it:
    a dark background, a frame or a letterbox are none.

    Args:
        rows: (H, W, …) as they are stored, first row first.
    """
    flat = rows.reshape(len(rows), -1)
    fill = flat[-1, -1]
    if len(flat) <= FILL_ROWS or (flat[-FILL_ROWS:] != fill).any():
        return 0
    last = int(np.flatnonzero((flat != fill).any(axis=1)).max(initial=-1))
    if last < 1 or (flat[0] == fill).mean() > _BACKGROUND or (flat[last - 1] == fill).mean() > _BACKGROUND:
        return 0
    return len(flat) - 1 - last


def filled_up(filled: int, height: int) -> str:
    """Say of a picture what `ends_in_fill` has found."""
    return (
        f"truncated: cut off and filled up, as {filled} of {height} rows, the last of the file, hold nothing but one "
        "value. If they are part of the picture, save it as PNG"
    )

"""Photos of solar cells (elpv-dataset) in contiguous, disjoint splits with a stated rate of defects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from demo_archive import elpv_cells, elpv_folder

from patchead.archive.decode import decode, fit

PRODUCTS = ("mono", "poly")
GOOD = 180
#: Per cent of defects, as named everywhere, and the number of defective cells with the 180 good ones.
RATES = {5: 9, 10: 20, 20: 45}
#: The splits of the published tables, and the further ones on which settings are chosen (poly alone has the cells).
SPLITS = (0, 1, 2)
CHOOSING = {"mono": (0, 1, 2), "poly": (3, 4)}
_STRIDE = 3


@dataclass(frozen=True)
class Split:
    """Cells of one split, by file name, in file order: ``good`` (180,) and ``defective`` (45,).

    A lower rate takes the first of the defective ones: 9 of the 45, or 20.
    """

    product: str
    number: int
    good: tuple[str, ...]
    defective: tuple[str, ...]

    def names(self, rate: int = max(RATES)) -> tuple[str, ...]:
        """The good cells, then the defective ones of this rate."""
        return self.good + self.defective[: RATES[rate]]

    def truth(self, rate: int = max(RATES)) -> np.ndarray:
        """bool, True where the cell of `names` is defective."""
        return np.arange(GOOD + RATES[rate]) >= GOOD


def split(product: str, number: int) -> Split:
    """The ``number``-th block of 180 good cells, with defective ones that no other split has.

    Splits 0, 1, 2: every third of the first 60 defective cells from offset ``number`` (20 of them, 10 %); of the
    first 27 (9, 5 %); of the first 135 (45, 20 %). Splits from 3 on take theirs alike after those 135.

    Raises:
        ValueError: the product has not enough cells.
    """
    good, bad = elpv_cells(product, 0.0), elpv_cells(product, 1.0)
    turn, offset = divmod(number, _STRIDE)
    start = turn * _STRIDE * max(RATES.values()) + offset
    chosen = Split(
        product,
        number,
        good[number * GOOD : (number + 1) * GOOD],
        bad[start::_STRIDE][: max(RATES.values())],
    )
    if len(chosen.names()) < GOOD + max(RATES.values()):
        raise ValueError(f"{product} has {len(good)} good and {len(bad)} defective cells, too few for split {number}")
    return chosen


def photos(names: tuple[str, ...], size: int) -> np.ndarray:
    """uint8 (N, size, size, 3) RGB, decoded and resized as the nightly job does it."""
    return np.stack([fit(photo(name), size, "squash") for name in names])


def photo(name: str) -> np.ndarray:
    """uint8 (300, 300, 3) RGB."""
    return decode((elpv_folder() / name).read_bytes())

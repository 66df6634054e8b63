"""Lots of photos, nights drawn from them at a stated rate of defects, and the distances of a whole lot, made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from demo_archive import elpv_cells
from planted import KINDS

from patchead.archive.decode import fit
from studies.cells import PRODUCTS
from studies.defects import crops
from studies.features import DINO, Features, embed_pixels, shared
from studies.pixels import planted
from studies.strips import strip

SIZE = 224
DEFAULT_SIZE = 448
"""Pixels of an image by default. Four times the patches: a lot takes two minutes and half a gigabyte."""
LAYERS = (6, 9, 12)
RATES = (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)
TEXTURES = ("brick", "grass", "gravel")
#: Good photos of a lot, and how many lots there are of each product and texture.
GOOD = {"mono": 117, "poly": 120, **dict.fromkeys(TEXTURES, 80)}
LOTS = {"mono": 5, "poly": 5, **dict.fromkeys(TEXTURES, 2)}
DRAWS = 3


@dataclass(frozen=True)
class Lot:
    """Photos of one product or texture, its good ones first, and their distances, float32 (n, n, P)."""

    name: str
    number: int
    good: int
    distances: np.ndarray

    def night(self, rate: float, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the lot of all good photos and of as many defective ones as the rate asks for; their truth.

        The defective ones are drawn with a seed.
        """
        count = defective_at(rate, self.good)
        rng = np.random.default_rng([draw, self.number, count])
        drawn = self.good + rng.permutation(len(self.distances) - self.good)[:count]
        return np.concatenate([np.arange(self.good), np.sort(drawn)]), np.arange(self.good + count) >= self.good


def defective_at(rate: float, good: int) -> int:
    """How many defective photos join ``good`` ones, so that about ``rate`` of all are defective.

    Examples:
        >>> [defective_at(rate, 120) for rate in RATES]
        [0, 1, 3, 6, 13, 30]
    """
    return round(good * rate / (1 - rate))


def draws_of(rate: float) -> int:
    """How many nights of a lot have this rate: one where all or none of its defective photos are in."""
    return 1 if rate in (min(RATES), max(RATES)) else DRAWS


def cells_of_lot(product: str, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of a contiguous block of good cells, and of every fifth defective one from the lot's offset.

    No cell is in two lots.

    Raises:
        ValueError: the product has not enough cells.
    """
    good, bad = elpv_cells(product, 0.0), elpv_cells(product, 1.0)
    size, count, share = GOOD[product], defective_at(max(RATES), GOOD[product]), len(good) // LOTS[product]
    found = good[number * share :][: min(size, share)], bad[number :: LOTS[product]][:count]
    if len(found[0]) < size or len(found[1]) < count:
        raise ValueError(f"{product} has {len(good)} good and {len(bad)} defective cells, too few for lot {number}")
    return found


def crops_of_lot(texture: str, number: int) -> list[np.ndarray]:
    """uint8 (224, 224, 3) crops of one photo, the good ones first; into the others defects are planted in turn."""
    good, bad = GOOD[texture], defective_at(max(RATES), GOOD[texture])
    photos = crops(texture, LOTS[texture] * (good + bad))[number * (good + bad) :][: good + bad]
    return photos[:good] + [shot.image for shot in planted(photos[good:], first_seed=number * len(KINDS))]


@lru_cache(maxsize=16)
def embedded(name: str, number: int, px: int = SIZE) -> np.ndarray:
    """float16 (n, P, D) of a lot's photos, the good ones first; the same for every study that asks."""
    return _embedded(name, number, px)


def _embedded(name: str, number: int, px: int) -> np.ndarray:
    features = Features(DINO, px) if px == DEFAULT_SIZE else shared(DINO, SIZE)
    if name in PRODUCTS:
        good, bad = cells_of_lot(name, number)
        return features.take(good + bad, LAYERS)
    pixels = np.stack([fit(photo, features.size, "squash") for photo in crops_of_lot(name, number)])
    return embed_pixels(features.encoder, pixels)


@lru_cache(maxsize=16)
def lot_of(name: str, number: int, precision: str) -> Lot:
    """The ``number``-th lot of a product or texture, with its distances; the same for every study that asks."""
    return Lot(name, number, GOOD[name], strip(embedded(name, number), precision))


def large_lot(name: str, number: int, precision: str) -> Lot:
    """The same photos at `DEFAULT_SIZE`; not kept."""
    return Lot(name, number, GOOD[name], strip(_embedded(name, number, DEFAULT_SIZE), precision))


def arithmetic(precision: str) -> str:
    """How a figure was computed, for its table."""
    return f"{DINO.dtype} encoder, {precision} scores"

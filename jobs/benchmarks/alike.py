"""Does the measure of method.md §11 tell parts that lie alike from those that do not? On photos, still and moved."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from math import isqrt

import cv2
import numpy as np
from skimage import data
from studies import cells
from studies.features import DINO, Features

from benchmarks.records import Record
from patchead.scoring.aggregate import Aggregation
from patchead.search.bounded_group import RADIUS, Comparison
from patchead.search.grid import Grid
from patchead.search.window_group import ALIKE, lies_alike

_PATCH = 14
_BATCH = 6


def alike(sizes: tuple[int, ...], images: int, only: Collection[str] = ()) -> list[Record]:
    """Cells as they are and shifted by up to six patches, and textures, cropped at random and turned too.

    Args:
        sizes: pixels of a side.
        images: of each case.
        only: names of cases; default: all.
    """
    records = []
    for size in sizes:
        features = Features(DINO, size)
        for name, pictures, bound in _cases(size, images):
            if only and name not in only:
                continue
            parts = np.array_split(pictures, -(-images // _BATCH))
            embeddings = np.concatenate([features.encoder.embed(part).all_vectors() for part in parts])
            found = lies_alike(whole_group(embeddings, Aggregation(window=RADIUS)), RADIUS)
            figure = partial(Record, benchmark="alike", case=f"{name}, {size} px", precision="fp32")
            records.append(figure(metric="lie alike", value=found.share, target=f"{bound} {ALIKE}"))
            records.append(figure(metric="offset of the nearest match, cells", value=found.offset))
    return records


def _cases(size: int, count: int) -> Iterator[tuple[str, np.ndarray, str]]:
    rng = np.random.default_rng(0)
    for product in cells.PRODUCTS:
        photos = cells.photos(cells.split(product, 0).good[:: max(1, 180 // count)][:count], size)
        yield f"{product} cells", photos, ">="
        yield f"{product} cells, shifted by up to 6 patches", _shifted(photos, 6, rng), "<="
    for texture in ("brick", "grass"):
        for turn in (False, True):
            pictures = np.stack([piece(getattr(data, texture)(), size, rng, turn=turn) for _ in range(count)])
            yield f"{texture}, cropped{' and turned' if turn else ''}", pictures, "<="


def _shifted(photos: np.ndarray, patches: int, rng: np.random.Generator) -> np.ndarray:
    size = photos.shape[1]
    found = []
    for photo in photos:
        x, y = rng.integers(-patches * _PATCH, patches * _PATCH + 1, 2).tolist()
        move = np.array([[1, 0, x], [0, 1, y]], np.float32)
        found.append(cv2.warpAffine(photo, move, (size, size), borderMode=cv2.BORDER_REFLECT))
    return np.stack(found)


def piece(texture: np.ndarray, size: int, rng: np.random.Generator, *, turn: bool) -> np.ndarray:
    """A piece of a grey texture of 512 x 512, turned by a random angle: uint8 (size, size, 3)."""
    move = cv2.getRotationMatrix2D((256, 256), rng.uniform(0, 360) if turn else 0.0, 1.0)
    whole = cv2.warpAffine(texture, move, (512, 512), borderMode=cv2.BORDER_REFLECT)
    reach = 62 if turn else 212
    y, x = rng.integers((212 - reach) // 2, (212 + reach) // 2, 2)
    cut = cv2.resize(whole[y : y + 300, x : x + 300], (size, size), interpolation=cv2.INTER_CUBIC)
    return np.repeat(cut[..., None], 3, axis=2)


def whole_group(embeddings: np.ndarray, aggregation: Aggregation) -> Comparison:
    """Compare each image with all others, on square grids of patches."""
    n, p, _ = embeddings.shape
    side, everyone = isqrt(p), np.arange(n)
    return Comparison(
        blocks=[(everyone, embeddings)],
        queries=everyone,
        references=everyone,
        content=everyone,
        part=np.full(n, -1),
        n_references=np.full(n, n - 1),
        aggregation=aggregation,
        device="cpu",
        precision="fp32",
        memory_bytes=4 * 10**9,
        grid=Grid(side, side),
    )

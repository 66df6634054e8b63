"""Nearest distances among patches of the same place: a window of the grid instead of the whole image (method.md §11).

For each place p and each place q near it, one multiplication of all images' patches p with all images' patches q. The
maxima over q are at once the scores of the window rule and, for the full search, a bound (method.md §10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.block_maxima import multiples, padded, padded_shape
from patchead.scoring.integer_products import multiplier
from patchead.scoring.memory_budget import SCORE_BYTES
from patchead.scoring.precision import matmul_dtype
from patchead.search.grid import Grid
from patchead.search.group_vectors import GroupVectors
from patchead.threads import over_threads, threads_of

_SHARES = 8  # of a band's places: threads take them in turn
_MOST_AGAIN = 0.7  # of a thread's places: of nine multiplications of each, five are left
_LEAST = 32  # images: of fewer the matrix library takes other kernels, which round otherwise


Reduce = Callable[[Tensor], np.ndarray]
"""From maxima (B, R) of one place to its scores float32 (B,); may overwrite them."""


def window_scores(
    vectors: GroupVectors, queries: np.ndarray, grid: Grid, radius: int, reduce: Reduce, *, slab_bytes: int
) -> np.ndarray:
    """Score each place of the query images by its window in all references: float32 (B, P).

    Args:
        vectors: of the group.
        queries: int64 (B,), positions in the group.
        grid: of the P places.
        radius: of the window, 0 for the same place only.
        reduce: makes scores of the largest cosines (B, R) of a place, in units of `GroupVectors.step`.
        slab_bytes: prepared vectors and maxima held at a time, unless one row of the grid with its window takes more.
    """
    out = np.empty((len(queries), vectors.patches), np.float32)
    same = np.array_equal(queries, vectors.references)
    # Of places whose window is not through yet, the maxima are held.
    open_places = threads_of(vectors.device) * (radius * (grid.w + 1) + 2)
    symmetric = same and open_places * len(queries) ** 2 * SCORE_BYTES <= slab_bytes // 4
    rows = grid.h if same and vectors.hold else 0  # of what is held anyway, all
    rows = rows or _rows_at_once(vectors, len(queries), grid, radius, same, slab_bytes * 3 // 4)
    for band, slab in _bands(grid, radius, rows):
        references = vectors.images(vectors.references, slab)
        asked = references if same else vectors.images(queries, slab)

        work = _Places(grid, radius, reduce, out, asked, references, slab.start, symmetric=symmetric)
        places = range(band.start, band.stop)
        over_threads(work.score, [places[cut] for cut in slices(len(places), work.share(len(places)))], vectors.device)
        del work
        del references, asked
    return out


@dataclass(frozen=True)
class _Places:
    """Scores some places of a band: vectors ``asked`` (B, m, D) and ``references`` (R, m, D) of places from ``first``.

    Where both are the same images (``symmetric``), two places are multiplied once for both directions.
    """

    grid: Grid
    radius: int
    reduce: Reduce
    out: np.ndarray
    asked: Tensor
    references: Tensor
    first: int
    symmetric: bool

    def share(self, places: int) -> int:
        """Choose the places that one thread takes at a time."""
        large = -(-places // threads_of(self.references.device))
        return large if self._once(large) else -(-places // _SHARES)

    def _once(self, places: int) -> bool:
        """Whether multiplying once pays: the places before a thread's first are multiplied for its sake again."""
        return self.symmetric and self._reach < _MOST_AGAIN * places

    @property
    def _reach(self) -> int:
        """Places between one and the last that its window reaches."""
        return self.radius * (self.grid.w + 1)

    def score(self, places: range) -> None:
        best: dict[int, Tensor] = {}
        once, shape = self._once(len(places)), (len(self.asked), len(self.references))
        room = padded_shape(max(_LEAST, shape[0]), max(_LEAST, shape[1]), self.asked)
        scratch = torch.empty(room, dtype=matmul_dtype(self.asked.dtype), device=self.asked.device)
        multiply = multiplier(self.asked)
        for place in range(max(self.first, places.start - self._reach) if once else places.start, places.stop):
            for other in self.grid.near(place, self.radius):
                if once and (other < place or not (place in places or other in places)):
                    continue
                x, y = self._vectors(place, other)
                multiply(x, y.t(), out=scratch)
                found = scratch[: shape[0], : shape[1]]
                if place in places:
                    _keep(best, place, found)
                if once and other != place and other in places:
                    _keep(best, other, found.t())
            if place in places:
                self.out[:, place] = self.reduce(best.pop(place).to(torch.float32))

    def _vectors(self, place: int, other: int) -> tuple[Tensor, Tensor]:
        """The queries at ``place`` and the references at ``other``."""
        by_row, by_column = multiples(self.asked)
        x = _filled(self.asked[:, place - self.first], by_row)
        return x, _filled(self.references[:, other - self.first], by_column)


def _keep(best: dict[int, Tensor], place: int, found: Tensor) -> None:
    if place in best:
        torch.maximum(best[place], found, out=best[place])
    else:
        best[place] = found.clone(memory_format=torch.contiguous_format)


def _filled(vectors: Tensor, multiple: int) -> Tensor:
    """Vectors (n, D), the last one repeated up to a multiple, and up to `_LEAST`."""
    return padded(vectors, multiple if len(vectors) >= _LEAST else _LEAST)


def _rows_at_once(vectors: GroupVectors, queries: int, grid: Grid, radius: int, same: bool, slab_bytes: int) -> int:
    """Rows of the grid whose vectors, with those of the window around them, take ``slab_bytes``; at least one."""
    images = len(vectors.references) + (0 if same else queries)
    row = images * grid.w * vectors.dim * vectors.dtype.itemsize
    return max(1, slab_bytes // row - 2 * radius)


def _bands(grid: Grid, radius: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Places that are scored together, and those that their windows reach, view by view."""
    for view in range(grid.views):
        start = view * grid.h
        for cut in slices(grid.h, rows):
            around = max(0, cut.start - radius), min(grid.h, cut.stop + radius)
            band, slab = ((start + a, start + b) for a, b in ((cut.start, cut.stop), around))
            yield slice(band[0] * grid.w, band[1] * grid.w), slice(slab[0] * grid.w, slab[1] * grid.w)

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
from patchead.scoring.precision import matmul_dtype
from patchead.search.group_vectors import GroupVectors
from patchead.threads import over_threads

_LEAST = 32  # images: of fewer the matrix library takes other kernels, which round otherwise


@dataclass(frozen=True)
class Grid:
    """Describe where the P = V · h · w patches of a sample lie: V views, each of h rows and w columns."""

    h: int
    w: int
    views: int = 1

    @classmethod
    def of(cls, shape: tuple[int, int], patches: int) -> Grid:
        """Take the grid of one view; the views are what the patches of a sample hold of them.

        Raises:
            ValueError: the patches are no whole number of views.
        """
        h, w = shape
        if patches % (h * w):
            raise ValueError(f"{patches} patches are no whole number of grids of {h} x {w}")
        return cls(h, w, patches // (h * w))

    def near(self, place: int, radius: int) -> list[int]:
        """List the places of the same view within Chebyshev distance ``radius`` of ``place``, itself included."""
        view, (y, x) = place // (self.h * self.w), divmod(place % (self.h * self.w), self.w)
        rows = range(max(0, y - radius), min(self.h, y + radius + 1))
        columns = range(max(0, x - radius), min(self.w, x + radius + 1))
        return [(view * self.h + row) * self.w + column for row in rows for column in columns]

    def offsets(self, of: np.ndarray, to: np.ndarray) -> np.ndarray:
        """Measure Chebyshev distances between places, int (...,); between two views as if they lay on each other."""
        (y, x), (v, u) = (divmod(place % (self.h * self.w), self.w) for place in (of, to))
        return np.maximum(abs(y - v), abs(x - u))


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
        slab_bytes: prepared vectors held at a time, unless one row of the grid with its window takes more.
    """
    out = np.empty((len(queries), vectors.patches), np.float32)
    same = np.array_equal(queries, vectors.references)
    for band, slab in _bands(grid, radius, _rows_at_once(vectors, len(queries), grid, radius, same, slab_bytes)):
        references = vectors.images(vectors.references, slab)
        asked = references if same else vectors.images(queries, slab)

        def score(
            places: range, asked: Tensor = asked, references: Tensor = references, first: int = slab.start
        ) -> None:
            scratch = _Scratch.of(asked, references)
            for place in places:
                near = [q - first for q in grid.near(place, radius)]
                out[:, place] = reduce(scratch.maxima(asked, references, place - first, near))

        places = range(band.start, band.stop)
        over_threads(score, [places[cut] for cut in slices(len(places), -(-len(places) // 8))], references.device)
        del references, asked
    return out


@dataclass(frozen=True)
class _Scratch:
    """Room for the cosines of one place with another, and for their maxima."""

    cosines: Tensor
    best: Tensor

    @classmethod
    def of(cls, asked: Tensor, references: Tensor) -> _Scratch:
        rows, columns = padded_shape(max(_LEAST, len(asked)), max(_LEAST, len(references)), asked)
        dtype = matmul_dtype(asked.dtype)
        return cls(*(torch.empty(rows, columns, dtype=dtype, device=asked.device) for _ in range(2)))

    def maxima(self, asked: Tensor, references: Tensor, place: int, near: list[int]) -> Tensor:
        """Largest dot products float32 (B, R) of the queries at ``place`` with the references at ``near``."""
        multiply = torch._int_mm if asked.dtype == torch.int8 else torch.mm
        by_row, by_column = multiples(asked)
        x = _filled(asked[:, place], by_row)
        for number, q in enumerate(near):
            target = self.cosines if number else self.best
            multiply(x, _filled(references[:, q], by_column).t(), out=target)
            if number:
                torch.maximum(self.best, self.cosines, out=self.best)
        return self.best[: len(asked), : len(references)].to(torch.float32, copy=True)


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

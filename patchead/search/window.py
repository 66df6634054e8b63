"""Nearest distances among patches of the same place: a window of the grid instead of the whole image (method.md §11).

For each place p and each place q near it, one multiplication of all images' patches p with all images' patches q. The
maxima over q are at once the scores of the window rule and, for the full search, a bound (method.md §10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.block_maxima import multiples, padded, padded_shape
from patchead.scoring.integer_products import multiplier
from patchead.scoring.memory_budget import SCORE_BYTES
from patchead.scoring.precision import allocate, matmul_dtype
from patchead.search.grid import Grid
from patchead.search.group_vectors import GroupVectors
from patchead.search.window_memory import images_at_once, rows_at_once
from patchead.threads import over_threads, threads_of

_SHARES = 8  # of a band's places: threads take them in turn
_MOST_AGAIN = 0.7  # of a thread's places: of nine multiplications of each, five are left
_LEAST = 32  # images: of fewer the matrix library takes other kernels, which round otherwise


Reduce = Callable[[Tensor, slice], np.ndarray]
"""From maxima (B, R) of one place, and which of the queries they are of, to scores float32 (B,); may overwrite them."""


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
        slab_bytes: prepared vectors and maxima held at a time; of many images, some after others.
    """
    out = np.empty((len(queries), vectors.patches), np.float32)
    same = np.array_equal(queries, vectors.references)
    # Of places whose window is not through yet, the maxima are held.
    open_places = threads_of(vectors.device) * (radius * (grid.w + 1) + 2)
    symmetric = same and open_places * len(queries) ** 2 * SCORE_BYTES <= slab_bytes // 4
    images = (0 if vectors.hold else len(vectors.references)) + (0 if same else len(queries))
    row = images * grid.w * vectors.dim * vectors.stored_and_prepared
    rows = rows_at_once(row, grid.h, radius, slab_bytes * 3 // 4)
    if rows < 1:
        many, held = images_at_once(vectors, len(queries), grid.w, radius, slab_bytes)
        blocks = _Blocks(vectors, queries, grid, radius, reduce, out, held)
        for band, slab in _bands(grid, radius, 1):
            for cut in slices(len(queries), many):
                blocks.score(band, slab, cut)
        return out
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
class _Blocks:
    """Scores a row of places where one row with its window takes too much of all images: some of them at a time."""

    vectors: GroupVectors
    queries: np.ndarray
    grid: Grid
    radius: int
    reduce: Reduce
    out: np.ndarray
    references: int
    """At a time."""

    def score(self, band: slice, slab: slice, cut: slice) -> None:
        """Score the queries ``cut`` at the places ``band``, whose windows reach ``slab``."""
        vectors, places = self.vectors, range(band.start, band.stop)
        asked = vectors.images(self.queries[cut], band)
        shape = len(places), len(asked), len(vectors.references)
        best = allocate(shape, matmul_dtype(vectors.dtype), vectors.device)
        for block in slices(len(vectors.references), self.references):
            references = vectors.some_references(block, slab)
            compare = partial(self._compare, asked, references, best[:, :, block], band.start, slab.start)
            over_threads(compare, places, vectors.device)
            del references, compare

        def reduce(place: int) -> None:
            self.out[cut, place] = self.reduce(best[place - band.start].to(torch.float32), cut)

        over_threads(reduce, places, vectors.device)

    def _compare(self, asked: Tensor, references: Tensor, best: Tensor, first: int, reached: int, place: int) -> None:
        """Write the maxima of one place to its row of ``best`` (w, B, n).

        ``asked`` (B, w, D) are of the places from ``first``, ``references`` (n, m, D) of those from ``reached``.
        """
        by_row, by_column = multiples(asked)
        x, out, n = _filled(asked[:, place - first], by_row), best[place - first], len(references)
        scratch = x.new_empty(padded_shape(len(x), max(_LEAST, n), x), dtype=matmul_dtype(x.dtype))
        multiply = multiplier(x)
        for number, other in enumerate(self.grid.near(place, self.radius)):
            y = _filled(references[:, other - reached], by_column)
            multiply(x, y.t(), out=scratch)
            found = scratch[: len(out), :n]
            if number:
                torch.maximum(out, found, out=out)
            else:
                out.copy_(found)


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
                self.out[:, place] = self.reduce(best.pop(place).to(torch.float32), slice(0, shape[0]))

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


def _bands(grid: Grid, radius: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Places that are scored together, and those that their windows reach, view by view."""
    for view in range(grid.views):
        start = view * grid.h
        for cut in slices(grid.h, rows):
            around = max(0, cut.start - radius), min(grid.h, cut.stop + radius)
            band, slab = ((start + a, start + b) for a, b in ((cut.start, cut.stop), around))
            yield slice(band[0] * grid.w, band[1] * grid.w), slice(slab[0] * grid.w, slab[1] * grid.w)

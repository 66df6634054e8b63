"""Bound and refine: the image scores of the full search without the whole multiplication (method.md §10).

Every patch gets an upper bound of its score from a part of the references' patches. Then, patch by patch in order of
falling bounds, all patches of all references are searched, until no bound is left that could change the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.aggregate import Aggregation, neighbours, reference_mask
from patchead.scoring.precision import allocate
from patchead.scoring.similarity import cosine_maxima
from patchead.search.goals import Goal
from patchead.search.grid import Grid
from patchead.search.group_vectors import GroupVectors
from patchead.search.nearest_rows import cosines_to_distances_, lower_, mean_of_nearest
from patchead.search.projection import Projection
from patchead.search.window import window_scores

LOOSE, TIGHT, EXACT = 0, 1, 2
"""What is known of a patch: a bound from the window or none, a bound from the projection, its score."""

_LEAST_ROWS = 256  # patches of one search, if as many are wanted: fewer make the multiplication slow
_MORE_BOUNDS = 4  # patches whose bound is improved for each that is searched
_MULTIPLE = 32  # of the rows of a search: then the matrix library takes the same kernel for all, which rounds alike


@dataclass(frozen=True, kw_only=True)
class Search:
    """Hold who is compared with whom, and how distances become patch scores.

    ``queries`` int64 (B,) are positions in the group, ``n_references`` int (B,) their references; ``content`` and
    ``part`` int64 (N,), see `aggregate.reference_mask`.
    """

    vectors: GroupVectors
    queries: np.ndarray
    content: np.ndarray
    part: np.ndarray
    n_references: np.ndarray
    aggregation: Aggregation
    matmul_bytes: int
    block_images: int
    """References that are prepared at a time where they are not held."""
    rows: int
    """Patches that are searched at a time, at most."""

    @cached_property
    def k(self) -> np.ndarray:
        """Give K of each query, int64 (B,)."""
        return neighbours(self.n_references, self.aggregation.fraction)

    @cached_property
    def everyone(self) -> np.ndarray:
        """Tell which images are references of which query: bool (B, R)."""
        return self.allowed(np.arange(len(self.queries)))

    def allowed(self, query: np.ndarray) -> np.ndarray:
        """Tell which images are references of the queries numbered ``query`` (n,): bool (n, R)."""
        return reference_mask(self.content, self.part, self.queries[query], self.vectors.references)

    def means(self, maxima: Tensor, query: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        """Average over references: largest cosines float32 (n, R) of patches of queries ``query`` to scores (n,).

        ``maxima`` are in units of `GroupVectors.step` and overwritten; −inf is an unknown one, distance 1.
        """
        distances = cosines_to_distances_(maxima, self.vectors.step)
        return mean_of_nearest(distances, allowed, self.k[query], self.aggregation.aggregate)

    def exact(self, query: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Score patches ``patch`` (n,) of queries ``query`` (n,) by the full search: float32 (n,)."""
        vectors, n = self.vectors, len(query)
        missing = -n % _MULTIPLE
        filled = [np.concatenate([of, np.repeat(of[-1:], missing)]) for of in (query, patch)]
        queries = vectors.single(self.queries[filled[0]], filled[1])[None]
        maxima = allocate((1, len(vectors.references), n + missing), torch.float32, queries.device)
        for cut, block in vectors.reference_blocks(self.block_images):
            cosine_maxima(queries, block, maxima[:, cut], None, budget_bytes=self.matmul_bytes)
        return self.means(_by_query(maxima[0, :, :n]), query, self.allowed(query))

    def tighter(self, projection: Projection, query: np.ndarray, patch: np.ndarray) -> np.ndarray:
        """Bound the scores of patches ``patch`` (n,) of queries ``query`` (n,) by a projection: float32 (n,)."""
        nearest = self.aggregation.aggregate == "nearest"
        most = int(self.k.max(initial=1)) if nearest else len(self.vectors.references)
        allowed = self.allowed(query)
        maxima = projection.lower_cosines(self.vectors.single(self.queries[query], patch), allowed, most)
        return self.means(lower_(maxima, self.vectors.dtype), query, allowed)


@dataclass(frozen=True)
class Bounded:
    """Hold patch scores float32 (B, P), exact where ``level`` uint8 (B, P) is `EXACT` and bounds elsewhere."""

    scores: np.ndarray
    level: np.ndarray

    @property
    def searched(self) -> float:
        """Give the share of patches that were searched fully."""
        return float((self.level == EXACT).mean())

    @property
    def projected(self) -> float:
        """Give the share of patches that were projected and not searched."""
        return float((self.level == TIGHT).mean())


def window_bounds(search: Search, grid: Grid, radius: int, *, slab_bytes: int, bound: bool) -> np.ndarray:
    """Score every patch by its window (method.md §11): float32 (B, P). With ``bound``, never below the full search."""
    everyone = np.arange(len(search.queries))

    def reduce(maxima: Tensor, some: slice) -> np.ndarray:
        lowered = lower_(maxima, search.vectors.dtype) if bound else maxima
        return search.means(lowered, everyone[some], search.everyone[some])

    return window_scores(search.vectors, search.queries, grid, radius, reduce, slab_bytes=slab_bytes)


def refine(search: Search, bounds: np.ndarray | None, projection: Projection, goal: Goal) -> Bounded:
    """Search patches in order of falling bounds until the goal has all it wants.

    Args:
        search: of B queries.
        bounds: float32 (B, P), never below the patch scores, NaN in rows without a reference; None: nothing is known
            yet, and the projection bounds all.
        projection: gives better bounds before a patch is searched.
        goal: what is wanted.
    """
    state = _State.of(search, bounds)
    if bounds is None:
        state.project(search, projection, *np.nonzero(state.level == LOOSE))
    m = max(1, state.scores.shape[1] // 100)
    while True:
        wanted = goal(state.scores, state.level == EXACT)
        active = int(np.isfinite(wanted).any(axis=1).sum())
        if not active:
            return Bounded(state.scores, state.level)
        begun = bool((state.level == EXACT).any())
        count = min(m, max(-(-m // 4), -(-_LEAST_ROWS // active))) if begun else m
        query, patch = _largest(wanted, _MORE_BOUNDS * count)
        loose = state.level[query, patch] == LOOSE
        state.project(search, projection, query[loose], patch[loose])
        if loose.any():
            wanted = goal(state.scores, state.level == EXACT)
        query, patch = _largest(np.where(state.level == TIGHT, wanted, -np.inf), count)
        state.search(search, query, patch)


@dataclass(frozen=True)
class _State:
    scores: np.ndarray
    level: np.ndarray

    @classmethod
    def of(cls, search: Search, bounds: np.ndarray | None) -> _State:
        shape = len(search.queries), search.vectors.patches
        scores = np.ones(shape, np.float32) if bounds is None else bounds.copy()
        scores[search.n_references == 0] = np.nan
        level = np.full(shape, LOOSE, np.uint8)
        level[search.n_references == 0] = EXACT
        return cls(scores, level)

    def project(self, search: Search, projection: Projection, query: np.ndarray, patch: np.ndarray) -> None:
        for cut in slices(len(query), search.rows):
            at = query[cut], patch[cut]
            self.scores[at] = np.minimum(self.scores[at], search.tighter(projection, *at))
            self.level[at] = TIGHT

    def search(self, search: Search, query: np.ndarray, patch: np.ndarray) -> None:
        for cut in slices(len(query), search.rows):
            at = query[cut], patch[cut]
            self.scores[at] = search.exact(*at)
            self.level[at] = EXACT


def _by_query(maxima: Tensor) -> Tensor:
    """(R, n) as (n, R), on a CPU by one core."""
    if maxima.device.type != "cpu":
        return maxima.t().contiguous()
    return torch.from_numpy(np.ascontiguousarray(maxima.numpy().T))


def _largest(wanted: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the ``count`` largest finite values of each row (B, P), row by row."""
    count = min(count, wanted.shape[1])
    columns = np.argpartition(-wanted, count - 1, axis=1)[:, :count]
    rows = np.repeat(np.arange(len(wanted)), count).reshape(columns.shape)
    kept = np.isfinite(np.take_along_axis(wanted, columns, axis=1))
    return rows[kept], columns[kept]

"""Where a group's bounds come from: a full search among a few of its images tells what each way would cost.

method.md §10. The same sample tells whether parts lie alike, which is what the window rule of method.md §11 asks.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.aggregate import neighbours, reference_mask, top_count
from patchead.scoring.memory_budget import SCORE_BYTES, Workload
from patchead.search.bounded import Search
from patchead.search.grid import Grid
from patchead.search.nearest_rows import cosines_to_distances_, mean_of_nearest
from patchead.search.projection import COMPONENTS, Projection, share_of_components
from patchead.threads import over_threads

FULL = "full"
WINDOW = "window"
PROJECTION = "projection"

_IMAGES = (4, 10)  # of the sample: a twelfth of the group within these
_ALIKE_IMAGES = 10  # pairs of poly cells differ much in how they lie: few of them tell little
_PART = 12
_ROWS = 256
_BOTH_WAYS = 2048  # patches up to which all cosines of two images are held at a time: 16 MB
# Times as slow as their share of the work (AMD EPYC, 224 and 448 px): a window does two directions at once, a
# projection writes more than it multiplies.
_OF_WINDOW, _OF_PROJECTION = 0.7, 3.0
_FAST = 3.0  # times the speed of fp32 that another arithmetic is presumed to have; components are float32
_GATHER = 16.0  # dot products of rows in their order that one with a gathered row costs
_OF_REFERENCES = 0.75  # quantile of an image's pairs: a group of two makes has for each image those of its own make
_NOTHING = 1e-4  # of a cosine: where all places are as near as that, there is nothing that could lie elsewhere
_PAIR = 3.0  # times the cost of a pair in the full search that one of the sample costs
_TRY = 0.05  # of the full search's cost that a sample may take where nobody asked for bounds
_WORTH = 0.9  # of the full search's cost, above which bounds are not
SPEED_ON_A_GPU = 0.118
"""Of bound and refine, the symmetric full search being 1: an H100, fp16 (`jobs/benchmark.py gpu --full`). Its small
steps keep a GPU waiting."""


@dataclass(frozen=True)
class Sampled:
    """Hold what the sample showed. Costs are in units of all patch pairs, B · P by R · P."""

    images: int
    multiplied: float
    """Dot products of the sample, of whole vectors and as a share of one in components, over P²: pairs of images."""
    offset: float
    """Median Chebyshev distance in patches from a patch to its nearest match in another image."""
    alike: float
    """See `Alike.share`, of the window that bounds."""
    cost: dict[str, float]
    """Predicted for `WINDOW` and `PROJECTION`; `FULL` is what it is measured against."""
    searched: dict[str, float]
    """Predicted share of patches that need the full search."""

    def cheapest(self, besides: float = 0.0) -> str:
        """Choose where the bounds come from, or the full search where they, and what is done ``besides``, cost more."""
        best = min((WINDOW, PROJECTION), key=self.cost.__getitem__)
        return best if self.cost[best] + besides < _WORTH * self.cost[FULL] else FULL


def pays_on(device: str) -> bool:
    """Tell whether bound and refine may take less time than the full search on a torch device."""
    return device.partition(":")[0] == "cpu"


def refused_on(device: str, *, asked: bool) -> str:
    """Say why bounds are not even tried on a device where schedule ``bounded`` was not ``asked`` for; empty: they are.

    A window ``auto`` asks for none: it leaves a group that does not lie alike to whatever search is the fastest.
    """
    return "" if asked or pays_on(device) else "on a GPU bounds take longer"


def warning_on(device: str, schedule: str, window: int | str | None) -> str | None:
    """Say by how much schedule ``bounded`` is slower than the full search where it was asked for; None where it pays.

    With a window a group is searched by it, and fully on a GPU where it does not lie alike.
    """
    if pays_on(device) or schedule != "bounded" or window is not None:
        return None
    return (
        f"`schedule` bounded takes {1 / SPEED_ON_A_GPU:.2g} times as long as the full search on a GPU (measured on an "
        "H100); set `schedule` to auto."
    )


def evenly(positions: np.ndarray, least: int = _IMAGES[0], most: int = _IMAGES[1]) -> np.ndarray:
    """Take some positions, as many from each end: a twelfth, from ``least`` to ``most`` if there are so many."""
    count = min(len(positions), max(least, min(most, len(positions) // _PART)))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]


def affordable(queries: int, references: int, full: float, dtype: torch.dtype) -> tuple[int, int]:
    """Count the queries and references whose search costs no more than `_TRY` of the group's full search; (0, 0): none.

    Args:
        queries, references: of the group.
        full: what its full search costs, in units of all pairs.
        dtype: of the prepared vectors.
    """
    pairs = _TRY * full * queries * references / (_PAIR if dtype == torch.float32 else _PAIR * _FAST)
    least = min(_IMAGES[0], references)
    taken = max(least, min(_IMAGES[1], references, int(pairs**0.5)))
    asked = min(_IMAGES[1], queries, int(pairs / taken))
    return (asked, taken) if asked >= _IMAGES[0] else (0, 0)


def sample(search: Search, grid: Grid, radius: int, projection: Projection, *, full: float, nearest: float) -> Sampled:
    """Search a few images of a group fully, with both bounds at hand.

    Args:
        search: of these images alone, as queries and as references.
        grid: of their patches.
        radius: of the window.
        projection: of these references.
        full: what the full search of the group costs, in units of all pairs: a half where each is multiplied once.
        nearest: the share of the group's references that are averaged over.
    """
    queries, references = search.queries, search.vectors.references
    allowed = reference_mask(search.content, search.part, queries, references)
    found = _Pairs.of(search, projection, grid, radius, queries, references)
    k = neighbours(allowed.sum(axis=1), search.aggregation.fraction)
    kept = np.flatnonzero(allowed.any(axis=1)).tolist()
    shares = {WINDOW: [0.0], PROJECTION: [0.0]}
    loose, m = [0.0], top_count(search.vectors.patches, search.aggregation.image_top_fraction)

    def scores(cosines: np.ndarray, image: int) -> np.ndarray:
        distances = cosines_to_distances_(torch.from_numpy(cosines[image].copy()), search.vectors.step)
        allowed_here = np.broadcast_to(allowed[image], distances.shape)
        return mean_of_nearest(
            distances, allowed_here, np.repeat(k[image], len(distances)), search.aggregation.aggregate
        )

    for image in kept:
        exact, window, projected = (scores(of, image) for of in (found.full, found.window, found.projected))
        enough = np.partition(exact, len(exact) - m)[len(exact) - m]
        loose.append(float((window >= enough).mean()))
        shares[WINDOW].append(float((np.minimum(window, projected) >= enough).mean()))
        shares[PROJECTION].append(float((projected >= enough).mean()))
    searched = {name: float(np.mean(found[1:] or found)) for name, found in shares.items()}
    lies = found.alike(allowed)
    low = share_of_components(search.vectors.dim)
    return Sampled(
        images=len(queries),
        multiplied=len(_compared(queries, references, search.vectors.patches)) + low * len(queries) * len(references),
        offset=lies.offset if len(kept) else 0.0,
        alike=lies.share,
        cost=_costs(search, radius, float(np.mean(loose[1:] or loose)), searched, full=full, nearest=nearest),
        searched=searched,
    )


def _costs(
    search: Search, radius: int, loose: float, searched: dict[str, float], *, full: float, nearest: float
) -> dict[str, float]:
    vectors = search.vectors
    fast = 1.0 if vectors.dtype == torch.float32 else _FAST
    chosen = nearest if search.aggregation.aggregate == "nearest" else 1.0
    projecting = _OF_PROJECTION * fast * (COMPONENTS / vectors.dim + chosen * _GATHER / vectors.patches)
    window = _OF_WINDOW * (2 * radius + 1) ** 2 / vectors.patches
    return {
        FULL: full,
        WINDOW: window + loose * projecting + searched[WINDOW],
        PROJECTION: projecting + searched[PROJECTION],
    }


@dataclass(frozen=True)
class Alike:
    """Say whether parts lie alike in a group, from pairs of its images (method.md §11)."""

    share: float
    """Of a pair of images: what a window around a patch's own place is nearer to it than the same window half a picture
    away, over what the whole image is. Of an image: the upper quartile over its references, as the nearest count. Of
    the group: the median over its images."""
    offset: float
    """Median Chebyshev distance in cells from a patch to its nearest match; infinite where no two can be compared."""
    multiplied: int = 0
    """Pairs of images that it took."""


def measure_alike(search: Search, grid: Grid, radius: int) -> Alike:
    """Measure whether parts lie alike within ``radius`` cells, by a few of the references, whatever the queries are."""
    some = np.unique(evenly(search.vectors.references, _ALIKE_IMAGES))
    allowed = reference_mask(search.content, search.part, some, some)
    found = _Pairs.of(search, None, grid, radius, some, some).alike(allowed)
    return replace(found, multiplied=len(_compared(some, some, search.vectors.patches)))


def alike_bytes(work: Workload, radius: int, threads: int) -> int:
    """Count the bytes that `measure_alike` takes at most, besides what `precision.prepare` does."""
    p, cells, images = work.patches, (2 * radius + 1) ** 2, min(_ALIKE_IMAGES, work.references)
    rows = p if p <= _BOTH_WAYS else _ROWS
    cosines = rows * (2 * p * SCORE_BYTES + cells * (8 + 2 * SCORE_BYTES + 1))
    found = p * (images * images * (4 * SCORE_BYTES + 2 + 4) + cells * 9)
    return images * work.vector_bytes + found + threads * cosines


@dataclass(frozen=True)
class _Pairs:
    """The largest cosines (s, P, t) of s images to t: of all patches, of the window, of the projection's choice.

    ``elsewhere`` are those of the window half a picture away, ``offset`` how far the nearest match lies.
    """

    full: np.ndarray
    window: np.ndarray
    projected: np.ndarray
    elsewhere: np.ndarray
    offset: np.ndarray

    def alike(self, allowed: np.ndarray) -> Alike:
        """Judge by the pairs that are ``allowed`` (s, t)."""
        if not allowed.any():
            return Alike(0.0, np.inf)
        full, window, elsewhere = (of.mean(axis=1) for of in (self.full, self.window, self.elsewhere))
        gained, there = window - elsewhere, full - elsewhere
        share = np.divide(gained, there, out=np.ones_like(there), where=there > _NOTHING * np.abs(full).max())
        share[~allowed] = np.nan
        of_images = np.nanquantile(share[allowed.any(axis=1)], _OF_REFERENCES, axis=1)
        offset = np.median(self.offset[np.broadcast_to(allowed[:, None], self.offset.shape)])
        return Alike(float(np.median(of_images)), float(offset))

    @classmethod
    def of(
        cls,
        search: Search,
        projection: Projection | None,
        grid: Grid,
        radius: int,
        queries: np.ndarray,
        references: np.ndarray,
    ) -> _Pairs:
        p = search.vectors.patches
        shape = (len(queries), p, len(references))
        full, window, projected, elsewhere = (np.zeros(shape, np.float32) for _ in range(4))
        out = cls(full, window, projected, elsewhere, np.zeros(shape, np.int16))
        near, outside = _neighbours(grid, radius, p)
        far = np.array([grid.opposite(place) for place in range(p)])
        held = dict(
            zip(all_of := sorted({*queries, *references}), search.vectors.images(np.array(all_of)), strict=True)
        )
        as_query, as_reference = ({image: at for at, image in enumerate(of)} for of in (queries, references))

        def fill(query: int, reference: int, cut: slice, cosines: np.ndarray) -> None:
            """Fill in some patches of a query, whose cosines (n, P) with a reference are at hand."""
            at, rows = (as_query[query], cut, as_reference[reference]), np.arange(len(cosines))
            best = guess = cosines.argmax(axis=1)
            if projection is not None:
                low = projection.of_query(held[query][cut]) @ projection.of_reference(held[reference]).t()
                guess = low.cpu().numpy().argmax(axis=1)
            out.full[at], out.projected[at] = cosines[rows, best], cosines[rows, guess]
            for found, around in ((out.window, np.arange(p)[cut]), (out.elsewhere, far[cut])):
                found[at] = np.where(outside[around], -np.inf, cosines[rows[:, None], near[around]]).max(axis=1)
            out.offset[at] = grid.offsets(np.arange(p)[cut], best)

        def compare(pair: tuple[int, int, bool]) -> None:
            query, reference, both = pair
            a, b = held[query], held[reference]
            for cut in [slice(0, p)] if both else slices(p, _ROWS):
                cosines = _cosines(a[cut], b)
                fill(query, reference, cut, cosines)
                if both:
                    fill(reference, query, cut, np.ascontiguousarray(cosines.T))

        over_threads(compare, _compared(as_query, as_reference, p), search.vectors.device)
        return out


def _compared(queries: Collection[int], references: Collection[int], patches: int) -> list[tuple[int, int, bool]]:
    """Every query with every reference but itself; True where one multiplication does for both directions."""
    work = []
    for query in queries:
        for reference in references:
            both = patches <= _BOTH_WAYS and query in references and reference in queries
            if query < reference or (query > reference and not both):
                work.append((query, reference, both))
    return work


def _cosines(a: Tensor, b: Tensor) -> np.ndarray:
    """float32 (n, P), in units of `GroupVectors.step`."""
    if a.dtype == torch.int8:  # sums of whole numbers below 2^24: float32 holds them
        a, b = a.float(), b.float()
    return (a @ b.t()).float().cpu().numpy()


def _neighbours(grid: Grid, radius: int, patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Places near each place, int (P, (2 r + 1)²), and where there is none, bool of the same shape."""
    near = np.zeros((patches, (2 * radius + 1) ** 2), np.int64)
    outside = np.ones(near.shape, bool)
    for place in range(patches):
        found = grid.near(place, radius)
        near[place, : len(found)], outside[place, : len(found)] = found, False
    return near, outside

"""Whether parts lie alike in a group: a full search among a few of its images, place by place (method.md §11)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from patchead.batches import slices
from patchead.scoring.aggregate import reference_mask
from patchead.scoring.memory_budget import SCORE_BYTES, Workload
from patchead.search.bounded import Search
from patchead.search.grid import Grid
from patchead.search.projection import Projection
from patchead.threads import over_threads

SAMPLED = (4, 10)
"""Images of a sample, at least and at most: a twelfth of the group within these."""
ALIKE_IMAGES = 10
"""That tell whether parts lie alike: pairs of poly cells differ much in how they lie, and few of them tell little."""
_PART = 12
_ROWS = 256
_BOTH_WAYS = 2048  # patches up to which all cosines of two images are held at a time: 16 MB
_OF_REFERENCES = 0.75  # quantile of an image's pairs: a group of two makes has for each image those of its own make
_NOTHING = 1e-4  # of a cosine: where all places are as near as that, there is nothing that could lie elsewhere


def evenly(positions: np.ndarray, least: int = SAMPLED[0], most: int = SAMPLED[1]) -> np.ndarray:
    """Take some positions, as many from each end: a twelfth, from ``least`` to ``most`` if there are so many."""
    count = min(len(positions), max(least, min(most, len(positions) // _PART)))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(np.int64)]


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

    @property
    def facts(self) -> dict[str, float | None]:
        """Give ``offset`` and ``alike``, None where no two images could be compared."""
        known = bool(np.isfinite(self.offset))
        return {"offset": self.offset if known else None, "alike": self.share if known else None}


def night_sample(images: int) -> np.ndarray:
    """Choose by which of a night's first ``images`` it is told whether they lie as their prompts do, int64 (s,)."""
    return evenly(np.arange(images), ALIKE_IMAGES)


def reference_sample(references: np.ndarray, content: np.ndarray) -> np.ndarray:
    """Choose the references (R,) that are measured, one of each content, int64 (t,) ascending; ``content`` (N,)."""
    _, first = np.unique(content[references], return_index=True)
    return np.unique(evenly(references[np.sort(first)], ALIKE_IMAGES))


def measure_alike(search: Search, grid: Grid, radius: int, measured: np.ndarray | None = None) -> Alike:
    """Measure whether parts lie alike within ``radius`` cells, by a few of the references, one of each content.

    Of one content the first counts: turned prompts stand behind the upright one, and lie otherwise by intention.

    Args:
        search: whose references are meant, whatever its queries are.
        grid: of their patches.
        radius: of the window.
        measured: positions of the images that are compared with these, as `night_sample`; None: the same.
    """
    some = reference_sample(search.vectors.references, search.content)
    asked = some if measured is None else measured
    allowed = reference_mask(search.content, search.part, asked, some)
    found = Pairs.of(search, None, grid, radius, asked, some).alike(allowed)
    return replace(found, multiplied=len(compared_pairs(asked, some, search.vectors.patches)))


def alike_bytes(work: Workload, radius: int, threads: int, measured: int) -> int:
    """Count the bytes that `measure_alike` takes at most, besides what `precision.prepare` does.

    ``measured`` images are compared with a sample of the references; 0: this one with itself, whatever the queries are.
    """
    p, cells, references = work.patches, (2 * radius + 1) ** 2, min(ALIKE_IMAGES, work.references)
    rows = p if p <= _BOTH_WAYS else _ROWS
    cosines = rows * (2 * p * SCORE_BYTES + cells * (8 + 2 * SCORE_BYTES + 1))
    found = p * ((measured or references) * references * (4 * SCORE_BYTES + 2 + 4) + cells * 9)
    return (measured + references) * work.vector_bytes + found + threads * cosines


@dataclass(frozen=True)
class Pairs:
    """Hold the largest cosines (s, P, t) of s images to t: of all patches, of the window, of the projection's choice.

    ``elsewhere`` are those of the window half a picture away, ``offset`` how far the nearest match lies.
    """

    full: np.ndarray
    window: np.ndarray
    projected: np.ndarray
    elsewhere: np.ndarray
    offset: np.ndarray

    def alike(self, allowed: np.ndarray) -> Alike:
        """Judge by the pairs that are ``allowed`` (s, t); without one the share is 0 and the offset infinite."""
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
    ) -> Pairs:
        """Compare ``queries`` (s,) with ``references`` (t,), both in some block of the search's vectors."""
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

        over_threads(compare, compared_pairs(as_query, as_reference, p), search.vectors.device)
        return out


def compared_pairs(queries: Collection[int], references: Collection[int], patches: int) -> list[tuple[int, int, bool]]:
    """List every query with every reference but itself; True where one multiplication does for both directions."""
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

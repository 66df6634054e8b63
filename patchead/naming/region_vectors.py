"""What a region looks like, as one vector: its anomalous patches less what they should have looked like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from patchead.scoring.aggregate import neighbours

FRACTION = 0.3
"""Of the reference images, whose nearest patches are what a patch should have looked like (method.md §3)."""
MOST_PATCHES = 64
"""Patches that describe a region, at most: those with the highest scores."""
_HALFWAY = 0.5  # from the image's median to the highest patch of the box: from there on a patch is anomalous


def patches_of_box(
    box: tuple[float, float, float, float], grid: tuple[int, int], width: int, height: int, fit: str
) -> np.ndarray:
    """Find the patches whose centres lie in a box of the original image: int64 (m,), ascending, m of at least 1.

    Where no centre does, it is the patch that holds the middle of the box, or the nearest one if the encoder did not
    see that place.

    Args:
        box: x, y, width and height in original pixels.
        grid: rows and columns of patches, (h, w).
        width, height: of the original image, in pixels.
        fit: how it became the square that was embedded: squash, crop or pad.

    Examples:
        >>> patches_of_box((50, 0, 50, 100), (2, 4), 100, 100, "squash").tolist()
        [2, 3, 6, 7]
        >>> patches_of_box((150, 0, 100, 100), (2, 2), 300, 100, "crop").tolist()
        [1, 3]
    """
    covered = {
        "squash": (width, height),
        "crop": (min(width, height),) * 2,
        "pad": (max(width, height),) * 2,
    }[fit]
    inside = []
    for start, size, pixels, seen, cells in (
        (box[1], box[3], height, covered[1], grid[0]),
        (box[0], box[2], width, covered[0], grid[1]),
    ):
        offset = (pixels - seen) // 2
        centres = offset + (np.arange(cells) + 0.5) * seen / cells
        within = np.flatnonzero((centres >= start) & (centres < start + size))
        middle = int(np.clip((start + size / 2 - offset) * cells // seen, 0, cells - 1))
        inside.append(within if len(within) else np.array([middle]))
    return (inside[0][:, None] * grid[1] + inside[1]).ravel().astype(np.int64)


def anomalous_patches(patch_scores: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Choose of the patches of a box those that are anomalous: int64 (m,), ascending, m of at least 1.

    They are at least halfway from the image's median to the highest of the box; of many the `MOST_PATCHES` highest.

    Args:
        patch_scores: float (h, w), of the image.
        places: int64 (n,), patches of the box, n of at least 1.

    Examples:
        >>> anomalous_patches(np.array([[0.1, 0.1, 0.5, 0.2, 0.4]]), np.array([2, 3, 4])).tolist()
        [2, 4]
    """
    scores = np.asarray(patch_scores, np.float64).ravel()
    normal, inside = float(np.median(scores)), scores[places]
    found = places[inside >= normal + _HALFWAY * (float(inside.max()) - normal)]
    if not len(found):  # the whole box is below the image's median
        found = places[inside == inside.max()]
    highest = np.lexsort((found, -scores[found]))[:MOST_PATCHES]
    return np.sort(found[highest])


def region_vectors(
    patches: np.ndarray, owner: np.ndarray, references: Sequence[np.ndarray], fraction: float = FRACTION
) -> np.ndarray:
    """Describe regions by their patches: float32 (R, D), each of length 1 (method.md §13).

    Of each patch the nearest patch of every reference image is found; what it should have looked like is the mean of
    the K nearest of these, K = max(1, floor(fraction · references)). A region's vector is the mean of its patches less
    that, normalised; it is 0 where they are the same.

    Args:
        patches: float (Q, D), unit vectors: the anomalous patches of all regions.
        owner: int (Q,), the region of each patch, from 0; every region up to the last has one.
        references: of each reference image its patches, float (P, D), unit vectors; they may differ in P.
        fraction: see above.

    Raises:
        ValueError: there is no reference image, or a region without a patch.
    """
    regions = int(owner.max(initial=-1)) + 1
    counts = np.bincount(owner, minlength=regions)
    if not len(references) or (counts == 0).any():
        raise ValueError(f"need a reference image and a patch of each region; got {len(references)}, {counts.tolist()}")
    queries = np.asarray(patches, np.float32)
    normal = _nearest_mean(queries, references, int(neighbours(len(references), fraction)))
    sums = np.zeros((regions, queries.shape[1]))
    np.add.at(sums, owner, queries - normal)
    means = sums / counts[:, None]
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.divide(means, lengths, out=np.zeros_like(means), where=lengths > 0).astype(np.float32)


def _nearest_mean(queries: np.ndarray, references: Sequence[np.ndarray], count: int) -> np.ndarray:
    """The mean of the nearest patches of the ``count`` nearest references: float64 (Q, D)."""
    cosines = np.empty((len(references), len(queries)), np.float32)
    nearest = np.empty((len(references), len(queries)), np.int64)
    for number, reference in enumerate(references):
        found = queries @ np.asarray(reference, np.float32).T
        nearest[number] = found.argmax(axis=1)
        cosines[number] = found[np.arange(len(queries)), nearest[number]]
    chosen = np.zeros(cosines.shape, bool)
    order = np.argsort(-cosines, axis=0, kind="stable")[:count]
    np.put_along_axis(chosen, order, True, axis=0)
    total = np.zeros(queries.shape)
    for number, reference in enumerate(references):
        here = np.flatnonzero(chosen[number])
        total[here] += np.asarray(reference)[nearest[number, here]].astype(np.float64)
    return total / count

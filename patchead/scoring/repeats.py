"""Defects that many images of a group share: from the patches that jump to the images that share a region.

Images of one repeat hide each other's defect (method.md §9.2). They are scored again without each other as references.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchead.scoring.burn_out import Evidence

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FEWEST = 3
"""Images of a repeat, at least: two that share a defect do not hide it from the mean over K references."""
LARGEST_SHARE = 0.25
"""Images of a repeat as a share of the group, at most: what more images share is how good ones look."""
_ABNORMAL = 0.99  # quantile of the group's patch scores that a patch must exceed once its sharers are left out
_ALIKE = 0.5  # mean Jaccard index of the images that two patches name, for them to be of one region
_NAMED_BY = 0.5  # share of a region's patches that must name an image
_COVER = 2 / 3  # Jaccard index of the images that are named and those that name
_REACH = 2  # patches between neighbours of one region, as the six strongest of it have gaps
_TOGETHER = 0.6  # share of an image's patches that are of its largest region
_ONE_PLACE = 0.1  # mean deviation of a region's centres, as a share of the picture, while it lies in one place
_MOST_PATCHES = 2048  # those of the smallest p-values; pairs of them are compared


@dataclass(frozen=True)
class Repeat:
    """Hold one region that some images of a group share."""

    images: np.ndarray
    """int64 (n,), positions in the group, ascending."""
    at: np.ndarray
    """int64 (s, 2): image and patch of what showed it."""

    def box(self, grid: tuple[int, int]) -> tuple[float, float, float, float] | None:
        """Give left, top, width and height of the region, as shares of the picture as it was embedded.

        The median of the images' boxes; None where it lies elsewhere in each image, or showed in no first view.

        Args:
            grid: (h, w) of one view's patches.
        """
        first = self.at[self.at[:, 1] < grid[0] * grid[1]]
        if not len(first):
            return None
        y, x = np.divmod(first[:, 1], grid[1])
        _, image = np.unique(first[:, 0], return_inverse=True)
        edges = np.empty((image.max() + 1, 4))
        for number in range(len(edges)):
            own = image == number
            edges[number] = x[own].min(), y[own].min(), x[own].max() + 1, y[own].max() + 1
        edges /= np.array([grid[1], grid[0], grid[1], grid[0]])
        centres = (edges[:, :2] + edges[:, 2:]) / 2
        if np.abs(centres - np.median(centres, axis=0)).max(axis=1).mean() > _ONE_PLACE:
            return None
        left, top, right, bottom = np.median(edges, axis=0).tolist()
        return left, top, right - left, bottom - top

    def facts(self, number: int, grid: tuple[int, int]) -> dict[str, int | float | None]:
        """Collect what is said of it as plain JSON values: its number, how many images, and its box."""
        box = self.box(grid) or (None, None, None, None)
        rounded = [None if value is None else round(value, 4) for value in box]
        return {"repeat_group": number, "images": len(self.images)} | dict(
            zip(("x", "y", "width", "height"), rounded, strict=True)
        )


def find_repeats(evidence: Evidence, patch_scores: np.ndarray, grid: tuple[int, int]) -> list[Repeat]:
    """Find the regions that images share, those with the most evidence first; no image is in two (method.md §9.2).

    A patch counts whose distance to the images behind its jump is in the highest hundredth of the group's patch
    scores: without its sharers it would stand out. Patches that name the same images, and each other's, are of one
    region (average linkage of Jaccard indices); its images are those that half of its patches name. It is one where
    these are at least three, at most a quarter of the group, for the most part those that the patches are of, and the
    patches of an image lie together: another make of the parts differs in many places.

    Args:
        evidence: of all N images, in their order.
        patch_scores: float32 (N, V · h · w); NaN where an image has no reference.
        grid: (h, w) of one view's patches.
    """
    n = len(patch_scores)
    image, place = _patches_that_stand_out(evidence, patch_scores)
    if len(image) < FEWEST:
        return []
    named = _named(evidence, image, place, n)
    found: list[Repeat] = []
    taken = np.zeros(n, bool)
    at = np.stack([image, evidence.patch[image, place]], axis=1).astype(np.int64)
    for chosen in _regions(named, image):
        own = np.zeros(n, bool)
        own[image[chosen]] = True
        counts = np.asarray(named[chosen].sum(axis=0)).ravel()
        by_itself = np.bincount(image[chosen], minlength=n)
        members = (counts >= _NAMED_BY * len(chosen)) | (own & (counts == by_itself))
        covered = (members & own).sum() >= _COVER * (members | own).sum()
        members &= ~taken
        covered &= (members & own).sum() >= FEWEST
        if covered and _lie_together(at[chosen], grid) and FEWEST <= members.sum() <= LARGEST_SHARE * n:
            found.append(Repeat(np.flatnonzero(members), at[chosen][members[image[chosen]]]))
            taken |= members
    return found


def _lie_together(at: np.ndarray, grid: tuple[int, int]) -> bool:
    """Whether, of a typical image's view, the patches ``at`` (s, 2) are for the most part neighbours of each other."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import connected_components

    patch = at[:, 1]
    view, rest = np.divmod(patch, grid[0] * grid[1])
    y, x = np.divmod(rest, grid[1])
    shares = []
    for own in np.unique(np.stack([at[:, 0], view], axis=1), axis=0):
        here = np.flatnonzero((at[:, 0] == own[0]) & (view == own[1]))
        near = np.maximum(np.abs(y[here, None] - y[here]), np.abs(x[here, None] - x[here])) <= _REACH
        _, label = connected_components(csr_matrix(near), directed=False)
        shares.append(np.bincount(label).max() / len(here))
    return bool(np.median(shares) >= _TOGETHER)


def repeat_groups(repeats: list[Repeat], n: int) -> np.ndarray:
    """Number the repeats from 1: int32 (N,), the one that each of ``n`` images belongs to, 0 for none."""
    out = np.zeros(n, np.int32)
    for number, repeat in enumerate(repeats, 1):
        out[repeat.images] = number
    return out


def parts_and_repeats(part: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Make the parts by which images of one repeat are no references of each other: int64 (N, 2), -1 for none."""
    return np.stack([part, np.where(groups > 0, groups, -1)], axis=1).astype(np.int64)


def _patches_that_stand_out(evidence: Evidence, patch_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image, and place in its evidence, of each patch that counts, ascending."""
    known = patch_scores[np.isfinite(patch_scores)]
    if not known.size:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    image, place = np.nonzero((evidence.patch >= 0) & (evidence.behind > np.quantile(known, _ABNORMAL)))
    best = np.argsort(evidence.p_value[image, place], kind="stable")[:_MOST_PATCHES]
    best.sort()
    return image[best], place[best]


def _named(evidence: Evidence, image: np.ndarray, place: np.ndarray, n: int) -> csr_matrix:
    """Which images (n,) each patch names, its own among them: 0 or 1, float64 (s, n)."""
    from scipy.sparse import csr_matrix  # half a second: not for actors that look for no repeats

    images = np.concatenate([image[:, None], evidence.images[image, place]], axis=1)
    patch, column = np.nonzero(images >= 0)
    return csr_matrix((np.ones(len(patch)), (patch, images[patch, column])), shape=(len(image), n))


def _regions(named: csr_matrix, image: np.ndarray) -> list[np.ndarray]:
    """Patches int64 of each region, the one that the most images show first."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    common = (named @ named.T).toarray()
    size = common.diagonal()
    apart = 1 - common / (size[:, None] + size - common)
    names = named[:, image].toarray() > 0
    # Nobody names an image outside the panel, of which no image is a neighbour.
    names[:, np.asarray(named.sum(axis=0)).ravel()[image] == np.bincount(image)[image]] = True
    apart[~(names & names.T)] = 1
    np.fill_diagonal(apart, 0)
    label = fcluster(linkage(squareform(apart, checks=False), "average"), 1 - _ALIKE, "distance")
    found = [np.flatnonzero(label == number) for number in np.unique(label)]
    return sorted(found, key=lambda chosen: (-len(np.unique(image[chosen])), int(chosen[0])))

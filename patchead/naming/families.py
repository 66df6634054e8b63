"""Regions that are alike: clusters of one night, and those of earlier nights that they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST = 4096
"""Regions that are compared each with each; further ones join the family whose medoid is nearest, or are alone."""
_ENOUGH = 5  # members from which their own distances say how far a family reaches
_REACH = 0.95  # quantile of these distances


@dataclass(frozen=True)
class Family:
    """Hold one cluster of regions."""

    members: np.ndarray
    """int64 (m,), places of its regions, ascending."""
    medoid: int
    """The region with the smallest sum of distances to the others."""
    reach: float
    """Cosine distance from the medoid up to which another medoid is of this family."""


def cosine_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Compute 1 - cos of unit vectors (n, D) and (m, D): float64 (n, m), from 0 to 2."""
    return np.clip(1 - np.asarray(a, np.float64) @ np.asarray(b, np.float64).T, 0, 2)


def in_order(vectors: np.ndarray) -> np.ndarray:
    """Order vectors (n, D) by their values, the first ones first, whatever order they come in: int64 (n,)."""
    return np.lexsort(vectors.T[::-1])


def find_families(vectors: np.ndarray, distance: float) -> list[Family]:
    """Cluster regions so that the mean distance between two clusters is above ``distance`` (method.md §13).

    Agglomerative, average linkage, by cosine. The same families come of the same regions in any order.

    Args:
        vectors: float32 (n, D), from `region_vectors`.
        distance: cosine distance, from 0 to 2.

    Returns:
        The largest first; among equals the one with the first region. Every region is in one.
    """
    order = in_order(np.asarray(vectors, np.float32))
    ordered = np.asarray(vectors, np.float64)[order]
    labels = np.empty(len(ordered), np.int64)
    labels[:MOST] = _clusters(ordered[:MOST], distance)
    if len(ordered) > MOST:
        labels[MOST:] = _joined(ordered, labels[:MOST], distance)
    found = [_family(ordered, np.flatnonzero(labels == label), distance) for label in np.unique(labels)]
    placed = [Family(np.sort(order[of.members]), int(order[of.medoid]), of.reach) for of in found]
    return sorted(placed, key=lambda of: (-len(of.members), int(of.members[0])))


def match(medoids: np.ndarray, known: np.ndarray, reaches: np.ndarray) -> np.ndarray:
    """Find the known family of each medoid, the nearest within its reach: int64 (m,), -1 where there is none.

    Args:
        medoids: float32 (m, D), of tonight's families.
        known: float32 (k, D), medoids of earlier nights.
        reaches: float (k,), of each.
    """
    if not len(known) or not len(medoids):
        return np.full(len(medoids), -1)
    distances = cosine_distances(medoids, known)
    near = np.where(distances <= np.asarray(reaches), distances, np.inf)
    found = near.argmin(axis=1)
    return np.where(np.isfinite(near[np.arange(len(medoids)), found]), found, -1)


def joined(vectors: np.ndarray, families: Sequence[Family], distance: float) -> Family:
    """Make one family of several, as when all of them are found to be one of an earlier night."""
    members = np.sort(np.concatenate([of.members for of in families]))
    order = members[in_order(np.asarray(vectors, np.float32)[members])]
    found = _family(np.asarray(vectors, np.float64)[order], np.arange(len(order)), distance)
    return Family(members, int(order[found.medoid]), found.reach)


def _clusters(vectors: np.ndarray, distance: float) -> np.ndarray:
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage

    apart = cosine_distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
    return fcluster(linkage(apart, "average"), distance, "distance").astype(np.int64)


def _joined(vectors: np.ndarray, labels: np.ndarray, distance: float) -> np.ndarray:
    """Labels of the vectors behind those that have one."""
    names = np.unique(labels)
    medoids = np.array([_family(vectors, np.flatnonzero(labels == label), distance).medoid for label in names])
    apart = cosine_distances(vectors[len(labels) :], vectors[medoids])
    alone = int(names.max()) + 1 + np.arange(len(apart))
    return np.where(apart.min(axis=1) <= distance, names[apart.argmin(axis=1)], alone)


def _family(vectors: np.ndarray, members: np.ndarray, distance: float) -> Family:
    own = vectors[members[:MOST]]
    apart = cosine_distances(own, own)
    medoid = int(apart.sum(axis=1).argmin())
    others = np.delete(apart[medoid], medoid)
    reach = float(np.quantile(others, _REACH)) if len(members) >= _ENOUGH else distance
    return Family(members, int(members[medoid]), min(reach, distance))

"""Regions and examples in one tree of clusters: what belongs together, and how far it is from any example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.batches import batches, slices
from patchead.naming.families import MOST, cosine_distances, find_families, in_order

NEIGHBOURS = 3
"""Nearest vectors that one is drawn towards; more where several are as near, and those that have it among theirs."""
_BLOCK = 1024  # vectors compared with all at once
_ALIKE = 1e-9  # cosine that rounding may change


@dataclass(frozen=True)
class Joins:
    """Hold where the clusters of R regions meet those of n examples."""

    group: np.ndarray
    """int64 (R,): number of the largest cluster without an example that the region is in."""
    height: np.ndarray
    """float64 (R,): mean distance between that cluster and the one, with an example, that it joins."""
    own: np.ndarray
    """float64 (n,): the same of each example, as if it were none, to the others; NaN where there is no other."""


def less_common(vectors: np.ndarray, distance: float) -> np.ndarray:
    """Take from unit vectors what all of them share: float64 (n, D), of length 1 again (method.md §13).

    That is their mean, times the chance that two of them are of different families. Regions of a product are alike in
    being anomalous at all; in a night of one family nothing can be told to be common to kinds, and nothing is taken.

    Args:
        vectors: float (n, D), of length 1 or 0.
        distance: cosine distance up to which regions are of one family.
    """
    values = np.asarray(vectors, np.float64)
    shares = np.array([len(of.members) for of in find_families(vectors, distance)]) / max(1, len(values))
    ordered = values[in_order(values)]  # the same sum in whatever order they come
    apart = values - (1 - float((shares**2).sum())) * ordered.mean(axis=0) if len(values) else values
    lengths = np.linalg.norm(apart, axis=1, keepdims=True)
    return np.divide(apart, lengths, out=np.zeros_like(apart), where=lengths > 0)


def drawn_to_neighbours(vectors: np.ndarray) -> np.ndarray:
    """Add to each vector its neighbours, as much of each as it is like it: float64 (n, D), of length 1 again.

    One step of diffusion over the graph of the `NEIGHBOURS` nearest: two are neighbours where one of them is among the
    other's nearest, and weigh their cosine, 0 where that is negative (method.md §13). What one region shows of its kind
    by chance goes, what regions of the kind have in common stays. The same comes of the same vectors in any order.

    Args:
        vectors: float (n, D), of length 1 or 0.
    """
    values = np.asarray(vectors, np.float64)
    order = in_order(values)
    ordered, count = values[order], len(values)
    blocks, nearest = slices(count, _BLOCK), min(NEIGHBOURS, count - 1)
    if nearest < 1:
        return values
    least = np.empty(count)  # cosine of the last of its nearest
    for block in blocks:
        like = _likeness(ordered, block)
        least[block] = np.partition(like, count - nearest, axis=1)[:, count - nearest]
    drawn = np.empty_like(ordered)
    for block in blocks:
        like = _likeness(ordered, block)
        near = like >= np.minimum(least[block, None], least) - _ALIKE
        drawn[block] = ordered[block] + np.where(near, np.maximum(like, 0), 0) @ ordered
    lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
    found = np.empty_like(drawn)
    found[order] = np.divide(drawn, lengths, out=np.zeros_like(drawn), where=lengths > 0)
    return found


def _likeness(vectors: np.ndarray, block: slice) -> np.ndarray:
    """Cosine of a block's vectors to all, -inf to themselves."""
    like = vectors[block] @ vectors.T
    like[np.arange(len(like)), np.arange(block.start, block.stop)] = -np.inf
    return like


def join(regions: np.ndarray, examples: np.ndarray) -> Joins:
    """Cluster regions and examples together, average linkage by cosine, and find where regions meet examples.

    Of more than `MOST` together, the regions take turns. The same comes of the same vectors in any order.

    Args:
        regions: float (R, D), of length 1.
        examples: float (n, D), of length 1, at least one.
    """
    order = in_order(np.asarray(regions, np.float64))
    group, height = np.empty(len(regions), np.int64), np.empty(len(regions))
    own, groups = np.full(len(examples), np.nan), 0
    for part in batches(order, max(1, MOST - len(examples))):
        found = _tree(regions[part], examples)
        group[part], height[part] = found.group + groups, found.height
        own = own if groups else found.own
        groups += int(found.group.max()) + 1
    return Joins(group, height, own)


def _tree(regions: np.ndarray, examples: np.ndarray) -> Joins:
    from scipy.cluster.hierarchy import linkage

    every, count = np.concatenate([regions, examples]), len(regions)
    own = np.full(len(examples), np.nan)
    order = in_order(np.asarray(every, np.float64))
    apart = cosine_distances(every[order], every[order])[np.triu_indices(len(every), 1)]
    group, height = np.zeros(count, np.int64), np.zeros(count)
    free = [[place] if place < count else [] for place in order.tolist()]  # regions of a cluster without an example
    held = [[place - count] if place >= count else [] for place in order.tolist()]  # its examples: two are enough
    groups = 0
    for first, second, at, _ in linkage(apart, "average").tolist():
        a, b = int(first), int(second)
        for mine, other in ((a, b), (b, a)):
            if held[other] and not held[mine]:
                group[free[mine]], height[free[mine]] = groups, at
                groups += 1
            elif held[other] and len(held[mine]) == 1:
                own[held[mine]] = at
        together = (held[a] + held[b])[:2]
        held.append(together)
        free.append([] if together else free[a] + free[b])
    return Joins(group, height, own)

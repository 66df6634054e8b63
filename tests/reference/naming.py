"""method.md §13 as plain float64 loops; shares nothing with `patchead.naming`."""

from __future__ import annotations

import math

import numpy as np


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / math.sqrt(float(np.dot(vector, vector)))


def region_vector(patches: np.ndarray, references: list[np.ndarray], fraction: float) -> np.ndarray:
    """Mean over the patches of (z - mean of the K nearest reference patches, one of an image), normalised."""
    k = max(1, math.floor(fraction * len(references)))
    residuals = []
    for z in patches.astype(np.float64):
        nearest = []
        for reference in references:
            best, vector = -2.0, None
            for row in reference.astype(np.float64):
                if float(np.dot(z, row)) > best:
                    best, vector = float(np.dot(z, row)), row
            nearest.append((-best, vector))
        nearest.sort(key=lambda pair: pair[0])
        residuals.append(z - sum(vector for _, vector in nearest[:k]) / k)
    return unit(sum(residuals) / len(residuals))


def clusters(vectors: np.ndarray, distance: float) -> set[frozenset[int]]:
    """Average linkage by cosine: the two clusters with the least mean distance are joined, up to ``distance``."""
    found = [frozenset([i]) for i in range(len(vectors))]
    while len(found) > 1:
        best, pair = math.inf, (found[0], found[1])
        for a in found:
            for b in found:
                if a is not b:
                    apart = [1 - float(np.dot(vectors[i], vectors[j])) for i in a for j in b]
                    if sum(apart) / len(apart) < best:
                        best, pair = sum(apart) / len(apart), (a, b)
        if best > distance:
            break
        found = [each for each in found if each not in pair] + [pair[0] | pair[1]]
    return set(found)


def distance_to_type(x: np.ndarray, members: list[np.ndarray], nearest: int) -> float:
    apart = sorted(1 - float(np.dot(x, member)) for member in members)[:nearest]
    return sum(apart) / len(apart)


def less_common(vectors: list[np.ndarray], distance: float) -> list[np.ndarray]:
    """Each vector less the mean of all, times the chance that two are of different families."""
    families = clusters(np.array(vectors), distance)
    different = 1 - sum((len(family) / len(vectors)) ** 2 for family in families)
    return [unit(v - different * sum(vectors) / len(vectors)) for v in vectors]


def drawn(vectors: list[np.ndarray], nearest: int) -> list[np.ndarray]:
    """Each vector and its neighbours, weighed by their cosine: those among whose nearest it is, too."""
    like = [[float(np.dot(a, b)) for b in vectors] for a in vectors]
    least = [sorted(row[:i] + row[i + 1 :], reverse=True)[min(nearest, len(row) - 1) - 1] for i, row in enumerate(like)]
    found = []
    for i, vector in enumerate(vectors):
        near = [j for j in range(len(vectors)) if j != i and like[i][j] >= min(least[i], least[j]) - 1e-9]
        found.append(unit(vector + sum(max(0.0, like[i][j]) * vectors[j] for j in near)))
    return found


def joins(vectors: list[np.ndarray], regions: int) -> tuple[list[frozenset[int]], list[float], list[float]]:
    """Of each region the largest cluster without an example, and where it joins one; of each example the same."""
    found = [frozenset([i]) for i in range(len(vectors))]
    cluster = [frozenset([i]) for i in range(regions)]
    height, own = [math.nan] * regions, [math.nan] * (len(vectors) - regions)
    while len(found) > 1:
        pairs = [(a, b) for at, a in enumerate(found) for b in found[:at]]
        apart = [
            sum(1 - float(np.dot(vectors[i], vectors[j])) for i in a for j in b) / len(a) / len(b) for a, b in pairs
        ]
        a, b = pairs[apart.index(min(apart))]
        for mine, other in ((a, b), (b, a)):
            held, others = [i for i in mine if i >= regions], [i for i in other if i >= regions]
            if others and not held:
                for i in mine:
                    cluster[i], height[i] = mine, min(apart)
            if others and len(held) == 1:
                own[held[0] - regions] = min(apart)
        found = [each for each in found if each not in (a, b)] + [a | b]
    return cluster, height, own


def named(
    asked: np.ndarray,
    of_types: dict[str, list[np.ndarray]],
    *,
    distance: float,
    nearest: int,
    neighbours: int,
    reach: float,
) -> list[tuple[float, list[str]]]:
    """p of each region, and the types by their distance from those that it is together with."""
    types = [name for name, members in of_types.items() for _ in members]
    every = drawn(less_common([*asked, *(m for of in of_types.values() for m in of)], distance), neighbours)
    cluster, height, own = joins(every, len(asked))
    centred = {name: [v for v, t in zip(every[len(asked) :], types, strict=True) if t == name] for name in of_types}
    told = [value for value, name in zip(own, types, strict=True) if len(of_types[name]) > 1]
    found = []
    for region, members in enumerate(cluster):
        near = {
            name: sum(distance_to_type(every[i], of, nearest) for i in members) / len(members)
            for name, of in centred.items()
        }
        order = sorted(near, key=lambda name: near[name])
        p = (1 + sum(value >= height[region] for value in told)) / (len(told) + 1)
        within = height[region] <= reach / min(10, len(of_types[order[0]])) ** (1 / 3)
        found.append((p if within else 0.0, order))
    return found

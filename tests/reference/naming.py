"""method.md §13 as plain float64 loops; shares nothing with `patchead.naming`."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats


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


def p_of_type(x: np.ndarray, of_types: dict[str, list[np.ndarray]], name: str, level: float, nearest: int) -> float:
    """The p-value of one type: its own leave-one-out distances, or a prediction interval about them."""
    own = {
        each: [distance_to_type(m, [o for o in members if o is not m], nearest) for m in members]
        for each, members in of_types.items()
        if len(members) > 1
    }
    d, mine = distance_to_type(x, of_types[name], nearest), own.get(name, [])
    if len(mine) >= math.ceil(1 / level) - 1:
        return (1 + sum(value >= d for value in mine)) / (len(mine) + 1)
    squares = sum((value - sum(values) / len(values)) ** 2 for values in own.values() for value in values)
    freedom = sum(len(values) - 1 for values in own.values())
    fitted = mine or [value for values in own.values() for value in values]
    t = (d - sum(fitted) / len(fitted)) / (max(0.03, math.sqrt(squares / freedom)) * math.sqrt(1 + 1 / len(fitted)))
    return float(stats.t.sf(t, freedom))

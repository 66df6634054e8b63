"""method.md §14 as plain float64 loops; shares nothing with patchead.naming."""

from __future__ import annotations

import math
from statistics import median


def length_one(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def mean_vector(vectors: list[list[float]]) -> list[float]:
    """t_k: unit vectors, mean, unit."""
    units = [length_one(vector) for vector in vectors]
    return length_one([sum(column) / len(units) for column in zip(*units, strict=True)])


def contrasts(patches: list[list[float]], t: list[list[float]], normal: list[float]) -> list[list[float]]:
    """c[k,p] = <V_p, t_k> - <V_p, t_0>."""
    return [[dot(v, own) - dot(v, normal) for v in patches] for own in t]


def top_quarter(values: list[float]) -> list[int]:
    count = max(1, len(values) // 4)
    return sorted(range(len(values)), key=lambda p: (-values[p], p))[:count]


def score(values: list[float]) -> float:
    return sum(values[p] for p in top_quarter(values)) / len(top_quarter(values))


def corrected(s: list[float], of_places: list[list[float]]) -> list[float]:
    """u_k = (s_k - median s_k0) / (1.4826 MAD)."""
    found = []
    for k, own in enumerate(s):
        column = [place[k] for place in of_places]
        middle = median(column)
        deviation = 1.4826 * median([abs(x - middle) for x in column])
        found.append((own - middle) / deviation)
    return found


def name(
    s: list[float], of_places: list[list[float]], types: int, level: float, tau: float
) -> tuple[int | None, float]:
    """The named type or None, and p0."""
    u = corrected(s, of_places)
    best = max(range(types), key=lambda k: u[k])
    as_high = 0
    for m, place in enumerate(of_places):
        others = [s] + [other for n, other in enumerate(of_places) if n != m]
        as_high += max(corrected(place, others)[:types]) >= u[best]
    p0 = (1 + as_high) / (len(of_places) + 1)
    share = math.exp(u[best] / tau) / sum(math.exp(x / tau) for x in u[:types])
    ahead = any(x >= u[best] for x in u[types:])
    return (best if p0 <= level and share >= 0.5 and not ahead else None), p0

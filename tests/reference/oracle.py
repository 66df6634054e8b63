"""The method as plain float64 loops, one equation after the other; slow on purpose, shares nothing with the engine."""

from __future__ import annotations

import math

import numpy as np


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (N, P, D) normalised in float64."""
    z = np.array(embeddings, np.float64)
    for i in range(z.shape[0]):
        for p in range(z.shape[1]):
            z[i, p] /= math.sqrt(float(np.dot(z[i, p], z[i, p])))
    return z


def distance(u: np.ndarray, v: np.ndarray) -> float:
    """Notation: d = (1 - cos) / 2."""
    return (1.0 - float(np.dot(u, v))) / 2.0


def nearest_distance(z: np.ndarray, i: int, p: int, j: int) -> float:
    """Section 2 (eq. 2): s[i,p](j) = min over q of d(z[i,p], z[j,q])."""
    best = math.inf
    for q in range(z.shape[1]):
        best = min(best, distance(z[i, p], z[j, q]))
    return best


def references(i: int, content: list[int], part: list[int], panel: list[int] | None = None) -> list[int]:
    """method.md §3: not i, no image with the same content, none of the same part; §9.3: panel images only."""
    chosen = []
    for j in range(len(content)):
        if j == i or content[j] == content[i]:
            continue
        if part[j] != -1 and part[j] == part[i]:
            continue
        if panel is not None and j not in panel:
            continue
        chosen.append(j)
    return chosen


def count(total: int, percent: int) -> int:
    """max(1, floor(percent / 100 · total)) in whole numbers."""
    return max(1, (percent * total) // 100)


def patch_scores(
    embeddings: np.ndarray,
    content: list[int],
    part: list[int],
    aggregate: str = "nearest",
    percent: int = 30,
    panel: list[int] | None = None,
) -> np.ndarray:
    """Section 3 (eq. 3): a[i,p], the mean of the K smallest (or largest) s[i,p](j); NaN without a reference."""
    z = unit(embeddings)
    n, patches = z.shape[:2]
    a = np.full((n, patches), math.nan)
    for i in range(n):
        chosen = references(i, content, part, panel)
        if not chosen:
            continue
        k = count(len(chosen), percent)
        for p in range(patches):
            s = sorted((nearest_distance(z, i, p, j) for j in chosen), reverse=aggregate == "farthest")
            a[i, p] = sum(s[:k]) / k
    return a


def image_scores(a: np.ndarray, percent: int = 1) -> np.ndarray:
    """Section 4 (eq. 4): mean of the M largest patch scores, M = max(1, floor(percent / 100 · P)); 0: the maximum."""
    scores = []
    for row in a:
        m = count(len(row), percent)
        scores.append(sum(sorted(row, reverse=True)[:m]) / m)
    return np.array(scores)


def robust_z(scores: list[float]) -> list[float]:
    """Section 7: (log s - median) / (1.4826 · MAD), the log of max(s, 1e-6)."""
    logs = [math.log(max(s, 1e-6)) for s in scores]
    centre = _median(logs)
    mad = _median([abs(x - centre) for x in logs])
    return [0.0 if mad == 0 else (x - centre) / (1.4826 * mad) for x in logs]


def _median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

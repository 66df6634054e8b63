"""The method as plain float64 loops, one equation after the other; slow on purpose, shares nothing with the engine."""

from __future__ import annotations

import math
from statistics import NormalDist

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
    only: list[int] | None = None,
) -> np.ndarray:
    """Section 3 (eq. 3): a[i,p], the mean of the K smallest (or largest) s[i,p](j); NaN without a reference.

    And NaN of images that are not among ``only``, where these alone are asked for.
    """
    z = unit(embeddings)
    n, patches = z.shape[:2]
    a = np.full((n, patches), math.nan)
    for i in range(n) if only is None else only:
        chosen = references(i, content, part, panel)
        if not chosen:
            continue
        k = count(len(chosen), percent)
        for p in range(patches):
            s = sorted((nearest_distance(z, i, p, j) for j in chosen), reverse=aggregate == "farthest")
            a[i, p] = sum(s[:k]) / k
    return a


def window_patch_scores(
    embeddings: np.ndarray,
    grid: tuple[int, int],
    radius: int,
    content: list[int],
    part: list[int],
    aggregate: str = "nearest",
    percent: int = 30,
    panel: list[int] | None = None,
) -> np.ndarray:
    """Section 11: as `patch_scores`, q within Chebyshev distance ``radius`` of p on the grid (views one by one)."""
    z = unit(embeddings)
    n, patches = z.shape[:2]
    h, w = grid
    a = np.full((n, patches), math.nan)
    for i in range(n):
        chosen = references(i, content, part, panel)
        if not chosen:
            continue
        k = count(len(chosen), percent)
        for p in range(patches):
            near = []
            for q in range(patches):
                same_view = p // (h * w) == q // (h * w)
                down, right = abs(p % (h * w) // w - q % (h * w) // w), abs(p % w - q % w)
                if same_view and down <= radius and right <= radius:
                    near.append(q)
            s = sorted((min(distance(z[i, p], z[j, q]) for q in near) for j in chosen), reverse=aggregate == "farthest")
            a[i, p] = sum(s[:k]) / k
    return a


def image_scores(a: np.ndarray, percent: int = 1) -> np.ndarray:
    """Section 4 (eq. 4): mean of the M largest patch scores, M = max(1, floor(percent / 100 · P)); 0: the maximum."""
    scores = []
    for row in a:
        m = count(len(row), percent)
        scores.append(sum(sorted(row, reverse=True)[:m]) / m)
    return np.array(scores)


def line(values: list[float], low: float, high: float) -> tuple[float, float]:
    """Section 7.1: least squares of x_(k) = m + s·Φ⁻¹(u_k) over low <= u_k <= high, all k if fewer than 3 are there."""
    ordered = sorted(values)
    u = [(k - 0.5) / len(ordered) for k in range(1, len(ordered) + 1)]
    pairs = [(NormalDist().inv_cdf(q), x) for q, x in zip(u, ordered, strict=True) if low <= q <= high]
    if len(pairs) < 3:
        pairs = [(NormalDist().inv_cdf(q), x) for q, x in zip(u, ordered, strict=True)]
    mean_q = sum(q for q, _ in pairs) / len(pairs)
    mean_x = sum(x for _, x in pairs) / len(pairs)
    s = sum((q - mean_q) * (x - mean_x) for q, x in pairs) / sum((q - mean_q) ** 2 for q, _ in pairs)
    return mean_x - s * mean_q, s


def upper_fit(scores: list[float], t: float = 3.0) -> tuple[float, float, set[int]]:
    """Section 7.1, its steps as they are written: m, s and the positions that are anomalous."""

    def above(m: float, s: float) -> set[int]:
        return {i for i, x in enumerate(scores) if s > 1e-6 and x > m + t * s}  # s = 0 but for rounding: z = 0

    n = len(scores)
    by_score = sorted(range(n), key=lambda i: -scores[i])
    fitted = line(scores, 0.40, 0.65)
    flagged = above(*fitted)
    seen = [(flagged, fitted)]
    while True:
        out = flagged if 5 * len(flagged) <= 2 * n else set(by_score[: 2 * n // 5])
        again = line([x for i, x in enumerate(scores) if i not in out], 0.40, 0.80)
        found = above(*again)
        if found == flagged:
            return *again, found
        for earlier, _ in seen:
            if found == earlier:  # F = F ∩ G: of two sets of the highest, the smaller one
                m, s = again if len(found) < len(flagged) else seen[-1][1]
                return m, s, found & flagged
        flagged = found
        seen.append((flagged, again))


def mad_fit(scores: list[float]) -> tuple[float, float]:
    """Section 7.2: median and 1.4826 · MAD; MAD 0: 1.2533 times the mean absolute deviation."""
    centre = _median(scores)
    deviations = [abs(x - centre) for x in scores]
    mad = _median(deviations)
    return centre, 1.4826 * mad if mad > 0 else 1.2533 * sum(deviations) / len(deviations)


def prompt_p(score: float, null_scores: list[float]) -> float:
    """Section 7.3: 1 - T(t) of k - 1 degrees, the density of Student's t summed by Simpson's rule."""
    k = len(null_scores)
    mean = sum(null_scores) / k
    sd = math.sqrt(sum((x - mean) ** 2 for x in null_scores) / (k - 1))
    t = (score - mean) / (sd * math.sqrt(1 + 1 / k))
    v = k - 1
    norm = math.gamma((v + 1) / 2) / (math.sqrt(v * math.pi) * math.gamma(v / 2))
    steps = 1000
    width = abs(t) / steps
    area = 0.0
    for step in range(steps):
        a, b = step * width, (step + 1) * width
        values = [norm * (1 + x * x / v) ** (-(v + 1) / 2) for x in (a, (a + b) / 2, b)]
        area += width * (values[0] + 4 * values[1] + values[2]) / 6
    return 0.5 - math.copysign(area, t)


def reference_p(score: float, reference: list[float]) -> float:
    """Section 7.4: (1 + number of reference scores >= x) / (n + 1)."""
    return (1 + sum(other >= score for other in reference)) / (len(reference) + 1)


def _median(values: list[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2

"""method.md §9 as plain float64 loops: position level, subspace residual, burn-out; shares nothing with the engine."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.oracle import unit


def subspace_residuals(embeddings: np.ndarray) -> np.ndarray:
    """method.md §9.2: length of each patch's part outside of the directions that hold 95 % of the variance (N, P)."""
    z = unit(embeddings)
    n, patches, dim = z.shape
    chosen = np.array([z[i, p] for i in range(n) for p in range(patches) if (i + p) % 5 == 0])
    mean = chosen.mean(axis=0)
    _, lengths, directions = np.linalg.svd(chosen - mean, full_matrices=True)
    variances = [float(length) ** 2 for length in lengths] + [0.0] * (dim - len(lengths))
    kept, held = [], 0.0
    for variance, direction in zip(variances, directions, strict=True):
        if held >= 0.95 * sum(variances):
            break
        kept.append(direction)
        held += variance
    out = np.empty((n, patches))
    for i in range(n):
        for p in range(patches):
            rest = z[i, p] - mean
            for direction in kept:
                rest = rest - float(np.dot(z[i, p] - mean, direction)) * direction
            out[i, p] = math.sqrt(float(np.dot(rest, rest)))
    return out


def burn_out(
    strip: list[list[list[float]]], allowed: list[list[bool]], k: int, tested: int, kept: int = 6
) -> list[list[tuple[int, float, float, list[int]]]]:
    """method.md §9.2: per image, up to ``kept`` of (patch, p-value, mean distance behind the jump, images before it).

    ``strip[i][j][p]`` is the distance of patch p of image i to the nearest patch of image j.
    """
    found = []
    for i, of_image in enumerate(strip):
        references = [j for j in range(len(of_image)) if allowed[i][j]]
        patches = len(of_image[0])
        mean = {j: max(1e-6, sum(of_image[j]) / patches) for j in references}
        orders, steps = [], []
        for p in range(patches):
            order = sorted(references, key=lambda j: (max(1e-6, of_image[j][p] / mean[j]), j))[: tested + 1]
            relative = [max(1e-6, of_image[j][p] / mean[j]) for j in order]
            orders.append(order)
            steps.append([r * math.log(relative[r] / relative[r - 1]) for r in range(1, len(order))])
        if len(references) < 3 or len(steps[0]) < 2:
            found.append([])
            continue
        rates = sorted(len(each) / max(1e-6, sum(each)) for each in steps)
        half = len(rates) // 2
        rate = rates[half] if len(rates) % 2 else (rates[half - 1] + rates[half]) / 2
        rows = []
        for p in range(patches):
            jump = max(range(len(steps[p])), key=lambda r: steps[p][r]) + 1
            p_value = min(1.0, len(steps[p]) * math.exp(-rate * steps[p][jump - 1]))
            behind = [of_image[j][p] for j in orders[p][jump : jump + k]]
            if p_value < 1e-3 and jump > 1:
                rows.append((p, p_value, sum(behind) / len(behind), orders[p][:jump]))
        rows.sort(key=lambda row: (-row[2], row[0]))
        found.append(rows[:kept])
    return found


def above_position_level(a: list[list[float]]) -> list[list[float]]:
    """method.md §9.1: a[i,p] less the 75 % quantile, interpolated, of a[·,p] over the images; 0 below it."""
    out = [list(row) for row in a]
    for p in range(len(a[0])):
        column = sorted(row[p] for row in a)
        place = 0.75 * (len(column) - 1)
        low = math.floor(place)
        high = min(low + 1, len(column) - 1)
        level = column[low] + (place - low) * (column[high] - column[low])
        for i in range(len(a)):
            out[i][p] = max(0.0, a[i][p] - level)
    return out

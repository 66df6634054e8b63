"""Areas under threshold curves, from how many positives and negatives lie at each threshold (method.md §8).

The counts may be of single scores or of histogram bins: what shares a threshold is tied. They come highest threshold
first. Every function gives None where the positives or the negatives are missing: the metric is then undefined.
"""

from __future__ import annotations

import numpy as np


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Share of (positive, negative) pairs in which the positive is higher; a tie counts half (Mann-Whitney).

    Args:
        positives, negatives: counts (T,) at each threshold, highest first.
    """
    if _shares(positives, negatives) is None:
        return None
    above = np.cumsum(positives, dtype=np.int64)
    # Twice the pairs, in Python's integers: exact, and beyond 64 bits where there are many pixels.
    columns = (part.tolist() for part in (negatives, above, positives))
    pairs = sum(lower * (2 * reached - tied) for lower, reached, tied in zip(*columns, strict=True))
    return float(pairs / (2 * int(above[-1]) * int(negatives.sum())))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """Sum over thresholds of (recall gained) x precision: no interpolation, as scikit-learn's.

    Args:
        positives, negatives: counts (T,) at each threshold, highest first.
    """
    shares = _shares(positives, negatives)
    if shares is None:
        return None
    above = np.cumsum(positives, dtype=np.int64)
    precision = above / np.maximum(above + np.cumsum(negatives, dtype=np.int64), 1)
    return float(shares[0] @ precision)


def f1_max(positives: np.ndarray, negatives: np.ndarray) -> float | None:
    """The highest F1 = 2 TP / (2 TP + FP + FN) over all thresholds.

    Args:
        positives, negatives: counts (T,) at each threshold, highest first.
    """
    if _shares(positives, negatives) is None:
        return None
    above = np.cumsum(positives, dtype=np.int64)
    return float((2 * above / (above[-1] + above + np.cumsum(negatives, dtype=np.int64))).max())


def pro(overlap: np.ndarray, negatives: np.ndarray, fpr_limit: float) -> float | None:
    """Per-region overlap as a function of the false-positive rate, averaged over rates from 0 to ``fpr_limit``.

    The curve starts at (0, 0) and is straight between thresholds; at the limit it is interpolated (trapezoid rule).

    Args:
        overlap: float64 (T,), what each threshold adds to the mean over regions of the fraction above it; its sum is
            1, or 0 where there is no region.
        negatives: counts (T,) at each threshold, highest first.
        fpr_limit: in (0, 1].
    """
    shares = _shares(overlap, negatives)
    if shares is None:
        return None
    rate, height = (np.concatenate([[0.0], np.cumsum(share)]) for share in shares[::-1])
    inside = int(np.searchsorted(rate, fpr_limit, side="right"))
    if inside < len(rate):
        last, after = inside - 1, inside
        slope = (height[after] - height[last]) / (rate[after] - rate[last])
        at_limit = height[last] + slope * (fpr_limit - rate[last])
        rate, height = (np.append(v[:inside], end) for v, end in ((rate, fpr_limit), (height, at_limit)))
    return float(np.diff(rate) @ (height[1:] + height[:-1]) / 2 / fpr_limit)


def _shares(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Both as float64 fractions of their sums, or None where a sum is 0."""
    totals = positives.sum(), negatives.sum()
    if min(totals) <= 0:
        return None
    return positives / totals[0], negatives / totals[1]

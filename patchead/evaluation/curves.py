"""Areas under threshold curves (method.md §8): scikit-learn's, and the per-region overlap, which it does not have.

Weights make scores out of histograms: a bin is one score with as many samples as the bin counts. Both functions give
None where the positives or the negatives are missing: the metric is then undefined.
"""

from __future__ import annotations

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score


def threshold_metrics(
    labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float | None, float | None, float | None]:
    """Compute AUROC (a tie counts half), average precision and the highest F1 over all thresholds.

    Args:
        labels: bool (n,), True = positive.
        scores: float or int (n,), finite, higher for what should be positive; equal scores share a threshold.
        weights: how many samples each score stands for (n,), 0 or more; default: 1. Sums are of float64, so exact up
            to 2^53 samples.
    """
    counted = labels if weights is None else labels[weights > 0]
    if counted.all() or not counted.any():
        return None, None, None
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=weights)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return (
        float(roc_auc_score(labels, scores, sample_weight=weights)),
        float(average_precision_score(labels, scores, sample_weight=weights)),
        float(f1.max()),
    )


def pro(overlap: np.ndarray, negatives: np.ndarray, fpr_limit: float) -> float | None:
    """Average the per-region overlap over false-positive rates from 0 to ``fpr_limit``.

    The curve starts at (0, 0) and is straight between thresholds; at the limit it is interpolated (trapezoid rule).

    Args:
        overlap: float64 (T,), what each threshold, highest first, adds to the mean over regions of the fraction above
            it; its sum is 1, or 0 where there is no region.
        negatives: counts (T,) at each threshold, highest first.
        fpr_limit: in (0, 1].
    """
    totals = overlap.sum(), negatives.sum()
    if min(totals) <= 0:
        return None
    rate, height = (np.concatenate([[0.0], np.cumsum(part / part.sum())]) for part in (negatives, overlap))
    inside = int(np.searchsorted(rate, fpr_limit, side="right"))
    if inside < len(rate):
        last, after = inside - 1, inside
        slope = (height[after] - height[last]) / (rate[after] - rate[last])
        at_limit = height[last] + slope * (fpr_limit - rate[last])
        rate, height = (np.append(v[:inside], end) for v, end in ((rate, fpr_limit), (height, at_limit)))
    return float(np.diff(rate) @ (height[1:] + height[:-1]) / 2 / fpr_limit)

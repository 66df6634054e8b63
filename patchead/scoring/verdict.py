"""Which images are anomalous: a robust z of every image score in its group (method.md §7)."""

from __future__ import annotations

import numpy as np

_SCORE_FLOOR = 1e-6
_MAD_TO_SIGMA = 1.4826  # makes the median absolute deviation of a normal sample its standard deviation
_MEAN_AD_TO_SIGMA = 1.2533  # the same for the mean absolute deviation: sqrt(pi / 2)
_FLAT = 1e-6  # a deviation of log scores below this is rounding
_LARGEST_LOG = 700.0  # of a float64


def robust_z(scores: np.ndarray) -> np.ndarray:
    """Compute z = (log score - median) / (1.4826 · MAD), the log of max(score, 1e-6): float64 (N,) (method.md §7).

    A constant group gives 0. Where more than half of the group is equal, so that the MAD is 0, the mean absolute
    deviation takes its place (Iglewicz and Hoaglin's rule). A NaN score has z NaN and does not count.
    """
    logs = _logs(scores)
    centre, scale = _centre_and_scale(logs)
    return (logs - centre) / scale if scale > 0 else np.where(np.isnan(logs), np.nan, 0.0)


def z_threshold_score(scores: np.ndarray, threshold_z: float) -> float:
    """Find the score whose `robust_z` in this group is ``threshold_z``; infinity where no score can reach it.

    That is: a constant group, or one without any score.
    """
    centre, scale = _centre_and_scale(_logs(scores))
    return float(np.exp(min(centre + threshold_z * scale, _LARGEST_LOG))) if scale > 0 else float("inf")


def _logs(scores: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(scores, np.float64), _SCORE_FLOOR))


def _centre_and_scale(logs: np.ndarray) -> tuple[float, float]:
    known = logs[~np.isnan(logs)]
    if known.size == 0:
        return 0.0, 0.0
    centre = float(np.median(known))
    deviation = np.abs(known - centre)
    mad, mean = float(np.median(deviation)), float(deviation.mean())
    if mad > _FLAT:
        return centre, _MAD_TO_SIGMA * mad
    return centre, _MEAN_AD_TO_SIGMA * mean if mean > _FLAT else 0.0

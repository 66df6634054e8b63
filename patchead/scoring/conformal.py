"""p-values against an accepted reference, a false-discovery rule over them, and drift (method.md §7.4)."""

from __future__ import annotations

import numpy as np

_LEAST_LEVEL = 1e-300


def conformal_p_values(scores: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Compute p = (1 + number of reference scores >= score) / (n + 1): float64 (N,); NaN stays NaN (method.md §7.4).

    Args:
        scores: float (N,), of a night.
        reference: float (n,), finite: the scores of the accepted run.

    Raises:
        ValueError: no reference score, or one that is not finite.

    Examples:
        >>> conformal_p_values(np.array([0.05, 0.95]), np.linspace(0, 0.9, 9)).tolist()
        [0.9, 0.1]
    """
    scores, ordered = np.asarray(scores, np.float64), np.sort(np.asarray(reference, np.float64))
    if not len(ordered) or not np.isfinite(ordered).all():
        raise ValueError(f"need finite reference scores; got {len(ordered)} of them")
    above = len(ordered) - np.searchsorted(ordered, scores, side="left")
    return np.where(np.isnan(scores), np.nan, (1 + above) / (len(ordered) + 1))


def scores_needed(level: float) -> int:
    """Count the reference scores that it takes for any p to be as low as ``level``.

    Examples:
        >>> scores_needed(0.01), scores_needed(0.05)
        (99, 19)
    """
    if not level >= _LEAST_LEVEL:
        raise ValueError(
            f"level must be at least {_LEAST_LEVEL:g}: no number of scores is enough for less; got {level:g}"
        )
    return int(np.ceil(1 / level * (1 - 1e-9))) - 1


def score_above(reference: np.ndarray, alpha: float) -> float:
    """Find the largest score that is not yet flagged at level ``alpha``: those above it have p <= alpha.

    Infinity where there are too few reference scores for the level.
    """
    ordered = np.sort(np.asarray(reference, np.float64))
    allowed = int(np.floor(alpha * (len(ordered) + 1) * (1 + 1e-9))) - 1  # reference scores that may be as high
    return float(ordered[len(ordered) - 1 - allowed]) if 0 <= allowed < len(ordered) else float("inf")


def benjamini_hochberg(p_values: np.ndarray, rate: float) -> np.ndarray:
    """Choose discoveries so that at most ``rate`` of them are expected to be false: bool (N,); NaN is none.

    Benjamini and Hochberg's step-up rule.

    Examples:
        >>> benjamini_hochberg(np.array([0.001, 0.2, 0.012, 0.9]), 0.05).tolist()
        [True, False, True, False]
    """
    p_values = np.asarray(p_values, np.float64)
    known = np.sort(p_values[~np.isnan(p_values)])
    passing = np.flatnonzero(known <= rate * np.arange(1, len(known) + 1) / max(1, len(known)))
    return p_values <= known[passing[-1]] if passing.size else np.zeros(p_values.shape, bool)

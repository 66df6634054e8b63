"""Signs of a verdict whose null does not fit the group: for the engineer who wonders about its flags."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.scoring.upper_fit import FLAT
from patchead.scoring.verdict import Verdict

_ONE_SIGMA = 0.8413  # quantile of a normal, one standard deviation above its median
_FEWEST = 3  # scores that have a shape


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Hold what a fitting null leaves: ``upper_ratio`` near 1, ``skew`` near 0, and flags that stand apart."""

    median: float | None
    """Of all scores; None without one."""
    skew: float | None
    """Skewness of the scores that are not flagged; None with fewer than three."""
    upper_ratio: float | None
    """Their 84 % quantile minus their median, in units of the null's scale: 1 for a normal."""
    gap_z: float | None
    """From the highest score that is not flagged to the lowest that is, in units of the scale; None without both."""


def diagnose(scores: np.ndarray, verdict: Verdict) -> Diagnostics:
    """Compare a group's scores with the null that its verdict was made by.

    Args:
        scores: float (N,), those that were judged.
        verdict: on them.

    Examples:
        >>> from patchead.scoring.verdict import VerdictSettings, judge
        >>> night = np.concatenate([np.random.default_rng(0).normal(0.1, 0.01, 90), np.full(10, 0.2)])
        >>> found = diagnose(night, judge(night, VerdictSettings()))
        >>> abs(found.skew) < 0.5, 0.8 < found.upper_ratio < 1.2, found.gap_z > 5
        (True, True, True)
    """
    scores = np.asarray(scores, np.float64)
    others, flagged, scale = scores[~verdict.flagged], scores[verdict.flagged], verdict.scale
    enough = len(others) >= _FEWEST
    upper = float(np.quantile(others, _ONE_SIGMA) - np.median(others)) if enough else 0.0
    return Diagnostics(
        median=float(np.median(scores)) if len(scores) else None,
        skew=_skewness(others) if enough else None,
        upper_ratio=upper / scale if enough and scale > 0 else None,
        gap_z=float(flagged.min() - others.max()) / scale if len(flagged) and len(others) and scale > 0 else None,
    )


def _skewness(values: np.ndarray) -> float:
    """Mean cubed deviation over the cubed standard deviation; 0 where all are equal."""
    deviation = values - values.mean()
    sigma = float(np.sqrt((deviation**2).mean()))
    return float((deviation**3).mean()) / sigma**3 if sigma > FLAT else 0.0

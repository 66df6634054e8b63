"""The null of few-shot mode: the prompts' own leave-one-out scores, and one more normal image (method.md §7.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from patchead.scoring.upper_fit import FLAT

_SMALLEST_P = 1e-300  # so that z stays finite


@dataclass(frozen=True)
class PredictionInterval:
    """Hold Student's prediction interval for the score of one more normal image.

    Examples:
        >>> interval = PredictionInterval.of(np.array([0.10, 0.11, 0.12, 0.13]))
        >>> p = interval.p_values(np.array([0.115, 0.30]))
        >>> round(float(p[0]), 3), bool(p[1] < 0.01)
        (0.5, True)
    """

    centre: float
    """Mean of the prompts' scores."""
    scale: float
    """Standard deviation of one more score: sd · sqrt(1 + 1/k); 0 where all prompts score alike."""
    degrees: int
    """Of freedom: k - 1."""

    @classmethod
    def of(cls, null_scores: np.ndarray, least_deviation: float = 0.0) -> PredictionInterval:
        """Make it of the scores of k normal images, float (k,), k >= 2.

        ``least_deviation`` bounds their standard deviation from below, as a share of their mean.

        Raises:
            ValueError: fewer than two, or one that is not finite.
        """
        scores = np.asarray(null_scores, np.float64)
        if len(scores) < 2 or not np.isfinite(scores).all():
            raise ValueError(f"need at least two finite scores of normal images; got {scores!r}")
        k = len(scores)
        deviation = max(float(scores.std(ddof=1)), least_deviation * float(scores.mean()))
        scale = float(deviation * np.sqrt(1 + 1 / k))
        return cls(float(scores.mean()), scale if scale > FLAT else 0.0, k - 1)

    def p_values(self, scores: np.ndarray) -> np.ndarray:
        """Compute p = 1 - T(t), how often one more normal image would score as high: float64 (N,); NaN stays NaN.

        Where the prompts all score alike, up to rounding, a score above theirs has p 0 and any other p 1.
        """
        distance = np.asarray(scores, np.float64) - self.centre
        if self.scale > 0:
            return stdtr(self.degrees, -distance / self.scale)
        return np.where(np.isnan(distance), np.nan, np.where(distance > FLAT, 0.0, 1.0))

    def score_at(self, p: float) -> float:
        """Find the score whose p is ``p``, in (0, 1)."""
        return self.centre + (-float(stdtrit(self.degrees, p)) * self.scale if self.scale > 0 else FLAT)


def z_of_p(p_values: np.ndarray) -> np.ndarray:
    """Turn p into z = Φ⁻¹(1 - p), float64 (N,), finite; NaN stays NaN.

    Examples:
        >>> z_of_p(np.array([0.5, 0.01])).round(2).tolist()
        [0.0, 2.33]
    """
    p = np.clip(np.asarray(p_values, np.float64), _SMALLEST_P, 1 - 2**-53)
    return np.abs(-ndtri(p)) * np.sign(0.5 - p)

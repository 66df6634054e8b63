"""The null of a batch night: a normal fitted to the upper half of a group's image scores (method.md §7.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

_FIRST = (0.40, 0.65)  # quantiles of the first fit: below the defects of any night that is mostly good
_AGAIN = (0.40, 0.80)  # of the fits without the flagged images
_FEWEST = 3  # points of a line; with fewer between the quantiles all are taken
FLAT = 1e-6
"""A scale of scores below this is rounding: float32 similarities of equal patches differ by as much."""


@dataclass(frozen=True)
class Null:
    """Hold the normal that good images' scores are taken to follow, in the unit of the scores.

    Examples:
        >>> Null(centre=0.1, scale=0.02).score_at(3.0)
        0.16
    """

    centre: float
    scale: float
    """0 where the group is constant: no score is then a surprise."""

    def z(self, scores: np.ndarray) -> np.ndarray:
        """Compute z = (score - centre) / scale, float64 (N,); 0 where the scale is, NaN where the score is."""
        distance = np.asarray(scores, np.float64) - self.centre
        return distance / self.scale if self.scale > 0 else np.where(np.isnan(distance), np.nan, 0.0)

    def score_at(self, z: float) -> float:
        """Find the score at a z; infinity where the scale is 0, so that none can reach it."""
        return self.centre + z * self.scale if self.scale > 0 else float("inf")


def upper_fit(scores: np.ndarray, threshold_z: float) -> Null:
    """Fit the null of a group's scores by their upper quantiles, without the images that it then flags.

    Only the upper half enters, so that near-twins, which score very low, have no say. Flagged images are taken out and
    the fit is repeated until it flags the same ones, so that defects do not widen the null (method.md §7.1).

    Args:
        scores: float (n,), finite, linear.
        threshold_z: an image is flagged above this z.

    Examples:
        A night of 100 with ten defects.

        >>> night = np.concatenate([np.linspace(0.10, 0.12, 90), np.full(10, 0.2)])
        >>> null = upper_fit(night, 3.0)
        >>> int((null.z(night) > 3.0).sum())
        10
    """
    ordered = np.sort(np.asarray(scores, np.float64))
    null = _line(ordered, *_FIRST)
    # What is flagged is always the top of the sorted scores, so its number says which it is.
    flagged, seen = _above(ordered, null, threshold_z), set[int]()
    while True:
        seen.add(flagged)
        before, null = null, _without(ordered, flagged)
        again = _above(ordered, null, threshold_z)
        if again in seen:  # settled; or it would go round for ever: then what both of the last fits flag is flagged
            return null if again <= flagged else before
        flagged = again


def _without(ordered: np.ndarray, flagged: int) -> Null:
    """The fit without the highest ``flagged`` scores, but at most 40 % of the group."""
    return _line(ordered[: len(ordered) - min(flagged, 2 * len(ordered) // 5)], *_AGAIN)


def _above(ordered: np.ndarray, null: Null, threshold_z: float) -> int:
    return int((null.z(ordered) > threshold_z).sum())


def _line(ordered: np.ndarray, low: float, high: float) -> Null:
    """Least squares of the sorted scores on the normal's quantiles at (k - 1/2) / n, between two quantiles."""
    u = (np.arange(1, len(ordered) + 1) - 0.5) / len(ordered)
    inside = (u >= low) & (u <= high)
    if inside.sum() < _FEWEST:
        inside[:] = True
    x, y = ndtri(u[inside]), ordered[inside]
    if len(y) < 2:
        return Null(float(y.mean()) if len(y) else 0.0, 0.0)
    scale = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())
    return Null(float(y.mean() - scale * x.mean()), scale) if scale > FLAT else Null(float(y.mean()), 0.0)

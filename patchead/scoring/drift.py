"""Drift: whether the good images of a night still score like those of an accepted one (method.md §7.4)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from patchead.scoring.upper_fit import FLAT
from patchead.scoring.verdict import MAD_TO_SIGMA, MEAN_AD_TO_SIGMA, VerdictSettings, judge

LEVEL = 0.01
"""Share of nights without drift on which `drifted` holds for any group."""
SHIFT, SCALE = 0.25, 1.25
"""A centre that moved by less, in scales, and a scale that changed by a smaller factor are nobody's business."""
_FEWEST = 5
_MOST = 0.4  # of a night that may be taken for defects; more of it is the night itself


@dataclass(frozen=True)
class Drift:
    """Hold how the unflagged part of a night's scores differs from that of the accepted ones."""

    p: float
    """Of the two-sample Kolmogorov-Smirnov test."""
    shift: float
    """Night's median minus the accepted one, in accepted scales."""
    scale: float
    """Night's scale over the accepted one."""

    def drifted(self, groups: int = 1) -> bool:
        """Tell whether to warn: the test is significant, and the centre or the scale has moved by something.

        Args:
            groups: of the night that are tested: those that have a drift.
        """
        moved = abs(self.shift) >= SHIFT or not 1 / SCALE < self.scale < SCALE
        return moved and self.p < LEVEL / groups


def drift(scores: np.ndarray, reference: np.ndarray, limit: float) -> Drift | None:
    """Compare the unflagged parts of a night and of an accepted one (method.md §7.4).

    Both are cut at the same score, the lower of ``limit`` and of what stands apart among the accepted scores
    themselves, so that defects of either have no say, and what is left would be alike if the nights were. Where that
    flags more than 40 % of the night, nothing is cut: it is then the night that differs.

    Args:
        scores: float (N,), of the night; NaN does not count.
        reference: float (n,), of the accepted run.
        limit: score above which an image is flagged; infinity where none is.

    Returns:
        None where either part has fewer than five scores: it says nothing then.

    Examples:
        >>> night = np.linspace(0.10, 0.12, 200)
        >>> drift(night, night, 0.2)
        Drift(p=1.0, shift=0.0, scale=1.0)
        >>> moved = drift(night + 0.01, night, 0.2)
        >>> moved.drifted(), round(moved.shift, 2)
        (True, 1.34)
    """
    scores, reference = np.asarray(scores, np.float64), np.asarray(reference, np.float64)
    scores = scores[~np.isnan(scores)]
    limit = min(limit, _apart(reference))
    if (scores > limit).sum() > _MOST * len(scores):
        limit = np.inf
    here, there = scores[scores <= limit], reference[reference <= limit]
    if min(len(here), len(there)) < _FEWEST:
        return None
    from scipy.stats import ks_2samp  # half a second, for nights that are compared with an accepted one

    p = float(ks_2samp(here, there, method="asymp" if max(len(here), len(there)) > 1000 else "auto").pvalue)
    move = float(np.median(here) - np.median(there))
    scale, scale_there = _scales(here, there)
    return Drift(p, move / scale_there if abs(move) > FLAT else 0.0, scale / scale_there)


def _apart(reference: np.ndarray) -> float:
    """The score above which an image stands apart from the others of the accepted night."""
    return judge(reference, VerdictSettings()).threshold_score


def _scales(here: np.ndarray, there: np.ndarray) -> tuple[float, float]:
    """The scales of both parts by one measure: the MAD, or the mean absolute deviation where either MAD is 0.

    At least `FLAT`: where all score alike, whatever is more than rounding is a move.
    """
    deviations = [np.abs(scores - np.median(scores)) for scores in (here, there)]
    scales = [MAD_TO_SIGMA * float(np.median(deviation)) for deviation in deviations]
    if min(scales) <= FLAT:
        scales = [MEAN_AD_TO_SIGMA * float(deviation.mean()) for deviation in deviations]
    return max(scales[0], FLAT), max(scales[1], FLAT)

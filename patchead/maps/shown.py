"""Which maps must be known throughout before a group can be shown: bound and refine leaves bounds in some of them."""

from __future__ import annotations

import numpy as np

from patchead.maps.regions import EXCEEDED_BY

FLAGGED = 0.02
"""Share of the images that is presumed flagged."""
_CALIBRATING = 5  # images that set the threshold of regions
_MORE = 4  # images beyond those that are needed at least: a second look is then rarely needed


def expected_share(images: int, top: int) -> float:
    """Expect which share of a group's images will be searched as they are shown: ``top`` of them, flagged or not."""
    return min(1.0, (top + _CALIBRATING) / max(1, images) + FLAGGED)


def to_search(exact: np.ndarray, shown: np.ndarray, peaks: np.ndarray | None) -> np.ndarray:
    """Find the images whose patches must all be searched before the group is shown; none: it can be (method.md §10).

    Regions and heatmaps need every patch of the images that are shown. The threshold of the regions is a value that
    few of the unflagged images' maps reach: it needs those that may reach it. To be asked again with what was searched
    since, until it finds none.

    Args:
        exact: bool (N,), images of which no patch score is a bound.
        shown: bool (N,), images that get regions or a heatmap.
        peaks: float (N,), the highest values of the maps, bounds where not ``exact``, −inf for images that have no say
            in the threshold; None where it is given.

    Returns:
        bool (N,).

    Examples:
        Two of four images are shown. Of the others one may be the highest, and would set the threshold.

        >>> exact, shown = np.array([True, False, False, False]), np.array([True, True, False, False])
        >>> to_search(exact, shown, np.array([-np.inf, -np.inf, 0.4, 0.5])).tolist()
        [False, True, True, True]
    """
    wanted = shown & ~exact
    if peaks is None or not np.isfinite(peaks).any():
        return wanted
    good = np.isfinite(peaks)
    reached_by = 1 + int(EXCEEDED_BY * good.sum())  # the threshold is the lowest of so many of the highest peaks
    known = np.sort(peaks[good & exact])[::-1]
    floor = known[reached_by - 1] if len(known) >= reached_by else -np.inf
    open_ones = np.flatnonzero(good & ~exact & (peaks > floor))
    highest = open_ones[np.argsort(-peaks[open_ones], kind="stable")][: reached_by + _MORE]
    wanted[highest] = True
    return wanted

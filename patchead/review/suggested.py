"""The thresholds that labelled images suggest: the best F1, every defect found, no good image flagged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

_CLOSE = 0.01  # relative: thresholds nearer than this are not told apart
_DECIMALS = (1, 2, 3, 4, 6)


@dataclass(frozen=True)
class _Stretch:
    """Thresholds that were tried one after another and flag as many defects and as many good images."""

    hits: int
    false: int
    tried: tuple[float, ...]

    def f1(self, defects: int) -> float:
        return _f1(self.hits, self.false, defects)

    @property
    def width(self) -> float:
        return self.tried[-1] - self.tried[0]


def suggestions(
    flags: Callable[[float], np.ndarray],
    defects: np.ndarray,
    first: Iterable[float],
    *,
    most: int = 200,
    falling: bool = False,
) -> Iterator[tuple[str, float]]:
    """Yield thresholds above 0 that labelled images suggest: the best F1, every defect, no good one.

    What a threshold flags is asked of the rule itself: where a group is its own null, no earlier z tells it. Between
    two thresholds that differ in more than one image others are tried, where a better one may be.

    Args:
        flags: gives which of the n labelled images a threshold flags, bool (n,).
        defects: bool (n,), which of them are defects; some are, some are not.
        first: thresholds above 0 to begin with.
        most: of them that are tried.
        falling: whether the higher threshold flags more: a share.

    Examples:
        >>> z = np.array([0.0, 0.5, 2.0, 1.5, 4.0])
        >>> bad = np.array([False, False, False, True, True])
        >>> list(suggestions(lambda limit: z > limit, bad, [0.25, 1.0, 1.75, 3.0]))
        [('best F1', 1.0), ('every defect', 1.0), ('no good one', 3.0)]
    """
    found: dict[float, tuple[int, int]] = {}
    n_defects = int(defects.sum())

    def measured(threshold: float) -> tuple[int, int]:
        if threshold not in found:
            flagged = flags(threshold)
            found[threshold] = int((flagged & defects).sum()), int((flagged & ~defects).sum())
        return found[threshold]

    for threshold in first:
        measured(threshold)
    while len(found) < most and (between := _to_try(found, n_defects)) is not None:
        measured(between)
    stretches = [
        _Stretch(*counts, tuple(tried))
        for counts, tried in groupby(sorted(found, reverse=falling), key=found.__getitem__)
    ]
    for what, chosen in _chosen(stretches, n_defects):
        yield what, _written(chosen, measured)


def starts(z: np.ndarray, is_share: bool, most: int) -> list[float]:
    """List thresholds to begin with: between the z of labelled images, as they were judged, and a grid; or shares.

    Args:
        z: float (n,), of labelled images; NaN does not count.
        is_share: whether thresholds are shares of a group.
        most: of them.
    """
    if is_share:
        return [float(f"{share:.2g}") for share in np.geomspace(0.001, 0.5, min(most, 60))]
    edges = np.unique(z[np.isfinite(z)])
    between = (edges[:-1] + edges[1:]) / 2
    grid = np.concatenate([np.arange(1, 21) / 5, np.geomspace(4.5, max(5.0, edges.max(initial=0.0)), 10)])
    lowest = edges[edges > 0][:1] / 2
    found = np.concatenate([lowest, between[between > 0]])
    if len(found) > most - len(grid):
        found = found[np.linspace(0, len(found) - 1, most - len(grid)).astype(int)]
    return np.unique(np.concatenate([found, grid])).tolist()


def _chosen(stretches: list[_Stretch], defects: int) -> Iterator[tuple[str, _Stretch]]:
    """Of stretches from the most that is flagged to the least."""
    best = max(stretches, key=lambda each: (each.f1(defects), abs(each.width)))
    if best.hits:
        yield "best F1", best
    if every := [each for each in stretches if each.hits == defects]:
        yield "every defect", min(every, key=lambda each: each.false)
    if none := [each for each in stretches if each.hits and not each.false]:
        yield "no good one", max(none, key=lambda each: each.hits)


def _to_try(found: dict[float, tuple[int, int]], defects: int) -> float | None:
    """The middle of the gap between two thresholds that may hold the best F1, else one of the other two; or None."""
    best = max(_f1(*counts, defects) for counts in found.values())
    gaps = []
    for low, high in pairwise(sorted(found)):
        ends = found[low], found[high]
        hits, false = zip(*ends, strict=True)
        differ = abs(hits[0] - hits[1]) + abs(false[0] - false[1])
        if high > low * (1 + _CLOSE) and differ > 1:
            could_be = _f1(max(hits), min(false), defects)  # as long as what is flagged grows or shrinks in between
            one_end = (defects in hits and hits[0] != hits[1]) or (0 in false and false[0] != false[1])
            if could_be > best or one_end:
                gaps.append((max(could_be, best), high / low, (low + high) / 2))
    return max(gaps)[2] if gaps else None


def _f1(hits: int, false: int, defects: int) -> float:
    return round(2 * hits / (hits + false + defects), 9)


def _written(stretch: _Stretch, measured: Callable[[float], tuple[int, int]]) -> float:
    """The number with the fewest decimals near the middle of a stretch that flags what the stretch does."""
    middle = (stretch.tried[0] + stretch.tried[-1]) / 2
    nearest = min(stretch.tried, key=lambda tried: abs(tried - middle))
    for value in (middle, nearest):
        for decimals in _DECIMALS:
            short = round(value, decimals)
            if short > 0 and measured(short) == (stretch.hits, stretch.false):
                return short
    return nearest

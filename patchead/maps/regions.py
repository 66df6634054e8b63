"""Where an image is anomalous: boxes around what stands out in its map, calibrated by its group (method.md §6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from patchead.maps.heatmap import heatmap

MAP_SIDE = 256
"""Longer side of the map in which regions are found, in pixels, whatever the size of the heatmap file."""
EXCEEDED_BY = 0.01
"""Share of the unflagged images whose maps reach above their group's threshold."""
# Heights above normal, as fractions: of the threshold's, of a region's own peak's, and of the image's highest peak's.
_LOW = 0.8
_EXTENT = 0.65
_FAINT = 0.3
_GAP = 1  # patches between two parts of one region, at most


@dataclass(frozen=True)
class Region:
    """Hold one region; box and area in pixels of the original image."""

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float
    """Highest value of the map inside."""
    mean: float
    """Mean value of the map inside."""
    threshold: float
    """Value of the map above which it was found."""


def region_threshold(
    patch_scores: np.ndarray,
    sizes: Sequence[tuple[int, int]],
    good: np.ndarray,
    *,
    fit: str,
    threshold_score: float,
    given: float | None = None,
) -> float:
    """Calibrate the threshold of a group's regions: `threshold_of_peaks` of `peaks_of`, or what is ``given``.

    Examples:
        Four photos, the last one flagged.

        >>> photos = np.array([[[0.1, 0.1]], [[0.1, 0.3]], [[0.2, 0.1]], [[0.1, 0.8]]])
        >>> good = np.array([True, True, True, False])
        >>> round(region_threshold(photos, [(8, 4)] * 4, good, fit="squash", threshold_score=0.5), 3)
        0.3
    """
    if given is not None:
        return given
    return threshold_of_peaks(peaks_of(patch_scores, sizes, good, fit)[good], threshold_score)


def peaks_of(patch_scores: np.ndarray, sizes: Sequence[tuple[int, int]], good: np.ndarray, fit: str) -> np.ndarray:
    """Find the highest value of the map of each image, float64 (N,), as `region_map` makes it; −inf where not ``good``.

    Args:
        patch_scores: float32 (N, h, w), finite where ``good``.
        sizes: N pairs of width and height of the original images, in pixels.
        good: bool (N,), the images that have a score and are not flagged.
        fit: how the images became squares.
    """
    peaks = np.full(len(good), -np.inf)
    for i in np.flatnonzero(good).tolist():
        peaks[i] = region_map(patch_scores[i], *sizes[i], fit).max()
    return peaks


def threshold_of_peaks(peaks: np.ndarray, threshold_score: float) -> float:
    """Calibrate the threshold of a group's regions as that of its images is (method.md §6).

    It is the value that the maps of 1 % of the unflagged images exceed somewhere: of fewer than 100, none.

    Args:
        peaks: float64 (n,), of the unflagged images' maps.
        threshold_score: image score above which images are not normal: takes its place where there is no unflagged
            image. Infinity where nothing tells, so that regions are what is near an image's own peak.

    Examples:
        >>> threshold_of_peaks(np.array([0.1, 0.3, 0.2]), threshold_score=0.5)
        0.3
    """
    if not len(peaks):
        return threshold_score
    return exceeded_by(peaks, EXCEEDED_BY)


def exceeded_by(values: np.ndarray, share: float) -> float:
    """Find the smallest of ``values``, float (n,), that at most this share of them exceed.

    Examples:
        >>> exceeded_by(np.arange(200.0), 0.01), exceeded_by(np.arange(5.0), 0.01)
        (197.0, 4.0)
    """
    return float(np.sort(values)[len(values) - 1 - int(share * len(values))])


def region_map(patch_scores: np.ndarray, width: int, height: int, fit: str) -> np.ndarray:
    """Make the map of an image in which its regions are found, from float (h, w): a heatmap of its own size."""
    return heatmap(patch_scores, width, height, max_side=MAP_SIDE, fit=fit)


def image_regions(
    patch_scores: np.ndarray, threshold: float, *, width: int, height: int, fit: str, flagged: bool
) -> list[Region]:
    """Find the regions of one image from its patch scores, the highest peak first (method.md §6).

    A flagged image has at least one: where its map does not reach above the threshold, that of its own peak takes the
    threshold's place. Another image may have none.

    Args:
        patch_scores: float32 (h, w), finite.
        threshold: of the group, from `region_threshold`.
        width, height: of the original image, in pixels.
        fit: how it became a square.
        flagged: whether it is anomalous.
    """
    scores, normal = region_map(patch_scores, width, height, fit), float(np.median(patch_scores))
    peak = scores.max()
    if flagged and not peak > threshold:
        below = float(np.nextafter(peak, np.float32(-np.inf)))
        threshold = min(_height(normal, float(peak), _EXTENT), below)
    covered = {"squash": scores.shape, "crop": (min(scores.shape),) * 2, "pad": (max(scores.shape),) * 2}[fit]
    gap = _GAP * covered[0] // patch_scores.shape[0], _GAP * covered[1] // patch_scores.shape[1]
    return find_regions(scores, threshold, normal=normal, gap=gap, width=width, height=height)


def find_regions(
    scores: np.ndarray, threshold: float, *, normal: float, gap: tuple[int, int], width: int, height: int
) -> list[Region]:
    """Find the parts of a map that reach above a threshold, the highest peak first (method.md §6).

    A part holds every pixel above 0.8 of the threshold, so that a scratch does not break where it is faint; pixels
    belong together where they touch, corners included, or are no farther apart than ``gap``. Of each part the region is
    what is at least 0.65 as high as its peak: the rest is a slope, and the higher the peak, the wider it is. Parts
    less than 0.3 as high as the highest are left out. Heights are those above ``normal``.

    Boxes are the smallest that hold every original pixel a region touches, so they are exact where the map has the
    image's own size. Infinity as threshold gives no region.

    Args:
        scores: float32 map (H', W') of the whole image.
        threshold: same unit as the map; a region has a pixel strictly above it.
        normal: value of the map where nothing is wrong: the image's own median, as one defect raises its whole image.
        gap: rows and columns of the map between two parts of one region, at most.
        width, height: of the original image.
    """
    high = (scores > min(threshold, _height(normal, threshold, _LOW))).astype(np.uint8)
    reach = [2 * (length // 2) + 1 for length in gap]
    joined = cv2.dilate(high, np.ones(reach, np.uint8))
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=8, ltype=cv2.CV_32S)
    labels *= high
    highest = scores.max()
    least = min(highest, _height(normal, float(highest), _FAINT))
    found = []
    for label, (left, top, columns, rows, _) in enumerate(boxes[1:].tolist(), start=1):
        inside = labels[top : top + rows, left : left + columns] == label
        values = scores[top : top + rows, left : left + columns]
        peak = values[inside].max()
        if peak > threshold and peak >= least:
            inside &= values >= min(peak, _height(normal, float(peak), _EXTENT))
            found.append(_region(scores, inside, left, top, threshold, width, height))
    return sorted(found, key=lambda region: (-region.peak, region.y, region.x))


def _height(normal: float, top: float, share: float) -> float:
    """The value at this share of the way from what is normal to ``top``."""
    return normal + share * (top - normal)


def _region(
    scores: np.ndarray, inside: np.ndarray, left: int, top: int, threshold: float, width: int, height: int
) -> Region:
    """The region of the pixels ``inside`` (bool) a part of the map that begins at ``left`` and ``top``."""
    rows, columns = scores.shape
    down, right = np.nonzero(inside)
    values = scores[top + down, left + right]
    x, x_end = (left + right.min()) * width // columns, -(-(left + right.max() + 1) * width // columns)
    y, y_end = (top + down.min()) * height // rows, -(-(top + down.max() + 1) * height // rows)
    return Region(
        x=int(x),
        y=int(y),
        width=int(x_end - x),
        height=int(y_end - y),
        area_px=max(1, round(len(values) * width * height / (rows * columns))),
        peak=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        threshold=threshold,
    )

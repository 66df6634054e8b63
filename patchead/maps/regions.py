"""Where an image is anomalous: connected components of its map above a threshold (method.md §6)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """Hold one connected component; box and area in pixels of the original image."""

    x: int
    y: int
    width: int
    height: int
    area_px: int
    peak: float
    """Highest value of the map inside."""
    mean: float
    """Mean value of the map inside."""


def find_regions(scores: np.ndarray, threshold: float, *, width: int, height: int) -> list[Region]:
    """Find the 8-connected components of ``scores > threshold``, the highest peak first (method.md §6).

    Boxes are the smallest that hold every original pixel a component touches, so they are exact where the map has the
    image's own size. Infinity as threshold gives no region.

    Args:
        scores: float32 map (H', W') of the whole image, from `heatmap`.
        threshold: same unit as the map; pixels strictly above it count.
        width, height: of the original image.
    """
    above = (scores > threshold).astype(np.uint8)
    _, labels, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8, ltype=cv2.CV_32S)
    rows, columns = scores.shape
    found = []
    for label, (left, top, box_width, box_height, pixels) in enumerate(boxes.tolist()):
        if label == 0:
            continue
        cut = np.s_[top : top + box_height, left : left + box_width]
        inside = scores[cut][labels[cut] == label]
        x, x_end = left * width // columns, -(-(left + box_width) * width // columns)
        y, y_end = top * height // rows, -(-(top + box_height) * height // rows)
        area = max(1, round(pixels * width * height / (rows * columns)))
        peak, mean = float(inside.max()), float(inside.mean(dtype=np.float64))
        found.append(Region(x, y, x_end - x, y_end - y, area, peak, mean))
    return sorted(found, key=lambda region: (-region.peak, region.y, region.x))

"""Where words are looked for: three squares around a region's box, and their patches that the box touches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCALES = (1.0, 1.5, 2.5)
"""Sides of the crops, in sides of the smallest square that holds the box (method.md §14)."""
LEAST_SIDE = 16
"""Of a crop, in pixels of the image."""


@dataclass(frozen=True)
class Crop:
    """Hold one crop of an image, in its pixels: ``x``, ``y`` and the size that is cut out."""

    x: int
    y: int
    width: int
    height: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Cut it out of an image (H, W, 3)."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]


def crops_around(
    box: tuple[float, float, float, float], width: int, height: int, scales: tuple[float, ...] = SCALES
) -> list[Crop]:
    """Cut a square at each scale around the middle of a box, moved into the image where it reaches out.

    A square, as a long and thin box would not look like itself once it is squashed; where the image is smaller, as much
    as there is.

    Args:
        box: left, top, width and height as shares of the image, as ``regions.rel_x`` and the others.
        width, height: of the image, in pixels.
        scales: sides in sides of the smallest square around the box.
    """
    left, top, wide, high = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    side = max(wide, high)
    middle_x, middle_y = left + wide / 2, top + high / 2
    found = []
    for scale in scales:
        length = max(LEAST_SIDE, round(scale * side))
        across, down = min(length, width), min(length, height)
        x = min(max(0, round(middle_x - across / 2)), width - across)
        y = min(max(0, round(middle_y - down / 2)), height - down)
        found.append(Crop(x, y, across, down))
    return found


def patch_boxes(crop: Crop, grid: tuple[int, int]) -> np.ndarray:
    """Say which pixels of the image each patch of a crop covers: float64 (h · w, 4), left, top, width, height."""
    rows, columns = grid
    wide, high = crop.width / columns, crop.height / rows
    left, top = np.meshgrid(crop.x + np.arange(columns) * wide, crop.y + np.arange(rows) * high)
    size = np.broadcast_to([wide, high], (rows * columns, 2))
    return np.concatenate([np.stack([left.ravel(), top.ravel()], axis=1), size], axis=1)


def touched(
    crops: list[Crop], box: tuple[float, float, float, float], width: int, height: int, grid: tuple[int, int]
) -> np.ndarray:
    """Find the patches that a box touches with more than their edge: bool (crops · h · w,); at least one of each crop.

    Args:
        crops: of `crops_around`.
        box: as there.
        width, height: of the image, in pixels.
        grid: (h, w) of the patches of a crop.
    """
    box_left, box_top, box_wide, box_high = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    found = []
    for crop in crops:
        left, top, wide, high = patch_boxes(crop, grid).T
        across = np.minimum(left + wide, box_left + box_wide) - np.maximum(left, box_left)
        down = np.minimum(top + high, box_top + box_high) - np.maximum(top, box_top)
        inside = (across > 1e-9) & (down > 1e-9)
        if not inside.any():  # a box that rounding has moved out of its crop
            inside[np.argmax(np.minimum(across, down))] = True
        found.append(inside)
    return np.concatenate(found)

"""Photos with something to match: blobs of random size, place and grey, and the motion of one of them."""

from __future__ import annotations

import cv2
import numpy as np


def blobs(seed: int, width: int = 160, height: int = 120, count: int = 90) -> np.ndarray:
    """uint8 RGB (H, W, 3)."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 110, np.uint8)
    for _ in range(count):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(rng.integers(2, 10)), int(rng.integers(2, 10)))
        cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, [int(rng.integers(0, 256))] * 3, -1)
    return image


def motion_about(width: int, height: int, degrees: float, dx: float, dy: float) -> np.ndarray:
    """Rotation about the image's middle, then a shift: float64 (2, 3) in pixels counted from the corner."""
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([width / 2, height / 2])
    return np.column_stack([rotation, middle - rotation @ middle + (dx, dy)])

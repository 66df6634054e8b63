"""Photos of a printed plate that lies about on a table: what alignment is for."""

from __future__ import annotations

import cv2
import numpy as np

from patchead.samples.align import warp


def part(
    seed: int, *, degrees: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), spoiled: bool = False
) -> np.ndarray:
    """The same printed plate with a little noise, moved about on a plain table; ``spoiled`` by a bright square."""
    rng = np.random.default_rng(0)
    plate = np.full((150, 150, 3), 90, np.uint8)
    for _ in range(80):
        centre, axes = rng.integers(30, 120, 2), rng.integers(2, 9, 2)
        grey = [int(rng.integers(0, 256))] * 3
        cv2.ellipse(
            plate, [int(v) for v in centre], [int(v) for v in axes], float(rng.uniform(0, 180)), 0, 360, grey, -1
        )
    if spoiled:
        plate[60:76, 80:96] = (255, 60, 60)
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([75.0, 75.0])
    moved = warp(plate, np.column_stack([rotation, middle - rotation @ middle + shift]), 150, 150)
    noise = np.random.default_rng(seed).normal(0, 2, plate.shape)
    return np.clip(moved + noise, 0, 255).astype(np.uint8)

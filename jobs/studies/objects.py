"""Objects on a plain background, as a camera over a belt sees them: in place, or shifted and turned at random."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

CANVAS = 320
OBJECT = 192
BACKGROUND = 128


@dataclass(frozen=True)
class Pose:
    """Where an object lies: ``x``, ``y`` from the canvas's centre in pixels, ``angle`` in degrees."""

    x: float = 0.0
    y: float = 0.0
    angle: float = 0.0


def random_pose(rng: np.random.Generator, *, shift: float, turn: float, flips: bool) -> Pose:
    """A shift of up to ``shift`` of the canvas each way, a turn of up to ``turn`` degrees, and half a turn or not."""
    x, y = rng.uniform(-shift, shift, 2) * CANVAS
    half_turn = 180.0 * rng.integers(2) if flips else 0.0
    return Pose(float(x), float(y), float(rng.uniform(-turn, turn) + half_turn))


def place(image: np.ndarray, pose: Pose) -> np.ndarray:
    """The object uint8 (H, H, 3), shrunk to 192 pixels, on a grey canvas: uint8 (320, 320, 3).

    The same pose moves the photo and its defective copy alike, so their difference is the defect's mask.
    """
    shrunk = cv2.resize(image, (OBJECT, OBJECT), interpolation=cv2.INTER_AREA)
    middle = (OBJECT - 1) / 2
    motion = cv2.getRotationMatrix2D((middle, middle), pose.angle, 1.0)
    motion[:, 2] += np.array([pose.x, pose.y]) + (CANVAS - OBJECT) / 2
    return cv2.warpAffine(
        shrunk,
        motion,
        (CANVAS, CANVAS),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(BACKGROUND,) * 3,
    )

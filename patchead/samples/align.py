"""Rotation and translation between two photos by feature matching (method.md §5; PatchEAD §3.3). RGB throughout.

A motion is a float64 (2, 3) matrix that takes points of one image to another's, in pixels: (0, 0) is the image's corner
and (0.5, 0.5) the centre of its first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from patchead.errors import SettingsError, bad_argument

_LONGER_SIDE = 800  # features are looked for at this size at most: SIFT on more pixels is slow and no more certain
_MOST_FEATURES = 2000
_REPROJECTION = 3.0  # pixels at that size by which a match may miss and still agree
_CONFIDENCE = 0.999
_TRIES = 5000


@dataclass(frozen=True)
class Alignment:
    """Say when two photos count as aligned. Raises `SettingsError` for a value that has no meaning.

    Examples:
        >>> Alignment(min_inliers=20)
        Alignment(ratio=0.75, min_inliers=20, max_scale=1.1)
        >>> Alignment(ratio=2)
        Traceback (most recent call last):
            ...
        patchead.errors.SettingsError: `ratio` must be above 0 and at most 1; got 2.
    """

    ratio: float = 0.75
    """Ratio test: the nearest descriptor must be this much nearer than the second nearest."""
    min_inliers: int = 12
    """Matches that must agree on one motion; fewer mean the photo stays as it is."""
    max_scale: float = 1.1
    """The motion's scale before it is forced to 1 must lie within 1/max_scale and max_scale."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise SettingsError(bad_argument("ratio", self.ratio, "above 0 and at most 1"))
        if not self.min_inliers >= 3:
            raise SettingsError(bad_argument("min_inliers", self.min_inliers, "at least 3"))
        if not 1 <= self.max_scale <= 100:
            raise SettingsError(bad_argument("max_scale", self.max_scale, "from 1 to 100"))


@dataclass(frozen=True)
class Features:
    """Hold the keypoints of one image: ``points`` float64 (n, 2), its pixels, and ``descriptors`` float32 (n, 128)."""

    points: np.ndarray
    descriptors: np.ndarray
    width: int
    height: int


def features(image: np.ndarray) -> Features:
    """Find the SIFT features of an image, uint8 RGB (H, W, 3); there are none where it is too plain."""
    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, _LONGER_SIDE / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    found, descriptors = cv2.SIFT.create(nfeatures=_MOST_FEATURES).detectAndCompute(grey, None)
    centres = np.array([point.pt for point in found], np.float64).reshape(-1, 2) + 0.5
    back = np.array([width / grey.shape[1], height / grey.shape[0]])
    if descriptors is None:
        descriptors = np.empty((0, 128), np.float32)
    return Features(centres * back, descriptors, width, height)


def rigid_motion(moving: Features, fixed: Features, limits: Alignment) -> np.ndarray | None:
    """Find the motion that takes ``moving`` onto ``fixed``; None where too few matches agree on one without a scale.

    Matches that pass the ratio test vote on rotation, translation and scale (RANSAC). Where the scale is near 1, the
    rotation and translation that fit the agreeing ones best, in least squares, are returned.
    """
    if min(len(moving.points), len(fixed.points)) < max(2, limits.min_inliers):
        return None
    pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(moving.descriptors, fixed.descriptors, k=2)
    good = [(near.queryIdx, near.trainIdx) for near, far in pairs if near.distance < limits.ratio * far.distance]
    if len(good) < limits.min_inliers:
        return None
    source, target = moving.points[[i for i, _ in good]], fixed.points[[j for _, j in good]]
    miss = _REPROJECTION * max(1.0, max(fixed.width, fixed.height) / _LONGER_SIDE)
    similarity, agrees = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=miss, confidence=_CONFIDENCE, maxIters=_TRIES
    )
    if similarity is None or np.count_nonzero(agrees) < limits.min_inliers:
        return None
    scale = float(np.hypot(*similarity[:, 0]))
    if not 1 / limits.max_scale <= scale <= limits.max_scale:
        return None
    inliers = agrees[:, 0].astype(bool)
    motion = _least_squares(source[inliers], target[inliers])
    misses = np.linalg.norm(source @ motion[:, :2].T + motion[:, 2] - target, axis=1)
    # Without the scale that they agreed on, they must still do so.
    return motion if np.count_nonzero(misses <= 2 * miss) >= limits.min_inliers else None


def _least_squares(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Rotation and translation of least squared error between points (n, 2) (Kabsch)."""
    from_centre, to_centre = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = np.linalg.svd((source - from_centre).T @ (target - to_centre))
    mirror = np.diag([1.0, np.sign(np.linalg.det(vt.T @ u.T))])
    rotation = vt.T @ mirror @ u.T
    return np.column_stack([rotation, to_centre - rotation @ from_centre])


def warp(image: np.ndarray, motion: np.ndarray, width: int, height: int) -> np.ndarray:
    """Move the image (H, W, 3) into a frame of ``width`` x ``height``: uint8 (height, width, 3).

    What it leaves empty is filled with its own mirror image, which disturbs the patches next to it less than an edge
    would; those patches count for nothing, see `views.filled_patches`.
    """
    centred = motion.copy()
    centred[:, 2] += motion[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the centre of the first pixel
    return cv2.warpAffine(image, centred, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Join two affine maps (2, 3) into one that applies ``inner`` first."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def invert(motion: np.ndarray) -> np.ndarray:
    """Make the affine map (2, 3) that undoes ``motion``."""
    back = np.linalg.inv(motion[:, :2])
    return np.column_stack([back, -back @ motion[:, 2]])

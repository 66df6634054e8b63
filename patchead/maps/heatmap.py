"""Patch scores as a picture in the image's own frame (method.md §6). Arrays in, arrays out; RGB throughout."""

from __future__ import annotations

import cv2
import numpy as np

_SIGMA = 4 / 256  # of the Gaussian, as a fraction of each side
_OPACITY = 0.65  # of the hottest colour over the photo; the coldest is transparent


def heatmap(patch_scores: np.ndarray, width: int, height: int, *, max_side: int, fit: str = "squash") -> np.ndarray:
    """Enlarge the patch grid bilinearly to the image and blur it by a Gaussian of 4 px at 256 px, scaled per axis.

    ``squash``: the grid covers the whole image. ``crop``: its centre square; what was cut off is 0. ``pad``: a centred
    square of the longer side; what lies outside of the image is left out.

    Args:
        patch_scores: float (h, w), all finite.
        width, height: of the original image, in pixels.
        fit: how the image became the square that was embedded.
        max_side: the map is scaled down, aspect ratio kept, so that neither side is longer; never up.

    Returns:
        float32 (H', W'), equal to (height, width) where that is within ``max_side``.

    Raises:
        ValueError: the grid is not two-dimensional, or a size is below 1.

    Examples:
        >>> import numpy as np
        >>> heat = heatmap(np.array([[0.0, 0.1], [0.1, 0.9]]), width=60, height=40, max_side=30)
        >>> heat.shape, bool(heat[-1, -1] == heat.max())
        ((20, 30), True)
    """
    if patch_scores.ndim != 2 or min(width, height, max_side, patch_scores.size) < 1:
        raise ValueError(f"need a grid (h, w) and sizes of at least 1; got {patch_scores.shape}, {width} x {height}")
    scale = min(1.0, max_side / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    covered = {"squash": size, "crop": (min(size),) * 2, "pad": (max(size),) * 2}[fit]
    grid = np.ascontiguousarray(patch_scores, np.float32)
    enlarged = cv2.resize(grid, covered, interpolation=cv2.INTER_LINEAR)
    blurred = cv2.GaussianBlur(
        enlarged, (0, 0), sigmaX=_SIGMA * covered[0], sigmaY=_SIGMA * covered[1], borderType=cv2.BORDER_REPLICATE
    )
    return blurred if covered == size else _centred(blurred, size)


def _centred(square: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The map of ``size`` (width, height) whose centre is the square's; 0 where the square does not reach."""
    out = np.zeros(size[::-1], np.float32)
    (top, from_top), (left, from_left) = (
        ((length - side) // 2 if length > side else 0, (side - length) // 2 if side > length else 0)
        for length, side in zip(out.shape, square.shape, strict=True)
    )
    part = square[from_top : from_top + out.shape[0], from_left : from_left + out.shape[1]]
    out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return out


def colour_range(patch_scores: np.ndarray, drawn: np.ndarray, threshold: float = -np.inf) -> tuple[float, float]:
    """Find a group's colour range: the median of the patches of what is drawn, to the largest score of the group.

    Or to ``threshold`` if that is higher. What is normal so stays dark.

    Args:
        patch_scores: float (N, h, w); NaN where an image has no reference.
        drawn: bool (N,), the images that are drawn; at least one has a reference.
        threshold: of regions; ignored where it is infinite.

    Examples:
        >>> import numpy as np
        >>> two_photos = np.array([[[0.1, 0.2]], [[0.3, 0.8]]])
        >>> colour_range(two_photos, np.array([True, True])), colour_range(two_photos, np.array([True, False]), 0.9)
        ((0.25, 0.8), (0.15000000000000002, 0.9))
    """
    shown = patch_scores[drawn]
    highest = float(np.nanmax(patch_scores))
    return float(np.nanmedian(shown)), float(max(highest, threshold if np.isfinite(threshold) else 0.0))


def colorize(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map float (H, W) as colours uint8 RGB (H, W, 3), from dark at ``low`` to bright at ``high`` and beyond.

    The range is the caller's: one for the whole group, or good parts light up. An empty range is all dark.
    """
    levels = np.rint(_unit(scores, low, high) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def overlay(image: np.ndarray, scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Lay the colours of a map over the photo, resized to the map: uint8 RGB (H', W', 3).

    Opacity grows with the score, so what is normal stays visible as it is.

    Args:
        image: uint8 RGB (H, W, 3).
        scores: float (H', W'), from `heatmap`.
        low, high: colour range of the group.

    Examples:
        What is at the lower end of the range stays as it is in the photo.

        >>> import numpy as np
        >>> photo = np.full((40, 60, 3), 120, np.uint8)
        >>> shown = overlay(photo, heatmap(np.array([[0.1, 0.9]]), 60, 40, max_side=60), 0.1, 0.9)
        >>> shown.shape, shown[0, 0].tolist()
        ((40, 60, 3), [120, 120, 120])
    """
    photo = cv2.resize(image, (scores.shape[1], scores.shape[0]), interpolation=cv2.INTER_AREA)
    opacity = (_OPACITY * _unit(scores, low, high))[..., None]
    return np.rint(photo * (1 - opacity) + colorize(scores, low, high) * opacity).astype(np.uint8)


def _unit(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    if not high > low:
        return np.zeros(scores.shape, np.float32)
    return np.clip((scores - low) / (high - low), 0, 1)

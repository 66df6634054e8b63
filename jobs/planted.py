"""Defects of known shape planted into real photos: eight kinds, each with its contrast and size, and the mask by pixel.

All sizes are fractions of the image's side. The mask is where the pixels differ and nothing else, so it can be smaller
than the shape that was drawn, never larger. The same seed gives the same defect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import cv2
import numpy as np

_EDGE = 0.003  # Gaussian that softens a shape's edge
_FRACTION_BITS = 4  # of the coordinates that cv2 draws shapes with


@dataclass(frozen=True)
class Defect:
    """``image`` uint8 (H, W, 3) with the defect; ``mask`` bool (H, W), True exactly where it differs from the photo."""

    image: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class Kind:
    """One kind of defect: what is drawn, in words with its contrast, and how large the mask can be."""

    caption: str
    area: tuple[float, float]
    """Bounds of the mask's share of the image."""
    draw: Callable[[np.ndarray, np.random.Generator, float], np.ndarray]
    """float32 (H, W, 3) photo and how many times as large → the photo with the defect."""


def plant(image: np.ndarray, kind: str, seed: int, size: float = 1.0) -> Defect:
    """A photo with one defect, wholly inside.

    Args:
        image: uint8 (H, W, 3), RGB, at least 64 pixels a side.
        kind: a key of `KINDS`.
        seed: of place, direction and size.
        size: how many times as long and wide as its caption says; not the width of lines.

    Raises:
        ValueError: another image, an unknown kind, a size that is not within 0.5 to 2, or a photo (of one flat
            colour, say) in which nothing changed.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or min(image.shape[:2]) < 64:
        raise ValueError(f"image must be uint8 (H, W, 3) of at least 64 x 64; got {image.dtype} {image.shape}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    if not 0.5 <= size <= 2:
        raise ValueError(f"size must be within 0.5 to 2; got {size}")
    rng = np.random.default_rng([seed, *kind.encode()])
    drawn = KINDS[kind].draw(image.astype(np.float32), rng, size)
    out = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
    mask = (out != image).any(axis=-1)
    if not mask.any():
        raise ValueError(f"{kind} changes no pixel of this photo; plant it into one with texture")
    return Defect(out, mask)


def _scratch(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A line of length 0.25 to 0.45, width 0.01, 60 grey levels away from the photo's mean."""
    side = _side(image)
    half = rng.uniform(0.125, 0.225) * size * side
    x, y, angle = _place(image, rng, half + 0.02 * side)
    along = half * np.cos(angle), half * np.sin(angle)
    ends = [_fixed(x + sign * along[0], y + sign * along[1]) for sign in (-1, 1)]
    shape = np.zeros(image.shape[:2], np.uint8)
    cv2.line(shape, ends[0], ends[1], 255, max(1, round(0.01 * side)), cv2.LINE_AA, _FRACTION_BITS)
    return image + _soft(shape, side) * _away(image, 60)


def _stain(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """An ellipse of half axes 0.06 to 0.1 and 0.6 of that, darkened to 0.6."""
    alpha = _ellipse(image, rng, (0.06 * size, 0.1 * size))
    return image * (1 - 0.4 * alpha)


def _smear(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """An ellipse of half axes 0.08 to 0.13 and 0.6 of that, blurred by a Gaussian of 0.025."""
    blurred = cv2.GaussianBlur(image, (0, 0), 0.025 * _side(image))
    alpha = _ellipse(image, rng, (0.08 * size, 0.13 * size))
    return image * (1 - alpha) + blurred * alpha


def _paste(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A square of side 0.1 to 0.18 from elsewhere in the same photo, turned by 90 degrees."""
    length = round(rng.uniform(0.1, 0.18) * size * _side(image))
    top, left = _corner(image, rng, length)
    from_top, from_left = _corner(image, rng, length)
    out = image.copy()
    out[top : top + length, left : left + length] = np.rot90(
        image[from_top : from_top + length, from_left : from_left + length]
    )
    return out


def _hole(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A square of side 0.06 to 0.1 missing: flat, at the photo's mean colour."""
    length = round(rng.uniform(0.06, 0.1) * size * _side(image))
    top, left = _corner(image, rng, length)
    out = image.copy()
    out[top : top + length, left : left + length] = image.mean(axis=(0, 1))
    return out


def _tint(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A round blob of radius 0.08 to 0.12, up to 40 levels brighter in red and darker in blue, fading outwards."""
    side = _side(image)
    radius = rng.uniform(0.08, 0.12) * size * side
    x, y, _ = _place(image, rng, radius)
    columns, rows = np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0]))
    fade = np.maximum(1 - ((columns - x) ** 2 + (rows - y) ** 2) / radius**2, 0)
    return image + fade[..., None] * np.array([40, 0, -40])


def _spot(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A disc of radius 0.02 to 0.035, 60 grey levels away from the photo's mean."""
    side = _side(image)
    radius = rng.uniform(0.02, 0.035) * size * side
    x, y, _ = _place(image, rng, radius + 0.02 * side)
    shape = np.zeros(image.shape[:2], np.uint8)
    cv2.circle(shape, _fixed(x, y), _fixed(radius, 0)[0], 255, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    return image + _soft(shape, side) * _away(image, 60)


def _crack(image: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """A broken line of five parts, 0.2 to 0.4 long and up to 0.05 off its axis, width 0.007, darkened to 0.3."""
    side = _side(image)
    half, reach = rng.uniform(0.1, 0.2) * size * side, 0.05 * size * side
    x, y, angle = _place(image, rng, float(np.hypot(half, reach)) + 0.02 * side)
    along, across = np.linspace(-half, half, 6), rng.uniform(-reach, reach, 6)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    corners = [_fixed(*point) for point in np.stack([along, across], axis=1) @ turn + (x, y)]
    shape = np.zeros(image.shape[:2], np.uint8)
    width = max(1, round(0.007 * side))
    cv2.polylines(shape, [np.array(corners)], False, 255, width, cv2.LINE_AA, _FRACTION_BITS)
    return image * (1 - 0.7 * _soft(shape, side))


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "scratch": Kind("line, length 0.25-0.45, width 0.01, 60 grey levels", (0.001, 0.02), _scratch),
        "stain": Kind("ellipse, half axes 0.06-0.10 x 0.6, darkened to 60 %", (0.002, 0.03), _stain),
        "smear": Kind("ellipse, half axes 0.08-0.13 x 0.6, blurred by sigma 0.025", (0.002, 0.045), _smear),
        "paste": Kind("square of 0.10-0.18 from elsewhere in the photo, turned by 90°", (0.002, 0.035), _paste),
        "hole": Kind("square of 0.06-0.10, flat, the photo's mean colour", (0.002, 0.012), _hole),
        "tint": Kind("disc, radius 0.08-0.12, up to +40 red and -40 blue, fading", (0.005, 0.05), _tint),
        "spot": Kind("disc, radius 0.02-0.035, 60 grey levels", (0.001, 0.008), _spot),
        "crack": Kind("broken line, length 0.2-0.4, width 0.007, darkened to 30 %", (0.001, 0.03), _crack),
    }
)


def _side(image: np.ndarray) -> int:
    return min(image.shape[:2])


def _place(image: np.ndarray, rng: np.random.Generator, reach: float) -> tuple[float, float, float]:
    """x, y of a centre at least ``reach`` and two pixels inside, and an angle in radians."""
    height, width = image.shape[:2]
    x, y = (float(rng.uniform(reach + 2, length - 3 - reach)) for length in (width, height))
    return x, y, float(rng.uniform(0, np.pi))


def _corner(image: np.ndarray, rng: np.random.Generator, size: int) -> tuple[int, int]:
    """Top and left of a square of ``size`` pixels, at least one pixel inside."""
    top, left = (int(rng.integers(1, length - size)) for length in image.shape[:2])
    return top, left


def _fixed(x: float, y: float) -> tuple[int, int]:
    """A point in the fixed-point numbers that cv2 draws with."""
    return round(x * (1 << _FRACTION_BITS)), round(y * (1 << _FRACTION_BITS))


def _ellipse(image: np.ndarray, rng: np.random.Generator, half_axis: tuple[float, float]) -> np.ndarray:
    """Soft weights float32 (H, W, 1) of an ellipse of random direction; the second half axis is 0.6 of the first."""
    side = _side(image)
    reach = rng.uniform(*half_axis) * side
    x, y, angle = _place(image, rng, reach + 0.02 * side)
    shape = np.zeros(image.shape[:2], np.uint8)
    axes = _fixed(reach, 0.6 * reach)
    cv2.ellipse(shape, _fixed(x, y), axes, np.degrees(angle), 0, 360, 255, cv2.FILLED, cv2.LINE_AA, _FRACTION_BITS)
    return _soft(shape, side)


def _soft(shape: np.ndarray, side: int) -> np.ndarray:
    """A drawn shape uint8 (H, W) as weights float32 (H, W, 1), its edge softened."""
    blurred = cv2.GaussianBlur(shape.astype(np.float32) / 255, (0, 0), _EDGE * side)
    return blurred[..., None]


def _away(image: np.ndarray, levels: float) -> float:
    """``levels`` with the sign that leads away from the photo's mean grey."""
    return levels if image.mean() < 128 else -levels

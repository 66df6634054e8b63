"""The views of a sample that alignment compares, and how their patch scores come back into one map (method.md §5).

Batch: a sample is seen as it is, warped onto the template, and that turned by 180°. Few-shot: a query is seen as it
is, and each prompt is warped onto it, upright and turned by 180°. A view that could not be made has no valid patch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from patchead.archive.blocks import NOTHING
from patchead.samples.align import Alignment, Features, compose, features, invert, rigid_motion, warp

TEMPLATE_VIEWS = 3
_HALF_TURN = np.array([[-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]])  # of the unit square
_SEEN = 0.5  # weight of valid patches above which an interpolated score counts
_FILLED = 0.5  # of a patch: with less of the photo in it, the warp has left it empty
_LEAST_SHARE = 0.25  # of a view's patches: with fewer, its image score would be that of a corner
_POINTS = 4  # per patch and axis at which it is looked whether the photo is there


@dataclass(frozen=True)
class Frame:
    """Describe the encoder's input: ``fit`` makes an image square, (H, W, 3) → (S, S, 3), as ``mode`` says."""

    fit: Callable[[np.ndarray], np.ndarray]
    mode: str
    grid: tuple[int, int]


@dataclass(frozen=True)
class Guide:
    """Hold an image that others are aligned with, and its features: the template of a group, or a prompt."""

    image: np.ndarray
    features: Features

    @classmethod
    def of(cls, image: np.ndarray) -> Guide:
        """Find the features of ``image``, uint8 RGB (H, W, 3)."""
        return cls(image, features(image))


@dataclass(frozen=True)
class Views:
    """Hold the V views of one sample, of which the M that could be made have pixels.

    ``pixels`` uint8 (M, S, S, 3); ``valid`` bool (V, P): patches that the warp has filled; ``motions`` float32
    (V, 2, 3): from the sample's fitted square to the view's, both of side 1, NaN where there is no such view;
    ``blocks`` int16 (B,): of the original, see `archive.blocks`.
    """

    pixels: np.ndarray
    valid: np.ndarray
    motions: np.ndarray
    blocks: np.ndarray = field(default_factory=lambda: NOTHING)

    @property
    def aligned(self) -> bool:
        """Tell whether there is a view but the original."""
        return bool(self.valid[1:].any())


def template_views(image: np.ndarray, template: Guide | None, alignment: Alignment, frame: Frame) -> Views:
    """Make the three views of a sample of a batch: as it is, warped onto the template, and that turned by 180°."""
    motion = None if template is None else rigid_motion(features(image), template.features, alignment)
    if template is None or motion is None:
        return _views(image, [None] * (TEMPLATE_VIEWS - 1), frame)
    return _views(image, _warped(image, motion, template.image.shape[:2], frame), frame)


def prompt_views(image: np.ndarray, prompts: Sequence[Guide | None], alignment: Alignment, frame: Frame) -> Views:
    """Make the 1 + 2k views of a few-shot query: itself, then each prompt warped onto it, upright and turned by 180°.

    A prompt that is None is no reference of this query. ``motions`` are those of the prompts.
    """
    own, views = features(image), list[_View | None]()
    for prompt in prompts:
        motion = None if prompt is None else rigid_motion(prompt.features, own, alignment)
        if prompt is None or motion is None:
            views += [None, None]
        else:
            views += _warped(prompt.image, motion, image.shape[:2], frame)
    return _views(image, views, frame)


def unit_frame(width: int, height: int, mode: str) -> np.ndarray:
    """Map the pixels of an image of this size to the square of side 1 that it is fitted into: float64 (2, 3)."""
    if mode == "squash":
        return np.array([[1 / width, 0.0, 0.0], [0.0, 1 / height, 0.0]])
    side = min(width, height) if mode == "crop" else max(width, height)
    return np.array([[1 / side, 0.0, (side - width) / (2 * side)], [0.0, 1 / side, (side - height) / (2 * side)]])


def filled_patches(motion: np.ndarray, shape: tuple[int, int], onto: tuple[int, int], frame: Frame) -> np.ndarray:
    """Find the patches of a view that show the image of ``shape`` (H, W) on at least half of their area: bool (h, w).

    ``motion`` is from the image's fitted square to the view's; ``onto`` (H, W) is the frame it was warped into: what
    padding adds around that is empty too.
    """
    h, w = frame.grid
    columns, rows = ((np.arange(_POINTS * n) + 0.5) / (_POINTS * n) for n in (w, h))
    points = np.stack(np.meshgrid(columns, rows), axis=-1)  # (4 h, 4 w, xy) in the view's square
    from_image = compose(invert(unit_frame(shape[1], shape[0], frame.mode)), invert(motion))
    there = _inside(points, from_image, shape) & _inside(points, invert(unit_frame(*onto[::-1], frame.mode)), onto)
    return there.reshape(h, _POINTS, w, _POINTS).mean(axis=(1, 3)) >= _FILLED


def _inside(points: np.ndarray, to_pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    at = points @ to_pixels[:, :2].T + to_pixels[:, 2]
    return ((at >= 0) & (at <= np.array(shape[::-1]))).all(axis=-1)


def over_all_views(embeddings: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Fill up the embeddings (M, P, D) of the views that exist to those of all V views: (V · P, D).

    A patch that is not ``valid`` (V, P) gets the vector of the same patch of the first view: as a copy of another
    reference patch it is never nearer than that one, so it matches nothing; what it scores itself is dropped later.
    """
    out = np.repeat(embeddings[:1], len(valid), axis=0)
    exists = valid.any(axis=1)
    out[exists] = np.where(valid[exists][..., None], embeddings, embeddings[:1])
    return out.reshape(-1, embeddings.shape[2])


def bring_back(scores: np.ndarray, valid: np.ndarray, motion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bring a view's patch scores (h, w) into the sample's own frame: float32 (h, w), and bool (h, w) where any are.

    Bilinear between the centres of the valid patches.
    """
    at = _in_view(scores.shape, motion)
    known = np.where(valid, scores, 0).astype(np.float32)
    total, weight = (
        cv2.remap(part, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        for part in (known, valid.astype(np.float32))
    )
    seen = weight >= _SEEN
    return np.where(seen, total / np.maximum(weight, _SEEN), 0), seen


def _in_view(grid: tuple[int, ...], motion: np.ndarray) -> np.ndarray:
    """Where the centres of the sample's patches lie in a view, in its patches: float32 (h, w, xy)."""
    h, w = grid
    centres = np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), axis=-1)
    return ((centres @ motion[:, :2].T + motion[:, 2]) * (w, h) - 0.5).astype(np.float32)


def patches_behind(place: int, valid: np.ndarray, motions: np.ndarray) -> list[tuple[int, int]]:
    """List the patches, as (view, patch), that the merged map has its value at ``place`` from; ``valid`` (V, h, w).

    Those of each view's bilinear square, also where the warp has left the view empty there.
    """
    _, h, w = valid.shape
    found = [(0, place)]
    for view in range(1, len(valid)):
        if not valid[view].any():
            continue
        x, y = np.floor(_in_view((h, w), motions[view])[divmod(place, w)]).astype(int).tolist()
        square = [(row, column) for row in (y, y + 1) for column in (x, x + 1)]
        found += [(view, row * w + column) for row, column in square if 0 <= row < h and 0 <= column < w]
    return [at for at in found if valid.reshape(len(valid), -1)[at]]


def merge_views(scores: np.ndarray, valid: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Average the views' patch scores (V, h, w), each brought back into the sample's own frame: float32 (h, w).

    Where a view has no patch, the others are averaged; the first has all of them.
    """
    total, count = scores[0].astype(np.float64), np.ones(scores.shape[1:])
    for view, filled, motion in zip(scores[1:], valid[1:], motions[1:], strict=True):
        if filled.any():
            back, seen = bring_back(view, filled, motion)
            total += back
            count += seen
    return (total / count).astype(np.float32)


class _View(NamedTuple):
    pixels: np.ndarray
    motion: np.ndarray
    valid: np.ndarray


def _warped(image: np.ndarray, motion: np.ndarray, shape: tuple[int, int], frame: Frame) -> list[_View | None]:
    """The image moved by ``motion`` (in pixels) into a frame of ``shape`` (H, W), upright and turned by 180°."""
    (height, width), onto = image.shape[:2], shape[::-1]
    here, there = unit_frame(width, height, frame.mode), unit_frame(*onto, frame.mode)
    pixels = frame.fit(warp(image, motion, *onto))
    upright = compose(there, compose(motion, invert(here)))
    views: list[_View | None] = []
    for view, move in ((pixels, upright), (np.rot90(pixels, 2), compose(_HALF_TURN, upright))):
        valid = filled_patches(move, (height, width), shape, frame)
        views.append(_View(view, move, valid) if valid.mean() >= _LEAST_SHARE else None)
    return views


def _views(image: np.ndarray, others: Sequence[_View | None], frame: Frame) -> Views:
    nowhere = np.zeros(frame.grid, bool)
    valid = [~nowhere, *(nowhere if view is None else view.valid for view in others)]
    motions = [np.eye(2, 3), *(np.full((2, 3), np.nan) if view is None else view.motion for view in others)]
    return Views(
        np.stack([frame.fit(image), *(view.pixels for view in others if view is not None)]),
        np.stack(valid).reshape(len(valid), -1),
        np.stack(motions).astype(np.float32),
    )

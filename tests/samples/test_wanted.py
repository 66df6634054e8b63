"""What a search is asked for, seen through mask, warped prompts and views: finished images are then exact."""

from __future__ import annotations

import numpy as np
import pytest

from patchead.samples.finish import finish_samples
from patchead.samples.mask import ForegroundMask
from patchead.samples.side_arrays import SideArrays
from patchead.samples.wanted import FinishedImages

H, W, N = 6, 7, 12
P = H * W


def refined(goal: FinishedImages, exact: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, float]:
    """Search what is wanted, one patch of each image at a time, until nothing is; the values and the share searched."""
    values, known = bounds.copy(), np.zeros(bounds.shape, bool)
    while np.isfinite(wanted := goal(values, known)).any():
        for i in np.flatnonzero(np.isfinite(wanted).any(axis=1)):
            patch = wanted[i].argmax()
            assert not known[i, patch], "a patch is asked for twice"
            values[i, patch], known[i, patch] = exact[i, patch], True
    return values, float(known.mean())


def scores_of(views: int = 1, slack: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    exact = rng.random((N, views * P)).astype(np.float32)
    return exact, exact + rng.exponential(slack, exact.shape).astype(np.float32)


def motions_of(rng: np.random.Generator) -> np.ndarray:
    """Three views: as it is, turned and moved, and that turned by 180°."""
    found = np.empty((N, 3, 2, 3), np.float32)
    for i in range(N):
        turn, shift = rng.uniform(-0.5, 0.5), rng.uniform(-0.2, 0.2, 2)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        motion = np.column_stack([rotation, shift + 0.5 - rotation @ [0.5, 0.5]])
        found[i] = np.eye(2, 3), motion, np.array([[-1, 0], [0, -1]]) @ motion + [[0, 0, 1], [0, 0, 1]]
    return found


SIDES = {
    "plain": (1, None),
    "mask": (1, "mask"),
    "own prompts": (1, "own"),
    "views": (3, "views"),
    "views and mask": (3, "views mask"),
}


@pytest.mark.parametrize("name", list(SIDES))
@pytest.mark.parametrize("top", [0.0, 0.1])
def test_finished_images_and_largest_patches_are_exact(name: str, top: float) -> None:
    rng, (views, kinds) = np.random.default_rng(1), SIDES[name]
    exact, bounds = scores_of(views)
    valid = rng.random((N, 3, P)) < 0.8
    valid[:, 0] = True
    valid[3, 2] = False  # a view that could not be made
    side = SideArrays(
        attention=rng.random((N, views * P)).astype(np.float16) if "mask" in (kinds or "") else None,
        own=rng.uniform(0.5, 1.2, (N, P)).astype(np.float32) if kinds == "own" else None,
        valid=valid if views == 3 else None,
        motions=motions_of(rng) if views == 3 else None,
    )
    mask = ForegroundMask(0.3, 0.5) if side.attention is not None else None
    goal = FinishedImages((H, W), side, mask, top)
    values, searched = refined(goal, exact, bounds)
    full, found = (finish_samples(of, (H, W), side, mask=mask, top_fraction=top) for of in (exact, values))
    np.testing.assert_array_equal(found.image_scores, full.image_scores)
    np.testing.assert_array_equal(found.patch_scores.max(axis=(1, 2)), full.patch_scores.max(axis=(1, 2)))
    assert searched < 0.7


def test_a_part_of_the_images_is_asked_for_alike() -> None:
    bounds = scores_of(3)[1]
    rng = np.random.default_rng(2)
    side = SideArrays(valid=np.ones((N, 3, P), bool), motions=motions_of(rng))
    goal, nothing = FinishedImages((H, W), side, None, 0.1), np.zeros(bounds.shape, bool)
    np.testing.assert_array_equal(goal(bounds, nothing)[4:9], goal.of(slice(4, 9))(bounds[4:9], nothing[4:9]))

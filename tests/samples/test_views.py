"""Views: which patches a warp fills, where scores of a view belong in the photo's own frame, and their average."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from patchead.archive.decode import fit
from patchead.samples.align import Alignment, compose, features, invert, rigid_motion, warp
from patchead.samples.views import (
    Frame,
    Guide,
    bring_back,
    filled_patches,
    merge_views,
    over_all_views,
    prompt_views,
    template_views,
    unit_frame,
)
from tests.helpers.textures import blobs, motion_about

RULE = Alignment()
GRID = (8, 8)


def frame(mode: str = "squash", grid: tuple[int, int] = GRID) -> Frame:
    return Frame(partial(fit, size=64, mode=mode), mode, grid)


def between(motion: np.ndarray, mode: str, width: int = 160, height: int = 120) -> np.ndarray:
    square = unit_frame(width, height, mode)
    return compose(square, compose(motion, invert(square)))


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("width", "height"), [(160, 120), (90, 150)])
def test_the_unit_frame_is_where_fitting_puts_a_pixel(mode: str, width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    x, y = width // 2 + 14, height // 2 - 12
    image[y - 3 : y + 3, x - 3 : x + 3] = 255
    fitted = fit(image, 300, mode)[..., 0].astype(float)
    rows, columns = np.mgrid[:300, :300] + 0.5
    centre = np.array([(columns * fitted).sum(), (rows * fitted).sum()]) / fitted.sum() / 300
    expected = unit_frame(width, height, mode) @ (x, y, 1)
    np.testing.assert_allclose(centre, expected, atol=0.005)


@pytest.mark.parametrize("mode", ["squash", "crop", "pad"])
@pytest.mark.parametrize(("degrees", "dx", "dy"), [(0, 0, 0), (0, 20, 0), (15, 6, -9), (-80, 0, 0)])
def test_a_patch_is_filled_when_half_of_it_shows_the_photo(mode: str, degrees: float, dx: float, dy: float) -> None:
    motion = between(motion_about(160, 120, degrees, dx, dy), mode)
    found = filled_patches(motion, (120, 160), (120, 160), frame(mode))
    back, square = invert(compose(motion, unit_frame(160, 120, mode))), invert(unit_frame(160, 120, mode))
    for row in range(8):
        for column in range(8):
            steps = (np.arange(20) + 0.5) / 20
            ys, xs = np.meshgrid((row + steps) / 8, (column + steps) / 8)
            points = np.column_stack([xs.ravel(), ys.ravel()])
            share = np.ones(len(points), bool)
            for to_pixels in (back, square):  # in the photo that was warped, and in the frame that it was warped into
                at = points @ to_pixels[:, :2].T + to_pixels[:, 2]
                share &= ((at > 0) & (at < (160, 120))).all(axis=1)
            if abs(share.mean() - 0.5) > 0.1:  # near the half, how finely it is looked at decides
                assert found[row, column] == (share.mean() > 0.5)


def test_a_motion_of_almost_nothing_keeps_the_patches_at_the_border() -> None:
    for dx, dy in ((0.01, 0.0), (-0.01, 0.3), (0.5, -0.5), (0.0, 2.0)):
        motion = between(motion_about(160, 120, 0.01, dx, dy), "squash")
        assert filled_patches(motion, (120, 160), (120, 160), frame()).all()


def test_what_padding_adds_is_no_patch() -> None:
    """A wide photo, padded above and below, moved up: what comes in from the padding below is black, not photo."""
    moved_up = between(np.array([[1.0, 0, 0], [0, 1, -25]]), "pad", 160, 80)
    valid = filled_patches(moved_up, (80, 160), (80, 160), frame("pad", (16, 16)))
    rows = np.flatnonzero(valid.any(axis=1))
    assert rows.min() >= 4
    assert rows.max() <= 9  # the photo's own rows are 4 to 11; the lowest 25 of 80 pixels have moved away


def test_a_template_gives_three_views_and_a_strange_photo_only_itself() -> None:
    image = blobs(1)
    template = warp(image, motion_about(160, 120, 10, 4, 3), 160, 120)
    views = template_views(image, Guide.of(template), RULE, frame())
    assert views.aligned
    assert views.pixels.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(views.pixels[0], fit(image, 64, "squash"))
    np.testing.assert_array_equal(views.pixels[2], views.pixels[1][::-1, ::-1])
    inner = views.valid[1].reshape(GRID)
    assert 40 < inner.sum() < 64
    np.testing.assert_array_equal(views.valid[2].reshape(GRID), inner[::-1, ::-1])
    seen = np.kron(inner, np.ones((8, 8), bool))  # where it is filled, the warped view is the template
    difference = np.abs(views.pixels[1].astype(int) - fit(template, 64, "squash"))
    assert difference[seen].mean() < 10
    assert difference[8:-8, 8:-8].mean() < 6

    alone = template_views(blobs(2), Guide.of(template), RULE, frame())
    assert not alone.aligned
    assert alone.pixels.shape == (1, 64, 64, 3)
    assert alone.valid.sum(axis=1).tolist() == [64, 0, 0]
    assert np.isnan(alone.motions[1:]).all()


def test_prompts_are_warped_onto_the_query_upright_and_turned() -> None:
    image = blobs(3)
    prompts = [Guide.of(warp(image, motion_about(160, 120, -8, 2, 5), 160, 120)), None, Guide.of(blobs(4))]
    views = prompt_views(image, prompts, RULE, frame())
    assert views.valid.any(axis=1).tolist() == [True, True, True, False, False, False, False]
    assert len(views.pixels) == 3
    seen = np.kron(views.valid[1].reshape(GRID), np.ones((8, 8), bool))
    assert np.abs(views.pixels[1].astype(int) - views.pixels[0])[seen].mean() < 10


def test_without_a_template_or_with_a_corner_of_the_photo_alone_a_sample_is_itself() -> None:
    assert not template_views(blobs(1), None, RULE, frame()).aligned
    image = blobs(5, 320, 240, 300)
    corner = warp(image, np.array([[1.0, 0, -250], [0, 1, -180]]), 320, 240)
    assert (
        rigid_motion(features(corner), features(image), RULE) is None
        or not template_views(corner, Guide.of(image[:60, :70]), RULE, frame()).aligned
    )


def test_invalid_patches_match_nothing() -> None:
    rng = np.random.default_rng(0)
    embeddings, valid = rng.normal(size=(2, 6, 5)), np.ones((3, 6), bool)
    valid[1], valid[2, :4] = False, False  # no second view; two patches of the third
    vectors = over_all_views(embeddings, valid)
    assert vectors.shape == (18, 5)
    query = rng.normal(size=(40, 5))
    allowed = np.concatenate([embeddings[0], embeddings[1, 4:]])
    np.testing.assert_array_equal((query @ vectors.T).max(axis=1), (query @ allowed.T).max(axis=1))


def test_a_map_comes_back_unmoved_turned_and_shifted() -> None:
    scores = np.random.default_rng(1).random(GRID).astype(np.float32)
    everywhere = np.ones(GRID, bool)
    back, seen = bring_back(scores, everywhere, np.eye(2, 3))
    np.testing.assert_allclose(back, scores, atol=1e-6)
    assert seen.all()
    back, _ = bring_back(scores, everywhere, np.array([[-1.0, 0, 1], [0, -1, 1]]))
    np.testing.assert_allclose(back, scores[::-1, ::-1], atol=1e-5)
    # The view shows everything one patch further right and two further down.
    back, seen = bring_back(scores, everywhere, np.array([[1.0, 0, 1 / 8], [0, 1, 2 / 8]]))
    np.testing.assert_allclose(back[:6, :7], scores[2:, 1:], atol=1e-5)
    assert seen[:6, :7].all()
    assert not seen[6:].any()
    assert not seen[:, 7:].any()


def naive_at(scores: np.ndarray, valid: np.ndarray, x: float, y: float) -> float | None:
    """Bilinear at (x, y) in patches from the first centre, over valid patches; None with less than half a patch."""
    total = weight = 0.0
    for row in range(scores.shape[0]):
        for column in range(scores.shape[1]):
            share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
            if valid[row, column]:
                total += share * scores[row, column]
                weight += share
    return total / weight if weight >= 0.5 else None


def test_merging_views_is_the_mean_over_those_that_see_the_patch() -> None:
    rng = np.random.default_rng(2)
    scores = rng.random((3, *GRID)).astype(np.float32)
    valid = np.stack([np.ones(GRID, bool), rng.random(GRID) > 0.3, np.zeros(GRID, bool)])
    motion = between(motion_about(160, 120, 20, 7, -5), "squash")
    motions = np.stack([np.eye(2, 3), motion, np.full((2, 3), np.nan)])
    merged = merge_views(scores, valid, motions)
    for row in range(8):
        for column in range(8):
            x, y = motion @ ((column + 0.5) / 8, (row + 0.5) / 8, 1)
            other = naive_at(scores[1], valid[1], x * 8 - 0.5, y * 8 - 0.5)
            expected = scores[0, row, column] if other is None else (scores[0, row, column] + other) / 2
            # OpenCV interpolates at 1/32 of a patch; at the edge of half a patch it may decide otherwise.
            near_edge = other is None or abs(merged[row, column] - scores[0, row, column]) < 1e-6
            assert merged[row, column] == pytest.approx(expected, abs=0.03) or near_edge

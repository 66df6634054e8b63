from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchead.maps.heatmap import colorize, heatmap, overlay


@given(
    h=st.integers(1, 40), w=st.integers(1, 40), width=st.integers(60, 900), height=st.integers(60, 900), data=st.data()
)
@settings(max_examples=40, deadline=None)
def test_the_peak_lies_on_the_hot_patch(h: int, w: int, width: int, height: int, data: st.DataObject) -> None:
    row, column = data.draw(st.integers(0, h - 1)), data.draw(st.integers(0, w - 1))
    grid = np.full((h, w), 0.1, np.float32)
    grid[row, column] = 0.9
    got = heatmap(grid, width, height, max_side=1024)
    assert got.shape == (height, width)
    assert got.dtype == np.float32
    y, x = np.unravel_index(got.argmax(), got.shape)
    if h * w > 1:
        assert row * height / h - 1 <= y <= (row + 1) * height / h
        assert column * width / w - 1 <= x <= (column + 1) * width / w
    assert 0.1 - 1e-5 <= got.min() <= got.max() <= 0.9 + 1e-5


def test_the_blur_is_four_pixels_at_256_on_each_axis() -> None:
    grid = np.zeros((64, 64), np.float32)
    grid[32, 32] = 1
    for width, height in ((256, 256), (1024, 512)):
        got = heatmap(grid, width, height, max_side=1024).astype(np.float64)
        for axis, size in ((0, width), (1, height)):
            profile = got.sum(axis=axis)
            at = np.arange(size)
            mean = (profile * at).sum() / profile.sum()
            sigma = np.sqrt((profile * (at - mean) ** 2).sum() / profile.sum())
            # a bilinear tent of one patch adds (size / 64)² / 6 to the variance
            assert sigma == pytest.approx(np.sqrt((4 * size / 256) ** 2 + (size / 64) ** 2 / 6), rel=0.03)


def test_a_constant_grid_stays_constant_to_the_border() -> None:
    np.testing.assert_allclose(heatmap(np.full((7, 5), 0.25), 333, 97, max_side=1024), 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("width", "height", "shape"),
    [
        (4000, 2000, (512, 1024)),
        (100, 3000, (1024, 34)),
        (1024, 768, (768, 1024)),
        (1, 9000, (1024, 1)),
        (3, 2, (2, 3)),
    ],
)
def test_large_images_are_drawn_scaled_down_and_small_ones_as_they_are(
    width: int, height: int, shape: tuple[int, int]
) -> None:
    assert heatmap(np.random.default_rng(0).random((16, 16)), width, height, max_side=1024).shape == shape


@pytest.mark.parametrize(("shape", "width"), [((4,), 10), ((4, 4, 1), 10), ((0, 4), 10), ((4, 4), 0)])
def test_what_is_no_map_is_refused(shape: tuple[int, ...], width: int) -> None:
    with pytest.raises(ValueError, match="need a grid"):
        heatmap(np.zeros(shape), width, 10, max_side=64)


def test_colours_mean_the_same_in_every_image_of_a_group() -> None:
    defect, good = np.array([[0.1, 0.5]], np.float32), np.array([[0.1, 0.11]], np.float32)
    hot, cold = colorize(defect, 0.1, 0.5), colorize(good, 0.1, 0.5)
    assert hot.dtype == np.uint8
    assert hot.shape == (1, 2, 3)
    assert (hot[0, 0] == cold[0, 0]).all()
    assert cold.astype(int).sum(axis=2).max() < 60
    assert hot[0, 1].astype(int).sum() > 400


def test_brightness_rises_with_the_score_and_stops_at_the_range() -> None:
    steps = colorize(np.linspace(-0.5, 1.5, 101, dtype=np.float32)[None], 0, 1)[0].astype(int)
    luma = steps @ [0.299, 0.587, 0.114]
    assert (np.diff(luma) >= -1).all()
    assert (steps[:26] == steps[0]).all()
    assert (steps[75:] == steps[-1]).all()


def test_colours_are_rgb() -> None:
    middle = colorize(np.full((1, 1), 0.6, np.float32), 0, 1)[0, 0]
    assert middle[0] > middle[2]


def test_an_empty_range_is_dark_not_an_error() -> None:
    assert (colorize(np.full((2, 2), 0.3, np.float32), 0.3, 0.3) == colorize(np.zeros((2, 2)), 0, 1)).all()


def test_overlay_shows_the_photo_where_normal_and_the_colour_where_not() -> None:
    photo = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    scores = np.zeros((40, 60), np.float32)
    scores[10:20, 10:20] = 1
    before = photo.copy()
    got = overlay(photo, scores, 0, 1)
    assert got.dtype == np.uint8
    changed = (got != photo).any(axis=2)
    assert changed[10:20, 10:20].all()
    assert changed.sum() == 100
    assert (photo == before).all()


def test_overlay_takes_the_size_of_the_map() -> None:
    photo = np.full((400, 600, 3), 90, np.uint8)
    assert (overlay(photo, np.zeros((20, 30), np.float32), 0, 1) == 90).all()
    assert overlay(photo, np.zeros((20, 30), np.float32), 0, 1).shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("fit", "row", "x", "y"),
    [
        ("squash", 5, 450, 110),  # a patch is 100 x 20: column 4, row 5
        ("crop", 5, 490, 110),  # the square is x 400 to 600, a patch 20 x 20
        ("pad", 4, 450, 50),  # the square is y -400 to 600, a patch 100 x 100
    ],
)
def test_each_fit_draws_the_patch_where_it_was_taken_from(fit: str, row: int, x: int, y: int) -> None:
    grid = np.zeros((10, 10), np.float32)
    grid[row, 4] = 1
    for turned in (False, True):
        size = (200, 1000) if turned else (1000, 200)
        got = heatmap(grid.T if turned else grid, *size, max_side=1000, fit=fit)
        got = got.T if turned else got
        peak_y, peak_x = np.unravel_index(got.argmax(), got.shape)
        assert got.shape == (200, 1000)
        assert abs(peak_x + 0.5 - x) <= 1
        assert abs(peak_y + 0.5 - y) <= 1


def test_what_a_crop_cut_off_scores_nothing() -> None:
    got = heatmap(np.full((8, 8), 0.3), 300, 100, max_side=1024, fit="crop")
    assert (got[:, :100] == 0).all()
    assert (got[:, 200:] == 0).all()
    np.testing.assert_allclose(got[:, 100:200], 0.3, atol=1e-6)

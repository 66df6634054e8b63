from __future__ import annotations

import math

import numpy as np
import pytest

from patchead.maps.heatmap import heatmap
from patchead.maps.regions import Region, find_regions


def _map(height: int, width: int, *boxes: tuple[int, int, int, int, float]) -> np.ndarray:
    scores = np.full((height, width), 0.1, np.float32)
    for x, y, box_width, box_height, value in boxes:
        scores[y : y + box_height, x : x + box_width] = value
    return scores


def test_planted_rectangles_come_back_exactly_and_by_peak() -> None:
    scores = _map(120, 200, (5, 7, 30, 11, 0.5), (199, 0, 1, 120, 0.75), (60, 100, 40, 20, 0.25))
    found = find_regions(scores, 0.2, width=200, height=120)
    assert found == [
        Region(199, 0, 1, 120, 120, 0.75, 0.75),
        Region(5, 7, 30, 11, 330, 0.5, 0.5),
        Region(60, 100, 40, 20, 800, 0.25, 0.25),
    ]


def test_equal_peaks_go_from_top_to_bottom_and_left_to_right() -> None:
    scores = _map(30, 30, (20, 2, 3, 3, 0.5), (2, 2, 3, 3, 0.5), (10, 20, 3, 3, 0.5))
    assert [(r.x, r.y) for r in find_regions(scores, 0.2, width=30, height=30)] == [(2, 2), (20, 2), (10, 20)]


def test_corners_touch_and_a_gap_separates() -> None:
    diagonal = np.eye(6, dtype=np.float32)
    assert [(r.width, r.height, r.area_px) for r in find_regions(diagonal, 0.5, width=6, height=6)] == [(6, 6, 6)]
    apart = _map(5, 9, (1, 1, 2, 2, 0.9), (4, 1, 2, 2, 0.8))
    assert len(find_regions(apart, 0.5, width=9, height=5)) == 2


def test_a_region_inside_the_box_of_another_does_not_mix_with_it() -> None:
    ring = _map(20, 20, (0, 0, 20, 20, 0.5), (1, 1, 18, 18, 0.1), (8, 8, 4, 4, 0.9))
    inner, outer = find_regions(ring, 0.2, width=20, height=20)
    assert (inner.peak, inner.area_px) == (pytest.approx(0.9), 16)
    assert (outer.peak, outer.mean, outer.area_px) == (0.5, 0.5, 400 - 18 * 18)


def test_peak_and_mean_are_of_the_pixels_above() -> None:
    scores = np.zeros((4, 6), np.float32)
    scores[1, 1:4] = [0.4, 0.8, 0.6]
    (region,) = find_regions(scores, 0.3, width=6, height=4)
    assert region.peak == pytest.approx(0.8)
    assert region.mean == pytest.approx(0.6)


def test_the_threshold_itself_is_not_above() -> None:
    scores = _map(10, 10, (2, 2, 3, 3, 0.5))
    assert find_regions(scores, 0.5, width=10, height=10) == []
    assert find_regions(scores, math.inf, width=10, height=10) == []
    assert len(find_regions(scores, -math.inf, width=10, height=10)) == 1


@pytest.mark.parametrize(("fx", "fy"), [(4, 4), (3, 7)])
def test_boxes_are_in_pixels_of_the_original(fx: int, fy: int) -> None:
    scores = _map(50, 80, (5, 7, 30, 11, 0.5))
    assert find_regions(scores, 0.2, width=80 * fx, height=50 * fy) == [
        Region(5 * fx, 7 * fy, 30 * fx, 11 * fy, 330 * fx * fy, 0.5, 0.5)
    ]


def test_an_uneven_scale_covers_every_touched_pixel_and_stays_inside() -> None:
    (whole,) = find_regions(_map(7, 3, (0, 0, 3, 7, 0.5)), 0.2, width=1000, height=17)
    assert (whole.x, whole.y, whole.width, whole.height, whole.area_px) == (0, 0, 1000, 17, 17_000)
    (last,) = find_regions(_map(7, 3, (2, 6, 1, 1, 0.5)), 0.2, width=1000, height=17)
    assert (last.x, last.y, last.x + last.width, last.y + last.height) == (666, 14, 1000, 17)


def test_a_hot_patch_becomes_one_region_around_it_in_the_original() -> None:
    grid = np.full((16, 16), 0.05, np.float32)
    grid[3, 12] = 0.8
    width, height = 3200, 1600
    found = find_regions(heatmap(grid, width, height, max_side=800), 0.15, width=width, height=height)
    assert len(found) == 1
    box = found[0]
    assert box.x <= 12 * 200 + 40
    assert box.x + box.width >= 13 * 200 - 40
    assert box.x + box.width / 2 == pytest.approx(12.5 * 200, abs=8)
    assert box.y + box.height / 2 == pytest.approx(3.5 * 100, abs=8)
    assert box.width < 3 * 200
    assert box.height < 3 * 100

from __future__ import annotations

import math

import numpy as np
import pytest

from patchead.maps.heatmap import heatmap
from patchead.maps.regions import MAP_SIDE, Region, exceeded_by, find_regions, image_regions, region_threshold
from patchead.scoring.aggregate import image_scores
from patchead.scoring.verdict import VerdictSettings, judge

NORMAL = 0.1
RNG = np.random.default_rng(0)


def _map(height: int, width: int, *boxes: tuple[int, int, int, int, float]) -> np.ndarray:
    scores = np.full((height, width), NORMAL, np.float32)
    for x, y, box_width, box_height, value in boxes:
        scores[y : y + box_height, x : x + box_width] = value
    return scores


def _found(scores: np.ndarray, threshold: float, gap: int = 0, **size: int) -> list[Region]:
    size = size or {"width": scores.shape[1], "height": scores.shape[0]}
    return find_regions(scores, threshold, normal=NORMAL, gap=(gap, gap), **size)


def _boxes(found: list[Region]) -> list[tuple[int, int, int, int]]:
    return [(region.x, region.y, region.width, region.height) for region in found]


def test_planted_rectangles_come_back_exactly_and_by_peak() -> None:
    scores = _map(120, 200, (5, 7, 30, 11, 0.5), (199, 0, 1, 120, 0.75), (60, 100, 40, 20, 0.375))
    assert _found(scores, 0.2) == [
        Region(199, 0, 1, 120, 120, 0.75, 0.75, 0.2),
        Region(5, 7, 30, 11, 330, 0.5, 0.5, 0.2),
        Region(60, 100, 40, 20, 800, 0.375, 0.375, 0.2),
    ]


def test_equal_peaks_go_from_top_to_bottom_and_left_to_right() -> None:
    scores = _map(30, 30, (20, 2, 3, 3, 0.5), (2, 2, 3, 3, 0.5), (10, 20, 3, 3, 0.5))
    assert [(r.x, r.y) for r in _found(scores, 0.2)] == [(2, 2), (20, 2), (10, 20)]


def test_corners_touch_and_a_gap_separates() -> None:
    diagonal = np.eye(6, dtype=np.float32)
    assert [(r.width, r.height, r.area_px) for r in _found(diagonal, 0.5)] == [(6, 6, 6)]
    apart = _map(5, 9, (1, 1, 2, 2, 0.9), (4, 1, 2, 2, 0.8))
    assert len(_found(apart, 0.5)) == 2


@pytest.mark.parametrize("gap", [2, 4, 10])
def test_two_parts_within_the_gap_are_one_region_and_beyond_it_two(gap: int) -> None:
    for between in (1, gap, gap + 1, 3 * gap):
        for place in ((4, 4 + 3 + between), (4 + 3 + between, 4)):  # side by side, either first
            scores = _map(20, 60, (place[0], 5, 3, 2, 0.9), (place[1], 9, 3, 2, 0.8))
            down = np.ascontiguousarray(scores.T)
            if between <= gap:
                assert _boxes(_found(scores, 0.5, gap)) == [(4, 5, 6 + between, 6)]
                assert _boxes(_found(down, 0.5, gap)) == [(5, 4, 6, 6 + between)]
            else:
                assert len(_found(scores, 0.5, gap)) == len(_found(down, 0.5, gap)) == 2


def test_parts_far_below_the_highest_are_left_out() -> None:
    for value, expected in ((0.21, 1), (0.23, 2)):  # 0.1 is normal, 0.22 the limit
        assert len(_found(_map(20, 20, (2, 2, 4, 4, 0.5), (12, 12, 4, 4, value)), 0.15)) == expected


def test_what_joins_two_parts_is_no_part_of_the_region() -> None:
    (region,) = _found(_map(10, 20, (2, 2, 3, 3, 0.5), (7, 2, 3, 3, 0.5)), 0.2, gap=2)
    assert (region.area_px, region.mean, region.width) == (18, 0.5, 8)


def test_a_region_inside_the_box_of_another_does_not_mix_with_it() -> None:
    ring = _map(20, 20, (0, 0, 20, 20, 0.5), (1, 1, 18, 18, 0.1), (8, 8, 4, 4, 0.9))
    inner, outer = _found(ring, 0.2)
    assert (inner.peak, inner.area_px) == (pytest.approx(0.9), 16)
    assert (outer.peak, outer.mean, outer.area_px) == (0.5, 0.5, 400 - 18 * 18)


def test_a_region_ends_where_its_own_peak_has_fallen_off_not_that_of_another() -> None:
    slope = np.full((5, 40), NORMAL, np.float32)
    slope[2, :11] = np.linspace(0.2, 0.9, 11)
    slope[2, 20:31] = np.linspace(0.2, 0.4, 11)
    high, low = _found(slope, 0.15)
    ends = [NORMAL + 0.65 * (peak - NORMAL) for peak in (0.9, 0.4)]
    for region, end, columns in ((high, ends[0], slope[2, :11]), (low, ends[1], slope[2, 20:31])):
        assert region.area_px == region.width == (columns >= end).sum() > 1
        assert region.mean == pytest.approx(columns[columns >= end].mean())
    assert high.x + high.width == 11


def test_a_region_goes_on_where_it_is_faint_but_does_not_begin_there() -> None:
    scores = np.zeros((4, 9), np.float32)
    scores[1, 1:8] = [0.45, 0.3, 0.45, 0.41, 0.6, 0.5, 0.39]  # 0.4 is 0.8 of the threshold
    (region,) = find_regions(scores, 0.5, normal=0.0, gap=(0, 0), width=9, height=4)
    assert (region.x, region.width, region.area_px) == (3, 4, 4)
    assert region.peak == pytest.approx(0.6)
    assert region.mean == pytest.approx(0.49)
    assert find_regions(scores, 0.6, normal=0.0, gap=(0, 0), width=9, height=4) == []


def test_the_threshold_itself_is_not_above() -> None:
    scores = _map(10, 10, (2, 2, 3, 3, 0.5))
    assert _found(scores, 0.5) == []
    assert _found(scores, math.inf) == []


def test_one_pixel_and_the_whole_picture() -> None:
    assert _found(_map(9, 7, (3, 4, 1, 1, 0.5)), 0.2, gap=4) == [Region(3, 4, 1, 1, 1, 0.5, 0.5, 0.2)]
    assert _boxes(_found(_map(9, 7, (0, 0, 7, 9, 0.5)), 0.2)) == [(0, 0, 7, 9)]
    assert _boxes(_found(_map(9, 7), -math.inf)) == [(0, 0, 7, 9)]  # all of it is the peak
    below = np.full((4, 4), NORMAL / 2, np.float32)
    below[1, 1] = 0.09  # below what is normal, and yet a region by a lower threshold
    assert _boxes(_found(below, 0.01)) == [(1, 1, 1, 1)]


@pytest.mark.parametrize("corner", [(0, 0), (17, 0), (0, 13), (17, 13)])
def test_regions_reach_the_edge_and_stay_inside(corner: tuple[int, int]) -> None:
    scores = _map(16, 20, (*corner, 3, 3, 0.5), (9, 7, 2, 2, 0.4))
    assert _boxes(_found(scores, 0.2, gap=2))[0] == (*corner, 3, 3)


@pytest.mark.parametrize(("fx", "fy"), [(4, 4), (3, 7)])
def test_boxes_are_in_pixels_of_the_original(fx: int, fy: int) -> None:
    scores = _map(50, 80, (5, 7, 30, 11, 0.5))
    assert _found(scores, 0.2, width=80 * fx, height=50 * fy) == [
        Region(5 * fx, 7 * fy, 30 * fx, 11 * fy, 330 * fx * fy, 0.5, 0.5, 0.2)
    ]


def test_an_uneven_scale_covers_every_touched_pixel_and_stays_inside() -> None:
    (whole,) = _found(_map(7, 3, (0, 0, 3, 7, 0.5)), 0.2, width=1000, height=17)
    assert (whole.x, whole.y, whole.width, whole.height, whole.area_px) == (0, 0, 1000, 17, 17_000)
    (last,) = _found(_map(7, 3, (2, 6, 1, 1, 0.5)), 0.2, width=1000, height=17)
    assert (last.x, last.y, last.x + last.width, last.y + last.height) == (666, 14, 1000, 17)


def test_a_hot_patch_becomes_one_region_of_its_own_size() -> None:
    grid = np.full((16, 16), 0.05, np.float32)
    grid[3, 12] = 0.8
    (box,) = image_regions(grid, 0.15, width=3200, height=1600, fit="squash", flagged=True)
    assert box.x + box.width / 2 == pytest.approx(12.5 * 200, abs=13)
    assert box.y + box.height / 2 == pytest.approx(3.5 * 100, abs=13)
    assert 0.7 * 200 < box.width < 1.3 * 200
    assert 0.7 * 100 < box.height < 1.3 * 100


def test_a_broken_scratch_is_one_region_and_a_far_spot_another() -> None:
    grid = np.full((16, 16), 0.05, np.float32)
    grid[4, [1, 2, 4, 6, 7]] = 0.5, 0.4, 0.45, 0.42, 0.5
    grid[13, 12] = 0.4
    scratch, spot = image_regions(grid, 0.15, width=256, height=256, fit="squash", flagged=True)
    assert scratch.x == pytest.approx(16, abs=6)
    assert scratch.x + scratch.width == pytest.approx(8 * 16, abs=6)
    assert spot.x + spot.width / 2 == pytest.approx(12.5 * 16, abs=2)


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_a_flagged_image_has_a_region_and_another_has_none_below_the_threshold(fit: str) -> None:
    for grid in (
        RNG.random((7, 5), np.float32),
        np.full((7, 5), 0.3, np.float32),
        np.full((7, 5), 0.0, np.float32),
        np.eye(7, 5, dtype=np.float32),
    ):
        for threshold in (math.inf, 2.0, 1.0, 0.31):
            found = image_regions(grid, threshold, width=90, height=40, fit=fit, flagged=True)
            assert found
            assert all(region.threshold < region.peak for region in found)
            peak = heatmap(grid, 90, 40, max_side=MAP_SIDE, fit=fit).max()
            assert found[0].peak == pytest.approx(peak)
            others = image_regions(grid, threshold, width=90, height=40, fit=fit, flagged=False)
            assert bool(others) == (peak > threshold)


def test_the_regions_of_a_flagged_image_below_the_threshold_are_what_is_near_its_peak() -> None:
    grid = np.full((8, 8), 0.1, np.float32)
    grid[2, 2:4], grid[6, 6] = 0.2, 0.16
    (region,) = image_regions(grid, 0.5, width=80, height=80, fit="squash", flagged=True)
    assert region.threshold == pytest.approx(0.1 + 0.65 * (region.peak - 0.1))
    assert (region.x, region.x + region.width) == (pytest.approx(20, abs=3), pytest.approx(40, abs=3))
    above = image_regions(grid, 0.11, width=80, height=80, fit="squash", flagged=True)
    assert [one.threshold for one in above] == [0.11, 0.11]


def test_a_defect_that_raises_its_whole_image_is_one_box_around_it_alone() -> None:
    grid = RNG.uniform(0.19, 0.21, (16, 16)).astype(np.float32)  # all of it above the threshold
    grid[3:5, 9:12] = 0.5
    (region,) = image_regions(grid, 0.15, width=160, height=160, fit="squash", flagged=True)
    assert (region.x, region.y) == (pytest.approx(90, abs=4), pytest.approx(30, abs=4))
    assert (region.width, region.height) == (pytest.approx(30, abs=8), pytest.approx(20, abs=8))


@pytest.mark.parametrize("size", [(300, 300), (3000, 2000), (300, 200)])
def test_regions_are_the_same_for_an_image_of_any_size(size: tuple[int, int]) -> None:
    grid, threshold = RNG.uniform(0.04, 0.06, (16, 16)).astype(np.float32), 0.15
    grid[2, 2:7], grid[8:11, 12], grid[13, 4] = 0.3, 0.4, 0.25
    first = image_regions(grid, threshold, width=1024, height=1024, fit="squash", flagged=True)
    again = image_regions(grid, threshold, width=size[0], height=size[1], fit="squash", flagged=True)
    assert len(first) == len(again) == 3
    for one, other in zip(first, again, strict=True):
        edges = [
            np.array([r.x / w, r.y / h, (r.x + r.width) / w, (r.y + r.height) / h])
            for r, w, h in ((one, 1024, 1024), (other, *size))
        ]
        np.testing.assert_allclose(*edges, atol=2.5 / 200)  # a pixel of the smallest map on either side


def naive_level(patches: np.ndarray, sizes: list[tuple[int, int]], flagged: np.ndarray, fit: str) -> float:
    """The lowest of the unflagged images' maxima that no more than 1 % of them exceed."""
    peaks = [
        heatmap(p, *s, max_side=MAP_SIDE, fit=fit).max()
        for p, s, f in zip(patches, sizes, flagged, strict=True)
        if not f
    ]
    return float(min(value for value in peaks if sum(other > value for other in peaks) <= 0.01 * len(peaks)))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
@pytest.mark.parametrize("count", [3, 40, 250])
def test_one_per_cent_of_the_unflagged_images_exceed_the_threshold(count: int, fit: str) -> None:
    patches = RNG.gamma(2, 0.05, (count, 4, 5)).astype(np.float32)
    flagged = np.arange(count) % 3 == 1
    sizes = [(20 + i % 3, 30 - i % 5) for i in range(count)]
    found = region_threshold(patches, sizes, ~flagged, fit=fit, threshold_score=9.0)
    assert found == naive_level(patches, sizes, flagged, fit)
    with_region = [
        bool(image_regions(p, found, width=w, height=h, fit=fit, flagged=False))
        for p, (w, h) in zip(patches, sizes, strict=True)
    ]
    assert sum(with_region[i] for i in np.flatnonzero(~flagged)) == int(0.01 * (~flagged).sum())
    assert region_threshold(patches, sizes, ~flagged, fit=fit, threshold_score=9.0, given=0.2) == 0.2


def test_where_all_are_flagged_the_images_threshold_stands_in() -> None:
    patches, sizes = RNG.random((3, 4, 4), np.float32), [(40, 40)] * 3
    for score in (0.4, math.inf):
        assert region_threshold(patches, sizes, np.zeros(3, bool), fit="squash", threshold_score=score) == score


def test_two_far_defects_are_two_boxes_though_all_images_are_flagged() -> None:
    grids = np.random.default_rng(5).uniform(0.04, 0.06, (5, 16, 16)).astype(np.float32)
    grids[:, 2:4, 2:4], grids[:, 12:14, 11:13] = 0.5, 0.42
    scores = image_scores(grids.reshape(5, -1), 0.01)
    verdict = judge(scores, VerdictSettings(verdict="top", flag_top=5))
    sizes = [(160, 160)] * 5
    limit = region_threshold(grids, sizes, ~verdict.flagged, fit="squash", threshold_score=verdict.normal_score)
    for grid in grids:
        first, second = image_regions(grid, limit, width=160, height=160, fit="squash", flagged=True)
        assert (first.x, first.y, second.x, second.y) == pytest.approx((20, 20, 110, 120), abs=5)
        assert max(first.width, first.height, second.width, second.height) < 40


def test_a_share_of_equal_values_is_exceeded_by_none() -> None:
    assert exceeded_by(np.full(300, 0.25), 0.01) == 0.25
    assert exceeded_by(np.arange(100.0), 0.01) == 98.0
    assert exceeded_by(np.arange(99.0), 0.01) == 98.0

from __future__ import annotations

import itertools
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import f1_score

from patchead.evaluation.metrics import (
    BINS,
    FPR_LIMIT,
    ImageMetrics,
    PixelHistogram,
    image_metrics,
    verdict_metrics,
)

Image = tuple[np.ndarray, np.ndarray]


# Oracles: float64, one threshold or one pair at a time, no histogram.


def f1_by_thresholds(labels: np.ndarray, scores: np.ndarray) -> float:
    return max(2 * np.sum(labels[scores >= t]) / (labels.sum() + np.sum(scores >= t)) for t in np.unique(scores))


def ap_by_thresholds(labels: np.ndarray, scores: np.ndarray) -> float:
    area = recall = 0.0
    for threshold in np.unique(scores)[::-1]:
        found = labels[scores >= threshold]
        area += (found.sum() / labels.sum() - recall) * found.mean()
        recall = found.sum() / labels.sum()
    return float(area)


def auroc_by_pairs(labels: np.ndarray, scores: np.ndarray) -> float:
    positive, negative = scores[labels].astype(float), scores[~labels].astype(float)
    difference = positive[:, None] - negative[None, :]
    return float((np.count_nonzero(difference > 0) + np.count_nonzero(difference == 0) / 2) / difference.size)


def pro_by_thresholds(images: list[Image], limit: float) -> float:
    """Every distinct score as a threshold, every region on its own (scipy's labels), a fine grid for the integral."""
    regions = []
    for scores, mask in images:
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[labels == number] for number in range(1, count + 1)]
    normal = np.concatenate([scores[~mask] for scores, mask in images])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([scores.ravel() for scores, _ in images]))[::-1]:
        rate = np.count_nonzero(normal >= threshold) / len(normal)
        points.append((rate, float(np.mean([np.mean(region >= threshold) for region in regions]))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            at = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + at) / 2
    return area / limit


def pixels(images: list[Image]) -> Image:
    return tuple(np.concatenate([image[part].ravel() for image in images]) for part in (0, 1))  # type: ignore[return-value]


def counted(images: list[Image]) -> PixelHistogram:
    histogram = PixelHistogram()
    for scores, mask in images:
        histogram.add(scores, mask)
    return histogram


def some_images(seed: int, levels: int | None = None, n: int = 4, side: int = 40) -> list[Image]:
    """Blobs and single pixels as defects; scores that only lean towards them; two images without a defect."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(n):
        mask = np.zeros((side, side + 7), bool)
        if number % 2 == 0:
            mask = ndimage.gaussian_filter(rng.random(mask.shape), 2.5) > 0.53
            mask[rng.integers(0, side, 3), rng.integers(0, side, 3)] = True
            assert mask.any()
        scores = np.clip(rng.beta(2, 8, mask.shape) + mask * rng.uniform(0, 0.3, mask.shape), 0, 1)
        if levels:
            scores = np.floor(scores * (levels - 1)) / levels
        images.append((scores.astype(np.float32), mask))
    return images


# Image metrics


@given(
    data=st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60),
    scale=st.sampled_from([1.0, 1e-9, 1e9]),
)
@settings(max_examples=80)
def test_image_metrics_equal_their_definitions(data: list[tuple[int, bool]], scale: float) -> None:
    scores = np.array([score for score, _ in data]) * scale
    labels = np.array([label for _, label in data])
    got = image_metrics(scores, labels)
    if labels.all() or not labels.any():
        assert got == ImageMetrics(None, None, None)
        return
    assert got.auroc == pytest.approx(auroc_by_pairs(labels, scores), abs=1e-12)
    assert got.ap == pytest.approx(ap_by_thresholds(labels, scores), abs=1e-12)
    assert got.f1_max == pytest.approx(f1_by_thresholds(labels, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([4, 3, 2, 1], [1, 1, 0, 0], (1.0, 1.0, 1.0)),
        ([1, 2, 3, 4], [1, 1, 0, 0], (0.0, (1 / 3 + 2 / 4) / 2, 2 / 3)),
        ([5, 5, 5, 5], [1, 0, 0, 0], (0.5, 0.25, 0.4)),
        ([3, 2, 2, 1], [1, 1, 0, 0], (0.875, 1 / 2 + 1 / 2 * 2 / 3, 0.8)),
    ],
)
def test_image_metrics_by_hand(scores: list[int], labels: list[int], expected: tuple[float, ...]) -> None:
    got = image_metrics(np.array(scores), np.array(labels, bool))
    assert (got.auroc, got.ap, got.f1_max) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("labels", [[True] * 3, [False] * 3, []])
def test_one_kind_of_image_alone_has_no_metric(labels: list[bool]) -> None:
    got = image_metrics(np.arange(len(labels), dtype=float), np.array(labels, bool))
    assert got == ImageMetrics(None, None, None)


@pytest.mark.parametrize(
    ("scores", "labels", "why"),
    [
        (np.array([0.1, np.nan]), np.array([True, False]), "1 of 2 image scores are not finite"),
        (np.array([0.1, np.inf]), np.array([True, False]), "not finite"),
        (np.array([0.1, 0.2]), np.array([1, 0]), "bool labels"),
        (np.array([0.1, 0.2]), np.array([True]), "bool labels"),
        (np.zeros((2, 1)), np.zeros((2, 1), bool), "bool labels"),
    ],
)
def test_image_scores_that_mean_nothing_are_refused(scores: np.ndarray, labels: np.ndarray, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        image_metrics(scores, labels)


# Pixel metrics: what lies in one bin is tied, so scores that are already bin edges must give the exact figures.


@pytest.mark.parametrize("levels", [4, 64, BINS])
@pytest.mark.parametrize("seed", range(3))
def test_pixel_metrics_of_binned_scores_are_exact(levels: int, seed: int) -> None:
    images = some_images(seed, levels)
    scores, labels = pixels(images)
    got = counted(images).metrics()
    assert got.auroc == pytest.approx(auroc_by_pairs(labels, scores), abs=1e-12)
    assert got.ap == pytest.approx(ap_by_thresholds(labels, scores), abs=1e-12)
    assert got.f1_max == pytest.approx(f1_by_thresholds(labels, scores), abs=1e-12)
    assert got.pro == pytest.approx(pro_by_thresholds(images, 0.3), abs=1e-8)


@pytest.mark.parametrize("squeeze", [1.0, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_any_scores_are_within_the_bound_that_the_counts_give(seed: int, squeeze: float) -> None:
    # 0.02: everything in 82 bins. Between two bin edges both curves rise from one common point to the next.
    images = [((scores * squeeze).astype(np.float32), mask) for scores, mask in some_images(seed, side=22)]
    histogram = counted(images)
    got = histogram.metrics()
    scores, labels = pixels(images)
    normal, defect = histogram.normal / histogram.normal.sum(), histogram.defect / histogram.defect.sum()
    overlap = histogram.overlap / histogram.overlap.sum()
    assert got.auroc is not None and got.pro is not None and got.ap is not None and got.f1_max is not None
    assert abs(got.auroc - auroc_by_pairs(labels, scores)) <= normal @ defect / 2 + 1e-12
    assert abs(got.pro - pro_by_thresholds(images, 0.3)) <= normal @ overlap / 0.3 + 1e-8
    assert got.f1_max <= f1_by_thresholds(labels, scores) + 1e-12
    assert abs(got.f1_max - f1_by_thresholds(labels, scores)) < 0.03
    assert abs(got.ap - ap_by_thresholds(labels, scores)) < (2e-3 if squeeze == 1 else 0.03)
    if squeeze == 1:
        assert abs(got.auroc - auroc_by_pairs(labels, scores)) < 1e-4
        assert abs(got.pro - pro_by_thresholds(images, 0.3)) < 1e-3


def test_a_night_of_pixels_has_the_metrics_of_its_counts() -> None:
    """Billions of pixels are weights, not samples: exact fractions of Python's integers as oracle."""
    histogram = PixelHistogram()
    histogram.normal[[3, 70, 700]] = [10**12 + 7, 3 * 10**9, 12_345]
    histogram.defect[[70, 700, 4000]] = [5 * 10**6 + 1, 77_777_777, 10**8 + 3]
    normal, defect = (counts[::-1].tolist() for counts in (histogram.normal, histogram.defect))
    pairs, ap, f1, true, false = 0, Fraction(), Fraction(), 0, 0
    for negatives, positives in zip(normal, defect, strict=True):
        pairs += negatives * (2 * true + positives)
        true, false = true + positives, false + negatives
        if true:
            ap += Fraction(positives, sum(defect)) * Fraction(true, true + false)
            f1 = max(f1, Fraction(2 * true, sum(defect) + true + false))
    got = histogram.metrics()
    assert got.auroc == pytest.approx(float(Fraction(pairs, 2 * sum(normal) * sum(defect))), abs=1e-12)
    assert (got.ap, got.f1_max) == pytest.approx((float(ap), float(f1)), abs=1e-12)


def test_every_region_counts_alike_whatever_its_area() -> None:
    mask = np.zeros((40, 40), bool)
    mask[2, 2] = mask[3, 3] = True  # touching corners: one region
    mask[10:30, 10:30] = True
    scores = np.zeros(mask.shape)
    scores[10:30, 10:30] = 0.9
    found_large, found_small = counted([(scores, mask)]), counted([(np.where(scores > 0, 0, mask * 0.9), mask)])
    assert found_large.regions == found_small.regions == 2
    # half of the regions at rate 0, then a straight line to (1, 1)
    expected = (0.5 + (0.5 + 0.5 * 0.3)) / 2
    assert found_large.metrics().pro == pytest.approx(expected, abs=1e-9)
    assert found_small.metrics().pro == pytest.approx(expected, abs=1e-9)
    assert found_large.metrics().auroc != found_small.metrics().auroc


def test_regions_of_two_images_are_two_regions() -> None:
    mask = np.zeros((6, 6), bool)
    mask[0, :3] = True
    scores = np.linspace(0, 1, 36).reshape(6, 6)
    once, twice = counted([(scores, mask)]), counted([(scores, mask)] * 2)
    assert (once.regions, twice.regions) == (1, 2)
    assert once.metrics() == twice.metrics()


def test_perfect_blind_and_inverted_maps() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 200), bool)
    mask[20:60, 30:90] = mask[150:160, 150:152] = True
    assert counted([(mask.astype(float), mask)]).metrics().__dict__ == {"auroc": 1, "ap": 1, "pro": 1, "f1_max": 1}
    inverted = counted([(1 - mask.astype(float), mask)]).metrics()
    assert (inverted.auroc, inverted.pro) == (0, 0)
    blind = counted([(rng.random(mask.shape), mask)]).metrics()
    assert blind.auroc == pytest.approx(0.5, abs=0.03)
    assert blind.pro == pytest.approx(FPR_LIMIT / 2, abs=0.06)
    assert blind.ap == pytest.approx(mask.mean(), abs=0.01)


def test_a_perfect_auroc_is_exactly_one_whatever_the_counts() -> None:
    for negatives in (3, 7, 11, 49):
        scores = np.arange(negatives + 6) / 100
        assert image_metrics(scores, scores * 100 >= negatives - 0.5).auroc == 1


def test_zero_and_one_have_a_bin() -> None:
    got = counted([(np.array([[0.0, 1.0]]), np.array([[False, True]]))])
    assert (got.normal[0], got.defect[-1], got.normal.sum(), got.defect.sum()) == (1, 1, 1, 1)


@pytest.mark.parametrize("of", [True, False])
def test_one_kind_of_pixel_alone_has_no_metric(of: bool) -> None:
    got = counted([(np.full((3, 4), 0.2), np.full((3, 4), of))]).metrics()
    assert set(got.__dict__.values()) == {None}
    assert set(PixelHistogram().metrics().__dict__.values()) == {None}


@given(cut=st.lists(st.integers(0, 2), min_size=6, max_size=6), seed=st.integers(0, 50))
@settings(max_examples=25)
def test_parts_add_up_to_the_same_bits(cut: list[int], seed: int) -> None:
    images = some_images(seed, n=6, side=20)
    whole = counted(images)
    parts = [counted([image for image, of in zip(images, cut, strict=True) if of == part]) for part in (2, 0, 1)]
    merged = parts[0] + parts[1] + parts[2]
    for name in ("normal", "defect", "overlap"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert merged.regions == whole.regions
    assert merged.metrics() == whole.metrics()


def test_adding_leaves_the_parts_alone() -> None:
    first, second = counted(some_images(0)), counted(some_images(1))
    before = first.metrics(), second.metrics()
    first + second
    assert (first.metrics(), second.metrics()) == before


@given(seed=st.integers(0, 100))
@settings(max_examples=20)
def test_a_region_adds_one_whole(seed: int) -> None:
    histogram = counted(some_images(seed, side=24))
    assert histogram.overlap.sum() == histogram.regions << 32
    assert (histogram.overlap >= 0).all()
    assert histogram.normal.sum() + histogram.defect.sum() == 4 * 24 * 31


@given(seed=st.integers(0, 100), power=st.sampled_from([1, 2]))
@settings(max_examples=20)
def test_only_the_order_of_bins_counts(seed: int, power: int) -> None:
    """Halving every score moves whole bins when they are even, so no metric may change."""
    images = [(np.floor(scores * 1000) * 4 / BINS, mask) for scores, mask in some_images(seed, side=24)]
    halved = [(scores / 2**power, mask) for scores, mask in images]
    assert vars(counted(halved).metrics()) == pytest.approx(vars(counted(images).metrics()), abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, -1e-3, 1.001, np.inf])
def test_a_score_outside_of_the_range_is_refused(bad: float) -> None:
    scores = np.full((4, 4), 0.5)
    scores[1, 2] = bad
    histogram = PixelHistogram()
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        histogram.add(scores, np.zeros((4, 4), bool))
    assert histogram.normal.sum() == 0


@pytest.mark.parametrize(
    ("scores", "mask"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5), bool)),
        (np.zeros((4, 4)), np.zeros((4, 4), np.uint8)),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool)),
        (np.zeros(4), np.zeros(4, bool)),
    ],
)
def test_maps_and_masks_that_do_not_fit_are_refused(scores: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="need float scores"):
        PixelHistogram().add(scores, mask)


def test_nothing_warns() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counted(some_images(0)).metrics()
        PixelHistogram().metrics()
        image_metrics(np.array([0.0, 1.0]), np.array([True, False]))


def test_what_a_verdict_flags() -> None:
    flagged, labels = np.array([True, True, False, True, False]), np.array([True, False, True, True, False])
    found = verdict_metrics(flagged, labels)
    assert (found.f1, found.defective_flagged, found.good_flagged) == pytest.approx((2 / 3, 2 / 3, 1 / 2))
    assert found.f1 == pytest.approx(f1_score(labels, flagged))
    good, bad = verdict_metrics(flagged, np.zeros(5, bool)), verdict_metrics(flagged, np.ones(5, bool))
    assert (good.f1, good.defective_flagged, good.good_flagged) == (None, None, 0.6)
    assert (bad.f1, bad.defective_flagged, bad.good_flagged) == (None, 0.6, None)
    nothing = verdict_metrics(np.zeros(5, bool), labels)
    assert (nothing.f1, nothing.defective_flagged, nothing.good_flagged) == (0.0, 0.0, 0.0)

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from patchead.evaluation.datasets import Sample
from patchead.evaluation.measure import Figures, score_map
from patchead.evaluation.measure import measure as measure_all
from patchead.maps.heatmap import heatmap


def bad(path: Path, mask: np.ndarray | None) -> Sample:
    if mask is not None:
        assert cv2.imwrite(str(path), mask.astype(np.uint8) * 255)
    return Sample(path, True, None if mask is None else path, "spot")


@pytest.fixture
def spot() -> np.ndarray:
    mask = np.zeros((120, 200), bool)
    mask[30:60, 50:100] = True
    return mask


def measure(samples: list[Sample], scores: np.ndarray, patches: np.ndarray, *sizes: Any, **options: Any) -> Figures:
    """What scores above 0.2 is flagged."""
    return measure_all(samples, scores, patches, *sizes, flagged=scores[np.isfinite(scores)] > 0.2, **options)


GOOD = Sample(Path("good.png"), False, None, "good")


def patches(spot: np.ndarray, value: float) -> np.ndarray:
    """Patch scores (12, 20) that are high exactly on the spot."""
    return (spot[5::10, 5::10] * value).astype(np.float32)


def test_maps_that_follow_the_masks_score_high_and_others_do_not(tmp_path: Path, spot: np.ndarray) -> None:
    samples = [bad(tmp_path / "a.png", spot), GOOD]
    sizes = [(200, 120)] * 2
    right = np.stack([patches(spot, 0.4), np.zeros((12, 20), np.float32)])
    got = measure(samples, np.array([0.4, 0.0]), right, sizes, fit="squash", map_side=128)
    assert (got.image.auroc, got.mapped, got.without_mask, got.unscored) == (1, 2, 0, 0)
    assert got.pixel.auroc is not None and got.pixel.auroc > 0.999
    assert got.pixel.pro is not None and got.pixel.pro > 0.99
    mirrored = measure(samples, np.array([0.4, 0.0]), right[:, :, ::-1], sizes, fit="squash", map_side=128)
    assert mirrored.pixel.auroc is not None and mirrored.pixel.auroc < 0.6
    upside_down = measure(samples, np.array([0.4, 0.0]), right[:, ::-1], sizes, fit="squash", map_side=128)
    assert upside_down.pixel.auroc is not None and upside_down.pixel.auroc < 0.65


def test_pixel_metrics_are_those_of_the_enlarged_maps(tmp_path: Path, spot: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    samples = [bad(tmp_path / "a.png", spot), GOOD]
    scores = (rng.random((2, 12, 20)) * 0.5 + np.stack([patches(spot, 0.3), np.zeros((12, 20))])).astype(np.float32)
    got = measure(samples, np.array([0.1, 0.2]), scores, [(200, 120)] * 2, fit="squash", map_side=64)
    maps = np.concatenate([heatmap(part, 64, 64, max_side=64).ravel() for part in scores])
    rows, columns = (((np.arange(64) + 0.5) * side / 64).astype(int) for side in spot.shape)
    labels = np.concatenate([spot[np.ix_(rows, columns)].ravel(), np.zeros(64 * 64, bool)])
    assert got.pixel.auroc == pytest.approx(roc_auc_score(labels, maps), abs=5e-4)
    assert got.pixel.ap == pytest.approx(average_precision_score(labels, maps), abs=5e-3)
    assert got.image.auroc == 0


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_a_map_keeps_the_shape_of_an_image_that_was_not_squashed(tmp_path: Path, spot: np.ndarray, fit: str) -> None:
    square = {"crop": spot[:, 40:160], "pad": np.pad(spot, ((40, 40), (0, 0)))}[fit]
    side = len(square)
    grid = cv2.resize(square.astype(np.float32), (20, 20), interpolation=cv2.INTER_AREA)
    assert score_map(grid, 200, 120, fit=fit, side=100).shape == (60, 100)
    sizes, samples = [(200, 120)] * 2, [bad(tmp_path / "a.png", spot), GOOD]
    scores = np.stack([grid, np.zeros((20, 20), np.float32)])
    got = measure(samples, np.array([1.0, 0.0]), scores, sizes, fit=fit, map_side=100)
    assert side in (120, 200)
    assert got.pixel.auroc is not None and got.pixel.auroc > 0.995


def test_what_has_no_mask_or_no_score_is_left_out_and_counted(tmp_path: Path, spot: np.ndarray) -> None:
    samples = [bad(tmp_path / "a.png", spot), bad(tmp_path / "b.png", None), GOOD, GOOD]
    scores = np.stack([patches(spot, 0.4), patches(~spot, 0.9), patches(spot, 0), np.full((12, 20), np.nan)])
    image = np.array([0.4, 0.9, 0.1, np.nan])
    got = measure(samples, image, scores, [(200, 120)] * 4, fit="squash", map_side=128)
    assert (got.mapped, got.without_mask, got.unscored) == (2, 1, 1)
    assert got.pixel.auroc is not None and got.pixel.auroc > 0.999
    assert got.image.auroc == 1
    assert (got.verdict.f1, got.verdict.defective_flagged, got.verdict.good_flagged) == (1, 1, 0)  # the last has none
    alone = measure(samples[1:], image[1:], scores[1:], [(200, 120)] * 3, fit="squash", map_side=128)
    assert set(vars(alone.pixel).values()) == {None}
    assert alone.image.auroc == 1


def test_a_constant_map_of_ones_is_not_pushed_out_of_range_by_the_blur() -> None:
    ones = np.ones((7, 9), np.float32)
    assert score_map(ones, 333, 97, fit="squash", side=256).max() <= 1
    got = measure([GOOD], np.array([1.0]), ones[None], [(333, 97)], fit="squash", map_side=256)
    assert got.mapped == 1


def test_patch_scores_outside_of_the_range_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        measure([GOOD], np.array([1.5]), np.full((1, 4, 4), 1.5, np.float32), [(8, 8)], fit="squash", map_side=32)

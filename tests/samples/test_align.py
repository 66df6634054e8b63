"""Rotation and translation are found, forced to scale 1, and refused where the photos do not agree on them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from patchead.errors import SettingsError
from patchead.samples.align import Alignment, compose, features, invert, rigid_motion, warp
from tests.helpers.textures import blobs, motion_about

RULE = Alignment()
CORNERS = np.array([[0.0, 0.0], [160.0, 0.0], [0.0, 120.0], [160.0, 120.0]])


def moved(points: np.ndarray, motion: np.ndarray) -> np.ndarray:
    return points @ motion[:, :2].T + motion[:, 2]


@pytest.mark.parametrize(("degrees", "dx", "dy"), [(0, 0, 0), (0, 9, -6), (12, 3, 4), (-35, 0, 8), (170, -5, 2)])
def test_a_known_motion_is_found_to_a_fraction_of_a_pixel(degrees: float, dx: float, dy: float) -> None:
    image, truth = blobs(1), motion_about(160, 120, degrees, dx, dy)
    found = rigid_motion(features(image), features(warp(image, truth, 160, 120)), RULE)
    assert found is not None
    assert np.abs(moved(CORNERS, found) - moved(CORNERS, truth)).max() < 0.7
    np.testing.assert_allclose(found[:, :2] @ found[:, :2].T, np.eye(2), atol=1e-12)  # a rotation, scale 1
    assert np.linalg.det(found[:, :2]) == pytest.approx(1)  # and no mirror


def test_a_large_photo_is_matched_at_a_smaller_size_and_the_motion_is_in_its_own_pixels() -> None:
    image = cv2.resize(blobs(2), (1600, 1200), interpolation=cv2.INTER_CUBIC)
    truth = motion_about(1600, 1200, 10, 40, -30)
    found = rigid_motion(features(image), features(warp(image, truth, 1600, 1200)), RULE)
    assert found is not None
    assert np.abs(moved(10 * CORNERS, found) - moved(10 * CORNERS, truth)).max() < 5


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_a_scale_far_from_one_is_refused(scale: float) -> None:
    image = blobs(3)
    other = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    assert rigid_motion(features(image), features(other), RULE) is None


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_how_near_is_a_setting(scale: float) -> None:
    image = blobs(3)
    other = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    assert rigid_motion(features(image), features(other), RULE) is not None
    assert rigid_motion(features(image), features(other), Alignment(max_scale=1.02)) is None


def test_too_few_agreeing_matches_are_refused() -> None:
    image, other, plain = features(blobs(4)), features(blobs(5)), features(np.full((120, 160, 3), 90, np.uint8))
    assert len(plain.points) == 0
    assert rigid_motion(image, plain, RULE) is None
    assert rigid_motion(plain, image, RULE) is None
    assert rigid_motion(image, other, RULE) is None
    assert rigid_motion(image, image, Alignment(min_inliers=len(image.points) + 1)) is None


def test_the_same_photos_give_the_same_motion_every_time() -> None:
    image = blobs(6)
    other = features(warp(image, motion_about(160, 120, 5, 2, 1), 160, 120))
    first = rigid_motion(features(image), other, RULE)
    for _ in range(3):
        np.testing.assert_array_equal(rigid_motion(features(image), other, RULE), first)


def test_a_warp_by_whole_pixels_and_by_half_a_turn_moves_pixels_exactly() -> None:
    image = blobs(7)
    shifted = warp(image, np.array([[1.0, 0, 5], [0, 1, 3]]), 160, 120)
    np.testing.assert_array_equal(shifted[3:, 5:], image[:-3, :-5])
    turned = warp(image, np.array([[-1.0, 0, 160], [0, -1, 120]]), 160, 120)
    np.testing.assert_array_equal(turned, image[::-1, ::-1])


def test_composing_and_inverting() -> None:
    a, b = motion_about(160, 120, 30, 4, 5), motion_about(90, 50, -70, 1, 2)
    np.testing.assert_allclose(moved(CORNERS, compose(a, b)), moved(moved(CORNERS, b), a), atol=1e-9)
    np.testing.assert_allclose(compose(a, invert(a)), np.eye(2, 3), atol=1e-12)


@pytest.mark.parametrize(("name", "value"), [("ratio", 0.0), ("ratio", 1.5), ("min_inliers", 2), ("max_scale", 0.9)])
def test_a_rule_without_meaning_is_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=rf"`{name}` must be .*; got {value}"):
        Alignment(**{name: value})  # type: ignore[arg-type]

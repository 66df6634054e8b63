"""Planted defects: the mask is where pixels differ, its size is as stated, it lies inside, and a seed repeats it."""

from __future__ import annotations

import numpy as np
import pytest
from planted import KINDS, plant
from skimage import data

SEEDS = range(25)


def texture(size: tuple[int, int]) -> np.ndarray:
    photo = data.gravel()[: size[0], : size[1]]
    return np.repeat(photo[..., None], 3, axis=2)


PHOTOS = {
    "texture": texture((224, 224)),
    "wide": texture((200, 320)),
    "noise": np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8),
}


def test_there_are_at_least_five_kinds() -> None:
    assert len(KINDS) >= 5


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_where_pixels_differ_and_as_large_as_stated(kind: str, photo: str) -> None:
    image = PHOTOS[photo]
    before = image.copy()
    least, most = KINDS[kind].area
    square = min(image.shape[:2]) ** 2
    for seed in SEEDS:
        defect = plant(image, kind, seed)
        assert defect.image.dtype == np.uint8
        assert defect.image.shape == image.shape
        np.testing.assert_array_equal(defect.mask, (defect.image != before).any(axis=-1))
        assert least <= defect.mask.sum() / square <= most, (seed, defect.mask.sum() / square)
        edge = defect.mask.copy()
        edge[1:-1, 1:-1] = False
        assert not edge.any(), f"seed {seed} reaches the border"
    np.testing.assert_array_equal(image, before)  # the photo itself is not touched


@pytest.mark.parametrize("kind", KINDS)
def test_a_defect_of_twice_the_size_is_larger_and_still_inside(kind: str) -> None:
    image = PHOTOS["texture"]
    for seed in SEEDS:
        half, once, twice = (plant(image, kind, seed, size).mask for size in (0.5, 1.0, 2.0))
        assert half.sum() < once.sum() < twice.sum()
        assert not (twice[[0, -1]].any() or twice[:, [0, -1]].any())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_a_defect_and_another_moves_it(kind: str) -> None:
    image = PHOTOS["texture"]
    first, again, other = plant(image, kind, 3), plant(image, kind, 3), plant(image, kind, 4)
    np.testing.assert_array_equal(first.image, again.image)
    assert (first.mask != other.mask).any()


def test_contrast_is_as_stated() -> None:
    flat = np.full((256, 256, 3), 100, np.uint8)
    scratch = plant(flat, "scratch", 0).image.astype(int)
    stain = plant(flat, "stain", 0).image.astype(int)
    tint = plant(flat, "tint", 0).image.astype(int)
    spot, crack = (plant(flat, kind, 0).image.astype(int) for kind in ("spot", "crack"))
    assert spot.max() == 160
    assert 30 <= crack.min() <= 50
    assert 100 < scratch.max() <= 160
    assert scratch.max() >= 140  # the softened middle of the line
    assert stain.min() == 60
    assert 135 <= tint[..., 0].max() <= 140
    assert 60 <= tint[..., 2].min() <= 65
    assert (tint[..., 1] == 100).all()


@pytest.mark.parametrize("kind", ["smear", "paste", "hole"])
def test_a_defect_that_changes_nothing_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=f"{kind} changes no pixel"):
        plant(np.full((128, 128, 3), 90, np.uint8), kind, 0)


def test_what_cannot_be_planted_into_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 64 x 64"):
        plant(np.zeros((32, 200, 3), np.uint8), "scratch", 0)
    with pytest.raises(ValueError, match="kind must be one of"):
        plant(PHOTOS["texture"], "dent", 0)
    with pytest.raises(ValueError, match=r"size must be within 0\.5 to 2; got 3"):
        plant(PHOTOS["texture"], "crack", 0, 3)

from __future__ import annotations

import numpy as np

from patchead.naming.word_crops import Crop, crops_around, patch_boxes, touched


def test_crops_are_squares_around_the_box_moved_into_the_image() -> None:
    assert crops_around((0.4, 0.45, 0.2, 0.1), 400, 400) == [
        Crop(160, 160, 80, 80),
        Crop(140, 140, 120, 120),
        Crop(100, 100, 200, 200),
    ]
    assert crops_around((0.0, 0.9, 0.1, 0.1), 400, 200)[2] == Crop(0, 100, 100, 100)
    assert crops_around((0.0, 0.0, 1.0, 1.0), 300, 100) == [Crop(0, 0, 300, 100)] * 3
    assert crops_around((0.5, 0.5, 0.001, 0.001), 400, 400)[0] == Crop(192, 192, 16, 16)
    image = np.arange(400 * 400 * 3).reshape(400, 400, 3)
    assert Crop(10, 20, 30, 40).of(image).tolist() == image[20:60, 10:40].tolist()


def test_the_patches_of_a_region_are_those_that_its_box_touches() -> None:
    box = (0.4, 0.45, 0.2, 0.1)  # 80 x 40 pixels at 160, 180
    crops = crops_around(box, 400, 400)
    found = touched(crops, box, 400, 400, (4, 4)).reshape(3, 4, 4)
    for crop, inside in zip(crops, found, strict=True):
        for row in range(4):
            for column in range(4):
                left, top = crop.x + column * crop.width / 4, crop.y + row * crop.height / 4
                own = left < 240 and left + crop.width / 4 > 160 and top < 220 and top + crop.height / 4 > 180
                assert inside[row, column] == own
    assert found[0, 1:3].all()
    assert not found[0, [0, 3]].any()


def test_every_crop_has_a_patch_however_thin_the_box() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        width, height = rng.integers(20, 500, 2).tolist()
        left, top = rng.uniform(0, 0.999, 2)
        box = (left, top, rng.uniform(1e-4, 1 - left), rng.uniform(1e-4, 1 - top))
        crops = crops_around(box, width, height)
        assert touched(crops, box, width, height, (3, 5)).reshape(3, 15).any(axis=1).all()
        for crop in crops:
            assert 0 <= crop.x <= width - crop.width
            assert 0 <= crop.y <= height - crop.height


def test_patches_cover_their_crop() -> None:
    boxes = patch_boxes(Crop(10, 20, 30, 40), (2, 3))
    assert boxes.tolist()[4] == [20, 40, 10, 20]
    assert len(boxes) == 6

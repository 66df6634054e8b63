"""Resizing gives Pillow's pixels, strip by strip."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from patchead.archive import resize
from patchead.archive.resize import SHRINK, resized


@pytest.mark.parametrize(
    ("shape", "size", "box"),
    [
        ((301, 407), (30, 44), None),  # means of 6 x 3 pixels, fewer at the ends
        ((300, 400), (50, 50), None),
        ((300, 100), (100, 10), None),  # reduced along one side alone
        ((40, 50), (60, 60), None),
        ((301, 407), (28, 28), (53.0, 0.0, 354.0, 301.0)),
        ((402, 301), (28, 28), (0.0, 50.5, 301.0, 351.5)),
        ((1, 3000), (7, 2), None),
        ((900, 2), (1, 3), None),
    ],
)
@pytest.mark.parametrize("strip", [1, 5000, resize._STRIP])
def test_resized_as_pillow_does_it(
    shape: tuple[int, int],
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    strip: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resize, "_STRIP", strip)
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    expected = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=SHRINK)
    np.testing.assert_array_equal(resized(image, size, box), np.asarray(expected))

from __future__ import annotations

import numpy as np
import pytest

from patchead.report.pictures import cut


@pytest.mark.parametrize(
    ("fit", "shape", "place", "centre"),
    [
        ("squash", (80, 160), (0, 0), (10, 20)),
        ("squash", (80, 160), (3, 1), (70, 60)),
        ("crop", (80, 160), (0, 0), (10, 50)),
        ("pad", (80, 160), (2, 3), (60, 140)),
    ],
)
def test_the_patch_is_in_the_middle_of_its_cutout(
    fit: str, shape: tuple[int, int], place: tuple[int, int], centre: tuple[int, int]
) -> None:
    """A red dot at the centre of the patch in the photo is at the centre of the cutout."""
    image = np.zeros((*shape, 3), np.uint8)
    image[centre[0] - 2 : centre[0] + 2, centre[1] - 2 : centre[1] + 2, 0] = 255
    shown = cut(image, place, (4, 4), fit).astype(int)
    red = (shown[..., 0] - shown[..., 1]).clip(0)
    rows, columns = np.nonzero(red > 100)
    assert (rows.mean(), columns.mean()) == pytest.approx((shown.shape[0] / 2, shown.shape[1] / 2), abs=2)

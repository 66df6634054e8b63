from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from patchead.errors import ArchiveError
from patchead.evaluation.datasets import Sample, read_mask
from patchead.evaluation.datasets.masks import read_label
from tests.helpers.dataset_trees import BOX, SHAPE, defect, label, photo, write


def bad(mask: Path | None) -> Sample:
    return Sample(Path("x.png"), True, mask, "scratch")


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "tif"])
@pytest.mark.parametrize("value", [1, 7, 255])
def test_whatever_is_not_black_is_defect(tmp_path: Path, suffix: str, value: int) -> None:
    mask = read_mask(bad(label(tmp_path / f"m.{suffix}", value)), SHAPE)
    assert mask is not None
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, defect())


@pytest.mark.parametrize("mode", ["1", "L", "I;16", "I", "RGB", "RGBA", "LA"])
def test_every_mode_means_the_same_and_alpha_is_no_defect(tmp_path: Path, mode: str) -> None:
    values = {"1": bool, "I;16": np.uint16, "I": np.int32}.get(mode, np.uint8)
    bands = {"RGB": (0, 0, 3), "RGBA": (0, 2, 0, 255), "LA": (1, 255)}.get(mode)
    image = np.zeros((*SHAPE, len(bands)) if bands else SHAPE, values)
    image[BOX] = bands or 1
    if bands and "A" in mode:
        image[..., -1] = 255
    picture = Image.fromarray(image)
    assert picture.mode == mode
    path = tmp_path / ("m.tif" if mode == "I" else "m.png")  # PNG has no 32-bit numbers
    picture.save(path)
    np.testing.assert_array_equal(read_label(path), defect())


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    """A writer may give black any number: here 0 is red and 1 is black."""
    numbers = np.where(defect(), 0, 1).astype(np.uint8)
    palette = Image.frombytes("P", SHAPE[::-1], numbers.tobytes())
    palette.putpalette([255, 0, 0, 0, 0, 0])
    palette.save(tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as written:
        assert written.mode == "P"
    np.testing.assert_array_equal(read_label(tmp_path / "m.png"), defect())


def test_the_ringing_of_a_jpeg_is_no_defect(tmp_path: Path) -> None:
    image = np.zeros((64, 64), np.uint8)
    image[13:40, 21:50] = 255
    Image.fromarray(image).save(tmp_path / "m.jpg", quality=40)
    with Image.open(tmp_path / "m.jpg") as written:
        assert (np.asarray(written)[image == 0] > 0).any()
    np.testing.assert_array_equal(read_label(tmp_path / "m.jpg"), image > 0)


@pytest.mark.parametrize("shape", [(6, 8), (3, 4), (12, 16), (5, 11), (1, 1)])
def test_resizing_takes_the_pixel_under_each_centre(tmp_path: Path, shape: tuple[int, int]) -> None:
    expected = np.zeros(shape, bool)
    for row in range(shape[0]):
        for column in range(shape[1]):
            y, x = int((row + 0.5) * SHAPE[0] / shape[0]), int((column + 0.5) * SHAPE[1] / shape[1])
            expected[row, column] = defect()[y, x]
    mask = read_mask(bad(label(tmp_path / "m.png")), shape)
    np.testing.assert_array_equal(mask, expected)
    assert shape == (1, 1) or expected.any()


def test_a_good_sample_is_all_false_and_an_undrawn_defect_is_none() -> None:
    mask = read_mask(Sample(Path("x.png"), False, None, "good"), (3, 5))
    assert mask is not None
    assert (mask.shape, mask.dtype, mask.any()) == ((3, 5), np.dtype(bool), np.False_)
    assert read_mask(bad(None), (3, 5)) is None


def test_an_unreadable_mask_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no image")
    cut = photo(tmp_path / "cut.png")
    cut.write_bytes(cut.read_bytes()[:60])
    for path in (tmp_path / "m.png", cut, tmp_path / "absent.png"):
        with pytest.raises(ArchiveError, match=f"the mask .*{path.name} cannot be read"):
            read_mask(bad(path), SHAPE)


def test_height_and_width_are_not_exchanged(tmp_path: Path) -> None:
    image = np.zeros((4, 10), np.uint8)
    image[3, :] = 255
    mask = read_mask(bad(write(tmp_path / "m.png", image)), (8, 5))
    assert mask is not None
    np.testing.assert_array_equal(np.flatnonzero(mask.all(axis=1)), [6, 7])
